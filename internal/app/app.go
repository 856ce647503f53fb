package app

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/api"
	"github.com/ecodrix/ecod/internal/auth"
	"github.com/ecodrix/ecod/internal/bus"
	"github.com/ecodrix/ecod/internal/campaign"
	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/media"
	"github.com/ecodrix/ecod/internal/meeting"
	"github.com/ecodrix/ecod/internal/realtime"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/smtp"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/web"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// App is the engine, built and listening. Its parts are open to tests and to the demo.
type App struct {
	Config  Config
	Keys    Keys
	Tenants *tenant.Registry
	Runner  *job.Runner
	Queue   store.Queue
	Inbox   store.Inbox
	Intake  *chat.Intake
	Desk    *chat.Desk
	Engine  *rule.Engine
	Diary   *meeting.Diary
	Door    *rule.Door
	Porter  *auth.Porter
	Hub     *realtime.Hub
	Media   *media.Archive
	API     *api.API

	Timetable *job.Timetable // what is done by the clock

	log      *slog.Logger
	version  string
	ln       net.Listener
	url      string
	storage  *Storage
	services store.DB
	metrics  *metrics
	bus      bus.Bus // to other nodes; nil: this one is alone
	jobNews  *jobNews
	closers  []closer // run last to first

	keyReader *keyReader // nil: the keys are in the configuration
	book      *crm.Book
}

// URL is where the engine listens.
func (a *App) URL() string { return a.url }

