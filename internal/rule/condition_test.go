package rule

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
)

// heavy are the largest variables that an event may have, and more, in the shapes that cost most.
func heavy() *scope {
	zeros, ones, texts := make([]any, 8000), make([]any, 8000), make([]any, 4000)
	for i := range zeros {
		zeros[i], ones[i] = 0.0, 0.0
	}
	for i := range texts {
		texts[i] = fmt.Sprintf("%08d", (i*7919)%4000)
	}
	m, n := map[string]any{}, map[string]any{}
	for i := range 4000 {
		m[fmt.Sprintf("k%d", i)], n[fmt.Sprintf("k%d", i)] = 1.0, 1.0
	}
	tags := make([]string, 250)
	for i := range tags {
		tags[i] = fmt.Sprintf("tag-%d", i)
	}
	return testScope(map[string]any{
		"s": strings.Repeat("a", 32<<10), "t": strings.Repeat("ä", 16<<10), "zeros": zeros, "ones": ones, "texts": texts, "m": m, "n": n,
	}, &crm.Lead{Name: "Ada", Email: "ada@example.com", Tags: tags, Stage: "new", Score: 12})
}

// vicious are conditions that would take much time or memory, or that take as much of it as one may.
var vicious = []string{
	"let a = 1..1000; all(a, all(a, # >= 0))",
	"all(1..1000, let x = #; all(1..1000, # + x >= 0 && # * 2 >= 0 && # - x < 5000 && not (# == 5001)))",
	"let a=event.variables.s; let b=a+a+a+a+a+a+a+a; let c=b+b+b+b+b+b+b+b; let d=c+c+c+c+c+c+c+c; let e=d+d+d+d+d+d+d+d; let f=e+e+e+e; len(f+f+f+f) > 0",
	"len(reduce(1..1000, #acc + #acc, 'x')) > 0",
	"any(1..1000, (event.variables.s + event.variables.s) == 'x')",
	"len(map(1..1000, event.variables.s + 'x')) > 0",
	"let a=[1,2,3,4,5,6,7,8]; let b=[a,a,a,a,a,a,a,a]; let c=[b,b,b,b,b,b,b,b]; let d=[c,c,c,c,c,c,c,c]; let e=[d,d,d,d,d,d,d,d]; let f=[e,e,e,e,e,e,e,e]; let g=[f,f,f,f,f,f,f,f]; len(string(g)) > 0",
	"let a=[1,2,3,4,5,6,7,8]; let b=[a,a,a,a,a,a,a,a]; let c=[b,b,b,b,b,b,b,b]; let d=[c,c,c,c,c,c,c,c]; let e=[d,d,d,d,d,d,d,d]; let f=[e,e,e,e,e,e,e,e]; let g=[f,f,f,f,f,f,f,f]; max(g) > 0",
	"let a=[1,2]; let b=[a,a]; let c=[b,b]; let d=[c,c]; let x=[1,2]; let y=[x,x]; let z=[y,y]; let w=[z,z]; any(1..1000, d == w && # < 0)",
	"event.variables.zeros == event.variables.ones && event.variables.ones == event.variables.zeros && false",
	"any(1..1000, event.variables.zeros == event.variables.ones && # < 0)",
	"event.variables.zeros in [" + strings.Repeat("event.variables.ones[0:7999], ", 50) + "1]",
	"any(1..1000, event.variables.m == event.variables.n && # < 0)",
	"any(event.variables.texts, # in event.variables.texts && # == 'x')",
	"len(sort(event.variables.texts)) < 0 || len(sort(event.variables.texts)) < 0 || len(sort(event.variables.texts)) < 0",
	"any(1..1000, len(sort(event.variables.texts)) < 0)",
	"any(1..1000, upper(event.variables.t) == lower(event.variables.s))",
	"upper(event.variables.t) == 'x' || lower(event.variables.t) == 'x' || upper(event.variables.t) == 'y' || lower(event.variables.t) == 'y'",
	"event.variables.s matches '(a|aa|aaa|aaaa|aaaaa)*(b|c)$'",
	"any(1..1000, event.variables.s matches '(a|aa)*b$')",
	"event.variables.s matches '(a?){70}a{70}b'",
	"event.variables.t matches '(ä|ö)*x$' || event.variables.t matches '(ä|ü)*x$' || event.variables.s matches '(a|b)*x$'",
	"len(split(event.variables.s, '')) < 0 || len(split(event.variables.s, '')) < 0 || len(split(event.variables.s, '')) < 0",
	"any(1..1000, now > date('2024-01-01 10:00:00'))",
	"any(1..1000, date('2024-01-01 10:00:00').Year() < # && # < 0)",
	"any(1..1000, now.Format(event.variables.s) == 'x')",
	"any(1..1000, len(concat(event.variables.zeros, event.variables.ones)) < 0)",
	"any(1..1000, len(reverse(event.variables.zeros)) < 0)",
	"any(1..1000, len(keys(event.variables.m)) < 0 || len(values(event.variables.m)) < 0)",
	"any(1..1000, min(event.variables.zeros) < 0 || mean(event.variables.zeros) < 0 || median(event.variables.zeros) < 0)",
	"any(1..1000, sum(event.variables.zeros) < 0)",
	"any(1..1000, count(event.variables.zeros, # > 0) > 0)",
	"any(1..1000, event.variables.s contains 'aaaaaaaaaaaaaaab')",
	"any(1..1000, indexOf(event.variables.s, 'aaaaaaaaaaaaaaab') > 0)",
	"any(1..1000, len(string(event.variables.m)) < 0)",
	"any(1..1000, len(event.variables.t) < 0)",
	strings.Repeat("len(filter(event.variables.zeros, # > 0)) > 0 || ", 20) + "false",
}

