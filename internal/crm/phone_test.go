package crm

import "testing"

func TestPhoneAnySpelling(t *testing.T) {
	for _, c := range []struct{ raw, country, want string }{
		{"918143963821", "", "+918143963821"},
		{"+91 81439 63821", "", "+918143963821"},
		{"0091-81439-63821", "", "+918143963821"},
		{"8143963821", "IN", "+918143963821"},
		{"08143963821", "in", "+918143963821"},
		{"918143963821", "IN", "+918143963821"},
		{"918143963821", "US", "+918143963821"},
		{"(202) 555-0143", "US", "+12025550143"},
		{"12025550143", "", "+12025550143"},
		{"020 7946 0018", "GB", "+442079460018"},
		{"+44 (0)20 7946 0018", "", "+442079460018"},
		{"5215512345678", "", "+5215512345678"}, // a spelling that the tables call invalid
		{"", "", ""}, {"abc", "IN", ""}, {"+", "", ""}, {"12", "", ""}, {"00000000000", "", ""}, {"9;9", "", ""},
		{"1234567890123456789012345", "", ""},
	} {
		got, ok := Phone(c.raw, c.country)
		if got != c.want || ok != (c.want != "") {
			t.Errorf("Phone(%q, %q) = %q, %v; want %q", c.raw, c.country, got, ok, c.want)
		}
	}
}

// TestPhoneAsItIsPasted: numbers come out of contact apps, spreadsheets and links with marks that nobody sees, and people
// write them with the digits of their keyboard.
func TestPhoneAsItIsPasted(t *testing.T) {
	for name, raw := range map[string]string{
		"directional marks":  "\u202a+91 81439 63821\u202c",
		"left-to-right mark": "\u200e+918143963821\u200e",
		"byte order mark":    "\ufeff918143963821",
		"isolates":           "\u2066+918143963821\u2069",
		"zero width space":   "+91\u200b81439\u200b63821",
		"thin spaces":        "+91\u200981439\u200963821",
		"narrow no-break":    "+91\u202f81439\u202f63821",
		"figure dash":        "+91\u201281439\u201263821",
		"em dash, minus":     "+91\u201481439\u221263821",
		"tabs":               "\t+91\t81439\t63821\r\n",
		"full width":         "\uff0b\uff19\uff11 \uff18\uff11\uff14\uff13\uff19\uff16\uff13\uff18\uff12\uff11",
		"Arabic-Indic":       "+\u0669\u0661\u0668\u0661\u0664\u0663\u0669\u0666\u0663\u0668\u0662\u0661",
		"Persian":            "+\u06f9\u06f1\u06f8\u06f1\u06f4\u06f3\u06f9\u06f6\u06f3\u06f8\u06f2\u06f1",
		"Devanagari":         "+\u096f\u0967\u096e\u0967\u096a\u0969\u096f\u096c\u0969\u096e\u0968\u0967",
		"a link":             "tel:+91-8143963821",
		"a link in capitals": " TEL: +918143963821",
	} {
		if got, ok := Phone(raw, "IN"); !ok || got != "+918143963821" {
			t.Errorf("%s: Phone(%q) = %q, %v", name, raw, got, ok)
		}
	}
	for _, raw := range []string{"tel:", "tel:abc", "\u202a\u202c", "+91\x008143963821", "8143963821a", "\u2460\u2461\u2462\u2463\u2464\u2465\u2466\u2467", "918143963821 ext 5", "918143963821;918143963822"} {
		if got, ok := Phone(raw, "IN"); ok {
			t.Errorf("Phone(%q) = %q", raw, got)
		}
	}
}

func TestPhoneKeyJoinsSpellingsOfOneLine(t *testing.T) {
	for _, pair := range [][2]string{
		{"+5215512345678", "+525512345678"}, // Mexico
		{"+5491123456789", "+541123456789"}, // Argentina
		{"+551187654321", "+5511987654321"}, // Brazil, mobile
	} {
		if PhoneKey(pair[0]) != PhoneKey(pair[1]) {
			t.Errorf("%s and %s have keys %s and %s", pair[0], pair[1], PhoneKey(pair[0]), PhoneKey(pair[1]))
		}
	}
	for _, pair := range [][2]string{{"+551131234567", "+5511931234567"}, {"+12025550143", "+12025550144"}} {
		if PhoneKey(pair[0]) == PhoneKey(pair[1]) {
			t.Errorf("%s and %s are different lines", pair[0], pair[1])
		}
	}
}

func TestEmail(t *testing.T) {
	for raw, want := range map[string]string{" D@Example.COM ": "d@example.com", "a@b.co": "a@b.co", "a": "", "@b.co": "", "a@": "", "a@b": "", "a b@c.de": "", "a@b.c\r\nX: y": ""} {
		if got, ok := Email(raw); got != want || ok != (want != "") {
			t.Errorf("Email(%q) = %q, %v", raw, got, ok)
		}
	}
}
