package app_test

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"mime/multipart"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// sheet sends a CSV file and gives the id of the job that imports it.
func (c *client) sheet(file string, more ...string) string {
	c.e.t.Helper()
	a := c.e.send("POST", leadsPath+"/import", file, c.headers(append([]string{"Content-Type", "text/csv"}, more...)...)).want(202)
	return a.get("jobId").(string)
}

// imported waits for the end of an import.
func (c *client) imported(jobID string) *answer {
	c.e.t.Helper()
	var a *answer
	eventuallyIn(c.e.t, takeover, "the import ends", func() string {
		if a = c.call("GET", "/api/jobs/"+jobID, nil).want(200); a.get("state") != "succeeded" {
			return string(a.Body)
		}
		return ""
	})
	return a
}

// file reads a CSV answer.
func (c *client) file(link string) [][]string {
	c.e.t.Helper()
	u, err := url.Parse(link)
	if err != nil {
		c.e.t.Fatal(err)
	}
	a := c.call("GET", u.RequestURI(), nil).want(200)
	if ct := a.Header.Get("Content-Type"); ct != "text/csv; charset=utf-8" {
		c.e.t.Errorf("%s is %q", link, ct)
	}
	rows, err := csv.NewReader(bytes.NewReader(a.Body)).ReadAll()
	if err != nil {
		c.e.t.Fatal(err)
	}
	return rows
}

