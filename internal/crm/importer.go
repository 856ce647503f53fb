package crm

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"

	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// importer works one import off.
type importer struct {
	book  *Book
	tn    *tenant.Tenant
	im    *Import
	sheet *sheet
	ahead []row // read, and not yet done
	ended bool  // the file has no more

	changes []*Change // of the window that was committed last; nil after a start
}

// row is a row as it is to be done.
type row struct {
	n      int // from 1 for the first below the header
	lead   *NewLead
	reason string // why it cannot be one
	next   int64  // where the row after it begins
}

// maxAhead is about how many bytes of a file are read ahead of what was done.
const maxAhead = 4 << 20

// person is what tells two rows of one window to be of different people: such rows are not done in one commit.
func (r row) persons() []string {
	var out []string
	if r.lead != nil && r.lead.Phone != "" {
		out = append(out, "tel:"+PhoneKey(r.lead.Phone))
	}
	if r.lead != nil && r.lead.Email != "" {
		out = append(out, "mail:"+r.lead.Email)
	}
	return out
}

func (w *importer) mutationID(n int) string { return w.im.ID + "|" + strconv.Itoa(n) }

// raise enqueues what the last window triggers. After a crash it finds out from what was recorded.
func (w *importer) raise(ctx context.Context) error {
	if w.im.Raised == w.im.Rows {
		return nil
	}
	if w.changes == nil {
		var ids []string
		for n := w.im.Raised + 1; n <= w.im.Rows; n++ {
			ids = append(ids, ChangeID(w.tn.Code, w.mutationID(n)))
		}
		var err error
		if w.changes, err = Changes.GetAll(ctx, w.tn.DB, ids...); err != nil {
			return err
		}
	}
	next, err := w.book.follow(ctx, w.tn, w.changes...)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(next, 500) {
		if _, err := w.book.Runner.Enqueue(ctx, part...); err != nil {
			return err
		}
	}
	w.im.Raised, w.changes = w.im.Rows, nil
	return nil
}

// fetch reads on until a window is ahead.
func (w *importer) fetch(stages Stages) error {
	country := w.tn.Account().DefaultCountry
	n := w.im.Rows
	if len(w.ahead) > 0 {
		n = w.ahead[len(w.ahead)-1].n
	}
	for len(w.ahead) < window && !w.ended && (len(w.ahead) == 0 || w.sheet.offset()-w.im.Offset < maxAhead) {
		cells, wrong, err := w.sheet.next()
		if errors.Is(err, io.EOF) {
			w.ended = true
			return nil
		}
		if err != nil {
			return job.Dead("import.file", err)
		}
		n++
		r := row{n: n, next: w.sheet.offset(), reason: wrong}
		if wrong != "" {
			// told as it is
		} else if r.lead, r.reason = w.sheet.lead(cells, country, stages); r.reason != "" {
			r.lead = nil
		}
		w.ahead = append(w.ahead, r)
	}
	return nil
}

// window does some rows in one commit, or ends the import where there are none. Where others change the same leads all
// the time, it becomes smaller.
func (w *importer) window(ctx context.Context) error {
	stages, err := w.book.Stages(ctx, w.tn)
	if err != nil {
		return err
	}
	if err := w.fetch(stages); err != nil {
		return err
	}
	if len(w.ahead) == 0 {
		w.im.EndAt = w.book.Now().UTC()
		return w.commit(ctx, *w.im, nil)
	}
	size := window
	for range 20 {
		err = w.rows(ctx, stages, size)
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrDuplicate) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		size = max(1, size/4)
	}
	return job.Retry(0, "contention", err)
}

