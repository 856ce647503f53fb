package media

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// container is what the file format of a picture tells, found without decoding a pixel.
type container struct {
	clean       []byte // the same picture without its metadata; nil if the format is broken
	orientation int    // EXIF's, 1 to 8; 0: not told
	icc         []byte // JPEG: the colour profile's segments, whole
	animated    bool
	sixteen     bool    // PNG: 16 bits a channel
	samples     float64 // JPEG: per pixel, by its subsampling
	progressive bool    // JPEG: all coefficients are held in memory while decoding
	scans       int     // JPEG: how often its blocks are gone through, at most
	frame       float64 // WebP: pixels of its largest frame, whatever its canvas is
}

func readContainer(mimeType string, b []byte) container {
	switch mimeType {
	case "image/jpeg":
		return readJPEG(b)
	case "image/png":
		return readPNG(b)
	case "image/webp":
		return readWebP(b)
	case "image/gif":
		return container{clean: b, animated: true}
	}
	return container{}
}

// JPEG markers.
const (
	jpegSOI, jpegEOI, jpegSOS = 0xd8, 0xd9, 0xda
	jpegAPP0, jpegAPP1        = 0xe0, 0xe1
	jpegAPP2, jpegAPP14       = 0xe2, 0xee
	jpegAPP15, jpegCOM        = 0xef, 0xfe
)

// readJPEG walks the segments up to the end of the image; what stands behind it is left out as well. Of the
// application segments only those stay that say how to read the colours.
func readJPEG(b []byte) (c container) {
	c.samples = 3
	defer func() {
		if c.clean == nil { // a decoder forgives what is not understood here, and goes on: every scan there may be counts
			c.scans, c.samples, c.progressive = bytes.Count(b, []byte{0xff, jpegSOS}), 4, true
		}
	}()
	framed := false
	if len(b) < 4 || b[0] != 0xff || b[1] != jpegSOI {
		return c
	}
	out := append(make([]byte, 0, len(b)), b[:2]...)
	for i := 2; ; {
		for i < len(b) && b[i] == 0xff && i+1 < len(b) && b[i+1] == 0xff {
			i++ // fill bytes
		}
		if i+1 >= len(b) || b[i] != 0xff {
			return c
		}
		m := b[i+1]
		if m == jpegEOI {
			c.clean = append(out, 0xff, jpegEOI)
			return c
		}
		if m == 0 { // a decoder passes over these two bytes alone
			return c
		}
		if m == 0x01 || m >= 0xd0 && m <= 0xd7 {
			i += 2
			continue
		}
		if i+4 > len(b) {
			return c
		}
		n := int(binary.BigEndian.Uint16(b[i+2:]))
		if n < 2 || i+2+n > len(b) {
			return c
		}
		segment, body := b[i:i+2+n], b[i+4:i+2+n]
		i += 2 + n
		switch {
		case m == jpegAPP1:
			if exif, ok := bytes.CutPrefix(body, []byte("Exif\x00\x00")); ok && c.orientation == 0 {
				c.orientation = orientation(exif)
			}
		case m == jpegAPP2:
			if bytes.HasPrefix(body, []byte("ICC_PROFILE\x00")) {
				c.icc = append(c.icc, segment...)
				out = append(out, segment...)
			}
		case m == jpegAPP0 && bytes.HasPrefix(body, []byte("JFIF\x00")), m == jpegAPP14:
			out = append(out, segment...)
		case m >= jpegAPP0 && m <= jpegAPP15, m == jpegCOM:
		default:
			if m >= 0xc0 && m <= 0xcf && m != 0xc4 && m != 0xc8 && m != 0xcc && !framed { // a second one ends the decoding
				framed = true
				c.progressive = m == 0xc2
				c.samples = jpegSamples(body)
			}
			out = append(out, segment...)
		}
		if m == jpegSOS { // coded data follows, up to a marker that is not a restart
			c.scans++
			from := i
			for i+1 < len(b) && (b[i] != 0xff || b[i+1] == 0 || b[i+1] >= 0xd0 && b[i+1] <= 0xd7) {
				i++
			}
			out = append(out, b[from:i]...)
		}
	}
}

// jpegSamples is how many samples a pixel has, by a frame header.
func jpegSamples(sof []byte) float64 {
	if len(sof) < 6 || len(sof) < 6+3*int(sof[5]) {
		return 4
	}
	sum, h, v := 0, 1, 1
	for i := range int(sof[5]) {
		ch, cv := int(sof[7+3*i]>>4), int(sof[7+3*i]&15)
		sum, h, v = sum+ch*cv, max(h, ch), max(v, cv)
	}
	return float64(sum) / float64(h*v)
}

