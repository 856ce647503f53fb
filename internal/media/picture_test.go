package media

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math"
	"slices"
	"testing"

	"golang.org/x/image/draw"
)

// scene is a picture with large forms and fine grain, its left half red at the top.
func scene(w, h int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			grain := uint8((x*7 + y*13 + x*y) % 23)
			c := color.RGBA{uint8(128 + 100*math.Sin(float64(x)/97)), uint8(128 + 100*math.Cos(float64(y)/71)), 90 + grain, 255}
			if x < w/2 && y < h/2 {
				c = color.RGBA{220, 30 + grain, 30, 255}
			}
			m.SetRGBA(x, y, c)
		}
	}
	return m
}

func asJPEG(t testing.TB, m image.Image, quality int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: quality}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asPNG(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// withExif puts EXIF with an orientation and a place into a JPEG, and a comment and a foreign segment.
func withExif(j []byte, o int) []byte {
	exif := withOrientation([]byte{0xff, 0xd8}, o)[2:]
	exif = append(exif, "GPS 52.5200N 13.4050E"...)
	binary.BigEndian.PutUint16(exif[2:], uint16(len(exif)-2))
	xmp := segment(0xe1, "http://ns.adobe.com/xap/1.0/\x00GPS in XMP")
	return slices.Concat(j[:2], exif, xmp, segment(0xfe, "GPS in a comment"), segment(0xed, "Photoshop 3.0\x00GPS"), j[2:], []byte("GPS behind the end"))
}

func segment(marker byte, body string) []byte {
	return slices.Concat([]byte{0xff, marker}, binary.BigEndian.AppendUint16(nil, uint16(len(body)+2)), []byte(body))
}

func decoded(t *testing.T, b []byte) image.Image {
	t.Helper()
	m, _, err := image.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// red tells whether a picture is red at a place given in eighths of its sides.
func red(m image.Image, x, y int) bool {
	b := m.Bounds()
	r, g, bl, _ := m.At(b.Min.X+b.Dx()*x/8, b.Min.Y+b.Dy()*y/8).RGBA()
	return r > 0xb000 && g < 0x6000 && bl < 0x4000
}

func TestPicturesAreMadeSmallAndUpright(t *testing.T) {
	j := asJPEG(t, scene(1800, 1350), 90)
	for o, corner := range map[int][2]int{1: {1, 1}, 2: {7, 1}, 3: {7, 7}, 4: {1, 7}, 5: {1, 1}, 6: {7, 1}, 7: {7, 7}, 8: {1, 7}} {
		p := Optimise(withExif(j, o), "image/jpeg")
		wantW, wantH := 1600, 1200
		if o >= 5 {
			wantW, wantH = 1200, 1600
		}
		if p.MIME != "image/jpeg" || p.Width != wantW || p.Height != wantH || bytes.Contains(p.Data, []byte("GPS")) || len(p.Data) >= len(j) {
			t.Errorf("orientation %d: %s of %d × %d, %d bytes", o, p.MIME, p.Width, p.Height, len(p.Data))
		}
		for name, b := range map[string][]byte{"picture": p.Data, "thumbnail": p.Thumb} {
			m := decoded(t, b)
			for _, c := range [][2]int{{1, 1}, {7, 1}, {1, 7}, {7, 7}} {
				if red(m, c[0], c[1]) != (c == corner) {
					t.Errorf("orientation %d: %s: corner %v is red: %v", o, name, c, c != corner)
				}
			}
			if name == "thumbnail" && max(m.Bounds().Dx(), m.Bounds().Dy()) != 320 {
				t.Errorf("thumbnail of %v", m.Bounds())
			}
		}
	}
}

func TestSmallPicturesKeepTheirPixels(t *testing.T) {
	j := asJPEG(t, scene(640, 480), 60)
	p := Optimise(withExif(j, 1), "image/jpeg")
	if !bytes.Equal(p.Data, j) || p.MIME != "image/jpeg" || p.Width != 640 || p.Thumb == nil {
		t.Errorf("a small JPEG changed by more than its metadata: %d of %d bytes, %d wide", len(p.Data), len(j), p.Width)
	}
	logo := image.NewNRGBA(image.Rect(0, 0, 200, 100))
	for x := range 100 {
		logo.Set(x, 50, color.NRGBA{255, 0, 0, 128})
	}
	b := asPNG(t, logo)
	var text bytes.Buffer
	body := []byte("tEXtComment\x00GPS")
	_ = binary.Write(&text, binary.BigEndian, uint32(len(body)-4))
	text.Write(body)
	_ = binary.Write(&text, binary.BigEndian, crc32.ChecksumIEEE(body))
	p = Optimise(slices.Concat(b[:33], text.Bytes(), b[33:]), "image/png")
	if !bytes.Equal(p.Data, b) || p.MIME != "image/png" || p.ThumbMIME != "image/png" {
		t.Errorf("a small PNG: %s of %d bytes, want %d", p.MIME, len(p.Data), len(b))
	}
}

func TestTransparencyStays(t *testing.T) {
	m := image.NewNRGBA(image.Rect(0, 0, 2000, 1000))
	for y := range 1000 {
		for x := range 2000 {
			m.SetNRGBA(x, y, color.NRGBA{200, 10, 10, uint8(x / 8)})
		}
	}
	p := Optimise(asPNG(t, m), "image/png")
	got := decoded(t, p.Data)
	if p.MIME != "image/png" || p.Width != 1600 || p.Height != 800 || p.ThumbMIME != "image/png" {
		t.Fatalf("%s of %d × %d, thumbnail %s", p.MIME, p.Width, p.Height, p.ThumbMIME)
	}
	if c := color.NRGBAModel.Convert(got.At(800, 400)).(color.NRGBA); c.A < 120 || c.A > 130 || c.R < 195 {
		t.Errorf("the middle is %+v", c)
	}
	opaque := Optimise(asPNG(t, scene(1700, 900)), "image/png")
	if opaque.MIME != "image/jpeg" || opaque.Width != 1600 {
		t.Errorf("an opaque PNG became %s of %d", opaque.MIME, opaque.Width)
	}
}

func TestKindsOfPictures(t *testing.T) {
	big := scene(1700, 300)
	gray, cmyk, deep := image.NewGray(big.Rect), image.NewCMYK(big.Rect), image.NewNRGBA64(big.Rect)
	for _, m := range []draw.Image{gray, cmyk, deep} {
		draw.Draw(m, m.Bounds(), big, image.Point{}, draw.Src)
	}
	pal := image.NewPaletted(image.Rect(0, 0, 400, 400), color.Palette{color.Black, color.White})
	var g bytes.Buffer
	if err := gif.EncodeAll(&g, &gif.GIF{Image: []*image.Paletted{pal, pal}, Delay: []int{1, 1}}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data       []byte
		mime, want string
		w          int
	}{
		"gray":        {asJPEG(t, gray, 95), "image/jpeg", "image/jpeg", 1600},
		"16 bits":     {asPNG(t, deep), "image/png", "image/jpeg", 1600},
		"animated":    {g.Bytes(), "image/gif", "image/gif", 400},
		"1 pixel":     {asPNG(t, image.NewRGBA(image.Rect(0, 0, 1, 1))), "image/png", "image/png", 1},
		"long":        {asPNG(t, image.NewGray(image.Rect(0, 0, 30000, 2))), "image/png", "image/png", 0},
		"not a photo": {[]byte("\xff\xd8\xff\xe0 and then nothing"), "image/jpeg", "image/jpeg", 0},
		"empty":       {nil, "image/png", "image/png", 0},
		"no picture":  {[]byte("%PDF-1.7"), "application/pdf", "application/pdf", 0},
	} {
		p := Optimise(c.data, c.mime)
		if name == "long" {
			if p.Width == 0 || len(p.Thumb) == 0 {
				t.Errorf("%s: %+v", name, p)
			}
			continue
		}
		if p.MIME != c.want || p.Width != c.w || (p.Thumb == nil) != (c.w == 0) {
			t.Errorf("%s: %s, %d wide, thumbnail of %d bytes", name, p.MIME, p.Width, len(p.Thumb))
		}
	}
}

func TestStickersStayWebP(t *testing.T) {
	chunk := func(kind, body string) []byte {
		b := binary.LittleEndian.AppendUint32([]byte(kind), uint32(len(body)))
		return append(append(b, body...), make([]byte, len(body)%2)...)
	}
	file := func(chunks ...[]byte) []byte {
		body := append([]byte("WEBP"), slices.Concat(chunks...)...)
		return append(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(len(body))), body...)
	}
	pixel := chunk("VP8L", "\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07")
	flags := func(f byte) []byte { return chunk("VP8X", string([]byte{f, 0, 0, 0, 0, 0, 0, 0, 0, 0})) }
	p := Optimise(append(file(flags(0x1c), pixel, chunk("EXIF", "GPS"), chunk("XMP ", "GPS too")), "GPS behind"...), "image/webp")
	if want := file(flags(0x10), pixel); !bytes.Equal(p.Data, want) || p.MIME != "image/webp" || p.Width != 1 || p.Thumb == nil {
		t.Errorf("%q, %d wide, want %q", p.Data, p.Width, want)
	}
	moving := Optimise(file(flags(0x12), chunk("ANIM", "\x00\x00\x00\x00\x00\x00"), chunk("ANMF", "frame"), chunk("EXIF", "GPS")), "image/webp")
	if moving.MIME != "image/webp" || bytes.Contains(moving.Data, []byte("GPS")) || !bytes.Contains(moving.Data, []byte("ANMF")) {
		t.Errorf("%+v", moving)
	}
}

// bomb is a PNG that says it has so many pixels.
func bomb(t testing.TB, w, h uint32, depth byte) []byte {
	b := asPNG(t, image.NewGray(image.Rect(0, 0, 1, 1)))
	binary.BigEndian.PutUint32(b[16:], w)
	binary.BigEndian.PutUint32(b[20:], h)
	b[24] = depth
	binary.BigEndian.PutUint32(b[29:], crc32.ChecksumIEEE(b[12:29]))
	return b
}

func TestBombsAreNotDecoded(t *testing.T) {
	for _, b := range [][]byte{bomb(t, 60000, 60000, 8), bomb(t, 7000, 6000, 16), bomb(t, 1<<31-1, 1<<31-1, 8)} {
		p := Optimise(b, "image/png")
		if p.Thumb != nil || !bytes.Equal(p.Data, b) {
			t.Errorf("a bomb was decoded to %d × %d", p.Width, p.Height)
		}
	}
	// a JPEG above the limit keeps its pixels and its orientation, and loses all else
	j := asJPEG(t, image.NewGray(image.Rect(0, 0, 9000, 6000)), 30)
	p := Optimise(withExif(j, 6), "image/jpeg")
	if bytes.Contains(p.Data, []byte("GPS")) || p.Thumb != nil || p.Width != 6000 || readJPEG(p.Data).orientation != 6 {
		t.Errorf("%d × %d, orientation %d, thumbnail %v", p.Width, p.Height, readJPEG(p.Data).orientation, p.Thumb != nil)
	}
	if _, err := jpeg.DecodeConfig(bytes.NewReader(p.Data)); err != nil {
		t.Error(err)
	}
}

// TestShrinkIsAMean holds the planes' scaler against the mean of what each pixel covers.
func TestShrinkIsAMean(t *testing.T) {
	src := image.NewGray(image.Rect(0, 0, 97, 61))
	for i := range src.Pix {
		src.Pix[i] = uint8(i * 37)
	}
	for _, size := range [][2]int{{97, 61}, {40, 23}, {1, 1}, {96, 60}, {5, 61}} {
		w, h := size[0], size[1]
		got := scaled(src, w, h).(*image.Gray)
		rgba := scaled(struct{ image.Image }{src}, w, h).(*image.RGBA)
		for y := range h {
			for x := range w {
				var sum, area float64
				x0, x1, y0, y1 := float64(x)*97/float64(w), float64(x+1)*97/float64(w), float64(y)*61/float64(h), float64(y+1)*61/float64(h)
				for sy := int(y0); float64(sy) < y1; sy++ {
					for sx := int(x0); float64(sx) < x1; sx++ {
						a := (math.Min(x1, float64(sx+1)) - math.Max(x0, float64(sx))) * (math.Min(y1, float64(sy+1)) - math.Max(y0, float64(sy)))
						sum, area = sum+a*float64(src.GrayAt(sx, sy).Y), area+a
					}
				}
				if d := math.Abs(sum/area - float64(got.GrayAt(x, y).Y)); d > 2.5 {
					t.Fatalf("%d × %d: pixel %d,%d is %d, the mean is %.1f", w, h, x, y, got.GrayAt(x, y).Y, sum/area)
				}
				if rgba.RGBAAt(x, y).G != got.GrayAt(x, y).Y {
					t.Fatalf("%d × %d: the four channels at %d,%d differ from the plane", w, h, x, y)
				}
			}
		}
	}
}

// TestQuality holds the result against a slow scaler of high quality.
func TestQuality(t *testing.T) {
	src := decoded(t, asJPEG(t, scene(2000, 1500), 92))
	got := scaled(src, 800, 600)
	want := image.NewRGBA(image.Rect(0, 0, 800, 600))
	draw.CatmullRom.Scale(want, want.Rect, src, src.Bounds(), draw.Src, nil)
	var sum float64
	for y := range 600 {
		for x := range 800 {
			r, g, b, _ := got.At(x, y).RGBA()
			c := want.RGBAAt(x, y)
			for _, d := range []float64{float64(r>>8) - float64(c.R), float64(g>>8) - float64(c.G), float64(b>>8) - float64(c.B)} {
				sum += d * d
			}
		}
	}
	if psnr := 10 * math.Log10(255*255*3*800*600/sum); psnr < 35 {
		t.Errorf("%.1f dB", psnr)
	} else {
		t.Logf("%.1f dB", psnr)
	}
}

func FuzzPicture(f *testing.F) {
	f.Add(withExif(asJPEG(f, scene(64, 48), 80), 6), uint8(0))
	f.Add(asPNG(f, scene(40, 30)), uint8(1))
	f.Add(bomb(f, 60000, 60000, 8), uint8(1))
	f.Add([]byte("RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00"), uint8(2))
	f.Add([]byte("GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"), uint8(3))
	kinds := []string{"image/jpeg", "image/png", "image/webp", "image/gif"}
	f.Fuzz(func(t *testing.T, data []byte, kind uint8) {
		k := kinds[int(kind)%len(kinds)]
		if cfg, err := decodeConfig(k, data); err == nil && cfg.Width*cfg.Height > 1<<20 && !tooLarge(k, cfg, readContainer(k, data)) {
			t.Skip("large, and allowed")
		}
		p := Optimise(data, k)
		if len(data) > 0 && len(p.Data) == 0 || p.MIME == "" {
			t.Fatal("nothing left")
		}
		if p.Thumb != nil {
			if _, _, err := image.DecodeConfig(bytes.NewReader(p.Thumb)); err != nil {
				t.Fatal(err)
			}
		}
		// taking away what is gone changes nothing
		if c := readContainer(k, data); c.clean != nil {
			if again := readContainer(k, c.clean); !bytes.Equal(again.clean, c.clean) {
				t.Fatal("cleaned twice, it differs")
			}
		}
	})
}

func BenchmarkOptimise(b *testing.B) {
	j := asJPEG(b, scene(4000, 3000), 90)
	b.Run("pipeline", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Optimise(j, "image/jpeg")
		}
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			if _, err := jpeg.Decode(bytes.NewReader(j)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
