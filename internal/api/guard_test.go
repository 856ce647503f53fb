package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/api"
)

func TestBadInputs(t *testing.T) {
	h := newHouse(t)
	big := `{"name":"x","secret":"` + strings.Repeat("a", api.MaxJSON) + `"}`
	exact := `{"name":"x","variables":{"a":"` + strings.Repeat("a", api.MaxJSON-33) + `"}}`
	if len(exact) != api.MaxJSON {
		t.Fatal(len(exact))
	}
	nested := func(n int) string {
		return `{"name":"x","variables":{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}}`
	}
	cases := []struct {
		name, body, ct string
		status         int
		code           string
		pointers       string
	}{
		{"whole", `{"name":"x"}`, "", 201, "", ""},
		{"charset", `{"name":"x"}`, "application/json; charset=UTF-8", 201, "", ""},
		{"a kind of json", `{"name":"x"}`, "application/vnd.x+json", 201, "", ""},
		{"exactly the limit", exact, "", 201, "", ""},
		{"white space around", " \r\n\t{\"name\" : \"x\"}\n ", "", 201, "", ""},
		{"not so deep", nested(30), "", 201, "", ""},
		{"brackets in text", `{"name":"x","variables":{"a":"` + strings.Repeat("[", 99) + `\\"}}`, "", 201, "", ""},
		{"other charset", `{"name":"x"}`, "application/json; charset=latin1", 415, "body.content_type", ""},
		{"text", `{"name":"x"}`, "text/plain", 415, "body.content_type", ""},
		{"form", `name=x`, "application/x-www-form-urlencoded", 415, "body.content_type", ""},
		{"xml with json in its name", `{}`, "text/x+json", 415, "body.content_type", ""},
		{"no type", `{"name":"x"}`, "-", 415, "body.content_type", ""},
		{"nonsense type", `{"name":"x"}`, ";;", 415, "body.content_type", ""},
		{"too large", big, "", 413, "body.too_large", ""},
		{"empty", "", "", 400, "json.missing", ""},
		{"blank", "   ", "", 400, "json.malformed", ""},
		{"cut", `{"name":"x"`, "", 400, "json.malformed", ""},
		{"trailing comma", `{"name":"x",}`, "", 400, "json.malformed", ""},
		{"trailing garbage", `{"name":"x"} {}`, "", 400, "json.malformed", ""},
		{"single quotes", `{'name':'x'}`, "", 400, "json.malformed", ""},
		{"byte order mark", "\ufeff{\"name\":\"x\"}", "", 400, "json.malformed", ""},
		{"not UTF-8", "{\"name\":\"\xff\"}", "", 400, "json.malformed", ""},
		{"control character", "{\"name\":\"a\nb\"}", "", 400, "json.malformed", ""},
		{"twice", `{"name":"x","name":"y"}`, "", 400, "json.duplicate", "[/name]"},
		{"twice, escaped", `{"name":"x","variables":{"a/b":[0,{"c":1,"\u0063":2}]}}`, "", 400, "json.duplicate", "[/variables/a~1b/1/c]"},
		{"too deep", nested(31), "", 400, "json.too_deep", ""},
		{"far too deep", strings.Repeat("[", 500_000), "", 400, "json.too_deep", ""},
		{"null", `null`, "", 422, "invalid", "[]"},
		{"array", `[1]`, "", 422, "invalid", "[]"},
		{"required", `{}`, "", 422, "invalid", "[/name]"},
		{"required inside", `{"name":"x","actions":[{"type":"wait"},{}]}`, "", 422, "invalid", "[/actions/1/type]"},
		{"unknown", `{"name":"x","colour":1}`, "", 422, "invalid", "[/colour]"},
		{"other case", `{"Name":"x","name":"x"}`, "", 422, "invalid", "[/Name]"},
		{"wrong type", `{"name":7}`, "", 422, "invalid", "[/name]"},
		{"wrong type inside", `{"name":"x","actions":[{"type":"wait","then":[{"type":"send","points":"7"}]}]}`, "", 422, "invalid", "[/actions/0/then/0/points]"},
		{"enum", `{"name":"x","actions":[{"type":"dance"}]}`, "", 422, "invalid", "[/actions/0/type]"},
		{"null in a list", `{"name":"x","tags":[null]}`, "", 422, "invalid", "[/tags/0]"},
		{"null for an optional", `{"name":"x","tags":null}`, "", 201, "", ""},
		{"null for a required", `{"name":null}`, "", 422, "invalid", "[/name]"},
		{"fraction", `{"name":"x","count":1.5}`, "", 422, "invalid", "[/count]"},
		{"negative", `{"name":"x","count":-1}`, "", 422, "invalid", "[/count]"},
		{"out of the type's range", `{"name":"x","actions":[{"type":"wait"},{"type":"wait","points":3000000000}]}`, "", 422, "invalid", "[/actions/1/points]"},
		{"out of every range", `{"name":"x","variables":{"a":[1e999]}}`, "", 422, "invalid", "[/variables/a/0]"},
		{"date", `{"name":"x","when":"yesterday"}`, "", 422, "invalid", "[/when]"},
		{"impossible date", `{"name":"x","when":"0000-01-01T00:00:00Z"}`, "", 422, "invalid", "[]"},
		{"several", `{"colour":1,"count":"1","tags":[1,"a",2]}`, "", 422, "invalid", "[/colour /count /name /tags/0 /tags/2]"},
		{"separators in names", `{"name":"x","labels":{"a.b":1,"c[0]":2,"ok":"x","d/e~f":3,"":4},"z.y":1,"colour":1}`, "", 422, "invalid",
			"[/colour /labels/ /labels/a.b /labels/c[0] /labels/d~1e~0f /z.y]"},
		{"a type's own rule", `{"name":"x","odd":2}`, "", 422, "invalid", "[/odd]"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h.t = t
			for _, chunked := range []bool{false, true} {
				var body io.Reader
				if c.body != "" {
					body = strings.NewReader(c.body)
				}
				req := h.request("POST", "/api/things", body)
				switch c.ct {
				case "":
				case "-":
					req.Header.Del("Content-Type")
				default:
					req.Header.Set("Content-Type", c.ct)
				}
				if chunked && body != nil {
					req.ContentLength = -1
					req.Body = io.NopCloser(body)
				}
				r := h.send(req)
				if c.code == "" {
					if r.StatusCode != c.status {
						t.Fatalf("%d %s", r.StatusCode, r.body)
					}
					continue
				}
				p := h.problem(r, c.status, c.code)
				if got := fmt.Sprint(pointers(p)); c.pointers != "" && c.pointers != "[]" && got != c.pointers {
					t.Fatalf("pointers %s, want %s: %s", got, c.pointers, r.body)
				}
			}
		})
	}
}

