package s3test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config is a server's. Without an AccessKeyID nobody is let in.
type Config struct {
	Addr            string // default "127.0.0.1:0"
	TLS             bool   // with a certificate of its own, see [Server.Roots]
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
	Region          string // default "auto"
	Buckets         []string
	PageSize        int // of lists; default and at most 1000
	JournalLimit    int // how many requests are kept; 0 for all
	Now             func() time.Time
}

// Object is what the server holds under a key.
type Object struct {
	Body        []byte
	MIME        string
	Disposition string
	ETag        string // as sent, in quotes
	Modified    time.Time
}

// Request is one request as it came in.
type Request struct {
	Seq     int // from 1
	At      time.Time
	Op      string // "put", "get", "head", "delete", "delete-many", "list", "other"
	Bucket  string
	Key     string
	Query   string
	Header  http.Header // without Authorization
	Signed  string      // "header", "query", ""
	Size    int64       // of the body; -1 if it was not told
	Payload string      // x-amz-content-sha256
	Fault   string      // the name of the misbehaviour that met it
	Status  int         // as answered; 0 if it was not
	Code    string      // the error's, if it was one
}

// Server is a running store. It is safe for concurrent use.
type Server struct {
	URL string // of the listener: the client's endpoint

	cfg   Config
	http  *http.Server
	roots *x509.CertPool
	life  context.Context // ends with Close
	end   context.CancelFunc
	work  sync.WaitGroup

	mu       sync.Mutex
	buckets  map[string]map[string]Object
	rules    []*rule
	requests []*Request
	seq      int
}

// Start listens.
func Start(cfg Config) (*Server, error) {
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	if cfg.Region == "" {
		cfg.Region = "auto"
	}
	if cfg.PageSize <= 0 || cfg.PageSize > 1000 {
		cfg.PageSize = 1000
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{cfg: cfg, buckets: map[string]map[string]Object{}}
	for _, b := range cfg.Buckets {
		s.buckets[b] = map[string]Object{}
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, err
	}
	s.URL = "http://" + ln.Addr().String()
	if cfg.TLS {
		cert, err := certificate()
		if err != nil {
			_ = ln.Close()
			return nil, err
		}
		s.URL = "https://" + ln.Addr().String()
		s.roots = x509.NewCertPool()
		s.roots.AddCert(cert.Leaf)
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	s.work.Go(func() { _ = s.http.Serve(ln) })
	return s, nil
}

// certificate is for loopback, and lives a day.
func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "s3test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// Roots is what to trust to call a server with TLS.
func (s *Server) Roots() *x509.CertPool { return s.roots }

// Close ends the listener and open requests.
func (s *Server) Close() {
	s.end()
	_ = s.http.Close()
	s.work.Wait()
}

// Object gives what is held under a key.
func (s *Server) Object(bucket, key string) (Object, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.buckets[bucket][key]
	return o, ok
}

// Set holds an object under a key, past all checks. A Modified of zero is now.
func (s *Server) Set(bucket, key string, o Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buckets[bucket] == nil {
		s.buckets[bucket] = map[string]Object{}
	}
	if o.Modified.IsZero() {
		o.Modified = s.cfg.Now()
	}
	if o.ETag == "" {
		o.ETag = etag(o.Body)
	}
	s.buckets[bucket][key] = o
}

// Keys gives the keys of a bucket, sorted.
func (s *Server) Keys(bucket string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.buckets[bucket]))
}

// Requests gives every request so far, in the order of arrival.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Request, len(s.requests))
	for i, r := range s.requests {
		out[i] = *r
	}
	return out
}

// Count is how many requests of an op were met with a status; 0 is any.
func (s *Server) Count(op string, status int) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Op == op && (status == 0 || r.Status == status) {
			n++
		}
	}
	return n
}

func (s *Server) note(r *Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	r.Seq = s.seq
	s.requests = append(s.requests, r)
	if n := s.cfg.JournalLimit; n > 0 && len(s.requests) > 2*n { // not at every step
		s.requests = slices.Clone(s.requests[len(s.requests)-n:])
	}
}

func (s *Server) answered(r *Request, status int, code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Status, r.Code = status, code
}

// place tells the bucket and the key of a request: in its path, or the bucket in its host.
func (s *Server) place(r *http.Request) (bucket, key string) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	if first, rest, ok := strings.Cut(host, "."); ok && net.ParseIP(host) == nil && rest != "" {
		s.mu.Lock()
		_, known := s.buckets[first]
		s.mu.Unlock()
		if known {
			return first, path
		}
	}
	bucket, key, _ = strings.Cut(path, "/")
	return bucket, key
}

func opOf(r *http.Request, key string) string {
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPost && key == "" && q.Has("delete"):
		return "delete-many"
	case r.Method == http.MethodGet && key == "" && q.Get("list-type") == "2":
		return "list"
	case key == "" || q.Has("uploads") || q.Has("uploadId"):
		return "other"
	}
	switch r.Method {
	case http.MethodPut:
		return "put"
	case http.MethodGet:
		return "get"
	case http.MethodHead:
		return "head"
	case http.MethodDelete:
		return "delete"
	}
	return "other"
}

func refuse(status int, code, message string) *fail { return &fail{status, code, message} }

// fail is an error of the protocol.
type fail struct {
	status        int
	code, message string
}

func (f *fail) answer() answer {
	h := http.Header{"Content-Type": {"application/xml"}}
	body := fmt.Sprintf("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>%s</Message><RequestId>REQ0000000000001</RequestId></Error>", f.code, xmlText(f.message))
	return answer{f.status, f.code, h, []byte(body)}
}
