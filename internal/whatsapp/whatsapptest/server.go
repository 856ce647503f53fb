package whatsapptest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config is a server's. The zero Config listens on a free loopback port.
type Config struct {
	Addr       string // default "127.0.0.1:0"
	AppSecret  string // signs webhooks, where the account has none of its own
	WebhookURL string // where webhooks go, where the account has none of its own; "" for nowhere

	// Statuses follow an accepted message by themselves, in this order; nil is
	// sent, delivered, read; an empty list is none.
	Statuses    []string
	StatusDelay time.Duration // before each of them

	// A webhook that is not answered with 200 is posted again this long after,
	// until it is or the server closes. Default 200 ms.
	RetryEvery time.Duration

	PageSize     int // of lists asked for without a limit; default 25
	JournalLimit int // how many requests, messages and deliveries are kept; 0 for all
	Now          func() time.Time
}

// Account is a WhatsApp business account that the server knows.
type Account struct {
	WABAID    string
	Token     string // several accounts may share one
	Numbers   []Number
	Templates []Template

	AppSecret  string // "": the server's
	WebhookURL string // "": the server's
}

// Number is a sender.
type Number struct {
	ID           string
	Display      string // digits; default the id
	VerifiedName string
	Profile      map[string]any
}

// Template is a message template. Body holds {{1}}, {{2}}, … or named variables.
type Template struct {
	ID       string // default made up
	Name     string
	Language string // default "en"
	Status   string // default APPROVED
	Category string // default UTILITY
	Header   string // text
	Format   string // of the header: IMAGE, VIDEO, DOCUMENT or LOCATION instead of a text
	Body     string
	Buttons  []Button
}

// Button is a template's. A URL with a variable, and a COPY_CODE, take a parameter.
type Button struct {
	Type string // QUICK_REPLY, URL, COPY_CODE, …
	Text string
	URL  string
}

func (b Button) takesParameter() bool {
	return b.Type == "COPY_CODE" || b.Type == "URL" && len(variables(b.URL)) > 0
}

// Server is a running Graph API. It is safe for concurrent use.
type Server struct {
	URL string // of the listener: the client's BaseURL

	cfg  Config
	http *http.Server
	life context.Context // ends with Close
	end  context.CancelFunc
	work sync.WaitGroup
	post chan struct{} // bounds the webhooks posted at once
	out  *http.Client  // posts them

	mu       sync.Mutex
	closed   bool
	accounts []*Account
	files    map[string]*file
	links    int // raised to make every link stale
	rules    []*rule
	journal  journal
}

// Start listens.
func Start(cfg Config) (*Server, error) {
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	if cfg.Statuses == nil {
		cfg.Statuses = []string{"sent", "delivered", "read"}
	}
	if cfg.RetryEvery == 0 {
		cfg.RetryEvery = 200 * time.Millisecond
	}
	if cfg.PageSize == 0 {
		cfg.PageSize = 25
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, err
	}
	s := &Server{URL: "http://" + ln.Addr().String(), cfg: cfg, files: map[string]*file{}, post: make(chan struct{}, 8),
		out: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}}
	s.life, s.end = context.WithCancel(context.Background())
	s.journal.changed = make(chan struct{})
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	s.work.Go(func() { _ = s.http.Serve(ln) })
	return s, nil
}

// Close ends the listener, open requests and webhooks on their way.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	_ = s.http.Close()
	s.work.Wait()
	s.out.CloseIdleConnections()
}

// spawn runs f beside the server, unless it is closing.
func (s *Server) spawn(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.work.Go(f)
	}
}

// AddAccount makes an account known, or replaces it.
func (s *Server) AddAccount(a Account) {
	a.Numbers, a.Templates = slices.Clone(a.Numbers), slices.Clone(a.Templates)
	for i := range a.Numbers {
		if a.Numbers[i].Display == "" {
			a.Numbers[i].Display = a.Numbers[i].ID
		}
	}
	for i := range a.Templates {
		a.Templates[i].fill()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts = slices.DeleteFunc(s.accounts, func(b *Account) bool { return b.WABAID == a.WABAID })
	s.accounts = append(s.accounts, &a)
}

// SetToken gives an account another token; the old one is refused with 190 from now on. "" refuses all.
func (s *Server) SetToken(wabaID, token string) {
	s.edit(wabaID, func(a *Account) { a.Token = token })
}

// SetWebhook sends an account's webhooks elsewhere; "" for the server's address.
func (s *Server) SetWebhook(wabaID, url string) {
	s.edit(wabaID, func(a *Account) { a.WebhookURL = url })
}

// SetTemplate adds or replaces a template of an account, by name and language.
func (s *Server) SetTemplate(wabaID string, t Template) {
	t.fill()
	s.edit(wabaID, func(a *Account) {
		a.Templates = slices.DeleteFunc(a.Templates, func(o Template) bool { return o.Name == t.Name && o.Language == t.Language })
		a.Templates = append(a.Templates, t)
	})
}

// edit changes an account. Its lists are copied first: requests that are being
// served read the old ones.
func (s *Server) edit(wabaID string, f func(*Account)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts {
		if a.WABAID == wabaID {
			a.Numbers, a.Templates = slices.Clone(a.Numbers), slices.Clone(a.Templates)
			f(a)
		}
	}
}

// ServeHTTP answers as Meta would, or as a Fault says.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req, token := s.read(r)
	if f := s.fault(req, true); f != nil {
		s.note(req, f)
		f.do(s, w, r, nil)
		s.answered(req, 0)
		return
	}
	body, err := readBody(r)
	if err != nil {
		s.note(req, nil)
		s.write(w, req, reply(errInvalid(413, 100, "the body cannot be read")))
		return
	}
	req.Body = body
	req.Kind = kindOf(r, body)
	f := s.fault(req, false)
	s.note(req, f)
	if f != nil && !f.accept {
		if done := f.do(s, w, r, nil); done {
			s.answered(req, f.status)
			return
		}
	}
	a := s.answer(r, req, token, f)
	if f != nil && f.accept && a.status == http.StatusOK {
		if done := f.do(s, w, r, a.body); done {
			s.answered(req, f.status)
			return
		}
	}
	s.write(w, req, a)
}