func TestBadParameters(t *testing.T) {
	h := newHouse(t)
	for path, want := range map[string]string{
		"/api/things?limit=0":                    "[query.limit]",
		"/api/things?limit=201":                  "[query.limit]",
		"/api/things?limit=ten":                  "[query.limit]",
		"/api/things?limit=99999999999999999999": "[query.limit]",
		"/api/things?cursor=x":                   "[query.cursor]",
		"/api/things?cursor=bm90IGpzb24":         "[query.cursor]",
		"/api/things?cursor=eyJsIjoib3RoZXIifQ":  "[query.cursor]",
		"/api/things?after=hunter2":              "[query.after]",
		"/api/things/" + strings.Repeat("a", 31): "[path.id]",
	} {
		r := h.do("GET", path, "")
		p := h.problem(r, 422, "invalid")
		if got := fmt.Sprint(pointers(p)); got != want {
			t.Errorf("%s: %s", path, got)
		}
		if strings.Contains(string(r.body), "hunter2") {
			t.Errorf("echoed: %s", r.body)
		}
	}
}

func TestOffsets(t *testing.T) {
	h := newHouse(t)
	for body, want := range map[string]float64{
		`{"name":x}`: 9, `{"name":"x"} !`: 14, "{\"name\":\"ab\xff\"}": 11, `{"name"`: 7,
	} {
		if p := h.problem(h.do("POST", "/api/things", body), 400, "json.malformed"); p["offset"] != want {
			t.Errorf("%q: offset %v, want %v", body, p["offset"], want)
		}
	}
}

// Validation looks at secrets too: nothing that was sent may come back.
func TestValidationEchoesNothing(t *testing.T) {
	h := newHouse(t)
	for _, body := range []string{
		`{"name":"x","secret":"hunter2-hunter2"}`,
		`{"name":"hunter2 hunter2 hunter2 hunter2"}`,
		`{"name":"x","email":"hunter2"}`,
		`{"name":"x","email":"hunter2@@hunter2"}`,
		`{"name":"x","site":"http://hunter2:%zz"}`,
		`{"name":"x","when":"hunter2"}`,
		`{"name":"x","count":"hunter2"}`,
		`{"name":"x","actions":[{"type":"hunter2"}]}`,
		`{"name":["hunter2"]}`,
		`"hunter2"`,
		`{"name":"x","odd":"hunter2"}`,
		`{"name": hunter2}`,
	} {
		r := h.do("POST", "/api/things", body)
		if r.StatusCode != 422 && r.StatusCode != 400 {
			t.Errorf("%s: %d", body, r.StatusCode)
		}
		if strings.Contains(string(r.body), "hunter2") {
			t.Errorf("%s: echoed: %s", body, r.body)
		}
	}
	if strings.Contains(h.log.text(), "hunter2") {
		t.Errorf("logged: %s", h.log.text())
	}
}

