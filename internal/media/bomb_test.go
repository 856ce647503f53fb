package media

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"image"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"
)

// scans is a grey progressive JPEG of w × h pixels whose bytes ask for its blocks to be gone through n+1 times: each
// scan says in 36 bytes that nothing changes.
func scans(w, h, n int) []byte {
	blocks := ((w + 7) / 8) * ((h + 7) / 8)
	dht := func(class byte, symbol byte) []byte {
		b := []byte{class, 1}
		return segment(0xc4, string(append(append(b, make([]byte, 15)...), symbol)))
	}
	frame := []byte{8, byte(h >> 8), byte(h), byte(w >> 8), byte(w), 1, 1, 0x11, 0}
	b := slices.Concat([]byte{0xff, 0xd8}, segment(0xdb, string(append([]byte{0}, bytes.Repeat([]byte{1}, 64)...))),
		segment(0xc2, string(frame)), dht(0x00, 0), dht(0x10, 0xe0), segment(0xda, "\x01\x01\x00\x00\x00\x00"), make([]byte, (blocks+7)/8))
	var bits bitWriter
	for left := blocks; left > 0; {
		run := min(left, 1<<15-1)
		if run < 1<<14 {
			run = 1 << 14 // beyond the end, which a decoder does not mind
		}
		bits.put(0, 1)
		bits.put(uint(run-1<<14), 14)
		left -= run
	}
	scan := slices.Concat(segment(0xda, "\x01\x01\x00\x01\x3f\x00"), bits.bytes())
	return slices.Concat(b, bytes.Repeat(scan, n), []byte{0xff, 0xd9})
}

// bitWriter writes coded data, its 0xff stuffed.
type bitWriter struct{ bits []byte }

func (w *bitWriter) put(v uint, n int) {
	for i := n - 1; i >= 0; i-- {
		w.bits = append(w.bits, byte(v>>i&1))
	}
}

func (w *bitWriter) bytes() []byte {
	var out []byte
	for chunk := range slices.Chunk(w.bits, 8) {
		v := byte(0xff) // padded with ones
		for i, bit := range chunk {
			v = v&^(0x80>>i) | bit*(0x80>>i)
		}
		if out = append(out, v); v == 0xff {
			out = append(out, 0)
		}
	}
	return out
}

// A JPEG that asks for its blocks to be gone through again and again is kept as it came, at once, however it hides that.
func TestScanBombsAreNotDecoded(t *testing.T) {
	few := scans(500, 400, 5)
	if p := Optimise(few, "image/jpeg"); p.Thumb == nil {
		t.Fatal("a picture of a few scans has no thumbnail: the bomb is not well made")
	}
	bomb := scans(5000, 4000, 2000)
	frames := bytes.Index(bomb, []byte{0xff, 0xc2})
	tiny := slices.Concat([]byte{0xff, 0xc2, 0, 11, 8, 0, 1, 0, 1, 1, 1, 0x11, 0})
	hidden := slices.Concat(bomb[:frames], []byte{0xff, 0, 0xff, 0xfe}, bomb[frames:])
	for name, b := range map[string][]byte{
		"plain":                     bomb,
		"many scans of few blocks":  scans(500, 400, 3000),
		"some scans of many blocks": scans(5000, 4000, 60),
		"a byte between segments":   slices.Concat(bomb[:frames], []byte{0}, bomb[frames:]),
		"ff 00 between segments":    hidden,
		"another frame at the end":  slices.Concat(bomb[:len(bomb)-2], tiny, []byte{0xff, 0xd9}),
		"fill bytes":                bytes.ReplaceAll(bomb, []byte{0xff, 0xda}, []byte{0xff, 0xff, 0xda}),
		"no end":                    bomb[:len(bomb)-2],
	} {
		began := time.Now()
		p := Optimise(b, "image/jpeg")
		if took := time.Since(began); took > time.Second || p.Thumb != nil || p.MIME != "image/jpeg" {
			t.Errorf("%s: %d bytes took %s; thumbnail of %d bytes", name, len(b), took, len(p.Thumb))
		}
	}
}

// A picture's rows and frames are bounded as its pixels are.
func TestPicturesThatSayLittleAndAreMuchAreNotDecoded(t *testing.T) {
	cfg := image.Config{Width: 1_000_000, Height: 1}
	if !tooLarge("image/png", cfg, container{}) {
		t.Error("a row of a million pixels is decoded")
	}
	lossless := binary.LittleEndian.AppendUint32([]byte{0x2f}, 16383|16383<<14)
	lossless = append(lossless, make([]byte, 7)...)
	chunk := func(kind string, body []byte) []byte {
		return slices.Concat([]byte(kind), binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body)
	}
	body := slices.Concat([]byte("WEBP"), chunk("VP8X", make([]byte, 10)), chunk("VP8L", lossless))
	b := chunk("RIFF", body)
	cfg, err := decodeConfig("image/webp", b)
	if err != nil || cfg.Width != 1 {
		t.Fatal(cfg, err)
	}
	if !tooLarge("image/webp", cfg, readContainer("image/webp", b)) {
		t.Error("a WebP of 1 pixel and a frame of 268 million is decoded")
	}
	if b = b[:len(b)-1]; !tooLarge("image/webp", cfg, readContainer("image/webp", b)) {
		t.Error("a WebP is decoded whose frame was not found")
	}
}

// A heavy picture leaves the slots to others, also while more of them wait, and its decoding ends with its context.
func TestHeavyPicturesLeaveRoom(t *testing.T) {
	spool := func(b []byte) *Spooled {
		a := &Archive{cfg: Config{Spool: t.TempDir()}}
		s, err := a.Receive(t.Context(), bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	a := &Archive{decoding: semaphore.NewWeighted(2), heavy: semaphore.NewWeighted(1)}
	large, small := spool(scans(5000, 4000, 1)), spool(scans(50, 40, 1))
	if err := a.heavy.Acquire(t.Context(), 1); err != nil { // one is at it
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	for range 5 {
		go func() {
			_, err := a.optimise(ctx, "image/jpeg", large)
			ended <- err
		}()
	}
	for range 20 {
		if _, err := a.optimise(t.Context(), "image/jpeg", small); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	for range 5 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if p := optimise(ctx, scans(500, 400, 1), "image/jpeg", readJPEG(scans(500, 400, 1))); p.Thumb != nil {
		t.Error("a picture was decoded although its context had ended")
	}
	a.heavy.Release(1)
	if p, err := a.optimise(t.Context(), "image/jpeg", large); err != nil || p.Thumb == nil {
		t.Error(err)
	}
}
