package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/auth"
	"github.com/ecodrix/ecod/internal/media"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Export is the manifest of a client's export.
type Export struct {
	Format  int       `json:"format"`
	Version string    `json:"version"`
	Client  string    `json:"client"`
	At      time.Time `json:"at"`
	Records int       `json:"records"`
	Media   int       `json:"media"`
	Lost    []string  `json:"lost"` // ids of files whose bytes could not be had
	Files   []Entry   `json:"files"`
}

// notExported are kinds that mean something only here: who is signed in, and how the engine found others' services.
var notExported = map[string]bool{auth.Sessions.Schema.Kind: true, tenant.Connections.Schema.Kind: true}

// withheld are members of documents that are secrets, by kind.
var withheld = map[string][]string{auth.Users.Schema.Kind: {"passwordHash"}}

// ExportClient writes everything of one client into a tar (gzipped if its name says so) that needs no ecod to be read:
// client.json, a file of JSON lines for each kind of record, jobs.jsonl, and media by id. It holds no secret, and works
// beside a running engine; it is of one moment where the client's database is a file of ours.
func ExportClient(ctx context.Context, cfg Config, code, file, version string) (ex Export, err error) {
	code, ok := tenant.Code(code)
	if !ok {
		return ex, BadConfig{"The code is not a client code."}
	}
	if _, err := os.Lstat(file); err == nil {
		return ex, fmt.Errorf("%s is there already; an export is not written over anything", file)
	}
	if err := HasStorage(cfg); err != nil {
		return ex, err
	}
	keys, err := cfg.LoadKeys()
	if err != nil {
		return ex, err
	}
	e, err := OpenStorage(ctx, cfg)
	if err != nil {
		return ex, err
	}
	defer e.Close()
	r := e.Registry(keys.Ring, slog.New(slog.DiscardHandler), nil, nil)
	if err := r.Load(ctx); err != nil {
		return ex, err
	}
	defer func() { _ = r.Close(context.WithoutCancel(ctx)) }()
	tn, release, err := r.Use(ctx, code)
	if err != nil {
		return ex, err
	}
	defer release()
	work, err := os.MkdirTemp(filepath.Dir(file), ".ecod-export-")
	if err != nil {
		return ex, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	out, err := os.OpenFile(filepath.Join(work, "archive"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return ex, err
	}
	x := &exporter{
		ex: Export{Format: 1, Version: version, Client: code, At: time.Now().UTC(), Lost: []string{}}, e: e, tn: tn, work: work,
		w: newArchive(out, strings.HasSuffix(file, "gz")),
	}
	err = x.run(ctx, cfg)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return ex, err
	}
	if err := os.Rename(out.Name(), file); err != nil {
		return ex, err
	}
	return x.ex, syncDir(filepath.Dir(file))
}

type exporter struct {
	ex   Export
	e    *Storage
	tn   *tenant.Tenant
	work string
	w    *archive
}

func (x *exporter) run(ctx context.Context, cfg Config) error {
	if err := x.lines("client.json", func(put func(any) error) error { return put(publicAccount(x.tn.Account())) }); err != nil {
		return err
	}
	db, err := x.moment(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	for _, schema := range tenantSchemas {
		if notExported[schema.Kind] {
			continue
		}
		err := x.lines(schema.Kind+".jsonl", func(put func(any) error) error { return x.kind(ctx, db, schema.Kind, put) })
		if err != nil {
			return fmt.Errorf("%s: %w", schema.Kind, err)
		}
	}
	if err := x.lines("jobs.jsonl", func(put func(any) error) error { return x.jobs(ctx, put) }); err != nil {
		return err
	}
	if err := x.media(ctx, cfg, db); err != nil {
		return err
	}
	x.ex.Files = x.w.entries
	return x.w.finish(x.ex)
}

// moment gives the client's database: a file as it is now, elsewhere as it is while it is read.
func (x *exporter) moment(ctx context.Context) (store.DB, error) {
	switch url, err := x.e.at(x.tn.Account()); {
	case err != nil:
		return nil, err
	case url != "":
		return x.e.OpenDB(ctx, x.tn.Account())
	}
	s, err := sqlite.TakeSnapshot(ctx, x.e.path(x.tn.Code))
	if err != nil {
		return nil, err
	}
	copied := filepath.Join(x.work, "client.db")
	if err := errors.Join(s.CopyTo(ctx, copied), s.Close()); err != nil {
		return nil, err
	}
	return sqlite.Open(ctx, copied, tenantSchemas)
}

// publicAccount is what of an account is no secret.
func publicAccount(a *tenant.Account) map[string]any {
	m := map[string]any{
		"clientCode": a.Code, "name": a.Name, "status": a.Status, "timeZone": a.TimeZone, "locale": a.Locale, "defaultCountry": a.DefaultCountry,
		"allowedOrigins": a.AllowedOrigins, "settings": a.Settings, "createdAt": a.CreatedAt, "updatedAt": a.UpdatedAt,
	}
	if w := a.WhatsApp; w != nil {
		m["whatsapp"] = map[string]any{"wabaId": w.WABAID, "phoneNumberIds": w.PhoneNumberIDs}
	}
	if s := a.SMTP; s != nil {
		m["smtp"] = map[string]any{"host": s.Host, "port": s.Port, "security": s.Security, "from": s.From, "fromName": s.FromName, "replyTo": s.ReplyTo}
	}
	if g := a.Google; g != nil {
		m["google"] = map[string]any{"subject": g.Subject, "calendarId": g.CalendarID}
	}
	if s := a.Storage; s != nil {
		m["storage"] = map[string]any{"url": s.URL}
	}
	return m
}

// lines adds a file of JSON, a line each. It is made on the disk first: a tar names the size before the bytes.
func (x *exporter) lines(name string, fill func(put func(any) error) error) error {
	tmp := filepath.Join(x.work, "lines")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	enc := json.NewEncoder(f)
	enc.SetEscapeHTML(false)
	if err := fill(enc.Encode); err != nil {
		return err
	}
	return x.w.file(name, tmp)
}

// kind gives every record of a kind.
func (x *exporter) kind(ctx context.Context, db store.DB, kind string, put func(any) error) error {
	const page = 500
	q := store.Query{Kind: kind, Limit: page}
	for {
		recs, err := db.Find(ctx, q)
		if err != nil {
			return err
		}
		for _, rec := range recs {
			q.After = &store.Cursor{ID: rec.ID}
			doc := json.RawMessage(rec.Doc)
			if hide := withheld[kind]; len(hide) > 0 {
				var members map[string]json.RawMessage
				if err := json.Unmarshal(rec.Doc, &members); err != nil {
					return err
				}
				for _, m := range hide {
					delete(members, m)
				}
				if doc, err = json.Marshal(members); err != nil {
					return err
				}
			}
			line := struct {
				ID      string          `json:"id"`
				Version int64           `json:"version"`
				Seq     int64           `json:"seq,omitempty"`
				Doc     json.RawMessage `json:"doc"`
			}{rec.ID, rec.Version, rec.Seq, doc}
			if err := put(line); err != nil {
				return err
			}
			x.ex.Records++
		}
		if len(recs) < page {
			return nil
		}
	}
}

// jobs gives the client's jobs without their payloads, which are ids and what is sealed.
func (x *exporter) jobs(ctx context.Context, put func(any) error) error {
	const page = 500
	f := store.JobFilter{Tenant: x.tn.Code, Limit: page}
	for {
		jobs, err := x.e.Queue.Jobs(ctx, f)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			f.After = j.ID
			line := map[string]any{
				"id": j.ID, "type": j.Type, "state": j.State, "attempt": j.Attempt, "runAt": j.RunAt, "createdAt": j.CreatedAt,
				"causation": j.Causation, "errors": j.Errors,
			}
			if !j.EndedAt.IsZero() {
				line["endedAt"] = j.EndedAt
			}
			if err := put(line); err != nil {
				return err
			}
		}
		if len(jobs) < page {
			return nil
		}
	}
}

// media adds the bytes of the client's files, each content once, under the name of its hash.
func (x *exporter) media(ctx context.Context, cfg Config, db store.DB) error {
	spool := filepath.Join(x.work, "spool") // the engine's own is the engine's
	archive, err := openMedia(cfg, spool, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	const page = 500
	q := store.Query{Limit: page}
	for {
		files, err := media.Files.Find(ctx, db, q)
		if err != nil {
			return err
		}
		for _, f := range files {
			q.After = &store.Cursor{ID: f.ID}
			name := path.Join("media", f.SHA256)
			if f.Status != media.Stored || x.w.names[name] {
				continue
			}
			switch err := x.blob(ctx, archive, f, name); {
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, errBlob):
				x.ex.Lost = append(x.ex.Lost, f.ID)
			case err != nil:
				return err
			default:
				x.ex.Media++
			}
		}
		if len(files) < page {
			return nil
		}
	}
}

// errBlob: a file's bytes cannot be had.
var errBlob = errors.New("the bytes cannot be had")

func (x *exporter) blob(ctx context.Context, archive *media.Archive, f *media.File, name string) error {
	r, err := archive.Read(ctx, x.tn, f)
	if err != nil {
		return errors.Join(errBlob, err)
	}
	defer r.Close()
	tmp := filepath.Join(x.work, "blob")
	to, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err = io.Copy(to, r); err != nil {
		return errors.Join(errBlob, err, to.Close())
	}
	if err := to.Close(); err != nil {
		return err
	}
	return x.w.file(name, tmp)
}
