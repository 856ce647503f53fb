package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/media"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Finding is one line of the doctor.
type Finding struct {
	Name   string
	OK     bool
	Detail string
	Mend   string // of what is not OK
}

const (
	doctorsAtOnce = 8                // clients that are looked at at the same time
	tooLong       = 10 * time.Minute // for work that an engine should have begun
	leastFree     = 1 << 30          // bytes of disk
)

// doctor looks at an installation and tells what it finds, line by line.
type doctor struct {
	cfg  Config
	tell func(Finding)
	bad  int
}

func (d *doctor) line(name string, err error, detail, mend string) bool {
	f := Finding{Name: name, OK: err == nil, Detail: detail, Mend: mend}
	if err != nil {
		d.bad++
		if f.Detail = strings.TrimSuffix(err.Error(), "."); detail != "" {
			f.Detail += " (" + detail + ")"
		}
	} else {
		f.Mend = ""
	}
	d.tell(f)
	return err == nil
}

// Examine checks configuration, storage and keys, and every client's database and accounts (one client's only, if named)
// by live calls. It works beside a running engine and without one, and gives the number of checks that failed. mistakes
// are those that were found in the configuration.
func Examine(ctx context.Context, cfg Config, mistakes error, client string, tell func(Finding)) (failed int, err error) {
	d := &doctor{cfg: cfg, tell: tell}
	if client != "" {
		code, ok := tenant.Code(client)
		if !ok {
			return 0, BadConfig{"--client is not a client code."}
		}
		client = code
	}
	var bad BadConfig
	if errors.As(mistakes, &bad) {
		for _, m := range bad {
			d.line("configuration", errors.New(m), "", "ecod config shows every setting and its source")
		}
	} else if d.line("configuration", mistakes, "", "ecod config shows every setting and its source") {
		d.publicURL()
		d.bus(ctx)
	}
	if !d.folder() {
		return d.bad, nil
	}
	d.storage(ctx, client)
	return d.bad, nil
}

// bus joins the bus to other nodes, as the engine does.
func (d *doctor) bus(ctx context.Context) {
	if d.cfg.RedisURL == "" {
		return
	}
	b, err := openBus(d.cfg, slog.New(slog.DiscardHandler))
	if err == nil {
		for end := time.Now().Add(checkTime / 2); ; time.Sleep(50 * time.Millisecond) {
			if err = b.Healthy(); err == nil || time.Now().After(end) || ctx.Err() != nil {
				break
			}
		}
		_ = b.Close()
	}
	d.line("redis", err, "answers", "look whether Redis runs and ECOD_REDIS_URL names it; without it nodes hear of each other seconds later, and nothing is lost")
}

func (d *doctor) publicURL() {
	switch u := d.cfg.PublicURL; {
	case strings.HasPrefix(u, "https://"):
		d.line("public URL", nil, u, "")
	case u == "":
		d.line("public URL", nil, "not set: links in mails and Meta's webhooks cannot reach this machine from outside, which is fine on a desk", "")
	default:
		d.line("public URL", fmt.Errorf("%s is not https", u), "", "set ECOD_PUBLIC_URL to the https:// address that the proxy serves: campaigns and Meta want it")
	}
}

// folder looks at the data folder without making anything; false: there is nothing more to look at.
func (d *doctor) folder() bool {
	dir := d.cfg.DataDir
	if err := HasStorage(d.cfg); err != nil {
		d.line("data folder", err, "", "start ecod serve once, or set ECOD_DATA_DIR to where the data is")
		return false
	}
	if d.cfg.DatabaseURL != "" { // the folder holds what is on its way, and may be made by the first start
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return d.line("data folder", err, "", "let the user that runs ecod own the folder")
		}
	}
	probe, err := os.CreateTemp(dir, ".doctor-")
	if err == nil {
		if _, err = probe.WriteString("x"); err == nil {
			err = probe.Sync()
		}
		err = errors.Join(err, probe.Close(), os.Remove(probe.Name()))
	}
	if !d.line("data folder", plainPath(err), dir+" can be written", "let the user that runs ecod own the folder, and free some disk") {
		return false
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err == nil {
		free := int64(fs.Bavail) * fs.Bsize //nolint:unconvert // its type differs between systems
		var low error
		if free < leastFree {
			low = fmt.Errorf("%d MiB are free", free>>20)
		}
		d.line("disk", low, fmt.Sprintf("%.1f GiB free", float64(free)/(1<<30)), "free some, or enlarge the disk: what cannot be stored is refused")
	}
	if d.cfg.DatabaseURL != "" {
		return true // who serves, the database tells
	}
	if h, yes := serving(dir); yes {
		d.line("engine", nil, fmt.Sprintf("serves this folder as process %d", h.PID), "")
	} else {
		d.line("engine", nil, "none serves this folder now", "")
	}
	return true
}

