package sqlite

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
)

// parallel runs fn b.N times from n goroutines.
func parallel(b *testing.B, n int, fn func(i int64)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range n {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				fn(i)
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
}

func BenchmarkRawWrite64(b *testing.B) { benchRaw(b, 64) }
func BenchmarkRawWrite1(b *testing.B)  { benchRaw(b, 1) }

func benchRaw(b *testing.B, n int) {
	f := testFile(b)
	parallel(b, n, func(i int64) {
		err := f.write(context.Background(), func(tx *wtx) error {
			_, err := tx.exec("INSERT INTO t VALUES (?, 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx')", i)
			return err
		})
		if err != nil {
			b.Error(err)
		}
	})
}