func TestManyErrorsAreFew(t *testing.T) {
	h := newHouse(t)
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, `,"%d%s":1`, i, strings.Repeat("k", 150))
	}
	r := h.do("POST", "/api/things", `{"name":"x"`+b.String()+`}`)
	p := h.problem(r, 422, "invalid")
	if n := len(pointers(p)); n != 50 || len(r.body) > 20_000 {
		t.Fatalf("%d errors in %d bytes", n, len(r.body))
	}
}

func TestNoBodyOperations(t *testing.T) {
	h := newHouse(t)
	if r := h.do("POST", "/api/things/x/publish", ""); r.StatusCode != 200 {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	if r := h.do("POST", "/api/things/x/publish", "{}"); r.StatusCode != 200 {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	h.problem(h.do("POST", "/api/things/x/publish", "{"), 400, "json.malformed")
	h.problem(h.do("POST", "/api/things/x/publish", "x", "Content-Type", "text/plain"), 415, "body.content_type")
}

// raw sends bytes over a socket of its own and reads the answer.
func (h *house) raw(t *testing.T, head string, then func(net.Conn)) reply {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, head)
	if then != nil {
		then(c)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, _ := io.ReadAll(res.Body)
	return reply{res, b}
}

const rawHead = " HTTP/1.1\r\nHost: x\r\nX-Api-Key: " + goodKey + "\r\nX-Client-Code: ACME\r\nContent-Type: application/json\r\n"

func TestSlowBody(t *testing.T) {
	h := newHouse(t, func(c *api.Config) { c.BodyTimeout = 100 * time.Millisecond })
	r := h.raw(t, "POST /api/things"+rawHead+"Content-Length: 100\r\n\r\n{\"na", nil)
	h.problem(r, 408, "body.timeout")
	if !r.Close {
		t.Error("the connection stays open")
	}
}

// A refused request whose body never comes must not hold its connection.
func TestBodyThatNeverComes(t *testing.T) {
	h := newHouse(t, func(c *api.Config) { c.BodyTimeout = 100 * time.Millisecond })
	for _, path := range []string{"/api/things", "/api/uploads", "/plain", "/healthz", "/api/nothing"} {
		head := strings.Replace("POST "+path+rawHead, goodKey, "wrong", 1)
		c, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, head+"Content-Length: 1000\r\n\r\n")
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		b, err := io.ReadAll(c)
		if err != nil || !strings.Contains(string(b), "application/problem+json") {
			t.Errorf("%s: %v, %.100s", path, err, b)
		}
		_ = c.Close()
	}
}

func TestBodyCutShort(t *testing.T) {
	h := newHouse(t)
	r := h.raw(t, "POST /api/things"+rawHead+"Content-Length: 100\r\n\r\n{\"na", func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite() })
	h.problem(r, 400, "body.incomplete")
	r = h.raw(t, "POST /api/things"+rawHead+"Transfer-Encoding: chunked\r\n\r\nzz\r\n", nil)
	h.problem(r, 400, "body.incomplete")
}

