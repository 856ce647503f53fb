package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/campaign"
	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/google/googletest"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/media"
	"github.com/ecodrix/ecod/internal/meeting"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/smtp/smtptest"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/store/storetest"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// world is one client's domains without the process around them, so that a handler can be run by hand on a database
// that is cut at a chosen write.
type world struct {
	t      *testing.T
	now    time.Time
	meta   *whatsapptest.Server
	tn     *tenant.Tenant
	db     store.DB          // below the cutter
	cutter *storetest.Cutter // nil: writes go through
	frost  *frost            // nil: nobody is frozen
	claims int64             // earlier executions of the job that is run
	reg    *tenant.Registry
	desk   *chat.Desk
	box    *smtptest.Server
	office *mail.Office
	bureau *campaign.Bureau
	queue  store.Queue
	engine *rule.Engine
	ring   *secret.Ring
	hooks  rule.Webhooks
	site   *httptest.Server // takes webhooks
	posted []string         // their names

	google *googletest.Server
	diary  *meeting.Diary

	archive *media.Archive
	shelf   string // its folder
	files   string // and that of imports
}

// switchDB lets a test put a cutter into an open database.
type switchDB struct {
	store.DB
	w *world
}

func (s *switchDB) Commit(ctx context.Context, writes ...store.Write) error {
	if f := s.w.frost; f != nil {
		defer f.pass(ctx)()
	}
	if c := s.w.cutter; c != nil {
		return c.Commit(ctx, writes...)
	}
	return s.DB.Commit(ctx, writes...)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), meta: nil}
	meta, err := whatsapptest.Start(whatsapptest.Config{AppSecret: appSecret, Now: func() time.Time { return w.now }})
	w.must(err)
	t.Cleanup(meta.Close)
	w.meta = meta
	ctx, dir := t.Context(), t.TempDir()
	storage, err := app.OpenEmbedded(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = storage.Close() })
	w.queue = storage.Queue
	if w.ring, err = secret.ParseRing(secret.Generate("k")); err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return w.now }
	reg := tenant.NewRegistry(tenant.Config{
		Services: storage.Services, Ring: w.ring, Now: clock, Log: slog.New(slog.DiscardHandler),
		OpenDB: func(ctx context.Context, a *tenant.Account) (store.DB, error) {
			db, err := sqlite.Open(ctx, filepath.Join(dir, a.Code+".db"), app.TenantSchemas())
			w.db = db
			return &switchDB{db, w}, err
		},
	})
	t.Cleanup(func() { _ = reg.Close(within(5 * time.Second)) })
	if _, _, err = reg.Create(ctx, tenant.NewClient{Code: "ACME", Name: "Acme", DefaultCountry: "IN"}); err != nil {
		t.Fatal(err)
	}
	if _, err = reg.SetWhatsApp(ctx, "ACME", tenant.WhatsAppSecrets{WABAID: "2001", PhoneNumberIDs: []string{"3001"}, AccessToken: "tok"}); err != nil {
		t.Fatal(err)
	}
	w.meta.AddAccount(whatsapptest.Account{WABAID: "2001", Token: "tok", Numbers: []whatsapptest.Number{{ID: "3001"}},
		Templates: []whatsapptest.Template{{Name: "hello", Language: "en", Body: "Hi {{1}}"}}})
	tn, release, err := reg.Use(ctx, "ACME")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	w.tn = tn
	w.reg = reg
	w.site = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.posted = append(w.posted, r.Header.Get("X-Ecod-Delivery"))
	}))
	t.Cleanup(w.site.Close)
	w.box, w.google, w.files, w.shelf = newMailServer(t), newGoogle(t, googletest.Config{}), t.TempDir(), filepath.Join(t.TempDir(), "shelf")
	host, port := w.box.HostPort()
	_, err = reg.SetSMTP(ctx, "ACME", tenant.SMTP{Host: host, Port: port, Security: "none", Username: "acme", From: "hello@acme.example"}, secret.Text("mail-password"))
	w.must(err)
	_, err = reg.SetGoogle(ctx, "ACME", tenant.GoogleSecrets{ClientID: "cid", ClientSecret: "client-secret-1", RefreshToken: secret.Text("refresh-1")})
	w.must(err)
	w.domains()
	return w
}

// domains makes a world's domains, as a process does when it starts.
func (w *world) domains() {
	clock := func() time.Time { return w.now }
	log := slog.New(slog.DiscardHandler)
	book := &crm.Book{Now: clock, Files: crm.Folder(w.files), Runner: job.NewRunner(job.Config{Queue: w.queue, Tenants: w.reg, Log: log, Now: clock})}
	w.desk = &chat.Desk{Book: book, Graph: whatsapp.New(whatsapp.Config{BaseURL: w.meta.URL}, nil), Queue: w.queue, Now: clock, Log: log}
	w.mailing(w.reg, book, clock)
	w.storing(clock)
	messages := rule.Messages{Desk: w.desk}
	w.engine = &rule.Engine{Book: book, Now: clock, Log: log, Doers: map[string]rule.Doer{rule.SendTemplate: messages, rule.SendText: messages}}
	w.desk.Settled, w.desk.MayBegin, w.desk.Failed, w.desk.Arrived = w.engine.Settled, w.engine.MayBegin, w.engine.Failed, w.engine.Arrived
	w.engine.Replied, w.engine.PrivateNetworks = w.desk.WroteSince, true
	w.hooks = rule.Webhooks{Engine: w.engine, Client: http.DefaultClient}
	w.engine.Doers[rule.PostWebhook] = w.hooks
	book.Raise, book.OwnPoints = w.engine.Raise, w.engine.OwnPoints
	w.meetings(w.reg, book, clock)
}

// state is everything in the client's database but what may differ between a straight run and a repeated one: the
// numbers of versions and news, random ids, and when an answer was found lost.
func (w *world) state(ignore ...string) string { w.t.Helper(); return w.stateBut(nil, ignore...) }

