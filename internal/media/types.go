package media

import (
	"bytes"
	"mime"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/gabriel-vasile/mimetype"
)

// sniffMost is how much of a file is looked at: office files tell what they are some kilobytes in.
const sniffMost = 16 << 10

func init() { mimetype.SetLimit(sniffMost) }

const unknownType = "application/octet-stream"

// uploadable are the types that an upload may have: what WhatsApp carries, and what people attach. Nothing that a
// browser or a shell would run.
var uploadable = []string{
	"image/jpeg", "image/png", "image/webp", "image/gif",
	"audio/aac", "audio/amr", "audio/mpeg", "audio/mp4", "audio/ogg", "video/mp4", "video/3gpp",
	"application/pdf", "application/msword", "application/vnd.ms-excel", "application/vnd.ms-powerpoint",
	"application/vnd.openxmlformats-officedocument.wordprocessingml.document",
	"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
	"application/vnd.openxmlformats-officedocument.presentationml.presentation",
	"application/vnd.oasis.opendocument.text", "application/vnd.oasis.opendocument.spreadsheet", "application/vnd.oasis.opendocument.presentation",
	"text/plain", "text/csv", "text/tab-separated-values", "text/vcard", "text/calendar", "text/rtf", "application/json", "application/zip",
}

// shownInline are the types that a browser may show in its own window: it runs nothing in them.
var shownInline = []string{
	"image/jpeg", "image/png", "image/webp", "image/gif",
	"audio/aac", "audio/amr", "audio/mpeg", "audio/mp4", "audio/ogg", "video/mp4", "video/3gpp", "application/pdf",
}

// programs are what no document is.
var programs = []string{
	"application/vnd.microsoft.portable-executable", "application/x-msdownload", "application/x-elf", "application/x-executable",
	"application/x-sharedlib", "application/x-object", "application/x-mach-binary", "application/x-msi", "application/x-ms-installer",
}

// Inline tells whether a type may be shown in a browser's window.
func Inline(mimeType string) bool { return slices.Contains(shownInline, base(mimeType)) }

// base is a type without its parameters.
func base(mimeType string) string {
	t, _, _ := strings.Cut(mimeType, ";")
	return strings.ToLower(strings.TrimSpace(t))
}

// synonyms of what the detector says.
var synonyms = map[string]string{
	"audio/x-m4a": "audio/mp4", "application/ogg": "audio/ogg", "audio/opus": "audio/ogg", "audio/x-aac": "audio/aac", "text/x-vcard": "text/vcard",
	"audio/3gpp": "video/3gpp", "video/x-m4v": "video/mp4", "application/rtf": "text/rtf",
}

// byEnding tells office files apart whose first bytes say no more than what they are packed in.
var byEnding = map[string]map[string]string{
	"application/zip": {
		".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
		".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
		".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
	},
	"application/x-ole-storage": {".doc": "application/msword", ".xls": "application/vnd.ms-excel", ".ppt": "application/vnd.ms-powerpoint"},
	"text/plain":                {".csv": "text/csv"},
}

// sniff tells a file's type by its first bytes.
func sniff(head []byte, filename string) string {
	t := base(mimetype.Detect(head).String())
	if s, ok := synonyms[t]; ok {
		t = s
	}
	if s, ok := byEnding[t][strings.ToLower(filepath.Ext(filename))]; ok {
		t = s
	}
	if t == "audio/ogg" && bytes.Contains(head, []byte("OpusHead")) {
		t += "; codecs=opus"
	}
	return t
}

// agreed is the type of a file that was declared as one type and looks like another; false if they contradict.
func agreed(declared, sniffed string) (string, bool) {
	d, s := base(declared), base(sniffed)
	family := func(t string) string { f, _, _ := strings.Cut(t, "/"); return f }
	switch {
	case d == "" || d == unknownType:
		return sniffed, true
	case d == s:
		return declared, true
	case family(d) == "image":
		return sniffed, family(s) == "image"
	case family(d) == "audio" || family(d) == "video":
		return declared, s == unknownType || family(s) == "audio" || family(s) == "video"
	case s == unknownType || kin(d, s):
		return declared, true
	case d == "application/pdf" || slices.Contains(programs, s):
		return sniffed, false
	}
	return sniffed, true // people name files as they like
}

// kin tells whether one type is a special case of the other, as a document is of the archive that it is packed in.
func kin(a, b string) bool {
	for _, p := range [][2]string{{a, b}, {b, a}} {
		for m := mimetype.Lookup(p[0]); m != nil && base(m.String()) != unknownType; m = m.Parent() {
			if base(m.String()) == p[1] {
				return true
			}
		}
	}
	return false
}

// cleanName is a file name that can stand in a header and on a disk.
func cleanName(s string) string {
	if i := strings.LastIndexAny(s, `/\`); i >= 0 {
		s = s[i+1:]
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar || unicode.In(r, unicode.Cf) { // Cf turns the reading direction round
			return -1
		}
		return r
	}, s)
	for len(s) > 200 {
		_, tail := s[:100], s[len(s)-99:]
		s = strings.ToValidUTF8(s[:100], "") + "…" + strings.ToValidUTF8(tail, "")
		break
	}
	return strings.TrimSpace(s)
}

// Disposition is the Content-Disposition of a file: shown where that is safe, else saved.
func (f *File) Disposition(mimeType string) string {
	kind := "attachment"
	if Inline(mimeType) {
		kind = "inline"
	}
	if f.Filename == "" {
		return kind
	}
	return mime.FormatMediaType(kind, map[string]string{"filename": f.Filename})
}
