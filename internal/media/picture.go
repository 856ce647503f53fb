package media

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/draw"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/webp"
)

// What becomes of pictures.
const (
	fullEdge, fullQuality   = 1600, 82
	thumbEdge, thumbQuality = 320, 75

	maxPixels     = 50_000_000 // larger ones are kept as they came, without a thumbnail
	maxDecoded    = 256 << 20  // bytes in memory, likewise
	maxEdge       = 1 << 16    // pixels in a row, likewise: a row is worked on as a whole
	maxScans      = 64         // of a JPEG, likewise: cameras and tools write 1 to 14
	maxWork       = 640 << 20  // samples of a JPEG in all of its scans, likewise: a second or so
	heavy         = 64 << 20   // bytes in memory: decoded one at a time
	stickerEdge   = 512        // a WebP so small may be a sticker, and stickers are sent as WebP
	stickerSize   = 500 << 10
	worthChanging = 0.9 // a picture that fits is replaced only by one that is so much smaller
)

// Picture is what Optimise makes of one.
type Picture struct {
	Data          []byte // what to keep
	MIME          string
	Width, Height int    // 0: could not be told
	Thumb         []byte // nil: none
	ThumbMIME     string
}

// Optimise makes a picture as small as a screen needs, upright, and free of what it tells beside itself, with a
// thumbnail. One that is small already keeps its very pixels; one that cannot or may not be decoded is kept, without its
// metadata if it is well formed. It never fails and never takes much more than 256 MB.
func Optimise(data []byte, mimeType string) Picture {
	kind := base(mimeType)
	c := readContainer(kind, data)
	return optimise(context.Background(), data, mimeType, c)
}

// optimise is Optimise; where ctx ends meanwhile, what it gives is not to be used.
func optimise(ctx context.Context, data []byte, mimeType string, c container) (p Picture) {
	p = Picture{Data: data, MIME: mimeType}
	if c.clean != nil {
		p.Data = c.clean
	}
	kept := p
	defer func() {
		if recover() != nil { // hostile bytes brought a decoder down
			p = kept
		}
	}()
	kind := base(mimeType)
	cfg, err := decodeConfig(kind, data)
	if err != nil || cfg.Width <= 0 || cfg.Height <= 0 {
		return kept
	}
	kept.Width, kept.Height = cfg.Width, cfg.Height
	if tooLarge(kind, cfg, c) {
		if kind == "image/jpeg" && c.clean != nil && c.orientation > 1 {
			kept.Data = withOrientation(c.clean, c.orientation)
			if c.orientation >= 5 {
				kept.Width, kept.Height = kept.Height, kept.Width
			}
		}
		return kept
	}
	img, err := decode(ctx, kind, data)
	if err != nil || img.Bounds().Empty() {
		return kept
	}
	w, h := img.Bounds().Dx(), img.Bounds().Dy()
	fw, fh := fit(w, h, fullEdge)
	_, planar := img.(*image.YCbCr)
	full := upright(scaled(img, fw, fh), c.orientation)
	fw, fh = full.Bounds().Dx(), full.Bounds().Dy()
	tw, th := fit(fw, fh, thumbEdge)
	thumb := scaled(full, tw, th)
	kept.Thumb, kept.ThumbMIME = encode(thumb, thumbQuality)
	if c.animated || kind == "image/webp" && w <= stickerEdge && h <= stickerEdge && len(data) <= stickerSize {
		return kept
	}
	out := Picture{Width: fw, Height: fh, Thumb: kept.Thumb, ThumbMIME: kept.ThumbMIME}
	out.Data, out.MIME = encode(full, fullQuality)
	if planar && out.MIME == "image/jpeg" && len(c.icc) > 0 {
		out.Data = append(append(out.Data[:2:2], c.icc...), out.Data[2:]...)
	}
	fits := w <= fullEdge && h <= fullEdge && c.orientation <= 1 && c.clean != nil && !c.sixteen && kind != "image/webp"
	if fits && float64(len(out.Data)) > worthChanging*float64(len(c.clean)) {
		return kept
	}
	return out
}

// weight is about how many bytes a picture takes while it is decoded.
func weight(kind string, cfg image.Config, c container) float64 {
	perPixel := 4.0
	switch {
	case kind == "image/jpeg" && c.progressive:
		perPixel = c.samples * 5
	case kind == "image/jpeg":
		perPixel = c.samples
	case c.sixteen:
		perPixel = 8
	case kind == "image/gif":
		perPixel = 1
	}
	return perPixel * max(float64(cfg.Width)*float64(cfg.Height), c.frame)
}

// tooLarge tells whether decoding would cost more memory or time than any picture is worth. A few bytes can ask for
// very much of both: a JPEG whose scans repeat, a WebP whose frame is larger than it says.
func tooLarge(kind string, cfg image.Config, c container) bool {
	pixels := max(float64(cfg.Width)*float64(cfg.Height), c.frame)
	return pixels > maxPixels || max(cfg.Width, cfg.Height) > maxEdge || weight(kind, cfg, c) > maxDecoded ||
		c.scans > maxScans || float64(c.scans)*c.samples*pixels > maxWork ||
		kind == "image/webp" && c.clean == nil // its frame may be anywhere
}

func decodeConfig(kind string, data []byte) (image.Config, error) {
	r := bytes.NewReader(data)
	switch kind {
	case "image/jpeg":
		return jpeg.DecodeConfig(r)
	case "image/png":
		return png.DecodeConfig(r)
	case "image/gif":
		return gif.DecodeConfig(r)
	case "image/webp":
		return webp.DecodeConfig(r)
	}
	return image.Config{}, fmt.Errorf("media: %s is not decoded", kind)
}

// until ends a decoder's reading with a context.
type until struct {
	ctx context.Context
	r   *bytes.Reader
}

func (u until) Read(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(b)
}

func decode(ctx context.Context, kind string, data []byte) (image.Image, error) {
	r := until{ctx, bytes.NewReader(data)}
	switch kind {
	case "image/jpeg":
		return jpeg.Decode(r)
	case "image/png":
		return png.Decode(r)
	case "image/gif":
		return gif.Decode(r)
	case "image/webp":
		return webp.Decode(r)
	}
	return nil, errors.ErrUnsupported
}

// encode writes a picture as JPEG, or as PNG where one can see through it.
func encode(img image.Image, quality int) ([]byte, string) {
	var b bytes.Buffer
	if m, ok := img.(*image.RGBA); ok && !m.Opaque() {
		_ = png.Encode(&b, straight(m)) // writing to a buffer does not fail, nor does a picture of 1 to 1600 pixels
		return b.Bytes(), "image/png"
	}
	_ = jpeg.Encode(&b, img, &jpeg.Options{Quality: quality})
	return b.Bytes(), "image/jpeg"
}

// straight is a picture with its colours as PNG keeps them.
func straight(m *image.RGBA) *image.NRGBA {
	out := image.NewNRGBA(m.Rect)
	draw.Draw(out, out.Rect, m, m.Rect.Min, draw.Src)
	return out
}

// readAll reads a spooled file into memory.
func (s *Spooled) readAll() ([]byte, error) {
	b := make([]byte, s.size)
	_, err := s.f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b, err
}
