package media

import (
	"image"
	"image/draw"
)

// fit gives the size of a picture whose longer edge may have at most edge pixels.
func fit(w, h, edge int) (int, int) {
	if max(w, h) <= edge {
		return w, h
	}
	if w >= h {
		return edge, max(1, (h*edge+w/2)/w)
	}
	return max(1, (w*edge+h/2)/h), edge
}

// scaled gives a picture in another size, not larger, each pixel the mean of those it covers. Pictures in YCbCr, as
// JPEG has them, are scaled plane by plane and stay what they are: no colours are converted, and the colour planes
// have a quarter of the work.
func scaled(img image.Image, w, h int) image.Image {
	b := img.Bounds()
	to := image.Rect(0, 0, w, h)
	switch m := img.(type) {
	case *image.YCbCr:
		out := image.NewYCbCr(to, image.YCbCrSubsampleRatio420)
		cw, ch := chroma(m.SubsampleRatio, b.Dx(), b.Dy())
		at, cat := m.YOffset(b.Min.X, b.Min.Y), m.COffset(b.Min.X, b.Min.Y)
		shrink(plane{out.Y, out.YStride, w, h, 1}, b.Dx(), b.Dy(), rowsOf(m.Y[at:], m.YStride, b.Dx()))
		shrink(plane{out.Cb, out.CStride, (w + 1) / 2, (h + 1) / 2, 1}, cw, ch, rowsOf(m.Cb[cat:], m.CStride, cw))
		shrink(plane{out.Cr, out.CStride, (w + 1) / 2, (h + 1) / 2, 1}, cw, ch, rowsOf(m.Cr[cat:], m.CStride, cw))
		return out
	case *image.Gray:
		out := image.NewGray(to)
		shrink(plane{out.Pix, out.Stride, w, h, 1}, b.Dx(), b.Dy(), rowsOf(m.Pix[m.PixOffset(b.Min.X, b.Min.Y):], m.Stride, b.Dx()))
		return out
	}
	// Row by row through RGBA: its colours are multiplied by their alpha, so that what cannot be seen does not bleed.
	out, row := image.NewRGBA(to), image.NewRGBA(image.Rect(0, 0, b.Dx(), 1))
	shrink(plane{out.Pix, out.Stride, w, h, 4}, b.Dx(), b.Dy(), func(y int) []byte {
		draw.Draw(row, row.Rect, img, image.Pt(b.Min.X, b.Min.Y+y), draw.Src)
		return row.Pix
	})
	return out
}

// chroma is the size of the colour planes.
func chroma(r image.YCbCrSubsampleRatio, w, h int) (int, int) {
	switch r {
	case image.YCbCrSubsampleRatio422:
		return (w + 1) / 2, h
	case image.YCbCrSubsampleRatio420:
		return (w + 1) / 2, (h + 1) / 2
	case image.YCbCrSubsampleRatio440:
		return w, (h + 1) / 2
	case image.YCbCrSubsampleRatio411:
		return (w + 3) / 4, h
	case image.YCbCrSubsampleRatio410:
		return (w + 3) / 4, (h + 1) / 2
	}
	return w, h
}

// plane is a raster of n interleaved bytes a pixel.
type plane struct {
	pix          []byte
	stride, w, h int
	n            int
}

// rowsOf gives the rows of a raster of one byte a pixel.
func rowsOf(pix []byte, stride, w int) func(int) []byte {
	return func(y int) []byte { return pix[y*stride : y*stride+w] }
}

// shrink fills dst from a raster of w × h pixels, whose rows are asked for in order (one may be asked for twice).
// Places in the source are counted in 256ths of a pixel. Rows are added up first: the columns of a row of dst then have
// the sum of all that lies above each other, and only one row is reduced in width.
func shrink(dst plane, w, h int, row func(y int) []byte) {
	n := dst.n
	sums := make([]uint32, w*n)
	edges, inverse := make([]int, dst.w+1), make([]float32, dst.w)
	for x := range edges {
		edges[x] = x * w * 256 / dst.w
	}
	for x := range inverse {
		inverse[x] = 1 / float32(edges[x+1]-edges[x])
	}
	for y := range dst.h {
		top, bottom := y*h*256/dst.h, (y+1)*h*256/dst.h
		for sy := top >> 8; sy<<8 < bottom; sy++ {
			weight := uint32(min(bottom, (sy+1)<<8) - max(top, sy<<8))
			src := row(sy)
			acc := sums[:len(src)]
			if sy == top>>8 {
				for x, p := range src {
					acc[x] = weight * uint32(p)
				}
				continue
			}
			for x, p := range src {
				acc[x] += weight * uint32(p)
			}
		}
		out := dst.pix[y*dst.stride : y*dst.stride+dst.w*n]
		scale := 1 / float32(bottom-top)
		if n == 1 {
			narrow(out, sums, edges, inverse, scale)
		} else {
			narrowN(out, sums, edges, inverse, scale, n)
		}
	}
}

