package secret

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func ring(t *testing.T, s string) *Ring {
	t.Helper()
	r, err := ParseRing(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSealIsBoundToOwnerAndField(t *testing.T) {
	r := ring(t, Generate("k1"))
	s, err := r.Seal("ACME", "whatsapp.accessToken", "EAAG-token")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(s, "EAAG") || KeyID(s) != "k1" {
		t.Fatalf("sealed value %q", s)
	}
	if got, err := r.Open("ACME", "whatsapp.accessToken", s); err != nil || got.Reveal() != "EAAG-token" {
		t.Fatalf("open: %q %v", got.Reveal(), err)
	}
	at := len(s) - 6
	other := "A"
	if s[at] == 'A' {
		other = "B"
	}
	for name, open := range map[string]func() (Text, error){
		"other owner": func() (Text, error) { return r.Open("BETA", "whatsapp.accessToken", s) },
		"other field": func() (Text, error) { return r.Open("ACME", "whatsapp.appSecret", s) },
		"changed":     func() (Text, error) { return r.Open("ACME", "whatsapp.accessToken", s[:at]+other+s[at+1:]) },
		"cut":         func() (Text, error) { return r.Open("ACME", "whatsapp.accessToken", s[:len(Prefix)+5]) },
		"plain":       func() (Text, error) { return r.Open("ACME", "whatsapp.accessToken", "EAAG-token") },
		"other ring":  func() (Text, error) { return ring(t, Generate("k2")).Open("ACME", "whatsapp.accessToken", s) },
	} {
		if got, err := open(); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: got %q, %v; want ErrOpen", name, got.Reveal(), err)
		}
	}
}

func TestRotation(t *testing.T) {
	k1, k2 := Generate("k1"), Generate("k2")
	s, _ := ring(t, k1).Seal("A", "f", "v")
	both := ring(t, k2+","+k1)
	if got, err := both.Open("A", "f", s); err != nil || got.Reveal() != "v" {
		t.Fatal(err)
	}
	if s2, _ := both.Seal("A", "f", "v"); KeyID(s2) != "k2" {
		t.Fatalf("newest key must seal, got %q", KeyID(s2))
	}
}

func TestParseRingRefuses(t *testing.T) {
	k := Generate("a")
	for _, s := range []string{"", "abc", "a:!!!", "a:" + "AAAA", "a b:" + k[2:], k + "," + k} {
		if _, err := ParseRing(s); err == nil {
			t.Errorf("ParseRing(%q) accepted", s)
		}
	}
}

func TestTextNeverPrints(t *testing.T) {
	v := struct{ T Text }{"hunter2"}
	j, _ := json.Marshal(v)
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "t", v.T, "v", v)
	for _, s := range []string{fmt.Sprint(v), fmt.Sprintf("%+v %#v %s %q %x", v, v, v.T, v.T, v.T), string(j), b.String()} {
		if strings.Contains(s, "hunter2") || strings.Contains(s, "68756e74") {
			t.Errorf("leaked in %q", s)
		}
	}
}