// plainPath keeps what went wrong with a file and leaves out its temporary name.
func plainPath(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return fmt.Errorf("%s: %w", filepath.Dir(p.Path), p.Err)
	}
	return err
}

func (d *doctor) storage(ctx context.Context, client string) {
	keys, keysErr := d.keyFile()
	e, err := OpenStorage(ctx, d.cfg)
	mend := "put " + servicesFile + " back from the last backup: ecod restore"
	if d.cfg.DatabaseURL != "" {
		mend = "look whether the server runs, whether this machine reaches it, and whether name, password and authSource in ECOD_DATABASE_URL are right"
	}
	if !d.line("services database", err, "opens", mend) {
		return
	}
	defer e.Close()
	if e.Shared() {
		d.nodes(ctx, e)
	}
	if db, ok := e.Services.(*sqlite.DB); ok {
		d.line("integrity", db.Sound(ctx), "quick_check finds no damage", "stop the engine, keep a copy of the folder, and restore the last backup")
	}
	d.queue(ctx, e)
	d.inbox(ctx, e)
	if keysErr != nil {
		return // without keys nothing of what follows can be read
	}
	if e.Shared() {
		d.line("keys fit", keysFit(ctx, e.Services, keys.Ring), "they open what the nodes seal", "set the same ECOD_SECRET_KEYS on every node")
	}
	d.seals(ctx, e, keys)
	d.media(ctx)
	d.clients(ctx, e, keys, client)
}

func (d *doctor) keyFile() (Keys, error) {
	if d.cfg.SecretKeys != "" {
		k, err := d.cfg.LoadKeys()
		d.line("keys", err, "set in ECOD_SECRET_KEYS", "set the keys that the data was sealed with")
		return k, err
	}
	file := filepath.Join(d.cfg.DataDir, keysFile)
	if missing(file) {
		err := fmt.Errorf("%s is gone", file)
		d.line("keys", err, "", "put it back from your backup: without it no stored secret can be read")
		return Keys{}, err
	}
	k, err := d.cfg.LoadKeys()
	if err == nil {
		for _, name := range []string{keysFile, "admin-token"} {
			if st, serr := os.Stat(filepath.Join(d.cfg.DataDir, name)); serr == nil && st.Mode().Perm()&0o077 != 0 {
				d.line("keys", fmt.Errorf("%s can be read by others (mode %04o)", name, st.Mode().Perm()), "", "chmod 600 "+filepath.Join(d.cfg.DataDir, name))
				return k, nil
			}
		}
	}
	d.line("keys", err, file+", for its owner only", "put the file back from your backup")
	return k, err
}

func (d *doctor) queue(ctx context.Context, e *Storage) {
	n, err := e.Queue.JobCounts(ctx, "")
	if err != nil {
		d.line("queue", err, "", "see integrity")
		return
	}
	detail := fmt.Sprintf("%d ready, %d running, %d scheduled, %d parked, %d dead", n[store.Ready], n[store.Running], n[store.Scheduled], n[store.Parked], n[store.Dead])
	due, err := e.Queue.Jobs(ctx, store.JobFilter{AllTenants: true, States: []store.State{store.Ready}, Limit: 1000})
	if err == nil {
		for _, j := range due {
			if waits := time.Since(j.RunAt); waits > tooLong {
				err = fmt.Errorf("jobs wait since %s", waits.Round(time.Minute))
				break
			}
		}
	}
	d.line("queue", err, detail, "start ecod serve; if it runs, raise ECOD_WORKER_CONCURRENCY and look at /api/admin/lanes")
}

