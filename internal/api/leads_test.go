package api_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestLeadsAreFound(t *testing.T) {
	w := newTown(t)
	w.ok(w.asA("POST", rulesPath, `{"name":"score","trigger":"custom.score","enabled":true,"reenrol":"every_event","actions":[{"type":"lead.score","points":15},{"type":"lead.stage","stage":"won"}]}`), 201)
	// nine leads; every third has the same name, every second a score
	var ids []string
	for i := range 9 {
		trigger := "custom.none"
		if i%2 == 0 {
			trigger = "custom.score"
		}
		r := w.ok(w.asA("POST", events, fmt.Sprintf(`{"trigger":%q,"phone":"+91814396382%d","createLeadIfMissing":true,"leadData":{"name":%q,"source":"src%d","ownerId":"own%d","tags":["all","t%d"]}}`,
			trigger, i, []string{"Ana María", "ben", "Zoë"}[i%3], i%2, i%2, i%3)), 202)
		ids = append(ids, str(r, "leadId"))
	}
	w.ok(w.asA("POST", events, `{"trigger":"custom.none","email":"Mail@Example.com","createLeadIfMissing":true}`), 202)
	created := str(w.ok(w.asA("GET", "/api/crm/leads/"+ids[4], ""), 200), "createdAt")

	for query, want := range map[string]int{
		"":                                    10,
		"?phone=81439+63823":                  1,
		"?phone=%2B918143963823":              1,
		"?phone=%2B918143960000":              0,
		"?email=MAIL@example.com":             1,
		"?tag=all":                            9,
		"?tag=all&tag=t1":                     3,
		"?tag=t0&tag=t1":                      0,
		"?stage=won":                          5,
		"?status=won":                         5,
		"?status=open":                        5,
		"?source=src0":                        5,
		"?ownerId=own1":                       4,
		"?scoreMin=15":                        5,
		"?scoreMin=0&scoreMax=0":              5,
		"?scoreMax=14.999":                    5,
		"?scoreMin=15.5":                      0,
		"?q=ana":                              3,
		"?q=MAR+an":                           3,
		"?q=Zo%C3%AB":                         3,
		"?q=mail":                             1,
		"?q=ana&tag=t0&source=src0":           2,
		"?createdAfter=2100-01-01T00:00:00Z":  0,
		"?createdBefore=2100-01-01T00:00:00Z": 10,
		"?createdAfter=" + created:            5,
		"?createdBefore=" + created:           4,
		"?phone=&tag=&q=&status=":             10,
	} {
		if l := items(w.ok(w.asA("GET", "/api/crm/leads"+query, ""), 200)); len(l) != want {
			t.Errorf("%s: %d, want %d", query, len(l), want)
		}
	}
	for query, at := range map[string]string{
		"?phone=abc": "query.phone", "?status=x": "query.status", "?scoreMin=x": "query.scoreMin", "?scoreMax=NaN": "query.scoreMax", "?scoreMin=1e300": "query.scoreMin", "?scoreMax=Inf": "query.scoreMax",
		"?sort=phone": "query.sort", "?sort=--name": "query.sort", "?createdAfter=yesterday": "query.createdAfter", "?limit=0": "query.limit", "?limit=201": "query.limit", "?limit=x": "query.limit",
		"?cursor=x": "query.cursor", "?q=a+b+c+d+e+f+g+h+i": "query.q", "?q=" + strings.Repeat("x", 201): "query.q",
	} {
		w.problem(w.asA("GET", "/api/crm/leads"+query, ""), 422, "invalid", at)
	}
	w.problem(w.asA("GET", "/api/crm/leads/none", ""), 404, "lead.not_found")
	w.problem(w.asA("GET", "/api/crm/contacts/none", ""), 404, "contact.not_found")
}

func TestLeadsArePaged(t *testing.T) {
	w := newTown(t)
	w.ok(w.asA("POST", rulesPath, `{"name":"score","trigger":"custom.score","enabled":true,"reenrol":"every_event","actions":[{"type":"lead.score","points":15}]}`), 201)
	for i := range 11 {
		name := []string{"", "Ana", "ben", "Ana"}[i%4]
		w.ok(w.asA("POST", events, fmt.Sprintf(`{"trigger":%q,"phone":"+9181439638%02d","createLeadIfMissing":true,"leadData":{"name":%q}}`,
			[]string{"custom.none", "custom.score"}[i%2], i, name)), 202)
	}
	key := map[string]func(m map[string]any) string{
		"name":  func(m map[string]any) string { return strings.ToLower(str(m, "name")) },
		"score": func(m map[string]any) string { return fmt.Sprintf("%09.2f", m["score"]) },
	}
	for _, sort := range []string{"", "createdAt", "-createdAt", "updatedAt", "-updatedAt", "lastActivityAt", "-lastActivityAt", "score", "-score", "name", "-name"} {
		field := strings.TrimPrefix(sort, "-")
		of := key[field]
		if of == nil {
			of = func(m map[string]any) string { return str(m, or(field, "createdAt")) }
		}
		for _, limit := range []int{1, 2, 10, 11, 12} {
			var keys []string
			seen := map[string]bool{}
			cursor := ""
			for range 20 {
				m := w.ok(w.asA("GET", fmt.Sprintf("/api/crm/leads?sort=%s&limit=%d&cursor=%s", sort, limit, cursor), ""), 200)
				for _, l := range items(m) {
					keys = append(keys, of(l))
					seen[str(l, "id")] = true
				}
				if cursor = str(m, "nextCursor"); cursor == "" {
					break
				}
			}
			if sort == "" || strings.HasPrefix(sort, "-") {
				slices.Reverse(keys)
			}
			if len(keys) != 11 || len(seen) != 11 || !slices.IsSorted(keys) {
				t.Errorf("sort=%s limit=%d: %d leads, %d different, %q", sort, limit, len(keys), len(seen), keys)
			}
		}
	}
	// a cursor belongs to its list and order
	cursor := str(w.ok(w.asA("GET", "/api/crm/leads?sort=name&limit=1", ""), 200), "nextCursor")
	for _, path := range []string{"/api/crm/leads?sort=-name&cursor=", "/api/crm/leads?cursor=", "/api/jobs?cursor=", rulesPath + "?cursor=", "/api/whatsapp/conversations?cursor="} {
		w.problem(w.asA("GET", path+url.QueryEscape(cursor), ""), 422, "invalid", "query.cursor")
	}
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}