// narrow reduces a row of sums to the row of dst.
func narrow(out []byte, sums []uint32, edges []int, inverse []float32, scale float32) {
	for x := range out {
		l, r := edges[x], edges[x+1]
		i, last := l>>8, (r-1)>>8
		var sum int64
		if i == last {
			sum = int64(sums[i]) * int64(r-l)
		} else {
			sum = int64(sums[i])*int64((i+1)<<8-l) + int64(sums[last])*int64(r-last<<8)
			var middle int64
			for _, s := range sums[i+1 : last] {
				middle += int64(s)
			}
			sum += middle << 8
		}
		out[x] = uint8(min(255, float32(sum)*inverse[x]*scale+0.5))
	}
}

// narrowN is narrow for n channels.
func narrowN(out []byte, sums []uint32, edges []int, inverse []float32, scale float32, n int) {
	for x := range inverse {
		l, r := edges[x], edges[x+1]
		i, last := l>>8, (r-1)>>8
		for c := range n {
			var sum int64
			for k := i; k <= last; k++ {
				sum += int64(sums[k*n+c]) * int64(min(r, (k+1)<<8)-max(l, k<<8))
			}
			out[x*n+c] = uint8(min(255, float32(sum)*inverse[x]*scale+0.5))
		}
	}
}

// upright turns and mirrors a picture of ours as EXIF's orientation asks.
func upright(img image.Image, o int) image.Image {
	if o <= 1 {
		return img
	}
	w, h := img.Bounds().Dx(), img.Bounds().Dy()
	if o >= 5 {
		w, h = h, w
	}
	to := image.Rect(0, 0, w, h)
	switch m := img.(type) {
	case *image.YCbCr:
		out := image.NewYCbCr(to, image.YCbCrSubsampleRatio420)
		cw, ch := chroma(m.SubsampleRatio, m.Rect.Dx(), m.Rect.Dy())
		turn(out.Y, out.YStride, plane{m.Y, m.YStride, m.Rect.Dx(), m.Rect.Dy(), 1}, o)
		turn(out.Cb, out.CStride, plane{m.Cb, m.CStride, cw, ch, 1}, o)
		turn(out.Cr, out.CStride, plane{m.Cr, m.CStride, cw, ch, 1}, o)
		return out
	case *image.Gray:
		out := image.NewGray(to)
		turn(out.Pix, out.Stride, plane{m.Pix, m.Stride, m.Rect.Dx(), m.Rect.Dy(), 1}, o)
		return out
	case *image.RGBA:
		out := image.NewRGBA(to)
		turn(out.Pix, out.Stride, plane{m.Pix, m.Stride, m.Rect.Dx(), m.Rect.Dy(), 4}, o)
		return out
	}
	return img
}

// turn copies a raster as an orientation asks: pixel (0, 0) goes to start, x and y steps go as far as dx and dy.
func turn(dst []byte, stride int, src plane, o int) {
	w, h, n := src.w-1, src.h-1, src.n
	var start, dx, dy int
	switch o {
	case 2: // mirrored
		start, dx, dy = w*n, -n, stride
	case 3: // upside down
		start, dx, dy = h*stride+w*n, -n, -stride
	case 4:
		start, dx, dy = h*stride, n, -stride
	case 5: // transposed
		start, dx, dy = 0, stride, n
	case 6: // a quarter clockwise
		start, dx, dy = h*n, stride, -n
	case 7:
		start, dx, dy = w*stride+h*n, -stride, -n
	default: // 8: a quarter anticlockwise
		start, dx, dy = w*stride, -stride, n
	}
	for y := range src.h {
		at := start + y*dy
		row := src.pix[y*src.stride : y*src.stride+src.w*n]
		for x := 0; x < len(row); x += n {
			copy(dst[at:at+n], row[x:x+n])
			at += dx
		}
	}
}