// nodes tells who serves from a shared database.
func (d *doctor) nodes(ctx context.Context, e *Storage) {
	nodes, err := present(ctx, e.Services, time.Now())
	var who []string
	for _, n := range nodes {
		who = append(who, fmt.Sprintf("%s (%s, process %d)", n.Addr, n.Host, n.PID))
	}
	if len(who) == 0 {
		who = []string{"none serves from this database now"}
	}
	d.line("engine", err, strings.Join(who, ", "), "see services database")
	if err == nil && len(nodes) > 1 {
		d.mediaOfNodes(nodes)
	}
}

// mediaOfNodes tells whether nodes share the media folder, where it is one.
func (d *doctor) mediaOfNodes(nodes []*Node) {
	dir, local := d.folderOfMedia()
	if !local {
		return
	}
	folder, err := media.NewFolder(dir)
	var who []string
	if err == nil {
		who, err = strangers(folder, nodes)
	}
	if err == nil && len(who) > 0 {
		err = fmt.Errorf("nodes put media elsewhere than into %s: %s", dir, strings.Join(who, "; "))
	}
	d.line("media of nodes", plainPath(err), fmt.Sprintf("%d nodes share %s", len(nodes), dir), "set ECOD_MEDIA_URL to a bucket, or to a folder that all nodes share, and call the doctor with the same")
}

func (d *doctor) inbox(ctx context.Context, e *Storage) {
	dir := filepath.Join(d.cfg.DataDir, "inbox")
	if _, err := os.Stat(dir); !e.Shared() && errors.Is(err, os.ErrNotExist) {
		d.line("inbox", nil, "no webhook was received yet", "")
		return
	}
	in, err := e.OpenInbox(ctx)
	if err != nil {
		d.line("inbox", err, "", "let the user that runs ecod own "+dir)
		return
	}
	defer in.Close()
	old, err := in.Pending(ctx, time.Now().Add(-tooLong), "", 1000)
	if err == nil && len(old) > 0 {
		err = fmt.Errorf("%d webhooks or more wait to be sorted for longer than %s", len(old), tooLong)
	}
	kept, kerr := in.Deliveries(ctx, store.DeliveryFilter{States: []store.DeliveryState{store.Unresolved, store.Failed}, Limit: 1000})
	detail := "nothing waits"
	if kerr == nil && len(kept) > 0 {
		detail = fmt.Sprintf("nothing waits; %d are kept that belong to nobody or could not be read: GET /api/admin/deliveries", len(kept))
	}
	d.line("inbox", errors.Join(err, kerr), detail, "start ecod serve; its log says why it does not sort them")
}

func (d *doctor) seals(ctx context.Context, e *Storage, keys Keys) {
	found, err := walkSeals(ctx, e, keys.Ring, false)
	var used []string
	for kid, n := range found.InUse {
		used = append(used, fmt.Sprintf("%s: %d", kid, n))
	}
	slices.Sort(used)
	detail := "nothing is sealed yet"
	if len(used) > 0 {
		detail = "values by key: " + strings.Join(used, ", ")
	}
	if n := len(found.Unreadable); err == nil && n > 0 {
		err = fmt.Errorf("%d do not open: %s", n, strings.Join(found.Unreadable[:min(n, 5)], ", "))
	}
	d.line("sealed values", err, detail, "put back the key that sealed them (ECOD_SECRET_KEYS or secret-keys), or set the values anew")
}

// folderOfMedia gives the media folder; false: media are in a bucket.
func (d *doctor) folderOfMedia() (dir string, local bool) {
	if d.cfg.MediaURL == "" { // the configuration is wrong, and was not resolved
		return filepath.Join(d.cfg.DataDir, "media"), true
	}
	return mediaFolder(d.cfg.MediaURL)
}

