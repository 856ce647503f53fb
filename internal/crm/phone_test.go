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
