package sandbox

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"math"
)

// pictures are what customers take photos of: three fruits on a table.
func pictures() (out [3][]byte) {
	for i, fruit := range [3]color.RGBA{{230, 120, 30, 255}, {190, 40, 50, 255}, {110, 160, 60, 255}} {
		m := image.NewRGBA(image.Rect(0, 0, 640, 480))
		for y := range 480 {
			for x := range 640 {
				c := color.RGBA{uint8(150 + y/10), uint8(125 + y/12), uint8(100 + y/16), 255}
				if d := math.Hypot(float64(x-320), float64(y-260)); d < 150 {
					light := 1.1 - math.Hypot(float64(x-270), float64(y-210))/400
					c = color.RGBA{shade(fruit.R, light), shade(fruit.G, light), shade(fruit.B, light), 255}
				}
				m.SetRGBA(x, y, c)
			}
		}
		var b bytes.Buffer
		_ = jpeg.Encode(&b, m, nil) // a buffer takes everything
		out[i] = b.Bytes()
	}
	return out
}

func shade(v uint8, light float64) uint8 { return uint8(min(255, float64(v)*light)) }
