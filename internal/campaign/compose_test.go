package campaign

import (
	"slices"
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/secret"
)

func TestCompose(t *testing.T) {
	const link = "https://x.example/u/t"
	r := &Recipient{Address: "a@example.com", Name: "Ann", Values: map[string]string{"name": "<b>Ann</b>"}}
	m, missing := read(&Content{Subject: "Hi {{name}}", HTML: "<html><BODY>{{ name }}</BODY></html>", Text: "{{name}}: {{unsubscribeUrl}}"}).compose(r, link)
	if len(missing) > 0 || m.Subject != "Hi <b>Ann</b>" || m.ListUnsubscribe != link || m.To != "a@example.com" || m.ToName != "Ann" {
		t.Errorf("%v %+v", missing, m)
	}
	if !strings.HasPrefix(m.HTML, "<html><BODY>&lt;b&gt;Ann&lt;/b&gt;<p") || !strings.HasSuffix(m.HTML, "</p></BODY></html>") || strings.Count(m.HTML, link) != 1 {
		t.Errorf("html %s", m.HTML)
	}
	if m.Text != "<b>Ann</b>: "+link {
		t.Errorf("text %s", m.Text)
	}
	if _, missing = read(&Content{Subject: "{{a}}", HTML: "{{b}}"}).compose(r, link); !slices.Equal(missing, []string{"a", "b"}) {
		t.Errorf("missing %v", missing)
	}
	if m, _ = read(&Content{Subject: "x", HTML: "no body, İ</body"}).compose(r, link); !strings.Contains(m.HTML, link) {
		t.Errorf("html %s", m.HTML)
	}
}

func TestTokens(t *testing.T) {
	one, err := newSealer(secret.Text("key one"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := newSealer(secret.Text("key two"))
	if err != nil {
		t.Fatal(err)
	}
	a := one.token("ACME", Email, "cmp_1", "ann@example.com")
	if a != one.token("ACME", Email, "cmp_1", "ann@example.com") {
		t.Error("the same mail has another link")
	}
	seen := map[string]bool{a: true}
	for _, other := range []string{
		two.token("ACME", Email, "cmp_1", "ann@example.com"), one.token("BETA", Email, "cmp_1", "ann@example.com"),
		one.token("ACME", WhatsApp, "cmp_1", "ann@example.com"), one.token("ACME", Email, "cmp_2", "ann@example.com"),
		one.token("ACME", Email, "cmp_1", "bo@example.com"),
	} {
		if seen[other] {
			t.Error("two links are one")
		}
		seen[other] = true
	}
	if len(one.token(strings.Repeat("A", 40), Email, "cmp_"+strings.Repeat("0", 32), strings.Repeat("a", 254))) > 700 {
		t.Error("a link is too long for a header")
	}
}
