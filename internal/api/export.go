package api

import (
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
)

// export answers leads as a CSV file, page by page.
func (s imports) export(w http.ResponseWriter, r *http.Request) error {
	tn, release, err := s.api.Open(r.Context())
	if err != nil {
		return err
	}
	defer release()
	f, err := leadFilter(r.URL.Query())
	if err != nil {
		return err
	}
	q, err := crm.LeadQuery(f, tn.Account().DefaultCountry)
	if err != nil {
		return inQuery(err)
	}
	e, err := s.book.Export(r.Context(), tn, q)
	if err != nil {
		return err
	}
	out := csvAnswer(w, "leads.csv")
	if err := out.Write(e.Header()); err != nil {
		return err
	}
	for {
		rows, err := e.Next(r.Context())
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			out.Flush()
			return out.Error()
		}
		for _, row := range rows {
			if err := out.Write(row); err != nil {
				return err
			}
		}
	}
}

// leadFilter reads the filters of leads from a query, as the list of leads has them.
func leadFilter(q url.Values) (crm.LeadFilter, error) {
	var bad []fault.Field
	add := func(name, detail string) { bad = append(bad, fault.Field{Pointer: "query." + name, Detail: detail}) }
	text := func(name string, most int) string {
		v := q.Get(name)
		if len(v) > most {
			add(name, "Expected at most "+strconv.Itoa(most)+" characters.")
		}
		return v
	}
	number := func(name string) *float64 {
		if !q.Has(name) {
			return nil
		}
		v, err := strconv.ParseFloat(q.Get(name), 64)
		if err != nil || math.IsNaN(v) || math.Abs(v) > 1e9 {
			add(name, "Expected a number.")
		}
		return &v
	}
	moment := func(name string) time.Time {
		var t Time
		if v := q.Get(name); v != "" {
			if err := t.UnmarshalText([]byte(v)); err != nil {
				add(name, "Expected an RFC 3339 date-time.")
			}
		}
		return t.Time
	}
	f := crm.LeadFilter{
		Q: text("q", 200), Phone: text("phone", 64), Email: text("email", 254), Pipeline: text("pipeline", 100), Stage: text("stage", 100),
		Status: text("status", 10), Source: text("source", 100), OwnerID: text("ownerId", 100), Sort: text("sort", 32),
		Tags:     slices.DeleteFunc(q["tag"], func(t string) bool { return t == "" }),
		ScoreMin: number("scoreMin"), ScoreMax: number("scoreMax"), CreatedAfter: moment("createdAfter"), CreatedBefore: moment("createdBefore"),
	}
	if f.Status != "" && f.Status != crm.Open && f.Status != crm.Won && f.Status != crm.Lost {
		add("status", "Expected open, won or lost.")
	}
	if len(f.Tags) > 10 {
		add("tag", "Expected at most 10.")
	}
	return f, fault.BadFields(bad)
}