// The deadline of the body must not outlive it: net/http would take the caller for gone.
func TestBodyDeadlineEndsWithTheBody(t *testing.T) {
	h := newHouse(t, func(c *api.Config) { c.BodyTimeout = 50 * time.Millisecond })
	go func() {
		<-h.entered
		timer := time.NewTimer(150 * time.Millisecond) // beyond the deadline: this time is the thing tested
		defer timer.Stop()
		<-timer.C
		close(h.leave)
	}()
	if r := h.do("POST", "/api/things", `{"name":"slow"}`); r.StatusCode != 201 {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
}

func TestHugeBodyIsNotRead(t *testing.T) {
	h := newHouse(t)
	r := h.raw(t, "POST /api/things"+rawHead+"Content-Length: 9000000000\r\n\r\n", nil)
	h.problem(r, 413, "body.too_large")
}

func TestStreams(t *testing.T) {
	h := newHouse(t)
	if r := h.do("POST", "/api/uploads", strings.Repeat("x", 2<<20), "Content-Type", "image/png"); r.StatusCode != 201 || r.json(t)["size"] != float64(2<<20) {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	h.problem(h.do("POST", "/api/uploads", strings.Repeat("x", 3<<20+1), "Content-Type", "image/png"), 413, "body.too_large")
	req := h.request("POST", "/api/uploads", io.LimitReader(zeros{}, 3<<20+1), "Content-Type", "image/png")
	h.problem(h.send(req), 413, "body.too_large")
	h.problem(h.do("POST", "/api/uploads", "x", "Content-Type", "multipart/form-data; boundary=b"), 400, "multipart.malformed")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// Whatever is sent, the fault is the caller's: no 5xx, and every refusal is a problem.
func TestRandomInput(t *testing.T) {
	h := newHouse(t)
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		h.throw(r)
	}
}

// FuzzBody is TestRandomInput for bodies, with the fuzzer's imagination.
func FuzzBody(f *testing.F) {
	for _, s := range []string{`{"name":"x"}`, `{"name":"x","actions":[{"type":"wait","then":[]}]}`, `{"labels":{"a.b":1}}`, `[`, `"\ud800"`, `1e999`, "\xff"} {
		f.Add([]byte(s))
	}
	h := newBench(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, special := range []string{"broken", "panics", "slow"} { // what the sample is told to fail at
			if bytes.Contains(body, []byte(special)) {
				return
			}
		}
		req := httptest.NewRequest("POST", "/api/things", bytes.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Api-Key", goodKey)
		req.Header.Set("X-Client-Code", "ACME")
		w := httptest.NewRecorder()
		if h.api.ServeHTTP(w, req); w.Code >= 500 || !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%d for %q: %s", w.Code, body, w.Body)
		}
	})
}

// throw sends one random request.
func (h *house) throw(r *rand.Rand) {
	h.t.Helper()
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	var value func(depth int) string
	value = func(depth int) string {
		n := 12
		if depth > 4 {
			n = 9
		}
		switch r.IntN(n) {
		case 0:
			return "null"
		case 1:
			return pick("true", "false")
		case 2:
			return pick("0", "-1", "1.5", "1e400", "-0", "9223372036854775808", "1E+2", "3000000000", "007", "0x1")
		case 3:
			return pick(`"\ud800"`, `"\u0000"`, `"é"`, `"\x"`, "\"\xc3\"", `"2026-01-01T00:00:00Z"`, `"wait"`, `""`, `"`+strings.Repeat("ä", 30)+`"`)
		case 4, 5, 6:
			return pick(`"x"`, `"a.b"`, `"@"`, `"http://[::1"`, `"%"`)
		case 7, 8:
			return pick("1", "{}", "[]")
		case 9:
			var items []string
			for range r.IntN(4) {
				items = append(items, value(depth+1))
			}
			return "[" + strings.Join(items, ",") + "]"
		}
		var members []string
		for range r.IntN(6) {
			name := pick("name", "count", "email", "site", "when", "tags", "actions", "labels", "variables", "secret", "odd",
				"type", "points", "then", "a.b", "a[0]", "", "Name", "~", "/", `\u0061`, "x]y", "..", "body")
			members = append(members, `"`+name+`":`+value(depth+1))
		}
		return "{" + strings.Join(members, ",") + "}"
	}
	body := value(0)
	for r.IntN(4) == 0 && len(body) > 1 { // damage it
		i := r.IntN(len(body))
		switch r.IntN(3) {
		case 0:
			body = body[:i]
		case 1:
			body = body[:i] + string([]byte{byte(r.IntN(256))}) + body[i+1:]
		case 2:
			body = body[:i] + pick("{", "}", "[", "]", ",", ":", `"`, `\`) + body[i:]
		}
	}
	method := pick("POST", "POST", "POST", "PATCH", "GET", "DELETE", "PUT")
	path := pick("/api/things", "/api/things", "/api/things/x", "/api/things/x/publish", "/api/things?limit="+pick("1", "x", "-1", ""), "/api/%2e%2e/x", "/api//things")
	req := h.request(method, path, strings.NewReader(body), "Content-Type", pick("application/json", "application/json", "application/json;charset=utf-8", "text/plain", "x", "application/json; a=+"))
	if r.IntN(5) == 0 {
		req.Header.Set("Idempotency-Key", pick("a", "b", " ", "é", strings.Repeat("k", 256)))
	}
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	res := h.send(req.WithContext(ctx))
	if res.StatusCode >= 500 {
		h.t.Fatalf("%s %s %q: %d %s", method, path, body, res.StatusCode, res.body)
	}
	if res.StatusCode >= 400 {
		h.problem(res, res.StatusCode, fmt.Sprint(res.json(h.t)["code"]))
	}
}
