package bus_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/bus/bustest"
)

// Redis over TLS, its certificate by a private authority that SSL_CERT_FILE names: nodes hear each other. One whose certificate
// is another authority's, or another host's, is not spoken to.
func TestRedisOverTLS(t *testing.T) {
	t.Parallel()
	bustest.Unstarted(t) // or be skipped
	const inside = "ECOD_TEST_INSIDE_TLS"
	if dir := os.Getenv(inside); dir != "" {
		overTLS(t, dir)
		return
	}
	dir := t.TempDir()
	newAuthority(t).write(filepath.Join(dir, "authority"))
	// A process reads SSL_CERT_FILE once, so it is a process of its own.
	//nolint:gosec // the test's own binary
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRedisOverTLS$", "-test.count=1")
	cmd.Env = append(os.Environ(), inside+"="+dir, "SSL_CERT_FILE="+filepath.Join(dir, "authority.pem"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func overTLS(t *testing.T, dir string) {
	known := readAuthority(t, filepath.Join(dir, "authority"))
	url := tlsServer(t, known, "127.0.0.1")
	a, _ := open(t, url)
	b, _ := open(t, url)
	ready(t, a, b, "x")
	ready(t, b, a, "x")
	for what, url := range map[string]string{
		"another authority's": tlsServer(t, newAuthority(t), "127.0.0.1"),
		"another host's":      tlsServer(t, known, "192.0.2.1"),
	} {
		c, log := join(t, url)
		eventually(t, "refused", func() bool { return strings.Contains(log.String(), "is cut") })
		if err := c.Healthy(); err == nil || !strings.Contains(err.Error(), "x509: certificate") {
			t.Errorf("a certificate that is %s: %v", what, err)
		}
	}
}

// tlsServer starts a Redis and gives its address for TLS.
func tlsServer(t *testing.T, by *authority, host string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	_ = ln.Close()
	at := filepath.Join(t.TempDir(), "server")
	by.issue(host).write(at)
	bustest.Start(t, "--tls-port", port, "--tls-cert-file", at+".pem", "--tls-key-file", at+".key", "--tls-auth-clients", "no")
	return "rediss://" + addr
}

// authority is a certificate with its key.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	return sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
}

// issue makes a server's certificate.
func (a *authority) issue(host string) *authority {
	return sign(a.t, &x509.Certificate{Subject: pkix.Name{CommonName: host}, IPAddresses: []net.IP{net.ParseIP(host)}}, a)
}

// sign makes a certificate; by nil: it signs itself.
func sign(t *testing.T, c *x509.Certificate, by *authority) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if by == nil {
		by = &authority{t, c, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.cert, key.Public(), by.key)
	if err == nil {
		c, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, c, key}
}

// write keeps it in two files, .pem and .key.
func (a *authority) write(at string) {
	a.t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err == nil {
		err = os.WriteFile(at+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600)
	}
	if err == nil {
		err = os.WriteFile(at+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600)
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

func readAuthority(t *testing.T, at string) *authority {
	t.Helper()
	var der [2][]byte
	for i, ext := range []string{".pem", ".key"} {
		b, err := os.ReadFile(at + ext)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(b)
		der[i] = block.Bytes
	}
	cert, err := x509.ParseCertificate(der[0])
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der[1])
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, cert, key.(*ecdsa.PrivateKey)}
}