// rows does at most so many rows, of different people each.
func (w *importer) rows(ctx context.Context, stages Stages, most int) error {
	var taken []row
	seen := map[string]bool{}
	for _, r := range w.ahead[:min(len(w.ahead), most)] {
		ps := r.persons()
		if slices.ContainsFunc(ps, func(p string) bool { return seen[p] }) {
			break
		}
		for _, p := range ps {
			seen[p] = true
		}
		taken = append(taken, r)
	}
	known, err := w.known(ctx, taken)
	if err != nil {
		return err
	}
	im := *w.im
	changes := []*Change{}
	var writes []store.Write
	tags := map[string]bool{}
	for i, r := range taken {
		c, ws, reason, err := w.row(ctx, stages, r, known)
		if err != nil {
			return err
		}
		if len(writes)+len(ws) > store.MaxWrites-10 {
			taken = taken[:i]
			break
		}
		im.Rows, im.Offset = r.n, r.next
		if reason == "" {
			im.Done++
		} else {
			im.Failed++
		}
		if c != nil {
			changes = append(changes, c)
		}
		for _, wr := range ws {
			if wr.Kind == Tags.Schema.Kind {
				if tags[wr.ID] {
					continue
				}
				tags[wr.ID] = true
			}
			writes = append(writes, wr)
		}
	}
	if err := w.commit(ctx, im, writes); err != nil {
		return err
	}
	w.ahead, w.changes = w.ahead[len(taken):], changes
	return nil
}

// commit writes a window, and with it, last, how far the import got.
func (w *importer) commit(ctx context.Context, im Import, writes []store.Write) error {
	if err := w.tn.DB.Commit(ctx, append(writes, Imports.Update(&im))...); err != nil {
		return err
	}
	im.Version++
	*w.im = im
	return nil
}

// known are the records of rows that an engine without transactions may have left standing when it was cut.
func (w *importer) known(ctx context.Context, rows []row) (map[string]*Change, error) {
	var ids []string
	for _, r := range rows {
		ids = append(ids, ChangeID(w.tn.Code, w.mutationID(r.n)))
	}
	cs, err := Changes.GetAll(ctx, w.tn.DB, ids...)
	out := map[string]*Change{}
	for _, c := range cs {
		out[c.ID] = c
	}
	return out, err
}

// row works one row out: its change and its writes, or why it is left out.
func (w *importer) row(ctx context.Context, stages Stages, r row, known map[string]*Change) (*Change, []store.Write, string, error) {
	if r.reason != "" {
		return nil, w.failed(r, r.reason), r.reason, nil
	}
	m := &Mutation{ID: w.mutationID(r.n), By: w.im.By, Cause: ByImport, Ref: w.im.ID, At: w.im.At}
	var recorded store.Meta
	if c := known[ChangeID(w.tn.Code, m.ID)]; c != nil {
		m.LeadID, recorded = c.LeadID, c.Meta
		if made, err := w.book.made(ctx, w.tn, m, c); err != nil || made {
			return c, nil, "", err
		}
	}
	l, err := w.book.FindLead(ctx, w.tn, r.lead.Phone, r.lead.Email)
	switch {
	case err == nil:
		m.LeadID, m.Fill = l.ID, r.lead
	case errors.Is(err, store.ErrNotFound):
		m.LeadID, m.Create = "", r.lead
	default:
		return nil, nil, "", err
	}
	e, err := w.book.work(ctx, w.tn, m, stages, recorded)
	if f, refused := refusal(err); refused {
		reason := f.Detail
		if len(f.Fields) > 0 {
			reason = f.Fields[0].Detail
		}
		return nil, w.failed(r, reason), reason, nil
	}
	if err != nil {
		return nil, nil, "", err
	}
	if e.change.Idle {
		return nil, nil, "", nil
	}
	return e.change, e.writes, "", nil
}

func (w *importer) failed(r row, reason string) []store.Write {
	return []store.Write{RowErrors.Ensure(&RowError{
		ID: id.Derived("ime", w.im.ID, strconv.Itoa(r.n)), ImportID: w.im.ID, Row: r.n + 1, Reason: reason, At: w.im.At,
	})}
}