// TestNoConditionHurtsOthers: what a client's condition costs is bounded, whatever it says and whatever data it is given.
func TestNoConditionHurtsOthers(t *testing.T) {
	const bound = time.Second * slower // milliseconds on a quiet machine; minutes for what is not metered
	sc := heavy()
	accepted := 0
	for _, src := range vicious {
		p, err := compile(src)
		if err != nil {
			continue // refused when the rule is made
		}
		accepted++
		best := time.Hour
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 3 { // the machine may be busy with something else
			began := time.Now()
			_, _ = sc.holds(p)
			best = min(best, time.Since(began))
			if best < bound {
				break
			}
		}
		runtime.ReadMemStats(&after)
		t.Logf("%8s %6d KiB %s", best.Round(10*time.Microsecond), (after.TotalAlloc-before.TotalAlloc)>>10, src[:min(len(src), 90)])
		if best > bound {
			t.Errorf("%s took %s", src, best)
		}
		if mem := after.TotalAlloc - before.TotalAlloc; mem > 64<<20 {
			t.Errorf("%s took %d bytes", src, mem)
		}
	}
	if accepted < len(vicious)/2 {
		t.Errorf("only %d were accepted: nothing was measured", accepted)
	}
}

// TestConditionsOfOneEventAreBoundedTogether: a thousand rules are no way around the bound of one condition.
func TestConditionsOfOneEventAreBoundedTogether(t *testing.T) {
	costly, err := compile("all(1..1000, all(1..1000, # > 0))")
	if err != nil {
		t.Fatal(err)
	}
	cheap, err := compile("lead.score == 12")
	if err != nil {
		t.Fatal(err)
	}
	sc := heavy()
	sc.purse = newPurse()
	for range eventUnits/conditionUnits + 1 {
		if _, err := sc.holds(costly); err == nil {
			t.Fatal("a condition of a million steps went through")
		}
	}
	began := time.Now()
	for range 1000 {
		if _, err := sc.holds(costly); err == nil {
			t.Fatal("a condition of a million steps went through")
		}
	}
	if d := time.Since(began); d > 3*time.Second*slower {
		t.Errorf("a thousand conditions on an empty purse took %s", d)
	}
	if _, err := sc.holds(cheap); err == nil {
		t.Error("an empty purse pays")
	}
	sc.purse = newPurse()
	if ok, err := sc.holds(cheap); err != nil || !ok {
		t.Errorf("%v, %v", ok, err)
	}
}