// A file as a spreadsheet writes it becomes leads; what cannot be is told; what is known is completed.
func TestImport(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	on := c.listeners()
	known := c.call("POST", leadsPath, map[string]any{"phone": "8143963821", "source": "walk-in", "tags": []string{"old"}}).want(201).get("id").(string)
	on.expect(c, "before", map[string]int{"lead_created": 1, "tag_added": 1})

	file := "\xef\xbb\xbfName;Phone;E-Mail;EMAIL;Tags;Stage;source;Notes on it;value;score\r\n" +
		"Ana;8143963822;x;ana@example.com;\"vip; new;;vip\";Booked;fair;\"two\r\nlines; and \"\"quotes\"\"\";1,200.50;99\r\n" +
		"Known;+91 81439-63821;;known@example.com;old;won;import;kept;;\r\n" + // completes the lead; its stage is not touched
		";;;;;;;;;\r\n" +
		"Nobody;;;;;;;;;\r\n" +
		"Bad phone;12;;;;;;;;\r\n" +
		"Bad mail;;;nope;;;;;;\r\n" +
		"Bad stage;8143963823;;;;nowhere;;;;\r\n" +
		"Bad value;8143963823;;;;;;;much;\r\n" +
		"Twin;08143963822;;twin@example.com;twin;;;;;\r\n" + // of Ana, in the same window
		"'=Formula;8143963824;;;;won;;;;\r\n" +
		"Mail only;;;MAIL@example.com;;;;;;"
	ended := c.imported(c.sheet(file))
	members(t, ended, "progress.done", 5, "progress.failed", 5, "progress.total", 10, "result.done", 5, "result.failed", 5, "type", "crm.import")
	link := ended.get("result.errorsUrl").(string)
	if !strings.HasPrefix(link, e.url+"/api/crm/imports/") {
		t.Errorf("errorsUrl %q", link)
	}
	rows := c.file(link)
	if len(rows) != 6 || fmt.Sprint(rows[0]) != "[row reason]" || rows[1][1] != "The row has neither a phone nor an e-mail." || rows[2][1] != "The phone is not a phone number." ||
		rows[3][1] != "The e-mail is not an e-mail address." || rows[4][1] != "The pipeline has no such stage." || rows[5][1] != "The value is not a number." {
		t.Errorf("errors %v", rows)
	}
	other.call("GET", strings.TrimPrefix(link, e.url), nil).problem(404, "import.not_found")

	ana := c.call("GET", leadsPath+"?phone=8143963822", nil).want(200)
	members(t, ana, "items.0.name", "Ana", "items.0.email", "ana@example.com", "items.0.tags", "[vip new twin]", "items.0.stage", "booked", "items.0.value", 1200.5,
		"items.0.fields.Notes on it", "two\nlines; and \"quotes\"", "items.0.fields.E-Mail", "x", "items.1", nil) // the score cannot be imported: it counts what was heard
	on.expect(c, "after", map[string]int{"lead_created": 4, "tag_added": 4, "deal_won": 1})
	members(t, c.call("GET", leadsPath+"/"+known, nil), "name", "Known", "source", "walk-in", "email", "known@example.com", "tags", "[old]", "stage", "new", "fields.Notes on it", "kept")
	members(t, c.call("GET", leadsPath+"?email=mail@example.com", nil), "items.0.name", "Mail only")

	// again: nothing is doubled, nothing is heard
	members(t, c.imported(c.sheet(file)), "progress.done", 5, "progress.failed", 5)
	on.expect(c, "again", map[string]int{"lead_created": 4, "tag_added": 4, "deal_won": 1})
	if n := len(c.all(leadsPath)); n != 4 {
		t.Errorf("%d leads", n)
	}

	// out, and into another client's book
	rows = c.file(leadsPath + "/export?sort=name")
	at := func(name string, row []string) string { return row[slices.Index(rows[0], name)] }
	if len(rows) != 5 || at("name", rows[1]) != "'=Formula" || at("phone", rows[1]) != "+918143963824" || at("name", rows[2]) != "Ana" || at("tags", rows[2]) != "vip;new;twin" ||
		at("Notes on it", rows[2]) != "two\nlines; and \"quotes\"" || at("id", rows[3]) != known {
		t.Errorf("export %q", rows)
	}
	if n := len(c.file(leadsPath + "/export?tag=vip&tag=twin&status=open")); n != 2 {
		t.Errorf("%d rows of one lead", n)
	}
	c.call("GET", leadsPath+"/export?status=odd&scoreMin=x", nil).problem(422, "")
	if n := len(other.file(leadsPath + "/export")); n != 1 {
		t.Errorf("the other client exports %d rows", n)
	}
	body := c.call("GET", leadsPath+"/export", nil).want(200).Body
	form := &bytes.Buffer{}
	mw := multipart.NewWriter(form)
	_ = mw.WriteField("comment", "from ACME")
	part, _ := mw.CreateFormFile("file", "leads.csv")
	_, _ = part.Write(body)
	_ = mw.Close()
	job := e.send("POST", leadsPath+"/import", form.Bytes(), other.headers("Content-Type", mw.FormDataContentType())).want(202).get("jobId").(string)
	members(t, other.imported(job), "progress.done", 4, "progress.failed", 0)
	members(t, other.call("GET", leadsPath+"?sort=name", nil), "items.0.name", "=Formula", "items.0.status", "won", "items.1.fields.Notes on it", "two\nlines; and \"quotes\"", "items.1.tags", "[vip new twin]",
		"items.1.value", 1200.5, "items.4", nil)

	// what cannot be imported at all
	for bad, detail := range map[string]string{
		"": "empty", "a,b\n1,2\n": "columns", "phone,phone\n1,2\n": "same name", "phone\n\xff\xfe\n": "UTF-8", "phone," + strings.Repeat("x", 101) + "\n": "100 bytes",
	} {
		p := e.send("POST", leadsPath+"/import", bad, c.headers("Content-Type", "text/csv")).problem(422, "import.file")
		if !strings.Contains(p.get("detail").(string), detail) {
			t.Errorf("%q: %s", bad, p.Body)
		}
	}
	c.call("POST", leadsPath+"/import", "{}").problem(415, "body.content_type")
	e.send("POST", leadsPath+"/import", "--x\r\n\r\n--x--", c.headers("Content-Type", "multipart/form-data; boundary=x")).problem(422, "")
	e.send("POST", leadsPath+"/import", "phone\n"+strings.Repeat("x", 64<<20), c.headers("Content-Type", "text/csv")).problem(413, "body.too_large")

	// the same request twice is one import
	first := c.sheet("phone\n8143963830\n", "Idempotency-Key", "file-1")
	if second := c.sheet("phone\n8143963830\n", "Idempotency-Key", "file-1"); second != first {
		t.Errorf("jobs %s and %s", first, second)
	}
	e.send("POST", leadsPath+"/import", "phone\n8143963831\n", c.headers("Content-Type", "text/csv", "Idempotency-Key", "file-1")).problem(409, "idempotency.mismatch")
}