// media checks the operator's bucket, where one is set.
func (d *doctor) media(ctx context.Context) {
	if dir, local := d.folderOfMedia(); local {
		_, err := media.NewFolder(dir)
		d.line("media", err, dir, "let the user that runs ecod own the folder")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	l := newLines(d.cfg)
	defer l.close()
	if t := l.bucket(ctx, d.cfg.bucket, transport()); t != nil {
		d.line("media", errors.New(t.detail), "", "look at ECOD_MEDIA_URL and the AWS_ keys: the bucket must exist, and the keys may list, read, write and delete")
		return
	}
	d.line("media", nil, d.cfg.bucket.String(), "")
}

// clients looks at the clients side by side and tells of them in order.
func (d *doctor) clients(ctx context.Context, e *Storage, keys Keys, only string) {
	r := e.Registry(keys.Ring, slog.New(slog.DiscardHandler), nil, nil)
	if err := r.Load(ctx); err != nil {
		d.line("clients", err, "", "see integrity")
		return
	}
	defer func() { _ = r.Close(ctx) }()
	var accounts []*tenant.Account
	for after := ""; ; {
		page, err := r.List(ctx, after, 500)
		if err != nil {
			d.line("clients", err, "", "see integrity")
			return
		}
		for _, a := range page {
			if after = a.Code; only == "" || a.Code == only {
				accounts = append(accounts, a)
			}
		}
		if len(page) < 500 {
			break
		}
	}
	if only != "" && len(accounts) == 0 {
		d.line("client "+only, errors.New("there is no such client"), "", "ecod client list shows those there are")
		return
	}
	l := newLines(d.cfg)
	defer l.close()
	results := make([]chan []func(), len(accounts))
	slots := make(chan struct{}, doctorsAtOnce)
	var wg sync.WaitGroup
	for i, a := range accounts {
		results[i] = make(chan []func(), 1)
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results[i] <- d.client(ctx, r, l, a)
		})
	}
	for _, lines := range results {
		for _, say := range <-lines {
			say()
		}
	}
	wg.Wait()
}

// client looks at one client; what is to be told is told by the caller.
func (d *doctor) client(ctx context.Context, r *tenant.Registry, l *lines, a *tenant.Account) (say []func()) {
	name := "client " + a.Code
	line := func(name string, err error, detail, mend string) {
		say = append(say, func() { d.line(name, err, detail, mend) })
	}
	switch a.Status {
	case tenant.Unreadable:
		line(name, errors.New("its document in ClientSecrets does not decode"), "", "mend the document by hand; what was known of it serves on")
		return say
	case tenant.Erasing:
		line(name, nil, "is being erased", "")
		return say
	case tenant.Moving:
		line(name, nil, "is being moved", "")
		return say
	}
	if err := a.Validate(); err != nil {
		line(name+" timeZone", err, "", "set timeZone in its document, or by PATCH /api/clients/"+a.Code+"; until then it is served with UTC")
	}
	tn, release, err := r.Use(ctx, a.Code)
	if err == nil {
		defer release()
		_, err = tn.DB.Count(ctx, store.Query{Kind: tenant.Connections.Schema.Kind})
	}
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Err != nil {
		err = f.Err
	}
	line(name, err, a.Status+", its database opens", "restore the client's database from the last backup, or look at who owns the folder, or whether its server runs")
	if err != nil {
		return say
	}
	set := map[string]bool{}
	for _, s := range a.Secrets() {
		set[s.Name] = true
	}
	found := make([]*trouble, len(links))
	var wg sync.WaitGroup
	for i, link := range links {
		if set[link] {
			wg.Go(func() { found[i] = l.check(ctx, tn, link) })
		}
	}
	wg.Wait()
	for i, link := range links {
		switch t := found[i]; {
		case !set[link]:
		case t != nil:
			line(name+" "+link, errors.New(t.detail), "", t.mend)
		default:
			line(name+" "+link, nil, "answers", "")
		}
		if set[link] && ctx.Err() == nil {
			if _, err := record(ctx, tn, link, found[i]); err != nil {
				line(name+" "+link, fmt.Errorf("what was found cannot be kept: %w", err), "", "see integrity")
			}
		}
	}
	return say
}
