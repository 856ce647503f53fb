package crm

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/fault"
)

// Files as spreadsheets write them, whatever they separate and end with, read the same; also from the middle on.
func TestSheet(t *testing.T) {
	rows := [][]string{{"Name", "PHONE", " tags ", "fields.name", "Town", "score", ""}, {"Ana \"A\"", "+918143963821", "a; b", "two\nlines", "Pune, IN", "7", "x"}, {"", "", "", "", "", "", ""}, {"Ben", "8143963822"}}
	for _, comma := range []rune{',', ';', '\t'} {
		for _, crlf := range []bool{false, true} {
			for _, head := range []string{"", "\xef\xbb\xbf"} {
				var b bytes.Buffer
				b.WriteString(head)
				w := csv.NewWriter(&b)
				w.Comma, w.UseCRLF = comma, crlf
				if err := w.WriteAll(rows); err != nil {
					t.Fatal(err)
				}
				name := fmt.Sprintf("%q %v %q", comma, crlf, head)
				if n, err := ScanSheet(bytes.NewReader(b.Bytes())); n != 2 || err != nil {
					t.Errorf("%s: %d rows, %v", name, n, err)
				}
				f := bytes.NewReader(b.Bytes())
				s, err := openSheet(f)
				if err != nil {
					t.Fatal(name, err)
				}
				if got := strings.Join(s.columns, "|"); got != "name|phone|tags|fields.name|fields.Town||" {
					t.Errorf("%s: columns %s", name, got)
				}
				first, _, err := s.next()
				if err != nil {
					t.Fatal(name, err)
				}
				lead, reason := s.lead(first, "IN", Stages{})
				if reason != "" || lead.Name != `Ana "A"` || lead.Phone != "+918143963821" || fmt.Sprint(lead.Tags) != "[a b]" || lead.Fields["name"] != "two\nlines" || lead.Fields["Town"] != "Pune, IN" || len(lead.Fields) != 2 {
					t.Errorf("%s: %+v %s", name, lead, reason)
				}
				if err := s.seek(f, s.offset()); err != nil {
					t.Fatal(name, err)
				}
				second, _, err := s.next()
				if err != nil {
					t.Fatal(name, err)
				}
				if lead, reason = s.lead(second, "IN", Stages{}); reason != "" || lead.Name != "Ben" || lead.Phone != "+918143963822" {
					t.Errorf("%s: %+v %s", name, lead, reason)
				}
				if _, _, err := s.next(); !errors.Is(err, io.EOF) {
					t.Errorf("%s: %v after the last row", name, err)
				}
			}
		}
	}
	for file, ok := range map[string]bool{
		"phone\n": true, "EMAIL": true, "name\nx\n": false, "": false, "\n\n": false, "phone,Phone\n": false, "x,x,phone\n": false, "x,X,phone\n": true, "phone\n\"open": true, "phone\na\"b\n": true,
		"phone\n\xff\n": false,
	} {
		if _, err := ScanSheet(strings.NewReader(file)); (err == nil) != ok || (err != nil && fault.Of(err) != fault.Invalid) {
			t.Errorf("%q: %v", file, err)
		}
	}
}

// What a spreadsheet would compute is marked as text, and comes back as it was.
func TestCells(t *testing.T) {
	for in, out := range map[string]string{"": "", "Ana": "Ana", "=1+1": "'=1+1", "+91": "'+91", "-5": "'-5", "@x": "'@x", "\tx": "'\tx", "'quoted": "'quoted", "'": "'", "'=1": "''=1", "''+": "'''+"} {
		if got := Cell(in); got != out || plainCell(got) != in {
			t.Errorf("%q: %q, and back %q", in, got, plainCell(got))
		}
	}
}

func FuzzSheet(f *testing.F) {
	for _, s := range []string{"phone,name\n1,2\n", "\xef\xbb\xbfphone;tags\r\n\"8143963821\";\"a;b\"\r\n", "phone\n\"\n", "phone\t\n\t\t\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, file string) {
		n, err := ScanSheet(strings.NewReader(file))
		if err != nil {
			return
		}
		r := strings.NewReader(file)
		s, err := openSheet(r)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; ; i++ { // each row read anew from where the one before ended
			cells, _, err := s.next()
			if errors.Is(err, io.EOF) {
				if i != n {
					t.Fatalf("%d rows in steps, %d at once", i, n)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			_, _ = s.lead(cells, "IN", Stages{})
			if err := s.seek(r, s.offset()); err != nil {
				t.Fatal(err)
			}
		}
	})
}
