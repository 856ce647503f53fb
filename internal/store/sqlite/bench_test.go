package sqlite

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ecodrix/ecod/internal/store"
)

// A message as a tenant's database holds it: 450 bytes of JSON, three indexes and a unique value.
var benched = []store.Schema{{
	Kind: "messages",
	Fields: []store.Field{
		{Name: "conversationId"}, {Name: "wamid", Unique: true}, {Name: "status"}, {Name: "createdAt", Type: store.Int},
	},
	Orders: [][]string{{"conversationId", "createdAt"}},
}}

var benchDoc = []byte(`{"text":"` + strings.Repeat("x", 430) + `"}`)

func message(i int64) store.Write {
	return store.Write{Action: store.Insert, Kind: "messages", ID: fmt.Sprintf("msg_%032x", i), Doc: benchDoc, Fields: store.Fields{
		"conversationId": fmt.Sprintf("cnv_%032x", i%500), "wamid": fmt.Sprintf("wamid.%040x", i*7919), "status": "sent", "createdAt": i,
	}}
}

func benchDB(b *testing.B, path string) *DB {
	b.Helper()
	db, err := Open(context.Background(), path, benched)
	if err != nil {
		b.Fatal(err)
	}
	return db
}

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
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("goroutines=%d", n), func(b *testing.B) {
			db := benchDB(b, filepath.Join(b.TempDir(), "a.db"))
			defer db.Close()
			parallel(b, n, func(i int64) {
				if err := db.Commit(context.Background(), message(i)); err != nil {
					b.Error(err)
				}
			})
		})
	}
}

// BenchmarkCommitOfThree is what one message is in a tenant's database: the message, its contact, its conversation.
func BenchmarkCommitOfThree(b *testing.B) {
	db := benchDB(b, filepath.Join(b.TempDir(), "a.db"))
	defer db.Close()
	parallel(b, 64, func(i int64) {
		contact, conversation := message(-i%500-1), message(-i%500-1000)
		contact.Action, conversation.Action = store.Put, store.Put
		if err := db.Commit(context.Background(), message(i), contact, conversation); err != nil {
			b.Error(err)
		}
	})
}

// BenchmarkOpen opens a file that is up to date and reads one record.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "a.db")
	db := benchDB(b, path)
	if err := db.Commit(context.Background(), message(1)); err != nil {
		b.Fatal(err)
	}
	db.Close()
	b.Run("up to date", func(b *testing.B) {
		for b.Loop() {
			db := benchDB(b, path)
			if rs, err := db.Get(context.Background(), "messages", message(1).ID); err != nil || len(rs) != 1 {
				b.Fatal(len(rs), err)
			}
			b.StopTimer()
			db.Close()
			b.StartTimer()
		}
	})
	b.Run("new", func(b *testing.B) {
		dir := b.TempDir()
		for i := 0; b.Loop(); i++ {
			db := benchDB(b, filepath.Join(dir, fmt.Sprint(i)))
			b.StopTimer()
			db.Close()
			b.StartTimer()
		}
	})
}

func BenchmarkRead(b *testing.B) {
	db := benchDB(b, filepath.Join(b.TempDir(), "a.db"))
	defer db.Close()
	const n = 50_000
	for at := int64(0); at < n; at += 2000 {
		var writes []store.Write
		for i := at; i < at+2000; i++ {
			writes = append(writes, message(i))
		}
		if err := db.Commit(context.Background(), writes...); err != nil {
			b.Fatal(err)
		}
	}
	get := func(i int64) {
		if rs, err := db.Get(context.Background(), "messages", message(i*7919%n).ID); err != nil || len(rs) != 1 {
			b.Error(len(rs), err)
		}
	}
	b.Run("get", func(b *testing.B) { parallel(b, 1, get) })
	b.Run("get/goroutines=8", func(b *testing.B) { parallel(b, 8, get) })
	b.Run("find by a unique value", func(b *testing.B) {
		parallel(b, 1, func(i int64) {
			q := store.Query{Kind: "messages", Limit: 1, Where: []store.Term{store.Where("wamid", store.Eq, message(i * 7919 % n).Fields["wamid"])}}
			if rs, err := db.Find(context.Background(), q); err != nil || len(rs) != 1 {
				b.Error(len(rs), err)
			}
		})
	})
	b.Run("find a page of 50", func(b *testing.B) {
		parallel(b, 1, func(i int64) {
			q := store.Query{Kind: "messages", Order: "createdAt", Desc: true, Limit: 50, After: &store.Cursor{Value: int64(n - 1), ID: "x"},
				Where: []store.Term{store.Where("conversationId", store.Eq, message(i).Fields["conversationId"])}}
			if rs, err := db.Find(context.Background(), q); err != nil || len(rs) != 50 {
				b.Error(len(rs), err)
			}
		})
	})
}

// BenchmarkFiles measures what an open file holds of memory: a tenant's that was written and read.
func BenchmarkFiles(b *testing.B) {
	dir := b.TempDir()
	before := rss(b)
	var dbs []*DB
	for i := 0; b.Loop(); i++ {
		db := benchDB(b, filepath.Join(dir, fmt.Sprint(i)))
		for j := range int64(20) {
			if err := db.Commit(context.Background(), message(j)); err != nil {
				b.Fatal(err)
			}
		}
		if rs, err := db.Get(context.Background(), "messages", message(1).ID); err != nil || len(rs) != 1 {
			b.Fatal(len(rs), err)
		}
		dbs = append(dbs, db)
	}
	b.ReportMetric(float64(rss(b)-before)/float64(len(dbs)), "KB/file")
	for _, db := range dbs {
		db.Close()
	}
}

// rss is the process's resident memory in KB.
func rss(b *testing.B) int64 {
	runtime.GC()
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	var total, resident int64
	if _, err := fmt.Sscan(string(raw), &total, &resident); err != nil {
		b.Fatal(err)
	}
	return resident * int64(os.Getpagesize()) / 1024
}