// New builds the engine and binds its address. A mistake in the configuration is a BadConfig. On any error, what was
// opened is closed again.
func New(ctx context.Context, cfg Config, version string, log *slog.Logger) (a *App, err error) {
	a = &App{Config: cfg, log: log, version: version}
	defer func() {
		if err != nil {
			_ = a.close()
			a = nil
		}
	}()
	lock, err := lockDir(cfg.DataDir)
	if err != nil {
		return a, err
	}
	a.onClose("lock", func(context.Context) error { return lock.Close() })
	if err = notRestoring(cfg.DataDir); err != nil {
		return a, err
	}
	if a.Keys, err = cfg.LoadKeys(); err != nil {
		return a, err
	}
	if err = a.followKeys(lock); err != nil {
		return a, fmt.Errorf("write the lock: %w", err)
	}
	if a.ln, err = net.Listen("tcp", cfg.Addr); err != nil {
		return a, BadConfig{fmt.Sprintf("ECOD_ADDR %s cannot be listened on: %s.", cfg.Addr, err)}
	}
	a.onClose("listener", func(context.Context) error {
		if err := a.ln.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	a.url = address(a.ln.Addr())
	if a.Config.PublicURL == "" {
		a.Config.PublicURL = a.url
	}

	a.metrics = newMetrics()
	if a.bus, err = openBus(cfg, log.With("part", "bus")); err != nil {
		return a, BadConfig{fmt.Sprintf("ECOD_REDIS_URL %s.", err)}
	}
	if a.bus != nil {
		a.onClose("bus", func(context.Context) error { return a.bus.Close() })
	}
	storage, err := OpenStorage(ctx, cfg)
	if err != nil {
		return a, refusedStart(err)
	}
	a.onClose("services database", func(context.Context) error { return storage.Close() })
	a.storage, a.services, a.Queue = storage, storage.Services, storage.Queue
	if storage.Shared() {
		if err = sameKeys(ctx, a.services, a.Keys.Ring); err != nil {
			return a, err
		}
	}
	if n, err := storage.TakeBack(ctx); err != nil { // the lock says that who left them is gone
		return a, fmt.Errorf("take back running jobs: %w", err)
	} else if n > 0 {
		log.Warn("the last process died while jobs ran; they run again", "jobs", n)
	}
	if a.Inbox, err = storage.OpenInbox(ctx); err != nil {
		return a, fmt.Errorf("open the inbox: %w", err)
	}
	a.onClose("inbox", func(context.Context) error { return a.Inbox.Close() })

	a.Tenants = storage.Registry(a.Keys.Ring, log.With("part", "clients"), a.clientChanged, a.clientBack)
	a.onClose("client databases", func(ctx context.Context) error {
		a.Tenants.Abandon()
		return a.Tenants.Close(ctx)
	})
	if err = a.Tenants.Load(ctx); err != nil {
		return a, fmt.Errorf("read the clients: %w", err)
	}

	a.jobNews = newJobNews(a.Queue, a.Tenants, func(code string) { a.Hub.Poke(code) }, log.With("part", "job news"))
	a.Queue = toldQueue{a.Queue, a.jobNews}
	storage.Queue.OnSweep(a.jobNews.add)
	a.Queue.Listen(store.Listener{Moved: a.metrics.queue.moved})
	storage.Services.OnCommit(a.metrics.queue.committed)
	a.onClose("job news", a.jobNews.close)

	graph := whatsapp.New(whatsapp.Config{BaseURL: cfg.MetaURL, Version: cfg.MetaVersion}, &http.Client{Transport: transport(), Timeout: 30 * time.Second})
	book := &crm.Book{Now: time.Now}
	desk := &chat.Desk{PrivateLinks: cfg.AllowPrivate, Book: book, Graph: graph, Queue: a.Queue, Now: time.Now, Log: log.With("part", "chat")}
	postbox := smtp.New(smtp.Config{AllowPrivate: cfg.AllowPrivate, CommandTimeout: 30 * time.Second, DataTimeout: 2 * time.Minute})
	a.onClose("mail connections", func(context.Context) error { postbox.Close(); return nil })
	office := &mail.Office{Shared: storage.Shared(), Book: book, SMTP: postbox, Queue: a.Queue, Now: time.Now, Log: log.With("part", "mail")}
	a.Diary = diary(cfg, book, a.Queue, log.With("part", "meetings"))
	a.Desk = desk
	messages := rule.Messages{Desk: desk}
	bureau := &campaign.Bureau{
		Book: book, Office: office, Desk: desk, Tenants: a.Tenants, Queue: a.Queue, PublicURL: strings.TrimRight(a.Config.PublicURL, "/"),
		Now: time.Now, Log: log.With("part", "campaigns"),
	}
	a.onClose("campaign mail", bureau.Close)
	desk.Cleared, desk.Barred, desk.Tracked = bureau.Cleared, bureau.Barred, bureau.Tracked
	a.Engine = &rule.Engine{
		Book: book, Now: time.Now, Log: log.With("part", "automation"), PrivateNetworks: cfg.AllowPrivate, IsPublic: smtp.IsPublic,
		Doers: map[string]rule.Doer{
			rule.SendTemplate: messages, rule.SendText: messages,
			rule.SendEmail:  rule.Mails{Office: office},
			rule.CreateMeet: rule.Meetings{Diary: a.Diary},
		},
		Replied: desk.WroteSince, Cancel: a.Queue.Cancel, Release: a.Queue.ReleaseParked,
	}
	webhooks := rule.Webhooks{Engine: a.Engine, Client: webhookClient(cfg.AllowPrivate)}
	a.Engine.Doers[rule.PostWebhook] = webhooks
	desk.Doubt, office.Doubt = a.metrics.queue.doubt("whatsapp"), a.metrics.queue.doubt("email")
	desk.Settled, desk.MayBegin, desk.Failed = a.Engine.Settled, a.Engine.MayBegin, a.Engine.Failed
	a.book = book
	book.OwnPoints = a.Engine.OwnPoints
	book.Raise, book.Sources = a.Engine.Raise, []crm.Source{messagesOf, runsOf}
	office.Settled, office.MayBegin = a.Engine.MailSettled, a.Engine.MailMayBegin
	a.Porter = auth.NewPorter(auth.Config{Tenants: a.Tenants, Services: storage.Services, Ring: a.Keys.Ring, Now: time.Now, Log: log.With("part", "auth")})
	book.UserExists, desk.UserExists = a.Porter.HasUser, a.Porter.HasUser
	a.Hub = realtime.New(realtime.Config{
		Tenants: a.Tenants, Porter: a.Porter, Log: log.With("part", "realtime"), Conversation: hasConversation, ClientAddr: socketAddr,
		Bus: a.bus, SocketIOKey: bus.SocketIOKeyOf(cfg.RedisURL),
	})
	if a.Media, err = openMedia(cfg, filepath.Join(cfg.DataDir, "spool"), log.With("part", "media")); err != nil {
		return a, err
	}
	storage.OnDrop = a.eraseMedia
	desk.MediaKnown, desk.MediaHandle = a.Media.Known, a.Media.Handle
	desk.Arrived, desk.Filed = arrived(a.Media.Arrived, a.Engine.Arrived), a.Media.Arrived
	a.Runner = job.NewRunner(job.Config{
		Queue: a.Queue, Tenants: a.Tenants, Concurrency: cfg.WorkerConcurrency, PerClient: max(2, cfg.WorkerConcurrency/2),
		Bounds: bounds(cfg.WorkerConcurrency),
		Poll:   time.Duration(cfg.WorkerPollInterval), Log: log.With("part", "jobs"), Now: time.Now,
		Observe: a.metrics.queue.execution, Began: a.metrics.queue.began, Trouble: a.metrics.queue.trouble, Changed: func(code, _ string) { a.Hub.Poke(code) },
	},
		job.Type{Name: rule.EventJob, Handle: a.Engine.HandleEvent, Abandoned: rule.Abandoned, Base: time.Second, Cap: time.Minute, MaxAttempts: 10},
		job.Type{Name: rule.AdvanceJob, Handle: a.Engine.HandleAdvance, Abandoned: rule.Abandoned, Base: time.Second, Cap: time.Minute, MaxAttempts: 10},
		job.Type{Name: rule.ResumeJob, Handle: a.Engine.HandleResume, Base: time.Second, Cap: time.Minute, MaxAttempts: 10},
		job.Type{Name: rule.WakeJob, Tied: true, Handle: a.Engine.HandleWake, Abandoned: rule.Abandoned, Base: time.Second, Cap: time.Minute, MaxAttempts: 10},
		job.Type{Name: rule.AbandonedJob, Handle: a.Engine.HandleAbandoned, MaxAttempts: 20},
		job.Type{Name: rule.ExitJob, Handle: a.Engine.HandleExit, Base: time.Second, Cap: time.Minute, MaxAttempts: 10},
		job.Type{Name: rule.FailedJob, Handle: a.Engine.HandleFailed, Base: time.Second, Cap: time.Minute, MaxAttempts: 10},
		job.Type{Name: rule.WebhookJob, Tied: true, Resource: "webhook", Handle: webhooks.Handle, Abandoned: rule.Abandoned, Timeout: 30 * time.Second, Base: 10 * time.Second, Cap: time.Hour, MaxAttempts: rule.WebhookAttempts},
		job.Type{Name: chat.SendJob, Tied: true, Resource: chat.Resource, Class: store.Interactive, Handle: desk.HandleSend, Timeout: 5 * time.Minute, // a file may have to be handed over first
			Base: 5 * time.Second, Cap: 30 * time.Minute, Abandoned: desk.Abandoned},
		job.Type{Name: chat.WithdrawJob, Handle: desk.HandleWithdraw, MaxAttempts: 20},
		job.Type{Name: chat.ResendJob, Handle: desk.HandleResend, MaxAttempts: 5},
		job.Type{Name: crm.ChangeJob, Handle: book.HandleChange, Base: time.Second, Cap: time.Minute, MaxAttempts: 10},
		job.Type{Name: crm.TagJob, Resource: "leads", Class: store.Bulk, Handle: book.HandleTag, Timeout: 5 * time.Minute, MaxAttempts: 20},
		job.Type{Name: crm.MergeJob, Resource: "leads", Handle: book.HandleMerge, Base: time.Second, Cap: time.Minute, MaxAttempts: 10},
		job.Type{Name: crm.GatherJob, Resource: "leads", Class: store.Bulk, Handle: book.HandleGather, Timeout: 10 * time.Minute, MaxAttempts: 20},
		job.Type{Name: crm.ImportJob, Resource: "import", Class: store.Bulk, Handle: book.HandleImport, Timeout: 12 * time.Hour, Base: time.Second, Cap: time.Minute, MaxAttempts: 20},
		job.Type{Name: crm.PointsJob, Handle: book.HandlePoints, Base: time.Second, Cap: time.Minute, MaxAttempts: 20},
		job.Type{Name: crm.RecheckJob, Tied: true, Handle: book.HandleRecheck, Base: time.Second, Cap: time.Minute, MaxAttempts: 20},
		job.Type{Name: crm.RescoresJob, Resource: "leads", Class: store.Maintenance, Handle: book.HandleRescores, Timeout: 10 * time.Minute, MaxAttempts: 20},
		job.Type{Name: crm.EraseJob, Resource: "leads", Class: store.Bulk, Handle: book.HandleErase, Timeout: 10 * time.Minute, MaxAttempts: 20},
		job.Type{Name: mail.SendJob, Tied: true, Resource: mail.Resource, Handle: office.HandleSend, Timeout: 5 * time.Minute, Base: 5 * time.Second, Cap: 15 * time.Minute, Abandoned: office.Abandoned},
		job.Type{Name: mail.WithdrawJob, Handle: office.HandleWithdraw, MaxAttempts: 20},
		job.Type{Name: chat.ComposeJob, Handle: desk.HandleCompose, Base: time.Second, Cap: time.Minute, MaxAttempts: 10},
		job.Type{Name: chat.TemplateSyncJob, Resource: "templates", Class: store.Maintenance, Handle: desk.HandleTemplateSync, Schedulable: noPayload, Timeout: 5 * time.Minute, MaxAttempts: 5},
		job.Type{Name: chat.ReadJob, Resource: chat.Resource, Handle: desk.HandleRead},
		job.Type{Name: chat.TypingJob, Resource: chat.Resource, Class: store.Interactive, Handle: desk.HandleTyping, MaxAttempts: 1},
		job.Type{Name: media.FetchJob, Resource: "media", Handle: a.Media.HandleFetch, Timeout: media.FetchTime, Base: time.Second, Cap: time.Minute, MaxAttempts: 5, Abandoned: a.Media.Abandoned},
		job.Type{Name: media.MissJob, Resource: "media", Handle: a.Media.HandleMiss, MaxAttempts: 20},
		job.Type{Name: media.RemoveJob, Resource: "media", Class: store.Maintenance, Handle: a.Media.HandleRemove, MaxAttempts: 20},
		job.Type{Name: campaign.TurnJob, Resource: "campaign", Handle: bureau.HandleTurn, Base: time.Second, Cap: time.Minute, MaxAttempts: 20},
		job.Type{Name: campaign.BeginJob, Tied: true, Resource: "campaign", Handle: bureau.HandleBegin, Base: time.Second, Cap: time.Minute, MaxAttempts: 20, Abandoned: bureau.Abandoned},
		job.Type{Name: campaign.FreezeJob, Tied: true, Resource: "campaign", Class: store.Bulk, Handle: bureau.HandleFreeze, Base: time.Second, Cap: time.Minute, MaxAttempts: 100, Abandoned: bureau.Abandoned},
		job.Type{Name: campaign.WindowJob, Tied: true, Resource: "campaign", Class: store.Bulk, Handle: bureau.HandleWindow, Timeout: 6 * time.Minute, Base: time.Second, Cap: time.Minute, MaxAttempts: 1000, Abandoned: bureau.Abandoned},
		job.Type{Name: EraseJob, Handle: a.erase, System: true, Timeout: 10 * time.Minute, MaxAttempts: 20},
	)
	a.Runner.Know(a.mover().types()...)
	book.Runner, book.Files, book.PublicURL = a.Runner, crm.Folder(filepath.Join(cfg.DataDir, importsFolder)), a.Config.PublicURL
	if storage.Shared() {
		book.Depot = a.Media.First()
	}
	book.Forget = func(ctx context.Context, tn *tenant.Tenant, leadID string) error {
		return errors.Join(a.Engine.LeadGone(ctx, tn, leadID), office.Forget(ctx, tn, leadID), bureau.Forget(ctx, tn, leadID))
	}
	a.Engine.CancelCaused, bureau.CancelCaused = a.Runner.CancelCaused, a.Runner.CancelCaused
	a.meetings(book)
	if err = a.timetable(ctx, log.With("part", "schedules")); err != nil {
		return a, fmt.Errorf("keep the engine's schedules: %w", err)
	}
	a.Door = &rule.Door{Engine: a.Engine, Tenants: a.Tenants, Runner: a.Runner, Queue: a.Queue, Ring: a.Keys.Ring}
	a.Intake = chat.NewIntake(chat.IntakeConfig{
		Inbox: a.Inbox, Tenants: a.Tenants, Desk: desk, Enqueue: a.Runner.Enqueue, Now: time.Now, Log: log.With("part", "intake"), Workers: 8,
		Changed: a.Hub.Poke, Observe: a.metrics.delivery,
	})
	a.API = api.New(api.Config{
		PublicURL: a.Config.PublicURL, Version: version, Log: log.With("part", "http"), Alone: !storage.Shared(), Services: storage.Services, Ring: a.Keys.Ring,
		VerifyKey: func(_ context.Context, code, key string) (api.Caller, error) {
			code, err := a.Tenants.Authenticate(code, key)
			return api.Caller{Client: code, Kind: api.KindKey, KeyID: tenant.KeyID(key)}, err
		},
		VerifySession: api.SessionCaller(a.Porter), RateOf: a.Tenants.RatePerSecond,
		VerifyAdmin: a.verifyAdmin,
		Open:        a.Tenants.Use,
		OriginAllowed: func(client, origin string) bool {
			if client == "" {
				return a.Tenants.AnyAllowsOrigin(origin)
			}
			return a.Tenants.AllowsOrigin(client, origin)
		},
		Web:     web.Handler(),
		Metrics: a.metrics.registry, DrainTimeout: httpDrain, LameDuck: lameDuck(storage),
		Ready: []api.Check{
			{Name: "storage", Run: func(ctx context.Context) error {
				_, err := storage.Services.Count(ctx, store.Query{Kind: tenant.Accounts.Schema.Kind, Where: []store.Term{store.Where("status", store.Eq, tenant.Erasing)}})
				return err
			}},
			{Name: "inbox", Run: func(context.Context) error { return a.Intake.Healthy() }},
			{Name: "workers", Run: func(context.Context) error { return a.Runner.Healthy() }},
		},
		Degraded: []api.Check{{Name: "bus", Run: func(context.Context) error {
			if a.bus == nil {
				return nil
			}
			return a.bus.Healthy()
		}}},
	})
	a.API.OnDrain(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
		defer cancel()
		_ = a.Hub.Close(ctx)
	})
	a.API.Handle("/socket.io/", a.Hub.Handler())
	a.routes(book, bureau)
	a.metrics.watch(a)
	if a.bus != nil {
		a.Tenants.OnWrite(joinNodes(a.bus, storage.Queue, a.Runner, a.Tenants.Look))
		a.metrics.watchBus(a.bus)
	}
	go crm.Phone("+12025550143", "") // reads the numbering plans, so that the first event need not wait for it
	log.Info("ecod is ready", "addr", a.ln.Addr().String(), "version", version, "dataDir", cfg.DataDir)
	return a, nil
}

// lameDuck is how long a process that stops takes requests while it says that it takes none: only where others can take them.
func lameDuck(s *Storage) time.Duration {
	if s.Shared() {
		return 3 * time.Second
	}
	return 0
}

func (a *App) verifyAdmin(token string) bool {
	return subtle.ConstantTimeCompare([]byte(token), []byte(a.Keys.AdminToken.Reveal())) == 1
}

// hasConversation tells whether a client has a conversation, for sockets that subscribe to it.
func hasConversation(ctx context.Context, tn *tenant.Tenant, id string) (bool, error) {
	_, err := chat.Conversations.Get(ctx, tn.DB, id)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// socketAddr names the address that sockets are counted under. Those of this machine are not: a proxy may stand between.
func socketAddr(r *http.Request) string {
	addr := api.ClientAddr(r)
	if ip := net.ParseIP(addr); ip != nil && ip.IsLoopback() {
		return ""
	}
	return addr
}

// address is a URL under which a bound address can be called from this machine.
func address(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return "http://" + addr.String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// transport is for addresses that the operator set.
func transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64
	t.ResponseHeaderTimeout = 25 * time.Second
	return t
}

// clientChanged lets a changed client's held work go on, or ends its live views.
func (a *App) clientChanged(code, status string) {
	if status != tenant.Active {
		a.Hub.Drop(code)
		if status == tenant.Moving {
			a.yieldLater(code)
		}
		return
	}
	if a.Intake != nil {
		a.Intake.Hasten()
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err := a.letGo(ctx, code)
		if _, perr := a.Queue.ReleaseParked(ctx, code); err == nil {
			err = perr
		}
		if err != nil && !errors.Is(err, store.ErrClosed) {
			a.log.Error("a client's held jobs cannot be released", "client", code, "error", err)
		}
	}()
}

// clientBack lets a client's work go on whose database could not be had.
func (a *App) clientBack(code string) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		// no other pause of all of a client's work has this reason
		if _, err := a.Queue.Resume(ctx, code, store.RateLimited); err != nil && !errors.Is(err, store.ErrClosed) {
			a.log.Warn("a client's work goes on some seconds late", "client", code, "error", err)
		}
	}()
}
