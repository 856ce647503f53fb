package main

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"runtime"
	"syscall"
	"time"

	"github.com/ecodrix/ecod/internal/media"
)

// images measures what becomes of a phone's photo: 12 megapixels decoded, shrunk to 1600 pixels and to a thumbnail, and
// encoded, beside decoding alone, which nothing can do without. Processor time, one at a time.
func (b *bench) images(ctx context.Context) error {
	photo, err := photo(4000, 3000)
	if err != nil {
		return err
	}
	const rounds = 10
	var decode, whole time.Duration
	var out media.Picture
	var before, after runtime.MemStats
	for range rounds { // in turn, so that both see the same machine
		if ctx.Err() != nil {
			return ctx.Err()
		}
		decode += processor(func() { _, err = jpeg.Decode(bytes.NewReader(photo)) })
		if err != nil {
			return err
		}
		whole += processor(func() { out = media.Optimise(photo, "image/jpeg") })
	}
	runtime.ReadMemStats(&before)
	media.Optimise(photo, "image/jpeg")
	runtime.ReadMemStats(&after)
	if out.Width != 1600 || out.Thumb == nil {
		return fmt.Errorf("the photo came out %d pixels wide", out.Width)
	}
	ratio := float64(whole) / float64(decode)
	b.note("a photo of 12 MP made small, with thumbnail, beside decoding alone", ratio <= 1.5, "≤ 1.5 × decoding",
		"%.0f ms beside %.0f ms of processor time: %.2f ×", (whole/rounds).Seconds()*1e3, (decode/rounds).Seconds()*1e3, ratio)
	b.note("its bytes", len(out.Data) < len(photo)/4, "< a quarter", "%d KB of %d KB, thumbnail %d KB", len(out.Data)>>10, len(photo)>>10, len(out.Thumb)>>10)
	b.note("memory taken by one", true, "", "%d MB", (after.TotalAlloc-before.TotalAlloc)>>20)
	return nil
}

// processor is the processor time that f takes, with what the collector does for it.
func processor(f func()) time.Duration {
	runtime.GC()
	from := usage()
	f()
	return usage() - from
}

func usage() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails for no process of ours
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// photo makes a JPEG with the forms, edges and grain of one; the same each time.
func photo(w, h int) ([]byte, error) {
	r := rand.New(rand.NewPCG(1, 2))
	m := image.NewYCbCr(image.Rect(0, 0, w, h), image.YCbCrSubsampleRatio420)
	for y := range h {
		for x := range w {
			v := 120 + 60*math.Sin(float64(x)/210)*math.Cos(float64(y)/170)
			if (x/190+y/230)%3 == 0 {
				v += 35
			}
			m.Y[y*m.YStride+x] = uint8(v + 7*r.NormFloat64())
		}
	}
	for i := range m.Cb {
		m.Cb[i], m.Cr[i] = uint8(128+30*math.Sin(float64(i)/9000)+2*r.NormFloat64()), uint8(128+2*r.NormFloat64())
	}
	var b bytes.Buffer
	err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 90})
	return b.Bytes(), err
}