// answer is what a well-behaved Meta says.
type answer struct {
	status int
	kind   string
	body   []byte
}

func reply(v any) answer {
	status := http.StatusOK
	if e, ok := v.(*graphError); ok {
		status, v = e.http, e.envelope()
	}
	b, _ := json.Marshal(v)
	return answer{status, "application/json; charset=UTF-8", b}
}

func (s *Server) write(w http.ResponseWriter, req *Request, a answer) {
	s.answered(req, a.status)
	w.Header().Set("Content-Type", a.kind)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

func (s *Server) answer(r *http.Request, req *Request, token string, f *Fault) answer {
	if strings.HasPrefix(r.URL.Path, linkPath) {
		return s.download(r, token)
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(parts) < 2 || len(parts) > 3 || !isVersion(parts[0]) {
		return reply(&graphError{http: 400, code: 2500, message: "Unknown path components: " + r.URL.Path, kind: "OAuthException"})
	}
	if !req.TokenOK {
		return reply(errToken())
	}
	id, edge := parts[1], ""
	if len(parts) == 3 {
		edge = parts[2]
	}
	route := r.Method + " " + edge
	if number, a := s.number(id, token); a != nil {
		switch route {
		case "POST messages":
			return s.message(a, number, req, f)
		case "POST media":
			return s.upload(number, r, req)
		case "GET ":
			return reply(number.node())
		case "GET whatsapp_business_profile":
			return reply(s.profile(number.ID, nil))
		case "POST whatsapp_business_profile":
			return s.setProfile(number.ID, req.Body)
		}
		return reply(errPath(r))
	}
	if a := s.account(id, token); a != nil {
		switch route {
		case "GET message_templates":
			return s.listTemplates(a, r)
		case "POST message_templates":
			return s.createTemplate(a, req.Body)
		case "DELETE message_templates":
			return s.deleteTemplate(a, r)
		case "GET phone_numbers":
			return s.listNumbers(a, r)
		}
		return reply(errPath(r))
	}
	switch route {
	case "GET ":
		return s.mediaInfo(id, token, r)
	case "DELETE ":
		return s.deleteMedia(id, token)
	}
	return reply(errObject(r.Method, id))
}

// number finds a sender that the token may see, with a copy of its account.
func (s *Server) number(id, token string) (Number, *Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts {
		for _, n := range a.Numbers {
			if n.ID == id && a.Token == token {
				c := *a
				return n, &c
			}
		}
	}
	return Number{}, nil
}

// account finds an account that the token may see, as a copy.
func (s *Server) account(id, token string) *Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts {
		if a.WABAID == id && a.Token == token {
			c := *a
			return &c
		}
	}
	return nil
}

func (s *Server) knows(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return token != "" && slices.ContainsFunc(s.accounts, func(a *Account) bool { return a.Token == token })
}

func isVersion(s string) bool {
	var n int
	_, err := fmt.Sscanf(s, "v%d.0", &n)
	return err == nil && s == fmt.Sprintf("v%d.0", n) && n >= 20
}

// graphError is Meta's error envelope.
type graphError struct {
	http, code, subcode    int
	message, details, kind string
}

func (e *graphError) envelope() any {
	m := map[string]any{"message": e.message, "type": e.kind, "code": e.code, "fbtrace_id": "A" + newID(10)}
	if e.kind == "" {
		m["type"] = "OAuthException"
	}
	if e.subcode != 0 {
		m["error_subcode"] = e.subcode
	}
	if e.details != "" {
		m["error_data"] = map[string]any{"messaging_product": "whatsapp", "details": e.details}
	}
	return map[string]any{"error": m}
}

func errInvalid(status, code int, details string) *graphError {
	return &graphError{http: status, code: code, message: fmt.Sprintf("(#%d) %s", code, details), details: details}
}

func errToken() *graphError {
	return &graphError{http: 401, code: 190, subcode: 463, message: "Error validating access token: Session has expired."}
}

func errObject(method, id string) *graphError {
	return &graphError{http: 400, code: 100, subcode: 33, kind: "GraphMethodException",
		message: fmt.Sprintf("Unsupported %s request. Object with ID '%s' does not exist, cannot be loaded due to missing permissions, or does not support this operation", strings.ToLower(method), id)}
}

func errPath(r *http.Request) *graphError {
	return &graphError{http: 400, code: 2500, message: "Unknown path components: " + r.URL.Path}
}