// stateBut is state without some kinds.
func (w *world) stateBut(skip []string, ignore ...string) string {
	w.t.Helper()
	var out []string
	for _, s := range app.TenantSchemas() {
		if slices.Contains(skip, s.Kind) {
			continue
		}
		recs, err := w.db.Find(context.Background(), store.Query{Kind: s.Kind, Limit: store.MaxLimit})
		if err != nil {
			w.t.Fatal(err)
		}
		if s.Kind == "automationRules" || s.Kind == "automationVersions" {
			continue // made before, under random ids
		}
		for _, r := range recs {
			var v any
			if err := json.Unmarshal(r.Doc, &v); err != nil {
				w.t.Fatal(err)
			}
			if s.Kind == "news" && slices.Contains(ignore, "news") {
				continue
			}
			strip(v, ignore)
			b, _ := json.Marshal(v)
			out = append(out, s.Kind+" "+r.ID+" "+string(b))
		}
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}

func strip(v any, names []string) {
	switch x := v.(type) {
	case map[string]any:
		for _, n := range names {
			delete(x, n)
		}
		for _, e := range x {
			strip(e, names)
		}
	case []any:
		for _, e := range x {
			strip(e, names)
		}
	}
}

// step is a handler at work on a prepared world. It gives the unique keys of the jobs that follow.
type step func(w *world) ([]string, error)

func keys(next []store.NewJob) []string {
	out := []string{}
	for _, n := range next {
		out = append(out, n.Type+" "+n.UniqueKey)
	}
	sort.Strings(out)
	return out
}

func run(h job.Handler, j store.Job) step {
	return func(w *world) ([]string, error) {
		j.Token += w.claims
		res, err := h(context.WithValue(context.Background(), claims{}, w.claims), w.tn, j)
		return keys(job.Following(res, err)), err
	}
}

func payload(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// rule publishes the same rule, with the same id, in every world.
func (w *world) rule(body string)  { w.t.Helper(); w.publish(body, "rul_fixed") }
func (w *world) rule2(body string) { w.t.Helper(); w.publish(body, "rul_fixed2") }

func (w *world) publish(body, fixed string) {
	w.t.Helper()
	var d rule.Definition
	w.must(json.Unmarshal([]byte(body), &d))
	r, err := w.engine.Create(context.Background(), w.tn, "r", true, d)
	w.must(err)
	// a fixed id, so that two worlds can be compared
	ctx := context.Background()
	w.must(w.db.Commit(ctx, rule.Rules.Remove(r)))
	r.ID, r.Version = fixed, 0
	w.must(w.db.Commit(ctx, rule.Rules.Insert(r), rule.Versions.Set(&rule.Version{
		ID: rule.VersionID(fixed, 1), RuleID: fixed, N: 1, Definition: d, PublishedAt: w.now})))
}

// eventJob is the job of an event as the API makes it.
func (w *world) eventJob(vars map[string]any) store.Job {
	return w.eventJobOf("form_submitted", "e1", vars)
}

func (w *world) eventJobOf(trigger, eventID string, vars map[string]any) store.Job {
	ev := &rule.Event{
		ID: rule.EventRecordID("ACME", eventID), EventID: eventID, Hash: "h", Trigger: trigger, Phone: "+918143963821",
		OccurredAt: w.now, ReceivedAt: w.now, Variables: vars, CreateLead: true, Lead: rule.LeadData{Name: "Dhanesh", Source: "web"},
	}
	b, err := json.Marshal(ev)
	w.must(err)
	sealed, err := w.tn.Seal("event", string(b))
	w.must(err)
	return store.Job{ID: "job_e", Type: rule.EventJob, Tenant: "ACME", Token: 1, MaxAttempts: 8, Payload: payload(map[string]string{"eventRef": ev.ID, "sealed": sealed})}
}

const fullRule = `{"trigger":"form_submitted","reenrol":"every_event","actions":[
	{"type":"whatsapp.template","template":"hello","language":"en","parameters":["{{name}}"]},
	{"type":"lead.stage","stage":"booked"},{"type":"lead.tag.add","tags":["a","b"]},{"type":"lead.score","points":20},
	{"type":"lead.set","fields":{"x":"{{name}}"}},{"type":"whatsapp.text","text":"Bye {{name}}"}]}`

// newLead asks for the same lead in every world.
func (w *world) newLead(mutation string) crm.Mutation {
	return crm.Mutation{ID: mutation, Cause: crm.ByPerson, At: w.now, Create: &crm.NewLead{Phone: "+918143963821", Email: "d@example.com", Stage: "won",
		LeadData: crm.LeadData{Name: "Dhanesh", Tags: []string{"a", "b"}}}}
}

func (w *world) leadID(mutation string) string { return id.Derived("led", "ACME", mutation) }

// made makes that lead.
func (w *world) made(mutation string) {
	w.t.Helper()
	_, err := w.engine.Book.HandleChange(context.Background(), w.tn, w.changeJob(w.newLead(mutation)))
	w.must(err)
}

// madeOther makes another lead, without a phone.
func (w *world) madeOther(mutation string) {
	w.t.Helper()
	_, err := w.engine.Book.HandleChange(context.Background(), w.tn, w.changeJob(crm.Mutation{ID: mutation, At: w.now,
		Create: &crm.NewLead{Email: "e@example.com", LeadData: crm.LeadData{Tags: []string{"c"}}}}))
	w.must(err)
}

func (w *world) mergeJob(mutation, into, from string) store.Job {
	return store.Job{ID: "job_m", Type: crm.MergeJob, Tenant: "ACME", Token: 1, MaxAttempts: 8,
		Payload: payload(crm.Merging{ID: mutation, Into: w.leadID(into), From: []string{w.leadID(from)}, At: w.now})}
}

// changeJob is the job of a change as the API makes it.
func (w *world) changeJob(m crm.Mutation) store.Job {
	b, err := json.Marshal(m)
	w.must(err)
	sealed, err := w.tn.Seal("change", string(b))
	w.must(err)
	return store.Job{ID: "job_c", Type: crm.ChangeJob, Tenant: "ACME", Token: 1, MaxAttempts: 8, Payload: payload(map[string]string{"changeId": crm.ChangeID("ACME", m.ID), "sealed": sealed})}
}

// hearAll publishes a rule on each trigger of the CRM.
func (w *world) hearAll() {
	for i, trigger := range []string{"lead_created", "stage_changed", "deal_won", "tag_added", "tag_removed"} {
		w.publish(fmt.Sprintf(`{"trigger":%q,"actions":[{"type":"lead.score","points":1}]}`, trigger), fmt.Sprint("rul_", i))
	}
}

// waitRule changes the lead before and after its wait.
const waitRule = `{"trigger":"form_submitted","actions":[{"type":"lead.tag.add","tags":["a"]},{"type":"wait","for":"1h"},
	{"type":"lead.tag.add","tags":["b"]},{"type":"lead.score","points":6},{"type":"lead.stage","stage":"booked"},{"type":"whatsapp.text","text":"Hi"}]}`

// onlyRun is the run of the event of eventJob.
func (w *world) onlyRun() *rule.Run {
	w.t.Helper()
	r, err := rule.Runs.First(context.Background(), w.db, store.Query{})
	w.must(err)
	return r
}

// firstMessage is the message that the event of eventJob plans first.
func (w *world) firstMessage() *chat.Message {
	w.t.Helper()
	m, err := chat.Messages.First(context.Background(), w.db, store.Query{})
	w.must(err)
	return m
}

func (w *world) sendJob(token int64) store.Job {
	return store.Job{ID: "job_s", Type: chat.SendJob, Tenant: "ACME", Token: token, MaxAttempts: 8, Payload: payload(map[string]string{"messageId": w.firstMessage().ID})}
}

func (w *world) ingest(body []byte, id string) step {
	return func(w *world) ([]string, error) {
		b, err := whatsapp.ParseWebhook(body)
		w.must(err)
		for _, it := range b.Ordered() {
			if _, err := w.desk.Ingest(context.Background(), w.tn, &store.Delivery{ID: id, Body: body, ReceivedAt: w.now}, it); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
}

// about is something that Ana writes, or does to a message.
func (w *world) about(id, typ string, object map[string]any) whatsapptest.Change {
	return w.meta.InboundMessage(whatsapptest.Inbound{PhoneNumberID: "3001", From: "12025550143", Name: "Ana", Type: typ, Object: object, ID: id, At: w.now})
}

// from is a text of somebody whose phone, or user id, may be hidden.
func (w *world) from(phone, userID, id, text string) []byte {
	m := map[string]any{"id": id, "timestamp": fmt.Sprint(w.now.Unix()), "type": "text", "text": map[string]string{"body": text}}
	if phone != "" {
		m["from"] = phone
	}
	if userID != "" {
		m["from_user_id"] = userID
	}
	return whatsapptest.Batch(whatsapptest.Change{WABAID: "2001", Field: "messages", Value: map[string]any{
		"messaging_product": "whatsapp", "metadata": map[string]string{"phone_number_id": "3001"}, "messages": []any{m}}})
}

// syncJob lists the client's templates.
var syncJob = store.Job{ID: "job_t", Type: chat.TemplateSyncJob, Tenant: "ACME", MaxAttempts: 5}

// composeJob is the job of a message to Ana, who has just written, as the API makes it.
func (w *world) composeJob(seed string, dr chat.Draft) store.Job {
	n, _, err := w.desk.Compose(context.Background(), w.tn, seed, dr)
	w.must(err)
	return store.Job{ID: "job_c", Type: n.Type, Tenant: "ACME", Token: 1, MaxAttempts: 8, Payload: n.Payload}
}

// open lets Ana write, which opens her window.
func (w *world) open() {
	w.t.Helper()
	_, err := w.ingest(w.from("12025550143", "US.1", "wamid.open", "Hello?"), "dlv_open")(w)
	w.must(err)
}

// newestOut is the last message that was planned.
func (w *world) newestOut() *chat.Message {
	w.t.Helper()
	ms, err := chat.Messages.Find(context.Background(), w.db, store.Query{})
	w.must(err)
	for _, m := range ms {
		if m.Direction == chat.Out {
			return m
		}
	}
	w.t.Fatal("no message was planned")
	return nil
}

// faultCase is a handler to be cut.
type faultCase struct {
	name    string
	prepare func(*world)
	do      func(*world) step
	// settle runs after both the straight and the repeated run, before they are compared.
	settle func(*world)
	ignore []string
	skip   []string // kinds that are not compared
	// either is the type of a job that follows from only one of two ends that the case may have.
	either string
	expect func(*world) // on the straight run
	// truth: an answer that comes late still counts, and ends it as a straight run does (TestZombies).
	truth bool
}

// TestFaultCut cuts every handler's writes after each one of them, runs the handler again, and expects the state and the
// jobs that a straight run gives.
func TestFaultCut(t *testing.T) {
	t.Parallel()
	for _, c := range faultCases() {
		t.Run(c.name, func(t *testing.T) { cutAll(t, c) })
	}
}

// faultCases are the handlers.
func faultCases() []faultCase {
	event := func(w *world) { // an event was worked off
		w.rule(fullRule)
		_, err := w.engine.HandleEvent(context.Background(), w.tn, w.eventJob(map[string]any{"name": "Dhanesh"}))
		w.must(err)
	}
	sent := func(w *world) { // and its template sent
		event(w)
		_, err := w.desk.HandleSend(context.Background(), w.tn, w.sendJob(1))
		w.must(err)
	}
	waiting := func(w *world) { // a run has come to its wait
		w.rule(waitRule)
		_, err := w.engine.HandleEvent(context.Background(), w.tn, w.eventJob(nil))
		w.must(err)
	}
	return append(meetCuts(), []faultCase{
		{
			name:    "automation.event",
			prepare: func(w *world) { w.rule(fullRule) },
			do: func(w *world) step {
				return run(w.engine.HandleEvent, w.eventJob(map[string]any{"name": "Dhanesh"}))
			},
			expect: func(w *world) {
				l, err := crm.Leads.First(context.Background(), w.db, store.Query{})
				w.must(err)
				if l.Score != 20 || l.Stage != "booked" || len(l.Tags) != 2 {
					w.t.Errorf("lead %+v", l)
				}
			},
		},
		{
			name: "automation.event of a known lead",
			prepare: func(w *world) {
				w.rule(`{"trigger":"custom.first","actions":[{"type":"lead.score","points":1}]}`)
				w.rule2(fullRule)
				ev := w.eventJobOf("custom.first", "e0", nil)
				_, err := w.engine.HandleEvent(context.Background(), w.tn, ev)
				w.must(err)
			},
			do: func(w *world) step {
				return run(w.engine.HandleEvent, w.eventJob(map[string]any{"name": "Dhanesh"}))
			},
		},
		{
			name:    "crm.change that makes a lead",
			prepare: func(w *world) { w.hearAll() },
			do:      func(w *world) step { return run(w.engine.Book.HandleChange, w.changeJob(w.newLead("m1"))) },
		},
		{
			name:    "crm.change of a known lead",
			prepare: func(w *world) { w.hearAll(); w.made("m1") },
			do: func(w *world) step {
				phone := "+12025550143"
				return run(w.engine.Book.HandleChange, w.changeJob(crm.Mutation{ID: "m2", LeadID: w.leadID("m1"), Cause: crm.ByPerson, At: w.now,
					Set: &crm.LeadPatch{Phone: &phone, Tags: &[]string{"b", "c"}}, Move: &crm.Move{Stage: "won"}}))
			},
			expect: func(w *world) {
				l, err := crm.Leads.First(context.Background(), w.db, store.Query{})
				w.must(err)
				if l.Status != crm.Won || l.Phone != "+12025550143" || fmt.Sprint(l.Tags) != "[b c]" {
					w.t.Errorf("lead %+v", l)
				}
			},
		},
		{
			name:    "crm.change that is refused",
			prepare: func(w *world) { w.hearAll(); w.made("m1") },
			do:      func(w *world) step { return run(w.engine.Book.HandleChange, w.changeJob(w.newLead("m2"))) },
			expect: func(w *world) {
				if n, err := w.db.Count(context.Background(), store.Query{Kind: "leads"}); err != nil || n != 1 {
					w.t.Errorf("%d leads, %v", n, err)
				}
			},
		},
		{
			name:    "crm.change that deletes a lead",
			prepare: func(w *world) { w.made("m1") },
			do: func(w *world) step {
				return run(w.engine.Book.HandleChange, w.changeJob(crm.Mutation{ID: "m2", LeadID: w.leadID("m1"), At: w.now, Delete: true}))
			},
		},
		{
			name:    "crm.merge",
			prepare: func(w *world) { w.hearAll(); w.made("m1"); w.madeOther("m2") },
			do: func(w *world) step {
				return run(w.engine.Book.HandleMerge, w.mergeJob("m3", "m2", "m1"))
			},
			expect: func(w *world) {
				ls, err := crm.Leads.Find(context.Background(), w.db, store.Query{})
				w.must(err)
				if len(ls) != 1 || ls[0].Phone != "+918143963821" || fmt.Sprint(ls[0].Tags) != "[c a b]" {
					w.t.Errorf("leads %+v", ls)
				}
			},
		},
		{
			name: "crm.import",
			prepare: func(w *world) {
				w.hearAll()
				w.made("m1")
				w.must(w.engine.Book.Files.Save("ACME", "imp_1", strings.NewReader("name,phone,tags,stage\nKnown,918143963821,x,won\nNobody,,,\nNew,12025550143,y,won\nTwin,12025550143,z,\n")))
			},
			do: func(w *world) step {
				do := run(w.engine.Book.HandleImport, store.Job{ID: "job_i", Type: crm.ImportJob, Tenant: "ACME",
					Payload: payload(map[string]any{"importId": "imp_1", "total": 4, "at": w.now})})
				return func(w *world) ([]string, error) {
					ks, err := do(w)
					js, qerr := w.queue.Jobs(context.Background(), store.JobFilter{Tenant: "ACME"})
					w.must(qerr)
					for _, j := range js {
						ks = append(ks, j.UniqueKey)
					}
					sort.Strings(ks)
					return ks, err
				}
			},
			expect: func(w *world) {
				js, err := w.queue.Jobs(context.Background(), store.JobFilter{Tenant: "ACME"})
				w.must(err)
				n, err := w.db.Count(context.Background(), store.Query{Kind: "leads"})
				w.must(err)
				if len(js) != 5 || n != 2 { // tags x, y and z, one lead made, and won
					w.t.Errorf("%d jobs, %d leads", len(js), n)
				}
			},
		},
		{
			name: "crm.gather",
			prepare: func(w *world) {
				w.made("m1")
				w.madeOther("m2")
				_, err := w.engine.Book.AddNote(context.Background(), w.tn, w.leadID("m1"), "n1", "", "Hello")
				w.must(err)
				_, err = w.engine.Book.HandleMerge(context.Background(), w.tn, w.mergeJob("m3", "m2", "m1"))
				w.must(err)
			},
			do: func(w *world) step {
				return run(w.engine.Book.HandleGather, store.Job{Type: crm.GatherJob, Tenant: "ACME",
					Payload: payload(map[string]any{"into": w.leadID("m2"), "from": []string{w.leadID("m1")}})})
			},
		},
		{
			name:    "crm.tag",
			prepare: func(w *world) { w.hearAll(); w.made("m1"); w.madeOther("m2") },
			do: func(w *world) step {
				sealed, err := w.tn.Seal("tag", "a")
				w.must(err)
				return run(w.engine.Book.HandleTag, store.Job{Type: crm.TagJob, Tenant: "ACME", CreatedAt: w.now,
					Payload: payload(map[string]any{"op": "o1", "tag": sealed, "n": 1, "leads": []string{w.leadID("m1")}})})
			},
		},
		{
			name: "crm.erase",
			prepare: func(w *world) {
				w.made("m1")
				_, err := w.engine.Book.AddNote(context.Background(), w.tn, w.leadID("m1"), "n1", "", "Hello")
				w.must(err)
				_, err = w.engine.Book.HandleChange(context.Background(), w.tn, w.changeJob(crm.Mutation{ID: "m2", LeadID: w.leadID("m1"), At: w.now, Delete: true}))
				w.must(err)
			},
			do: func(w *world) step {
				return run(w.engine.Book.HandleErase, store.Job{Type: crm.EraseJob, Tenant: "ACME", Payload: payload(map[string]string{"leadId": w.leadID("m1")})})
			},
			expect: func(w *world) {
				if left := w.state("news"); strings.Contains(left, "leadNotes") || strings.Count(left, "leadChanges") != 1 || strings.Contains(left, `"leadId":"led_`) && !strings.Contains(left, `"deleted":true`) {
					w.t.Error(left)
				}
			},
		},
		{
			name:    "automation.event that is held",
			prepare: func(w *world) { w.rule(fullRule) },
			do:      func(w *world) step { return run(w.engine.HandleEvent, w.eventJob(nil)) },
		},
		{
			name: "automation.resume",
			prepare: func(w *world) {
				w.rule(fullRule)
				_, err := w.engine.HandleEvent(context.Background(), w.tn, w.eventJob(nil))
				w.must(err)
				r, err := rule.Runs.First(context.Background(), w.db, store.Query{})
				w.must(err)
				_, err = w.engine.Supply(context.Background(), w.tn, r.ID, map[string]any{"name": "Dhanesh"})
				w.must(err)
			},
			do: func(w *world) step {
				r, err := rule.Runs.First(context.Background(), w.db, store.Query{})
				w.must(err)
				return run(w.engine.HandleResume, store.Job{Type: rule.ResumeJob, Tenant: "ACME", Payload: payload(map[string]any{"runId": r.ID, "leg": 1})})
			},
			expect: func(w *world) {
				l, err := crm.Leads.First(context.Background(), w.db, store.Query{})
				w.must(err)
				if l.Score != 20 {
					w.t.Errorf("score %v after the run went on", l.Score)
				}
			},
		},
		{
			name:    "whatsapp.send",
			prepare: event,
			truth:   true,
			do:      func(w *world) step { return run(w.desk.HandleSend, w.sendJob(1)) },
			settle: func(w *world) { // a lost answer is settled by the status
				a := w.meta.Accepted()
				if len(a) != 1 {
					w.t.Fatalf("Meta accepted %d messages", len(a))
				}
				_, err := w.ingest(whatsapptest.Batch(w.meta.StatusFor(a[0], "delivered")), "dlv_1")(w)
				w.must(err)
			},
			ignore: []string{"statusAt", "news", "token", "wamid"},
		},
		{
			name: "whatsapp.send that is refused",
			prepare: func(w *world) {
				event(w)
				w.meta.Next(2, whatsapptest.GraphError(400, 131026, "not on WhatsApp"))
			},
			do:     func(w *world) step { return run(w.desk.HandleSend, w.sendJob(1)) },
			ignore: []string{"statusAt", "news", "token", "status", "state", "error"}, // refused, or lost: both are ends
			either: rule.FailedJob,
		},
		{
			name:    "whatsapp.withdraw of a send that was poison",
			prepare: event,
			do: func(w *world) step {
				j := w.sendJob(1)
				j.State = store.Dead
				jobs := w.desk.Abandoned(j)
				return run(w.desk.HandleWithdraw, store.Job{ID: "job_w", Type: jobs[0].Type, Tenant: "ACME", Token: 1, Payload: jobs[0].Payload})
			},
			expect: func(w *world) {
				if m := w.firstMessage(); m.Status != chat.FailedSend || m.Error == nil || m.Error.Code != "given_up" {
					w.t.Errorf("message %+v", m)
				}
			},
		},
		{
			name:    "whatsapp.withdraw",
			prepare: event,
			do: func(w *world) step {
				jobs := w.desk.Abandoned(w.sendJob(1))
				return run(w.desk.HandleWithdraw, store.Job{ID: "job_w", Type: jobs[0].Type, Tenant: "ACME", Token: 1, Payload: jobs[0].Payload})
			},
			expect: func(w *world) {
				if m := w.firstMessage(); m.Status != chat.FailedSend || m.Error == nil || m.Error.Code != "cancelled" {
					w.t.Errorf("message %+v", m)
				}
			},
		},
		{
			name:    "automation.event that waits",
			prepare: func(w *world) { w.rule(waitRule) },
			do:      func(w *world) step { return run(w.engine.HandleEvent, w.eventJob(nil)) },
			expect: func(w *world) {
				if r := w.onlyRun(); r.State != "waiting" || !r.WaitUntil.Equal(w.now.Add(time.Hour)) {
					w.t.Errorf("run %+v", r)
				}
			},
		},
		{
			name:    "automation.wake",
			prepare: func(w *world) { waiting(w); w.now = w.now.Add(time.Hour) },
			do: func(w *world) step {
				return run(w.engine.HandleWake, store.Job{Type: rule.WakeJob, Tenant: "ACME", Payload: payload(map[string]string{"runId": w.onlyRun().ID, "step": "1"})})
			},
			expect: func(w *world) {
				l, err := crm.Leads.First(context.Background(), w.db, store.Query{})
				w.must(err)
				if r := w.onlyRun(); r.State != "active" || r.Steps[len(r.Steps)-1].State != "queued" || l.Score != 6 || l.Stage != "booked" || len(l.Tags) != 2 {
					w.t.Errorf("run %+v\nlead %+v", r, l)
				}
			},
		},
		{
			name: "automation.advance into a wait",
			prepare: func(w *world) {
				w.rule(`{"trigger":"form_submitted","actions":[{"type":"whatsapp.text","text":"Hi"},{"type":"wait","for":"1h"},{"type":"lead.score","points":1}]}`)
				_, err := w.engine.HandleEvent(context.Background(), w.tn, w.eventJob(nil))
				w.must(err)
				_, err = w.desk.HandleSend(context.Background(), w.tn, w.sendJob(1))
				w.must(err)
			},
			do: func(w *world) step {
				return run(w.engine.HandleAdvance, store.Job{Type: rule.AdvanceJob, Tenant: "ACME",
					Payload: payload(map[string]string{"runId": w.onlyRun().ID, "step": "0", "ref": w.firstMessage().ID})})
			},
			ignore: []string{"wamid", "output"},
			expect: func(w *world) {
				if r := w.onlyRun(); r.State != "waiting" {
					w.t.Errorf("run %+v", r)
				}
			},
		},
		{
			name:    "automation.exit",
			prepare: waiting,
			do: func(w *world) step {
				at := w.now.Add(time.Minute)
				w.now = at
				return run(w.engine.HandleExit, store.Job{Type: rule.ExitJob, Tenant: "ACME",
					Payload: payload(map[string]any{"leadId": w.onlyRun().LeadID, "eventRef": "evt_x", "trigger": "message_received", "at": at})})
			},
			expect: func(w *world) {
				if r := w.onlyRun(); r.State != "exited" || r.ExitReason != "reply" || r.WaitUntil != nil {
					w.t.Errorf("run %+v", r)
				}
			},
		},
		{
			name:    "automation.abandoned",
			prepare: waiting,
			do: func(w *world) step {
				return run(w.engine.HandleAbandoned, store.Job{Type: rule.AbandonedJob, Tenant: "ACME", Payload: payload(map[string]string{"runId": w.onlyRun().ID, "step": "1"})})
			},
			expect: func(w *world) {
				if r := w.onlyRun(); r.State != "cancelled" {
					w.t.Errorf("run %+v", r)
				}
			},
		},
		{
			name:    "automation.abandoned of a wait whose job is dead",
			prepare: waiting,
			do: func(w *world) step {
				jobs := rule.Abandoned(store.Job{ID: "job_1", Tenant: "ACME", State: store.Dead, Payload: payload(map[string]string{"runId": w.onlyRun().ID, "step": "1"})})
				return run(w.engine.HandleAbandoned, store.Job{Type: jobs[0].Type, Tenant: "ACME", Payload: jobs[0].Payload})
			},
			expect: func(w *world) {
				if r := w.onlyRun(); r.State != "failed" || r.Error == nil || r.Error.Code != "given_up" {
					w.t.Errorf("run %+v", r)
				}
			},
		},
		{
			name:    "automation.abandoned of a step whose message ended, but nobody takes the run further",
			prepare: sent,
			do: func(w *world) step {
				jobs := rule.Abandoned(store.Job{ID: "job_1", Type: rule.AdvanceJob, Tenant: "ACME", State: store.Dead,
					Payload: payload(map[string]string{"runId": w.onlyRun().ID, "step": w.onlyRun().Steps[0].ID, "ref": w.onlyRun().Steps[0].Ref})})
				return run(w.engine.HandleAbandoned, store.Job{Type: jobs[0].Type, Tenant: "ACME", Payload: jobs[0].Payload})
			},
			ignore: []string{"wamid", "output"},
			expect: func(w *world) {
				if r := w.onlyRun(); r.State != "failed" || r.Error == nil || r.Error.Code != "given_up" || r.Steps[0].State != "done" || r.Steps[0].Error != nil {
					w.t.Errorf("run %+v", r)
				}
			},
		},
		{
			name:    "automation.abandoned of a step whose message ended, but the run was to be taken no further",
			prepare: sent,
			do: func(w *world) step {
				jobs := rule.Abandoned(store.Job{ID: "job_1", Type: rule.AdvanceJob, Tenant: "ACME", State: store.Cancelled,
					Payload: payload(map[string]string{"runId": w.onlyRun().ID, "step": w.onlyRun().Steps[0].ID, "ref": w.onlyRun().Steps[0].Ref})})
				return run(w.engine.HandleAbandoned, store.Job{Type: jobs[0].Type, Tenant: "ACME", Payload: jobs[0].Payload})
			},
			ignore: []string{"wamid", "output"},
			expect: func(w *world) {
				if r := w.onlyRun(); r.State != "cancelled" || r.Error != nil || r.Steps[0].State != "done" || r.Steps[0].Error != nil {
					w.t.Errorf("run %+v", r)
				}
			},
		},
		{
			name: "whatsapp.send of a run that a reply makes pointless",
			prepare: func(w *world) {
				w.rule(`{"trigger":"form_submitted","exits":["reply"],"actions":[{"type":"whatsapp.text","text":"Hi"},{"type":"whatsapp.text","text":"Ho"}]}`)
				_, err := w.engine.HandleEvent(context.Background(), w.tn, w.eventJob(nil))
				w.must(err)
				w.now = w.now.Add(time.Second)
				_, err = w.ingest(w.from("918143963821", "", "wamid.1", "Hello"), "dlv_0")(w)
				w.must(err)
			},
			do: func(w *world) step {
				var m *chat.Message
				ms, err := chat.Messages.Find(context.Background(), w.db, store.Query{})
				w.must(err)
				for _, x := range ms {
					if x.Direction == chat.Out {
						m = x
					}
				}
				return run(w.desk.HandleSend, store.Job{ID: "job_s", Type: chat.SendJob, Tenant: "ACME", Token: 1, MaxAttempts: 8, Payload: payload(map[string]string{"messageId": m.ID})})
			},
			expect: func(w *world) {
				if r := w.onlyRun(); r.State != "exited" || r.ExitReason != "reply" || len(w.meta.Accepted()) != 0 {
					w.t.Errorf("run %+v", r)
				}
			},
		},
		{
			name: "automation.webhook",
			prepare: func(w *world) {
				w.rule(`{"trigger":"form_submitted","actions":[{"type":"webhook.post","url":"` + w.site.URL + `"}]}`)
				_, err := w.engine.HandleEvent(context.Background(), w.tn, w.eventJob(map[string]any{"name": "Dhanesh"}))
				w.must(err)
			},
			do: func(w *world) step {
				return run(w.hooks.Handle, store.Job{ID: "job_w", Type: rule.WebhookJob, Tenant: "ACME", MaxAttempts: 6, Payload: payload(map[string]string{"postId": w.onlyRun().Steps[0].Ref})})
			},
			ignore: []string{"input", "body", "url", "news"}, // the site's port
			expect: func(w *world) {
				p, err := rule.Posts.First(context.Background(), w.db, store.Query{})
				w.must(err)
				if p.State != "done" || len(w.posted) != 1 || w.posted[0] != p.ID || p.Body != nil {
					w.t.Errorf("post %+v, posted %v", p, w.posted)
				}
			},
		},
		{
			name:    "automation.advance",
			prepare: sent,
			do: func(w *world) step {
				m := w.firstMessage()
				return run(w.engine.HandleAdvance, store.Job{Type: rule.AdvanceJob, Tenant: "ACME",
					Payload: payload(map[string]string{"runId": m.Origin.RunID, "step": m.Origin.Step, "ref": m.ID})})
			},
			ignore: []string{"wamid", "output"}, // Meta's id of the message is random
		},
		{
			name: "intake of messages and statuses",
			prepare: func(w *world) {
				sent(w)
			},
			do: func(w *world) step {
				a := w.meta.Accepted()[0]
				text := w.meta.InboundMessage(whatsapptest.Inbound{PhoneNumberID: "3001", From: "918143963821", Name: "D", Type: "text",
					Object: map[string]string{"body": "Hello"}, ID: "wamid.in1", At: w.now})
				stop := w.meta.InboundMessage(whatsapptest.Inbound{PhoneNumberID: "3001", From: "12025550143", Name: "Ana", Type: "text",
					Object: map[string]string{"body": "STOP"}, ID: "wamid.in2", At: w.now})
				reaction := w.meta.InboundMessage(whatsapptest.Inbound{PhoneNumberID: "3001", From: "918143963821", Name: "D", Type: "reaction",
					Object: map[string]string{"message_id": "wamid.in1", "emoji": "+"}, ID: "wamid.in3", At: w.now})
				return w.ingest(whatsapptest.Batch(text, stop, reaction, w.meta.StatusFor(a, "sent"), w.meta.StatusFor(a, "read")), "dlv_1")
			},
			ignore: []string{"wamid", "output", "statusAt", "accepted"},
		},
		{
			name: "intake of a message that was edited, revoked and liked before it came",
			prepare: func(w *world) {
				_, err := w.ingest(whatsapptest.Batch(
					w.about("wamid.e", "edit", map[string]any{"original_message_id": "wamid.t", "message": map[string]any{"type": "text", "text": map[string]string{"body": "New"}}}),
					w.about("wamid.r", "revoke", map[string]any{"original_message_id": "wamid.t"}),
					w.about("wamid.l", "reaction", map[string]any{"message_id": "wamid.t", "emoji": "+"})), "dlv_0")(w)
				w.must(err)
			},
			do: func(w *world) step {
				return w.ingest(whatsapptest.Batch(w.about("wamid.t", "text", map[string]any{"body": "Old"})), "dlv_1")
			},
			expect: func(w *world) {
				ms, err := chat.Messages.Find(context.Background(), w.db, store.Query{})
				w.must(err)
				if len(ms) != 1 || *ms[0].Text != "New" || ms[0].RevokedAt == nil || len(ms[0].Reactions) != 1 {
					w.t.Errorf("messages %+v", ms)
				}
			},
		},
		{
			name: "intake of a message that makes two contacts one",
			prepare: func(w *world) {
				w.rule(fullRule) // the lead's contact has the phone alone
				_, err := w.engine.HandleEvent(context.Background(), w.tn, w.eventJob(map[string]any{"name": "Dhanesh"}))
				w.must(err)
				_, err = w.ingest(w.from("", "IN.77", "wamid.1", "Hello"), "dlv_0")(w) // the other is a user id alone
				w.must(err)
			},
			do: func(w *world) step { return w.ingest(w.from("918143963821", "IN.77", "wamid.2", "STOP"), "dlv_1") },
			expect: func(w *world) {
				var one *crm.Contact
				cs, err := crm.Contacts.Find(context.Background(), w.db, store.Query{})
				w.must(err)
				for _, c := range cs {
					if c.MergedInto == "" {
						one = c
					}
				}
				if len(cs) != 2 || one == nil || len(one.Identities) != 2 || one.LeadID == "" || one.OptedOutAt == nil {
					w.t.Errorf("contacts %+v", cs)
				}
			},
		},
		{
			name: "intake of a new number of somebody known under both",
			prepare: func(w *world) {
				_, err := w.ingest(w.from("12025550143", "US.1", "wamid.1", "STOP"), "dlv_0")(w)
				w.must(err)
				_, err = w.ingest(w.from("12025550199", "US.2", "wamid.2", "Hello again"), "dlv_1")(w)
				w.must(err)
			},
			do: func(w *world) step {
				return w.ingest(whatsapptest.Batch(w.meta.InboundMessage(whatsapptest.Inbound{PhoneNumberID: "3001", From: "12025550143", ID: "wamid.3", At: w.now,
					Type: "system", Object: map[string]string{"type": "user_changed_number", "body": "New number", "wa_id": "12025550199", "user_id": "US.2", "previous_user_id": "US.1"}})), "dlv_2")
			},
		},
		{
			name: "intake of a word on marketing, and of a refusal",
			do: func(w *world) step {
				refused := w.meta.StatusFor(whatsapptest.Accepted{ID: "wamid.x", WABAID: "2001", PhoneNumberID: "3001", To: "12025550144", WAID: "12025550144"}, "failed", 131050)
				return w.ingest(whatsapptest.Batch(w.meta.Preference("3001", "12025550143", "Ana", "stop"), refused), "dlv_1")
			},
			expect: func(w *world) {
				cs, err := crm.Contacts.Find(context.Background(), w.db, store.Query{})
				w.must(err)
				if len(cs) != 2 || cs[0].OptedOutAt == nil || cs[1].OptedOutAt == nil {
					w.t.Errorf("contacts %+v", cs)
				}
			},
		},
		{
			name:    "whatsapp.compose to somebody new",
			prepare: func(w *world) { w.rule(fullRule) },
			do: func(w *world) step {
				return run(w.desk.HandleCompose, w.composeJob("s1", chat.Draft{To: "+12025550177", Type: "template",
					Object: json.RawMessage(`{"name":"hello","language":{"code":"en"},"components":[{"type":"body","parameters":[{"type":"text","text":"Ana"}]}]}`)}))
			},
			expect: func(w *world) {
				if m := w.newestOut(); m.Status != chat.Queued || m.Send == nil {
					w.t.Errorf("message %+v", m)
				}
			},
		},
		{
			name:    "whatsapp.compose of a reaction, in an open window",
			prepare: (*world).open,
			do: func(w *world) step {
				return run(w.desk.HandleCompose, w.composeJob("s1", chat.Draft{To: "+12025550143", Type: "reaction", Object: json.RawMessage(`{"message_id":"wamid.open","emoji":"+"}`)}))
			},
		},
		{
			name:  "whatsapp.send of a reaction",
			truth: true,
			prepare: func(w *world) {
				w.open()
				_, err := w.desk.HandleCompose(context.Background(), w.tn, w.composeJob("s1", chat.Draft{To: "+12025550143", Type: "reaction",
					Object: json.RawMessage(`{"message_id":"wamid.open","emoji":"+"}`)}))
				w.must(err)
			},
			do: func(w *world) step {
				return run(w.desk.HandleSend, store.Job{ID: "job_s", Type: chat.SendJob, Tenant: "ACME", Token: 1, MaxAttempts: 8,
					Payload: payload(map[string]string{"messageId": w.newestOut().ID})})
			},
			settle: func(w *world) { // a lost answer is settled by the status
				_, err := w.ingest(whatsapptest.Batch(w.meta.StatusFor(w.meta.Accepted()[0], "delivered")), "dlv_1")(w)
				w.must(err)
			},
			expect: func(w *world) {
				ms, err := chat.Messages.Find(context.Background(), w.db, store.Query{Where: []store.Term{store.Where("wamid", store.Eq, "3001|wamid.open")}})
				w.must(err)
				if len(ms) != 1 || ms[0].Reactions["3001"] != "+" {
					w.t.Errorf("the reaction does not stand on its message: %+v", ms)
				}
			},
			ignore: []string{"statusAt", "news", "token", "wamid"},
		},
		{
			name: "whatsapp.templates.sync",
			prepare: func(w *world) {
				w.meta.SetTemplate("2001", whatsapptest.Template{ID: "1", Name: "gone", Body: "Hi"})
				w.meta.SetTemplate("2001", whatsapptest.Template{ID: "2", Name: "hello", Language: "en", Body: "Hi"})
				_, err := w.desk.HandleTemplateSync(context.Background(), w.tn, syncJob)
				w.must(err)
				w.meta.AddAccount(whatsapptest.Account{WABAID: "2001", Token: "tok", Numbers: []whatsapptest.Number{{ID: "3001"}}, Templates: []whatsapptest.Template{
					{ID: "2", Name: "hello", Language: "en", Body: "Hi {{1}}"}, {ID: "3", Name: "other", Body: "Bye"}}})
				w.now = w.now.Add(time.Hour)
			},
			do: func(w *world) step {
				j := syncJob
				j.ID = "job_t2"
				return run(w.desk.HandleTemplateSync, j)
			},
			expect: func(w *world) {
				ts, err := chat.Templates.Find(context.Background(), w.db, store.Query{Order: "key"})
				w.must(err)
				if len(ts) != 2 || ts[0].Name != "hello" || ts[1].Name != "other" || !strings.Contains(string(ts[0].Components), "{{1}}") {
					w.t.Errorf("templates %+v", ts)
				}
			},
		},
		{
			name: "intake of news of templates",
			prepare: func(w *world) {
				w.meta.SetTemplate("2001", whatsapptest.Template{ID: "1", Name: "gone", Body: "Hi"})
				w.meta.SetTemplate("2001", whatsapptest.Template{ID: "2", Name: "hello", Language: "en", Body: "Hi"})
				_, err := w.desk.HandleTemplateSync(context.Background(), w.tn, syncJob)
				w.must(err)
			},
			do: func(w *world) step {
				changes := []whatsapptest.Change{w.meta.TemplateStatus("2001", "hello", "en", "PAUSED"), w.meta.TemplateStatus("2001", "gone", "en", "DELETED"),
					w.meta.TemplateStatus("2001", "strange", "en", "APPROVED")}
				return func(w *world) ([]string, error) {
					b, err := whatsapp.ParseWebhook(whatsapptest.Batch(changes...))
					w.must(err)
					var next []store.NewJob
					for _, it := range b.Ordered() {
						jobs, err := w.desk.Ingest(context.Background(), w.tn, &store.Delivery{ID: "dlv_1", ReceivedAt: w.now}, it)
						if err != nil {
							return nil, err
						}
						next = append(next, jobs...)
					}
					return keys(next), nil
				}
			},
			expect: func(w *world) {
				ts, err := chat.Templates.Find(context.Background(), w.db, store.Query{Order: "key"})
				w.must(err)
				if len(ts) != 1 || ts[0].Status != "PAUSED" {
					w.t.Errorf("templates %+v", ts)
				}
			},
		},
		{
			name:    "whatsapp.read",
			prepare: (*world).open,
			do: func(w *world) step {
				m, err := chat.Messages.First(context.Background(), w.db, store.Query{})
				w.must(err)
				return run(w.desk.HandleRead, store.Job{ID: "job_r", Type: chat.ReadJob, Tenant: "ACME", MaxAttempts: 8, Payload: payload(map[string]string{"messageId": m.ID})})
			},
			expect: func(w *world) {
				cv, err := chat.Conversations.First(context.Background(), w.db, store.Query{})
				w.must(err)
				if cv.Unread != 0 || len(w.meta.Reads()) != 1 {
					w.t.Errorf("conversation %+v, told Meta %v", cv, w.meta.Reads())
				}
			},
		},
		{
			name: "whatsapp.send that is refused because they said stop",
			prepare: func(w *world) {
				event(w)
				w.meta.Next(2, whatsapptest.GraphError(400, 131050, "stopped"))
			},
			do:     func(w *world) step { return run(w.desk.HandleSend, w.sendJob(1)) },
			ignore: []string{"statusAt", "news", "token", "status", "state", "error", "optedOutAt", "optOutBy", "wordAt", "updatedAt"},
			either: rule.FailedJob,
		},
		{
			name:    "email.send",
			truth:   true,
			prepare: func(w *world) { w.letter() },
			do:      func(w *world) step { return run(w.office.HandleSend, w.letterJob()) },
			ignore:  []string{"statusAt", "state", "token"}, // sent, or its answer lost: both are ends
			skip:    []string{"connections"},                // only of a call that was answered
			expect: func(w *world) {
				if n := len(w.box.Accepted()); n != 1 {
					w.t.Errorf("the server has %d mails", n)
				}
			},
		},
		{
			name: "email.send that bounces",
			prepare: func(w *world) {
				w.letter()
				w.box.Recipient("ana@example.com", smtptest.Reply(550, "5.1.1", "no such user"))
			},
			do:     func(w *world) step { return run(w.office.HandleSend, w.letterJob()) },
			ignore: []string{"statusAt", "state", "token", "error"},
			skip:   []string{"suppressions"}, // lost in between, its bounce is not known
		},
		{
			name:    "media.fetch",
			prepare: func(w *world) { w.picture("wamid.pic") },
			do:      func(w *world) step { return run(w.archive.HandleFetch, w.fetchJob()) },
			expect: func(w *world) {
				m := w.firstMessage()
				if m.Media.Status != "stored" || len(blobsIn(w.t, w.shelf)) != 2 {
					w.t.Errorf("media %+v, blobs %v", m.Media, blobsIn(w.t, w.shelf))
				}
			},
			ignore: []string{"metaId", "content"}, // Meta's id of the file is random
		},
		{
			name: "media.fetch of content that is there",
			prepare: func(w *world) {
				w.picture("wamid.pic")
				_, err := w.archive.HandleFetch(context.Background(), w.tn, w.fetchJob())
				w.must(err)
				w.picture("wamid.second")
			},
			do: func(w *world) step { return run(w.archive.HandleFetch, w.fetchJob()) },
			expect: func(w *world) {
				if b := blobsIn(w.t, w.shelf); len(b) != 2 {
					w.t.Errorf("blobs %v", b)
				}
			},
			ignore: []string{"metaId", "content"}, // Meta's id of the file is random
		},
		{
			name: "media.fetch that fails for good",
			prepare: func(w *world) {
				w.picture("wamid.pic")
				w.meta.When(-1, isDownload, whatsapptest.Answer(200, "image/png", "other bytes"))
			},
			do: func(w *world) step {
				j := w.fetchJob()
				j.Attempt, j.MaxAttempts = 4, 5
				return run(w.archive.HandleFetch, j)
			},
			expect: func(w *world) {
				if m := w.firstMessage(); m.Media.Status != "failed" || len(blobsIn(w.t, w.shelf)) != 0 {
					w.t.Errorf("media %+v", m.Media)
				}
			},
			ignore: []string{"metaId", "content"}, // Meta's id of the file is random
		},
		{
			name:    "media.miss",
			prepare: func(w *world) { w.picture("wamid.pic") },
			do: func(w *world) step {
				return run(w.archive.HandleMiss, store.Job{Type: media.MissJob, Tenant: "ACME", Payload: w.archive.Abandoned(w.fetchJob())[0].Payload})
			},
			ignore: []string{"metaId", "content"}, // Meta's id of the file is random
		},
		{
			name: "media.remove",
			prepare: func(w *world) {
				w.picture("wamid.pic")
				_, err := w.archive.HandleFetch(context.Background(), w.tn, w.fetchJob())
				w.must(err)
			},
			do: func(w *world) step {
				return run(w.archive.HandleRemove, store.Job{Type: media.RemoveJob, Tenant: "ACME", Payload: payload(map[string]string{"mediaId": w.firstMessage().Media.ID})})
			},
			expect: func(w *world) {
				if b := blobsIn(w.t, w.shelf); len(b) != 0 {
					w.t.Errorf("blobs %v", b)
				}
			},
			ignore: []string{"metaId", "content"}, // Meta's id of the file is random
		},
		{
			name:    "webhook.message that counts for a lead",
			prepare: func(w *world) { w.points(1) },
			do: func(w *world) step {
				return w.ingest(w.from("918143963821", "", "wamid.s", "What is the price?"), "dlv_s")
			},
			expect: func(w *world) {
				if w.ledger() != "automation:rul_fixed reply substantive intent" || len(w.dues()) != 1 {
					w.t.Errorf("ledger %s, due %v", w.ledger(), w.dues())
				}
			},
		},
		{
			name: "automation.event that counts by itself",
			do:   func(w *world) step { return run(w.engine.HandleEvent, w.eventJob(nil)) },
			expect: func(w *world) {
				if w.ledger() != "form_submitted" || len(w.dues()) != 1 || w.lead().Score != 0 {
					w.t.Errorf("ledger %s, due %v, lead %+v", w.ledger(), w.dues(), w.lead())
				}
			},
		},
		{
			name: "automation.event that crosses",
			prepare: func(w *world) {
				w.bought()
				w.hears("score_crossed")
				w.rule2(`{"trigger":"custom.points","actions":[{"type":"lead.score","points":20}]}`)
			},
			do: func(w *world) step {
				return run(w.engine.HandleEvent, w.eventJobOf("custom.points", "e2", nil))
			},
			expect: func(w *world) {
				if l := w.lead(); l.Score != 50 || l.Grade != "B2" || len(l.Crossed) != 2 {
					w.t.Errorf("lead %+v", l)
				}
			},
		},
		{
			name: "automation.wake that crosses",
			prepare: func(w *world) {
				w.bought()
				w.hears("score_crossed")
				w.rule(`{"trigger":"form_submitted","actions":[{"type":"wait","for":"1h"},{"type":"lead.score","points":20}]}`)
				_, err := w.engine.HandleEvent(context.Background(), w.tn, w.eventJobOf("form_submitted", "e2", nil))
				w.must(err)
				w.now = w.now.Add(time.Hour)
			},
			do: func(w *world) step {
				return run(w.engine.HandleWake, store.Job{Type: rule.WakeJob, Tenant: "ACME", Payload: payload(map[string]string{"runId": w.onlyRun().ID, "step": "0"})})
			},
			expect: func(w *world) {
				if l := w.lead(); l.Score < 49.9 || l.Grade != "B2" || len(l.Crossed) != 2 {
					w.t.Errorf("lead %+v", l)
				}
			},
		},
		{
			name:    "crm.points",
			prepare: func(w *world) { w.points(1) },
			do: func(w *world) step {
				n := crm.PointsOf(w.tn, w.lead().ID, crm.PointsOptOut, "src", "ref", 0, w.now)
				return run(w.engine.Book.HandlePoints, store.Job{Type: n.Type, Tenant: "ACME", Payload: n.Payload})
			},
			expect: func(w *world) {
				if w.ledger() != "automation:rul_fixed opt_out" || len(w.dues()) != 1 {
					w.t.Errorf("ledger %s, due %v", w.ledger(), w.dues())
				}
			},
		},
		{
			name: "score.recheck of a lead that is due",
			prepare: func(w *world) {
				w.hears("score_crossed")
				_, err := w.engine.HandleEvent(context.Background(), w.tn, w.eventJobOf("product_purchased", "e1", nil))
				w.must(err)
			},
			do: func(w *world) step { return run(w.engine.Book.HandleRecheck, w.recheckJob()) },
			expect: func(w *world) {
				if l := w.lead(); l.Score != 30 || l.Grade != "B3" || len(w.dues()) != 0 {
					w.t.Errorf("lead %+v, due %v", l, w.dues())
				}
			},
		},
		{
			name: "score.refresh",
			prepare: func(w *world) { // of two leads, one's grade has turned
				w.bought()
				w.now = w.now.Add(time.Second)
				w.madeOther("m1")
				n := crm.PointsOf(w.tn, w.leadID("m1"), "form_submitted", "src", "", 0, w.now)
				_, err := w.engine.Book.HandlePoints(context.Background(), w.tn, store.Job{Type: n.Type, Tenant: "ACME", Payload: n.Payload})
				w.must(err)
				_, err = w.engine.Book.HandleRecheck(context.Background(), w.tn, w.recheckJob())
				w.must(err)
				w.now = w.now.Add(100 * 24 * time.Hour)
			},
			do: func(w *world) step {
				n := crm.Rescores("ACME", w.now)
				return run(w.engine.Book.HandleRescores, store.Job{Type: n.Type, Tenant: "ACME", Payload: n.Payload})
			},
		},
		{
			name:    "campaign.turn",
			prepare: func(w *world) { w.campaign("email", true); w.turn("pause") },
			do: func(w *world) step {
				return run(w.bureau.HandleTurn, store.Job{Type: campaign.TurnJob, Tenant: "ACME", Payload: payload(map[string]string{"campaignId": "cmp_fixed", "turn": "trn_2", "op": "resume"})})
			},
			expect: func(w *world) {
				c, err := campaign.Campaigns.Get(context.Background(), w.db, "cmp_fixed")
				w.must(err)
				if c.State != campaign.Running || c.Gen != 2 {
					w.t.Errorf("campaign %+v", c)
				}
			},
		},
		{
			name:    "campaign.freeze",
			prepare: func(w *world) { w.campaign("email", false) },
			do:      func(w *world) step { return run(w.bureau.HandleFreeze, w.campaignJob(campaign.FreezeJob, 1)) },
			expect: func(w *world) {
				n, err := w.db.Count(context.Background(), store.Query{Kind: campaign.Recipients.Schema.Kind})
				w.must(err)
				if n != 3 {
					w.t.Errorf("%d recipients", n)
				}
			},
		},
		{
			name:    "campaign.window by e-mail",
			truth:   true,
			prepare: func(w *world) { w.campaign("email", true) },
			do:      func(w *world) step { return run(w.bureau.HandleWindow, w.campaignJob(campaign.WindowJob, 1)) },
			settle: func(w *world) {
				if d := w.box.Duplicates(); len(d) > 0 {
					w.t.Errorf("sent twice: %v", d)
				}
				k, err := w.bureau.Counts(context.Background(), w.tn, &campaign.Campaign{ID: "cmp_fixed"})
				w.must(err)
				if int64(len(w.box.Accepted())) > k.Sent+k.Unconfirmed || k.Sent+k.Unconfirmed != 3 {
					w.t.Errorf("%d mails, counts %+v", len(w.box.Accepted()), k)
				}
			},
			ignore: []string{"state", "reason", "counts"}, // sent, or its answer lost: both are ends
			skip:   []string{"news", "connections"},
		},
		{
			name:    "campaign.window by WhatsApp",
			prepare: func(w *world) { w.campaign("whatsapp", true) },
			do:      func(w *world) step { return run(w.bureau.HandleWindow, w.campaignJob(campaign.WindowJob, 1)) },
			skip:    []string{"news"}, // how far it got was told more often
			expect: func(w *world) {
				n, err := w.db.Count(context.Background(), store.Query{Kind: chat.Messages.Schema.Kind})
				w.must(err)
				if n != 3 {
					w.t.Errorf("%d messages", n)
				}
			},
		},
	}...)
}

// A job that took its run further, and died before the job of the next step was made, leaves nobody to make it but who is
// told of its death.
func TestAbandonedAfterItsCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rule(`{"trigger":"form_submitted","actions":[{"type":"whatsapp.text","text":"Hi"},{"type":"whatsapp.text","text":"Ho"}]}`)
	ctx := context.Background()
	_, err := w.engine.HandleEvent(ctx, w.tn, w.eventJob(nil))
	w.must(err)
	_, err = w.desk.HandleSend(ctx, w.tn, w.sendJob(1))
	w.must(err)
	first := w.onlyRun().Steps[0]
	advance := store.Job{ID: "job_1", Type: rule.AdvanceJob, Tenant: "ACME", Payload: payload(map[string]string{"runId": w.onlyRun().ID, "step": first.ID, "ref": first.Ref})}
	lost, err := w.engine.HandleAdvance(ctx, w.tn, advance)
	w.must(err)
	advance.State = store.Dead
	jobs := rule.Abandoned(advance)
	res, err := w.engine.HandleAbandoned(ctx, w.tn, store.Job{Type: jobs[0].Type, Tenant: "ACME", Payload: jobs[0].Payload})
	w.must(err)
	if len(res.Next) != 1 || res.Next[0].UniqueKey != lost.Next[0].UniqueKey || res.Next[0].Type != chat.SendJob {
		t.Errorf("made are %+v, lost were %+v", res.Next, lost.Next)
	}
	if r := w.onlyRun(); r.Ended() || r.Steps[1].State != rule.StepQueued {
		t.Errorf("run %+v", r)
	}
}

// An event that had its effect, and whose job died or was cancelled before it ended, leaves the jobs that follow to who is
// told of that; a cancelled one's runs are cancelled. One without an effect yet has nothing to follow.
func TestAbandonedEvent(t *testing.T) {
	t.Parallel()
	for state, want := range map[store.State]string{store.Dead: rule.RunActive, store.Cancelled: rule.RunCancelled} {
		w := newWorld(t)
		w.rule(`{"trigger":"form_submitted","actions":[{"type":"whatsapp.text","text":"Hi"}]}`)
		ctx, ev := context.Background(), w.eventJob(nil)
		abandon := func() []store.NewJob {
			dead := ev
			dead.State = state
			jobs := rule.Abandoned(dead)
			res, err := w.engine.HandleAbandoned(ctx, w.tn, store.Job{Type: jobs[0].Type, Tenant: "ACME", Payload: jobs[0].Payload})
			w.must(err)
			return res.Next
		}
		if next := abandon(); len(next) != 0 {
			t.Errorf("%s before its effect: %+v", state, next)
		}
		lost, err := w.engine.HandleEvent(ctx, w.tn, ev)
		w.must(err)
		next := abandon()
		if r := w.onlyRun(); r.State != want {
			t.Errorf("%s: the run is %s", state, r.State)
		}
		switch {
		case state == store.Cancelled && len(next) == 0:
		case state == store.Dead && len(next) == 1 && next[0].UniqueKey == lost.Next[0].UniqueKey && next[0].Type == chat.SendJob:
		default:
			t.Errorf("%s: made are %+v, lost were %+v", state, next, lost.Next)
		}
	}
}

// cutAll cuts one handler everywhere.
func cutAll(t *testing.T, c faultCase) {
	straight := newWorld(t)
	if c.prepare == nil {
		c.prepare = func(*world) {}
	}
	c.prepare(straight)
	do := c.do(straight)
	straight.cutter = storetest.Cut(straight.db, 1<<30)
	wantKeys, err := do(straight)
	straight.must(ignoreVerdict(err))
	writes := straight.cutter.Writes()
	straight.cutter = nil
	if c.settle != nil {
		c.settle(straight)
	}
	if c.expect != nil {
		c.expect(straight)
	}
	want := straight.stateBut(c.skip, c.ignore...)
	if writes == 0 {
		t.Fatal("the handler wrote nothing: this case tests nothing")
	}
	for cut := range writes {
		w := newWorld(t)
		c.prepare(w)
		do := c.do(w)
		w.cutter = storetest.Cut(w.db, cut)
		if _, err := do(w); !errors.Is(err, storetest.ErrCut) {
			t.Fatalf("cut after %d of %d writes: the handler gave %v", cut, writes, err)
		}
		w.cutter = nil
		gotKeys, err := again(w, do)
		w.must(ignoreVerdict(err))
		if c.settle != nil {
			c.settle(w)
		}
		if got := w.stateBut(c.skip, c.ignore...); got != want {
			t.Errorf("cut after %d of %d writes, then run again:\n%s", cut, writes, diff(want, got))
		}
		if c.either != "" {
			other := func(key string) bool { return strings.HasPrefix(key, c.either+" ") }
			gotKeys, wantKeys = slices.DeleteFunc(gotKeys, other), slices.DeleteFunc(wantKeys, other)
		}
		if fmt.Sprint(gotKeys) != fmt.Sprint(wantKeys) {
			t.Errorf("cut after %d of %d writes: jobs %v, want %v", cut, writes, gotKeys, wantKeys)
		}
	}
	t.Logf("%d cut points", writes)
}

// again runs a handler as its next claim would.
func again(w *world, do step) ([]string, error) { return do(w) }

// ignoreVerdict drops the errors by which a handler says what is to become of its job.
func ignoreVerdict(err error) error {
	if err == nil || errors.Is(err, storetest.ErrCut) || errors.Is(err, store.ErrUnavailable) {
		return err
	}
	return nil
}

func diff(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out []string
	for _, l := range a {
		if !slices.Contains(b, l) {
			out = append(out, "- "+short(l))
		}
	}
	for _, l := range b {
		if !slices.Contains(a, l) {
			out = append(out, "+ "+short(l))
		}
	}
	return strings.Join(out, "\n")
}

func short(s string) string {
	const most = 700
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