// sheetOf makes a file of n rows: every tenth cannot be a lead, every hundredth is the one before, some are won.
func sheetOf(n int) (file string, leads, failed, won int) {
	var b strings.Builder
	b.WriteString("name,phone,tags,town,stage\n")
	for i := range n {
		switch {
		case i%10 == 9:
			failed++
			fmt.Fprintf(&b, "Nobody %d,,x,Pune,\n", i)
		case i%100 == 48:
			fmt.Fprintf(&b, "Twin %d,+91814%07d,,Pune,won\n", i, i-1)
		case i%100 == 3:
			won++
			leads++
			fmt.Fprintf(&b, "\"Lead, %d\",+91814%07d,all;t%d,Pune,Won\n", i, i, i%3)
		default:
			leads++
			fmt.Fprintf(&b, "\"Lead, %d\",+91814%07d,all;t%d,Pune,\n", i, i, i%3)
		}
	}
	return b.String(), leads, failed, won
}

// The process is killed in the middle of an import of 10,000 rows, again and again: no row is lost, none done twice, and
// each trigger is heard once.
func TestImportSurvivesCrashes(t *testing.T) {
	t.Parallel()
	meta, dir := newMeta(t), t.TempDir()
	p := serve(t, dir, meta)
	c := p.addClient("ACME", 1)
	// one rule that listens, to few of the rows: its runs are counted
	rule := c.call("POST", "/api/crm/automations/rules", map[string]any{"name": "count", "trigger": "deal_won", "enabled": true, "reenrol": "every_event",
		"actions": []map[string]any{{"type": "lead.score", "points": 1}}}).want(201).get("id").(string)
	file, leads, failed, won := sheetOf(10_000)
	job := c.sheet(file)
	done := func() float64 {
		n, _ := c.call("GET", "/api/jobs/"+job, nil).want(200).get("progress.done").(float64)
		return n
	}
	for round := range min(rounds(t, 2), 2) { // a third death in its hands would make it a poisonous job
		before := done()
		eventuallyIn(t, takeover, "the import goes on", func() string {
			if n := done(); n < before+500 {
				return fmt.Sprint(n)
			}
			return ""
		})
		time.Sleep(time.Duration(rand.N(100)) * time.Millisecond) // the random moment
		p.kill()
		p = serve(t, dir, meta)
		c.e = p.engine
		t.Logf("round %d: killed after %v rows, %v are done", round+1, before, done())
	}
	var ended *answer
	eventuallyIn(t, 3*takeover, "the import ends", func() string {
		if ended = c.call("GET", "/api/jobs/"+job, nil).want(200); ended.get("state") != "succeeded" {
			time.Sleep(50 * time.Millisecond)
			return string(ended.Body)
		}
		return ""
	})
	members(t, ended, "progress.done", 10_000-failed, "progress.failed", failed, "progress.total", 10_000)
	all := c.all(leadsPath)
	phones := map[string]int{}
	for _, l := range all {
		phones[l["phone"].(string)]++
		if tags := fmt.Sprint(l["tags"]); !strings.HasPrefix(tags, "[all t") || l["fields"].(map[string]any)["town"] != "Pune" || !strings.HasPrefix(l["name"].(string), "Lead, ") {
			t.Errorf("lead %v", l)
		}
	}
	if len(all) != leads || len(phones) != leads {
		t.Errorf("%d leads of %d phones, want %d", len(all), len(phones), leads)
	}
	if n := len(c.file(ended.get("result.errorsUrl").(string))) - 1; n != failed {
		t.Errorf("%d errors, want %d", n, failed)
	}
	c.quiet()
	if n := c.heard(rule); n != won || won == 0 {
		t.Errorf("%d runs for %d leads that were made as won", n, won)
	}
}
