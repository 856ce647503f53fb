package crm

import (
	"strings"
	"unicode"

	"github.com/nyaruka/phonenumbers"
)

// Phone reads a phone number in any spelling and gives it as E.164 ("+918143963821"). country (ISO alpha-2, may be "")
// is used for numbers written without one. Numbers that no numbering plan knows are kept if they look like one
// (8 to 15 digits): plans change faster than tables. False: it cannot be a phone number.
func Phone(raw, country string) (string, bool) {
	if len(raw) > 256 {
		return "", false
	}
	raw = plainPhone(raw)
	plus := strings.HasPrefix(raw, "+")
	var b strings.Builder
	for _, c := range raw {
		switch {
		case c >= '0' && c <= '9':
			b.WriteRune(c)
		case c == '+' && b.Len() == 0, strings.ContainsRune(" -.()/", c):
		default:
			return "", false
		}
	}
	digits := b.String()
	if !plus && strings.HasPrefix(digits, "00") {
		digits, plus = digits[2:], true
	}
	if len(digits) < 5 || len(digits) > 17 {
		return "", false
	}
	if !plus && country != "" {
		if n, err := phonenumbers.Parse(digits, strings.ToUpper(country)); err == nil && phonenumbers.IsValidNumber(n) {
			return phonenumbers.Format(n, phonenumbers.E164), true
		}
	}
	if n, err := phonenumbers.Parse("+"+digits, ""); err == nil && phonenumbers.IsValidNumber(n) {
		return phonenumbers.Format(n, phonenumbers.E164), true
	}
	if len(digits) < 8 || len(digits) > 15 || digits[0] == '0' {
		return "", false
	}
	return "+" + digits, true
}

// plainPhone brings the characters that contact apps, spreadsheets and keyboards put into numbers to those of ASCII:
// digits of any script, spaces, dashes and plus signs of any width; marks that nobody sees go.
func plainPhone(raw string) string {
	out := strings.TrimSpace(strings.Map(func(c rune) rune {
		switch {
		case c < unicode.MaxASCII && c > ' ':
			return c
		case unicode.Is(unicode.Nd, c):
			return digitOf(c)
		case unicode.IsSpace(c):
			return ' '
		case unicode.Is(unicode.Pd, c), c == '\u2212', c == '\u00ad':
			return '-'
		case unicode.Is(unicode.Cf, c): // directions, joiners, a byte order mark
			return -1
		}
		switch c {
		case '\uff0b':
			return '+'
		case '\uff08':
			return '('
		case '\uff09':
			return ')'
		case '\uff0e', '\u00b7', '\u2022':
			return '.'
		case '\uff0f':
			return '/'
		}
		return c
	}, raw))
	if len(out) > 4 && strings.EqualFold(out[:4], "tel:") {
		out = strings.TrimSpace(out[4:])
	}
	return out
}

// digitOf gives a decimal digit of any script as one of ASCII: every script has its ten in a row, from zero on.
func digitOf(c rune) rune {
	for _, r := range unicode.Nd.R16 {
		if lo := rune(r.Lo); c >= lo && c <= rune(r.Hi) {
			return '0' + (c-lo)%10
		}
	}
	for _, r := range unicode.Nd.R32 {
		if lo := rune(r.Lo); c >= lo && c <= rune(r.Hi) {
			return '0' + (c-lo)%10
		}
	}
	return c
}

// PhoneKey brings an E.164 number to the form in which the spellings of one line are equal. Three countries changed
// their mobile numbers, and WhatsApp still gives the old form for some: Mexico (+52 1 …), Brazil (a ninth digit),
// Argentina (+54 9 …).
func PhoneKey(e164 string) string {
	d := strings.TrimPrefix(e164, "+")
	switch {
	case strings.HasPrefix(d, "521") && len(d) == 13:
		d = "52" + d[3:]
	case strings.HasPrefix(d, "549") && len(d) == 13:
		d = "54" + d[3:]
	case strings.HasPrefix(d, "55") && len(d) == 12 && d[4] >= '6':
		d = d[:4] + "9" + d[4:]
	}
	return "+" + d
}

// PhoneCountry is the country of an E.164 number (ISO alpha-2); "" if not known.
func PhoneCountry(e164 string) string {
	n, err := phonenumbers.Parse(e164, "")
	if err != nil {
		return ""
	}
	if c := phonenumbers.GetRegionCodeForNumber(n); c != "ZZ" {
		return c
	}
	return ""
}

// Email brings an address to the form it is compared in; false if it cannot be one.
func Email(raw string) (string, bool) {
	s := strings.ToLower(strings.TrimSpace(raw))
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at == len(s)-1 || len(s) > 254 || strings.ContainsAny(s, " \t\r\n<>,;\"\x00") || !strings.Contains(s[at:], ".") {
		return "", false
	}
	return s, true
}
