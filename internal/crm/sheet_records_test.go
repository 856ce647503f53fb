package crm

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/fault"
)

// Records end where encoding/csv ends them, whatever stands in a file.
func TestRecordsAreThoseOfCSV(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		b := make([]byte, random.IntN(16))
		for i := range b {
			b[i] = "\"\",\r\n\na "[random.IntN(8)]
		}
		file := "phone,b\n" + string(b)
		want := csv.NewReader(strings.NewReader(file))
		want.LazyQuotes, want.FieldsPerRecord = true, -1
		s, err := openSheet(strings.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := want.Read(); err != nil {
			t.Fatal(err)
		}
		for {
			exp, expErr := want.Read()
			got, wrong, err := s.read(maxRow)
			if !slices.Equal(exp, got) || wrong != "" || !errors.Is(err, expErr) || err == nil && want.InputOffset() != s.offset() {
				t.Fatalf("%q: %q %v to %d, not %q %v to %d", file, got, err, s.offset(), exp, expErr, want.InputOffset())
			}
			if err != nil {
				break
			}
		}
	}
}

// fill is a reader of the same text again and again.
type fill struct {
	text string
	left int
	at   int
}

func (f *fill) Read(b []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	n := min(len(b), f.left)
	for i := range n {
		b[i] = f.text[f.at%len(f.text)]
		f.at++
	}
	f.left -= n
	return n, nil
}

// A header or a row of millions of cells costs no memory: the one refuses the file, the other fails alone.
func TestCellsAreBounded(t *testing.T) {
	of := func(head, text string, size int, tail string) func() io.Reader {
		return func() io.Reader {
			return io.MultiReader(strings.NewReader(head), &fill{text: text, left: size}, strings.NewReader(tail))
		}
	}
	const size = 32 << 20
	for name, c := range map[string]struct {
		file func() io.Reader
		rows int // -1: no file to import
	}{
		"a header of commas":          {of("phone", ",", size, "\n1\n"), -1},
		"a header of 301 columns":     {of("phone", ",", 300, "\n1\n"), -1},
		"a header of 300 columns":     {of("phone", ",", 299, "\n1\n"), 1},
		"a header that is a long one": {of("phone,", "x", size, "\n1\n"), -1},
		"a row of commas":             {of("phone\n1\n", ",", size, "\n2\n"), 3},
		"a row of quoted cells":       {of("phone\n1\n", `"",`, size/3*3, "\n2\n"), 3},
		"a row of 300 KiB":            {of("phone\n1\n", "x", 300<<10, "\n2\n"), 3},
		"a row of 200 KiB":            {of("phone\n1\n\"", "x\n", 200<<10, "\"\n2\n"), 3},
		"a quote that stays open":     {of("phone\n1\n\"", "x\n", size, ""), 2},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		rows, err := ScanSheet(c.file())
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 4<<20 {
			t.Errorf("%s: %d MiB of memory", name, took>>20)
		}
		if c.rows < 0 && fault.Of(err) != fault.Invalid || c.rows >= 0 && (rows != c.rows || err != nil) {
			t.Errorf("%s: %d rows, %v", name, rows, err)
		}
	}
	s, err := openSheet(of("phone\n1\n", ",", 400, "\n2\n")())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		cells, wrong, err := s.next()
		if err != nil {
			break
		}
		got = append(got, fmt.Sprint(cells, wrong))
	}
	if strings.Join(got, "|") != "[1]|[]The row has more than 300 cells.|[2]" {
		t.Errorf("%q", got)
	}
}