var pngSignature = []byte("\x89PNG\r\n\x1a\n")

// pngKept are the chunks that show: all critical ones are kept besides.
var pngKept = []string{"tRNS", "gAMA", "cHRM", "sRGB", "iCCP", "sBIT", "bKGD", "pHYs", "cICP", "acTL", "fcTL", "fdAT"}

func readPNG(b []byte) (c container) {
	if !bytes.HasPrefix(b, pngSignature) {
		return c
	}
	out := append(make([]byte, 0, len(b)), pngSignature...)
	for i := len(pngSignature); i+12 <= len(b); {
		n := int64(binary.BigEndian.Uint32(b[i:]))
		if n > int64(len(b)-i-12) {
			return c
		}
		kind, body, chunk := string(b[i+4:i+8]), b[i+8:i+8+int(n)], b[i:i+12+int(n)]
		i += 12 + int(n)
		switch {
		case kind == "IHDR" && n >= 9:
			c.sixteen = c.sixteen || body[8] == 16
		case kind == "acTL":
			c.animated = true
		case kind == "eXIf":
			c.orientation = orientation(body)
		}
		if kind[0] >= 'A' && kind[0] <= 'Z' || slices.Contains(pngKept, kind) {
			out = append(out, chunk...)
		}
		if kind == "IEND" {
			c.clean = out
			return c
		}
	}
	return c
}

func readWebP(b []byte) (c container) {
	if len(b) < 12 || string(b[:4]) != "RIFF" || string(b[8:12]) != "WEBP" {
		return c
	}
	end := int64(binary.LittleEndian.Uint32(b[4:])) + 8
	if end > int64(len(b)) || end < 12 {
		return c
	}
	b = b[:end]
	out := append(make([]byte, 0, len(b)), b[:12]...)
	for i := 12; i+8 <= len(b); {
		n := int64(binary.LittleEndian.Uint32(b[i+4:]))
		padded := n + n&1
		if n > int64(len(b)-i-8) {
			return c
		}
		padded = min(padded, int64(len(b)-i-8))
		kind, body, chunk := string(b[i:i+4]), b[i+8:i+8+int(n)], b[i:i+8+int(padded)]
		i += 8 + int(padded)
		switch kind {
		case "EXIF":
			c.orientation = orientation(bytes.TrimPrefix(body, []byte("Exif\x00\x00")))
			continue
		case "XMP ":
			continue
		case "ANIM", "ANMF":
			c.animated = true
		case "VP8 ":
			if n >= 10 {
				c.frame = max(c.frame, float64(binary.LittleEndian.Uint16(body[6:])&0x3fff)*float64(binary.LittleEndian.Uint16(body[8:])&0x3fff))
			}
		case "VP8L":
			if n >= 5 {
				size := binary.LittleEndian.Uint32(body[1:])
				c.frame = max(c.frame, float64(size&0x3fff+1)*float64(size>>14&0x3fff+1))
			}
		}
		at := len(out)
		out = append(out, chunk...)
		if kind == "VP8X" && n > 0 {
			out[at+8] &^= 0x08 | 0x04 // it says what follows: EXIF, XMP
		}
	}
	binary.LittleEndian.PutUint32(out[4:], uint32(len(out)-8))
	c.clean = out
	return c
}

// withOrientation gives a JPEG without metadata the one tag that says how to turn it.
func withOrientation(jpeg []byte, o int) []byte {
	tag := []byte{0xff, jpegAPP1, 0, 34, 'E', 'x', 'i', 'f', 0, 0, 'M', 'M', 0, '*', 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, byte(o), 0, 0, 0, 0, 0, 0}
	return slices.Concat(jpeg[:2], tag, jpeg[2:])
}

// orientation finds how a picture is to be turned in its EXIF data (a TIFF file): 1 to 8; 0 if it does not say.
func orientation(tiff []byte) int {
	if len(tiff) < 8 {
		return 0
	}
	var order binary.ByteOrder
	switch string(tiff[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 0
	}
	at := int64(order.Uint32(tiff[4:]))
	if at < 8 || at+2 > int64(len(tiff)) {
		return 0
	}
	entries := tiff[at+2:]
	for range order.Uint16(tiff[at:]) {
		if len(entries) < 12 {
			return 0
		}
		const tagOrientation, typeShort = 0x0112, 3
		if order.Uint16(entries) == tagOrientation && order.Uint16(entries[2:]) == typeShort {
			if v := int(order.Uint16(entries[8:])); v >= 1 && v <= 8 {
				return v
			}
			return 0
		}
		entries = entries[12:]
	}
	return 0
}
