package media

import (
	"archive/zip"
	"bytes"
	"strings"
	"testing"
)

func zipOf(t *testing.T, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, n := range names {
		if _, err := z.Create(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSniff(t *testing.T) {
	for name, c := range map[string]struct {
		head     []byte
		filename string
		want     string
	}{
		"voice":         {[]byte("OggS\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x13OpusHead\x01\x01"), "", "audio/ogg; codecs=opus"},
		"old voice":     {[]byte("#!AMR\n\x3c"), "", "audio/amr"},
		"song":          {[]byte("\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00"), "a.m4a", "audio/mp4"},
		"film":          {[]byte("\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41"), "", "video/mp4"},
		"letter":        {zipOf(t, "[Content_Types].xml", "word/document.xml"), "a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"},
		"late letter":   {zipOf(t, "a", "b"), "a.DOCX", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"},
		"archive":       {zipOf(t, "a"), "a.zip", "application/zip"},
		"table":         {[]byte("a,b\n1,2\n3,4\n"), "x.csv", "text/csv"},
		"card":          {[]byte("BEGIN:VCARD\nVERSION:3.0\nEND:VCARD\n"), "", "text/vcard"},
		"page":          {[]byte("<!DOCTYPE html><html>"), "x.jpg", "text/html"},
		"drawing":       {[]byte(`<svg xmlns="http://www.w3.org/2000/svg">`), "x.png", "image/svg+xml"},
		"not for files": {[]byte{0, 1, 2, 3}, "", "application/octet-stream"},
	} {
		if got := sniff(c.head, c.filename); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestAgreed(t *testing.T) {
	const docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
	for _, c := range []struct {
		declared, sniffed, want string
		ok                      bool
	}{
		{"image/jpeg", "image/jpeg", "image/jpeg", true},
		{"image/jpeg", "image/png", "image/png", true},
		{"image/jpeg", "text/html", "", false},
		{"image/webp", "application/octet-stream", "", false},
		{"audio/ogg; codecs=opus", "audio/ogg; codecs=opus", "audio/ogg; codecs=opus", true},
		{"audio/mp4", "video/mp4", "audio/mp4", true},
		{"audio/mpeg", "application/octet-stream", "audio/mpeg", true},
		{"video/mp4", "application/x-elf", "", false},
		{"application/pdf", "application/pdf", "application/pdf", true},
		{"application/pdf", "text/html", "", false},
		{"application/pdf", "application/octet-stream", "application/pdf", true},
		{docx, "application/zip", docx, true},
		{docx, "application/vnd.microsoft.portable-executable", "", false},
		{"application/vnd.ms-excel", "text/html", "text/html", true}, // exports of many programs; kept as what it is
		{"text/csv", "text/plain", "text/csv", true},
		{"", "image/png", "image/png", true},
		{"application/octet-stream", "application/pdf", "application/pdf", true},
		{"application/x-own", "application/octet-stream", "application/x-own", true},
	} {
		got, ok := agreed(c.declared, c.sniffed)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%s that looks like %s: %s, %v", c.declared, c.sniffed, got, ok)
		}
	}
}

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"../../etc/passwd": "passwd", `C:\Users\a\b.pdf`: "b.pdf", "a\r\nSet-Cookie: x": "aSet-Cookie: x", " x ": "x", "..": "..", "": "",
		"invoice\u202efdp.exe": "invoicefdp.exe", "bad\xff.txt": "bad.txt",
	} {
		if got := cleanName(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	long := cleanName(strings.Repeat("ä", 300) + ".pdf")
	if len(long) > 210 || !strings.HasSuffix(long, ".pdf") {
		t.Errorf("%d bytes: %s", len(long), long)
	}
	if d := (&File{Filename: "a\"b\\c;d.html"}).Disposition("text/html"); d != `attachment; filename="a\"b\\c;d.html"` {
		t.Errorf("%s", d)
	}
	if d := (&File{}).Disposition("application/pdf"); d != "inline" {
		t.Errorf("%s", d)
	}
}