// TestConditionsThatClientsWrite: the meters change no meaning.
func TestConditionsThatClientsWrite(t *testing.T) {
	now := time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)
	sc := newScope(&Event{Trigger: "form_submitted", OccurredAt: now, Variables: map[string]any{
		"n": 4.0, "plan": "Gold", "items": []any{map[string]any{"sku": "a", "qty": 2.0}, map[string]any{"sku": "b", "qty": 3.0}}, "nothing": nil,
	}}, &crm.Lead{Name: "Ada", Email: "ada@example.com", Stage: "new", Score: 12, Tags: []string{"vip", "web"}, CreatedAt: now.Add(-48 * time.Hour),
		Fields: map[string]any{"city": "Kochi"}}, nil, nil, now)
	for src, want := range map[string]bool{
		"lead.score >= 0 && !('vip' in lead.tags)":                                     false,
		"lead.score >= 10 and 'vip' in lead.tags":                                      true,
		"lead.stage in ['new', 'open']":                                                true,
		"lead.stage not in ['new', 'open']":                                            false,
		"event.variables.n + 1 == 5 && event.variables.n * 2.5 > 9":                    true,
		"-event.variables.n < 0":                                                       true,
		"event.variables.n in 1..5":                                                    true,
		"lower(event.variables.plan) == 'gold'":                                        true,
		"event.variables.plan startsWith 'Go' and event.variables.plan contains 'ld'":  true,
		"lead.email matches '^[^@]+@example\\\\.com$'":                                 true,
		"any(event.variables.items, .qty > 2 && .sku == 'b')":                          true,
		"sum(map(event.variables.items, .qty)) == 5":                                   true,
		"sum(event.variables.items, .qty) == 5":                                        true,
		"count(lead.tags, # startsWith 'v') == 1":                                      true,
		"len(filter(lead.tags, # != 'web')) == 1":                                      true,
		"all(lead.tags, len(#) == 3)":                                                  true,
		"any(event.variables.items, any(lead.tags, # == 'vip'))":                       true,
		"lead.fields.city == 'Kochi' ? lead.score > 10 : false":                        true,
		"(lead.fields.country ?? 'IN') == 'IN'":                                        true,
		"event.variables.nothing == nil && event.variables.absent == nil":              true,
		"now - lead.createdAt > duration('24h')":                                       true,
		"(now - lead.createdAt).Hours() == 48":                                         true,
		"now > date('2026-01-01') && now.Weekday().String() == 'Monday'":               true,
		"now.Format('2006-01-02') == '2026-05-04'":                                     true,
		"split(lead.email, '@')[1] == 'example.com'":                                   true,
		"let d = split(lead.email, '@')[1]; d == 'example.com' || d endsWith '.org'":   true,
		"lead.name + '!' == 'Ada!' && len(lead.name) == 3 && string(lead.score) != ''": true,
		"max([lead.score, 3]) == 12 && min(1, 2) == 1 && round(2.6) == 3":              true,
		"event.variables.items[0].sku == 'a' && event.variables.plan[0:2] == 'Go'":     true,
		"lead?.fields?.city == 'Kochi' && event.trigger == 'form_submitted'":           true,
		"lead.tags | filter(# == 'vip') | len() == 1":                                  true,
	} {
		p, err := compile(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if ok, err := sc.holds(p); err != nil || ok != want {
			t.Errorf("%s is %v, %v; want %v", src, ok, err, want)
		}
	}
}

// TestConditionsRefusedWithAReason: what could never be evaluated is told to the author.
func TestConditionsRefusedWithAReason(t *testing.T) {
	for src, want := range map[string]string{
		"let a = 1..1000; all(a, all(a, all(a, # > 0)))":                           "more than 2 loops in each other",
		"all(1..1001, # > 0)":                                                      "range",
		"all(0..9223372036854775807, # > 0)":                                       "range",
		"all(-9223372036854775807..9223372036854775807, # > 0)":                    "range",
		"all(1..int(lead.score), # > 0)":                                           "range",
		"len(repeat('x', 100)) > 0":                                                "may not use repeat",
		"join(lead.tags, event.variables.s) == ''":                                 "may not use join",
		"replace(event.variables.s, 'a', 'bbbb') == ''":                            "may not use replace",
		"len(reduce(1..10, #acc + #acc, 'x')) > 0":                                 "may not use reduce",
		"toJSON(lead) == ''":                                                       "may not use toJSON",
		"len(uniq(event.variables.s)) > 0":                                         "may not use uniq",
		"lead.name matches event.variables.s":                                      "pattern",
		"lead.name matches '(((a{50}){20}){1})'":                                   "pattern",
		"$env == nil":                                                              "$env",
		"__pay(nil, 1, 1, 1)":                                                      "does not compile",
		strings.Repeat("all(lead.tags, ", 100) + "true" + strings.Repeat(")", 100): "",
	} {
		began := time.Now()
		_, err := compile(src)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", src, err, want)
		}
		if d := time.Since(began); d > 5*time.Second*slower {
			t.Errorf("%s: refused after %s", src, d)
		}
	}
}
