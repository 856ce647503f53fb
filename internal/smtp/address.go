package smtp

import (
	"errors"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// address is a mail address as SMTP wants it.
type address struct {
	local  string
	domain string // ASCII
	utf8   bool   // local is not ASCII: it needs SMTPUTF8
}

func (a address) String() string { return a.local + "@" + a.domain }

var errAddress = errors.New("not a mail address")

// parseAddress reads local@domain: a local part without quotes (RFC 5321's
// dot-string, RFC 6531's if it is not ASCII) and a domain's name, which is turned
// to ASCII. Names, comments, quoted local parts and domain literals are refused.
func parseAddress(s string) (address, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at > 64 {
		return address{}, errAddress
	}
	a := address{local: s[:at]}
	for atom := range strings.SplitSeq(a.local, ".") {
		if atom == "" || !utf8.ValidString(atom) {
			return address{}, errAddress
		}
		for _, r := range atom {
			switch {
			case r >= utf8.RuneSelf && unicode.IsGraphic(r) && !unicode.IsSpace(r):
				a.utf8 = true
			case r >= utf8.RuneSelf || !isAtext(byte(r)):
				return address{}, errAddress
			}
		}
	}
	var err error
	if a.domain, err = asciiDomain(s[at+1:]); err != nil || len(a.String()) > 254 {
		return address{}, errAddress
	}
	if _, err := netip.ParseAddr(a.domain); err == nil {
		return address{}, errAddress // only [1.2.3.4] would be one
	}
	return a, nil
}

// IsAddress tells whether mail can be sent to a text, and from it.
func IsAddress(s string) bool {
	_, err := parseAddress(s)
	return err == nil
}

func isAtext(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", b) >= 0
}

// domains turns names to ASCII as a lookup would, and holds them to the lengths and letters of host names.
var domains = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true))

func asciiDomain(s string) (string, error) {
	if s == "" || len(s) > 1000 || strings.HasSuffix(s, ".") || !utf8.ValidString(s) {
		return "", errAddress
	}
	if isPlainDomain(s) {
		return s, nil
	}
	return domains.ToASCII(s)
}

// isPlainDomain tells whether a name stays as it is when it is turned to ASCII, as nearly all do.
func isPlainDomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		n := len(label)
		if n == 0 || n > 63 || label[0] == '-' || label[n-1] == '-' || n > 3 && label[2:4] == "--" {
			return false
		}
		for i := range n {
			if c := label[i]; (c < 'a' || 'z' < c) && (c < '0' || '9' < c) && c != '-' {
				return false
			}
		}
	}
	return true
}

// displayName is a name fit for an address header; one that nobody would read
// to its end is cut. Backslashes go: net/mail leaves them in encoded words, where they may not stand.
func displayName(s string) string {
	const most = 300
	if s = oneLine(strings.ReplaceAll(s, `\`, "")); len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}

// oneLine makes text fit for a header: valid, and without line ends or other control characters.
func oneLine(s string) string {
	plain := true
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			plain = false
			break
		}
	}
	if plain {
		return strings.TrimSpace(s)
	}
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "\uFFFD"), func(r rune) bool {
		return unicode.IsSpace(r) && r != '\u00a0' || unicode.IsControl(r)
	}), " ")
}
