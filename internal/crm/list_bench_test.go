package crm_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
)

// bookOf fills a database with leads as a busy client has them.
func bookOf(tb testing.TB, n int) store.DB {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "t.db")
	if p := os.Getenv("ECOD_TEST_LEADS_DB"); p != "" { // kept between runs
		path = p
	}
	db, err := sqlite.Open(context.Background(), path, crm.Schemas)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	have, err := db.Count(context.Background(), store.Query{Kind: "leads"})
	if err != nil {
		tb.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	names := []string{"Ana María", "Ben", "Dhanesh", "Zoë", "Arjun", "Priya", "Lena", "Omar"}
	var writes []store.Write
	for i := int(have); i < n; i++ {
		at = at.Add(time.Duration(r.IntN(60000)) * time.Millisecond)
		l := &crm.Lead{
			ID: fmt.Sprintf("led_%016x", r.Uint64()), Name: fmt.Sprintf("%s %s %d", names[r.IntN(8)], names[r.IntN(8)], i), Phone: fmt.Sprintf("+9181%08d", i), Email: fmt.Sprintf("p%d@example.com", i),
			Source: []string{"website", "fair", "import", "rare"}[min(3, r.IntN(1000)/333)], Pipeline: "default", Stage: []string{"new", "contacted", "qualified", "booked", "won", "lost"}[r.IntN(6)],
			Status: "open", OwnerID: fmt.Sprint("own", r.IntN(20)), Score: float64(r.IntN(100)), Tags: []string{"all", fmt.Sprint("t", r.IntN(50))}, Fields: map[string]any{"doctor": "Dr. Arjun", "town": "Pune", "notes": "Some words about this person that are kept here."},
			CreatedAt: at, UpdatedAt: at.Add(time.Duration(r.IntN(1e6)) * time.Second), LastActivityAt: at.Add(time.Duration(r.IntN(1e6)) * time.Second),
		}
		if l.Stage == "won" || l.Stage == "lost" {
			l.Status = l.Stage
		}
		if i%1000 == 0 {
			l.Tags = append(l.Tags, "rare")
		}
		writes = append(writes, crm.Leads.Insert(l))
		if len(writes) == 1000 || i == n-1 {
			if err := db.Commit(context.Background(), writes...); err != nil {
				tb.Fatal(err)
			}
			writes = nil
		}
	}
	return db
}

func num(v float64) *float64 { return &v }

// filters are what people ask a list for.
func filters() map[string]crm.LeadFilter {
	base := map[string]crm.LeadFilter{
		"all": {}, "q": {Q: "ana"}, "q two": {Q: "pri 77"}, "q rare": {Q: "p99999"}, "q letter": {Q: "a"}, "phone": {Phone: "+918100004711"}, "email": {Email: "p4711@example.com"}, "tag all": {Tags: []string{"all"}},
		"tag t7": {Tags: []string{"t7"}}, "tag rare": {Tags: []string{"rare"}}, "tags": {Tags: []string{"all", "t7"}}, "no tag": {Tags: []string{"absent"}}, "pipeline": {Pipeline: "default"}, "no pipeline": {Pipeline: "x"}, "stage": {Stage: "booked"}, "status": {Status: "open"}, "won": {Status: "won"},
		"source": {Source: "website"}, "source rare": {Source: "rare"}, "owner": {OwnerID: "own7"}, "no owner": {OwnerID: "nobody"}, "score": {ScoreMin: num(90)}, "score none": {ScoreMin: num(1000)}, "score band": {ScoreMin: num(50), ScoreMax: num(50)},
		"after": {CreatedAfter: time.Date(2026, 1, 20, 0, 0, 0, 0, time.UTC)}, "before": {CreatedBefore: time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC)},
		"owner stage": {OwnerID: "own7", Stage: "won"}, "status tag": {Status: "open", Tags: []string{"t7"}}, "pipeline stage": {Pipeline: "default", Stage: "new"}, "q status": {Q: "ana", Status: "won"}, "status score": {Status: "open", ScoreMin: num(95)},
	}
	out := map[string]crm.LeadFilter{}
	for name, f := range base {
		for _, s := range []string{"", "createdAt", "-updatedAt", "-lastActivityAt", "-score", "score", "name"} {
			f.Sort = s
			out[name+" / "+s] = f
		}
	}
	return out
}

// BenchmarkLeadList asks for every filter in every order once, and tells which of them took longest.
func BenchmarkLeadList(b *testing.B) {
	db := bookOf(b, 100_000)
	all := filters()
	var slowest time.Duration
	var name string
	for b.Loop() {
		for n, f := range all {
			q, err := crm.LeadQuery(f, "IN")
			if err != nil {
				b.Fatal(err)
			}
			q.Limit = 51
			began := time.Now()
			if _, err := crm.Leads.Find(context.Background(), db, q); err != nil {
				b.Fatal(err)
			}
			if d := time.Since(began); d > slowest {
				slowest, name = d, n
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N*len(all)), "ms/list")
	b.ReportMetric(float64(slowest.Milliseconds()), "ms/slowest")
	b.Logf("slowest: %s", name)
}
