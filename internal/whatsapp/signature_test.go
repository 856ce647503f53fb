package whatsapp

import (
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/secret"
)

func TestVerifySignature(t *testing.T) {
	raw := body(t, "text_unicode_wire.json")
	good := "sha256=0d668b45683a185315854adfc8e535cbd8d3443fa601eff5988a3c8ccfda87d2"
	const key = "fixture-app-secret"
	for name, tc := range map[string]struct {
		secret secret.Text
		header string
		raw    []byte
		want   bool
	}{
		"right":               {key, good, raw, true},
		"upper hex":           {key, "sha256=" + strings.ToUpper(good[7:]), raw, true},
		"missing":             {key, "", raw, false},
		"no prefix":           {key, good[7:], raw, false},
		"sha1":                {key, "sha1=" + good[7:47], raw, false},
		"cut":                 {key, good[:len(good)-2], raw, false},
		"half a byte":         {key, good[:len(good)-1], raw, false},
		"longer":              {key, good + "00", raw, false},
		"not hex":             {key, "sha256=" + strings.Repeat("zz", 32), raw, false},
		"spaces":              {key, good + " ", raw, false},
		"other secret":        {"another", good, raw, false},
		"changed body":        {key, good, append([]byte{' '}, raw...), false},
		"no secret":           {"", good, raw, false},
		"no secret, its hmac": {"", "sha256=b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad", nil, false},
	} {
		if got := VerifySignature(tc.secret, tc.header, tc.raw); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
