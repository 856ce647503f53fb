package crm

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// ImportJob is the type of the job that makes leads of a file's rows.
const ImportJob = "crm.import"

// ImportsKept is how long an import, its failures and its file are kept.
const ImportsKept = 30 * 24 * time.Hour

// Import is how far the import of a file got. It is written with each window of rows, so that a crash costs none and
// does none twice.
type Import struct {
	store.Meta
	ID     string    `json:"id"`
	JobID  string    `json:"jobId"`
	By     string    `json:"by,omitempty"`
	At     time.Time `json:"at"`
	Total  int       `json:"total"`
	Rows   int       `json:"rows"`   // that were looked at
	Offset int64     `json:"offset"` // of the next in the file
	Raised int       `json:"raised"` // rows whose triggers are durable
	Done   int       `json:"done"`
	Failed int       `json:"failed"`
	EndAt  time.Time `json:"endAt,omitzero"`
}

// Imports is the kind.
var Imports = store.Kind[Import]{
	Schema: store.Schema{
		Kind:   "leadImports",
		Fields: []store.Field{{Name: "jobId", Type: store.Text, Unique: true}, {Name: "at", Type: store.Int}},
		Orders: [][]string{{"at"}},
	},
	Key:   func(i *Import) string { return i.ID },
	Index: func(i *Import) store.Fields { return store.Fields{"jobId": i.JobID, "at": i.At.UnixMilli()} },
	Meta:  func(i *Import) *store.Meta { return &i.Meta },
}

// RowError says why a row of an import was left out.
type RowError struct {
	store.Meta
	ID       string    `json:"id"`
	ImportID string    `json:"importId"`
	Row      int       `json:"row"` // as a spreadsheet counts: the header is 1
	Reason   string    `json:"reason"`
	At       time.Time `json:"at"`
}

// RowErrors is the kind.
var RowErrors = store.Kind[RowError]{
	Schema: store.Schema{
		Kind:   "leadImportErrors",
		Fields: []store.Field{{Name: "importId", Type: store.Text}, {Name: "row", Type: store.Int}, {Name: "at", Type: store.Int}},
		Orders: [][]string{{"importId", "row"}, {"at"}},
	},
	Key: func(e *RowError) string { return e.ID },
	Index: func(e *RowError) store.Fields {
		return store.Fields{"importId": e.ImportID, "row": int64(e.Row), "at": e.At.UnixMilli()}
	},
	Meta: func(e *RowError) *store.Meta { return &e.Meta },
}

type importPayload struct {
	ImportID string    `json:"importId"`
	Total    int       `json:"total"`
	By       string    `json:"by,omitempty"`
	At       time.Time `json:"at"`
}

// ImportFile takes a file in; once per key. It is durable, and so is the job that imports it, when ImportFile returns.
// What cannot be imported at all is a fault.
func (b *Book) ImportFile(ctx context.Context, tn *tenant.Tenant, key, by string, r io.Reader) (jobID string, err error) {
	importID := id.Derived("imp", tn.Code, key)
	if err := b.keep(ctx, tn.Code, importID, r); err != nil {
		return "", err
	}
	f, err := b.Files.Open(tn.Code, importID)
	if err != nil {
		return "", err
	}
	total, err := ScanSheet(f)
	_ = f.Close()
	if err != nil {
		if _, refused := refusal(err); refused {
			_ = b.done(ctx, tn.Code, importID)
		}
		return "", err
	}
	n := job.New(tn.Code, ImportJob, importPayload{importID, total, by, b.Now().UTC().Truncate(time.Millisecond)})
	n.UniqueKey, n.KeyHash = "import:"+importID, importID
	made, err := b.Runner.Offer(ctx, n)
	if err != nil {
		if fault.Of(err) == fault.Limited { // the call can be repeated: it brings the file again
			_ = b.done(ctx, tn.Code, importID)
		}
		return "", err
	}
	return made[0].Job.ID, nil
}

// importResult is what the job of an import shows in the end.
type importResult struct {
	ImportID  string `json:"importId"`
	Done      int    `json:"done"`
	Failed    int    `json:"failed"`
	ErrorsURL string `json:"errorsUrl"`
}

func (b *Book) resultOf(im *Import) importResult {
	return importResult{im.ID, im.Done, im.Failed, b.PublicURL + "/api/crm/imports/" + im.ID + "/errors"}
}

// HandleImport is the handler of ImportJob. It works in windows of rows: what a window changes, and that it was done, is
// one commit; what the changes trigger is enqueued before the next.
func (b *Book) HandleImport(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[importPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	im, err := Imports.Get(ctx, tn.DB, p.ImportID)
	if errors.Is(err, store.ErrNotFound) {
		im, err = &Import{ID: p.ImportID, JobID: j.ID, By: p.By, At: p.At, Total: p.Total}, nil
	}
	if err != nil {
		return job.Result{}, err
	}
	if !im.EndAt.IsZero() {
		return job.Result{Result: b.resultOf(im)}, nil
	}
	f, err := b.kept(ctx, tn.Code, im.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return job.Result{}, job.Dead("import.file_gone", errors.New("the file is not there any more"))
	}
	if err != nil {
		return job.Result{}, err
	}
	defer func() { _ = f.Close() }()
	s, err := openSheet(f)
	if err != nil {
		return job.Result{}, job.Dead("import.file", err)
	}
	if im.Rows > 0 {
		if err := s.seek(f, im.Offset); err != nil {
			return job.Result{}, err
		}
	}
	w := &importer{book: b, tn: tn, im: im, sheet: s}
	for im.EndAt.IsZero() {
		if err := w.raise(ctx); err != nil {
			return job.Result{}, err
		}
		if err := w.window(ctx); err != nil {
			return job.Result{}, err
		}
	}
	if err := b.done(ctx, tn.Code, im.ID); err != nil {
		return job.Result{}, err
	}
	return job.Result{Result: b.resultOf(im)}, nil
}

// ImportOf gives the import of a job; fault.NotFound.
func (b *Book) ImportOf(ctx context.Context, tn *tenant.Tenant, jobID string) (*Import, error) {
	im, err := Imports.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("jobId", store.Eq, jobID)}})
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.Missing("import")
	}
	return im, err
}

// ImportErrors gives the rows that an import left out, after a row; fault.NotFound.
func (b *Book) ImportErrors(ctx context.Context, tn *tenant.Tenant, importID string, after *RowError, limit int) ([]*RowError, error) {
	if _, err := Imports.Get(ctx, tn.DB, importID); errors.Is(err, store.ErrNotFound) {
		return nil, fault.Missing("import")
	} else if err != nil {
		return nil, err
	}
	q := store.Query{Where: []store.Term{store.Where("importId", store.Eq, importID)}, Order: "row", Limit: limit}
	if after != nil {
		q.After = &store.Cursor{Value: int64(after.Row), ID: after.ID}
	}
	return RowErrors.Find(ctx, tn.DB, q)
}
