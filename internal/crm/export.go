package crm

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// exportPage is how many leads are read at once.
const exportPage = 500

// Export is a list of leads as a file of rows: the columns of an import, which takes it back, and those that cannot be
// imported.
type Export struct {
	tn     *tenant.Tenant
	query  store.Query
	fields []string // custom ones
	ended  bool
}

var exported = []string{
	"id", "name", "phone", "email", "source", "pipeline", "stage", "status", "tags", "score", "grade", "ownerId", "value", "currency",
	"createdAt", "updatedAt", "lastActivityAt",
}

// Export begins an export. The leads are read twice: once to learn which custom fields there are.
func (b *Book) Export(ctx context.Context, tn *tenant.Tenant, q store.Query) (*Export, error) {
	q.Limit = exportPage
	e := &Export{tn: tn, query: q}
	names := map[string]bool{}
	for {
		ls, err := e.page(ctx)
		if err != nil {
			return nil, err
		}
		for _, l := range ls {
			for k := range l.Fields {
				names[k] = true
			}
		}
		if len(ls) == 0 {
			break
		}
	}
	e.query, e.ended, e.fields = q, false, slices.Sorted(maps.Keys(names))
	return e, nil
}

// page reads the next leads; none after the last.
func (e *Export) page(ctx context.Context) ([]*Lead, error) {
	if e.ended {
		return nil, nil
	}
	ls, err := Leads.Find(ctx, e.tn.DB, e.query)
	if err != nil {
		return nil, err
	}
	if e.ended = len(ls) < exportPage; !e.ended {
		last := ls[len(ls)-1]
		e.query.After = &store.Cursor{Value: Leads.Index(last)[e.query.Order], ID: last.ID}
	}
	return ls, nil
}

// Header names the columns.
func (e *Export) Header() []string {
	out := slices.Clone(exported)
	for _, f := range e.fields {
		low := strings.ToLower(f)
		if _, taken := writable[low]; taken || slices.Contains(readOnly, low) || strings.HasPrefix(f, "fields.") || strings.TrimSpace(f) != f {
			f = "fields." + f
		}
		out = append(out, Cell(f))
	}
	return out
}

// Next gives the next rows; none after the last.
func (e *Export) Next(ctx context.Context) ([][]string, error) {
	ls, err := e.page(ctx)
	rows := make([][]string, len(ls))
	for i, l := range ls {
		number := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
		rows[i] = []string{
			l.ID, Cell(l.Name), l.Phone, Cell(l.Email), Cell(l.Source), l.Pipeline, l.Stage, l.Status, Cell(strings.Join(l.Tags, ";")), number(l.Score), Cell(l.Grade),
			Cell(l.OwnerID), number(l.Value), Cell(l.Currency), *news.Stamp(l.CreatedAt), *news.Stamp(l.UpdatedAt), *news.Stamp(l.LastActivityAt),
		}
		for _, f := range e.fields {
			rows[i] = append(rows[i], cellOf(l.Fields[f]))
		}
	}
	return rows, err
}

// cellOf writes the value of a custom field.
func cellOf(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return Cell(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return Cell(string(b))
}
