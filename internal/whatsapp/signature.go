package whatsapp

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/ecodrix/ecod/internal/secret"
)

// SignatureHeader carries the signature of a webhook's body.
const SignatureHeader = "X-Hub-Signature-256"

// VerifySignature tells whether header ("sha256=" and 64 hex digits of either
// case) is the HMAC-SHA256 of raw under the app secret. raw must be the bytes as
// received: Meta escapes non-ASCII and slashes, so a body that was decoded and
// encoded again has another signature. An empty secret verifies nothing.
// The comparison takes the same time wherever the two differ.
func VerifySignature(appSecret secret.Text, header string, raw []byte) bool {
	digits, ok := strings.CutPrefix(header, "sha256=")
	if !ok || appSecret == "" {
		return false
	}
	got, err := hex.DecodeString(digits)
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, []byte(appSecret.Reveal()))
	mac.Write(raw)
	return hmac.Equal(got, mac.Sum(nil))
}
