package app_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/media"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/storetest"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

func (w *world) put(name, text string) (*media.File, error) {
	return putBy(w, w.archive, name, text)
}

func putBy(w *world, a *media.Archive, name, text string) (*media.File, error) {
	s, err := a.Receive(context.Background(), bytes.NewReader([]byte(text)))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return a.Upload(context.Background(), w.tn, name, s)
}

func (w *world) removeMedia(id string) error {
	return removeBy(w, w.archive, id)
}

func removeBy(w *world, a *media.Archive, id string) error {
	_, err := a.HandleRemove(context.Background(), w.tn, store.Job{Type: media.RemoveJob, Payload: payload(map[string]string{"mediaId": id})})
	return err
}

// TestMediaSharedUnderLoad: while the same content comes and goes, no file that stands ever loses its bytes.
func TestMediaSharedUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sharedUnderLoad(w, w.archive)
}

// TestMediaSharedByNodes: nor does it where the content comes and goes on several nodes.
func TestMediaSharedByNodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var nodes []*media.Archive
	for range 4 {
		nodes = append(nodes, nodeArchive(w, func(s media.Shelf) media.Shelf { return s }))
	}
	sharedUnderLoad(w, nodes...)
}

// nodeArchive is the archive of one node of several that share w's shelf.
func nodeArchive(w *world, made func(media.Shelf) media.Shelf) *media.Archive {
	shelf, err := media.NewFolder(w.shelf)
	w.must(err)
	a, err := media.New(media.Config{Shelves: []media.Shelf{made(shelf)}, Spool: w.t.TempDir(), Shared: true, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	w.must(err)
	return a
}

// slowShelf deletes when it may, and says when it is asked to.
type slowShelf struct {
	media.Shelf
	asked, may chan struct{}
}

func (s slowShelf) Delete(ctx context.Context, keys ...string) error {
	close(s.asked)
	<-s.may
	return s.Shelf.Delete(ctx, keys...)
}

// putShelf says when it is given a blob.
type putShelf struct {
	media.Shelf
	put chan struct{}
}

func (s putShelf) Put(ctx context.Context, key string, body io.ReaderAt, size int64, mime string) error {
	close(s.put)
	return s.Shelf.Put(ctx, key, body, size, mime)
}

// lookedAt says when it is asked which files lead to a blob.
type lookedAt struct {
	store.DB
	looks chan struct{}
}

func (l lookedAt) Find(ctx context.Context, q store.Query) ([]store.Record, error) {
	if len(q.Where) == 1 && q.Where[0].Field == "blob" {
		select {
		case l.looks <- struct{}{}:
		default:
		}
	}
	return l.DB.Find(ctx, q)
}

// TestMediaWaitsForRemoval: while one node removes a blob, another that is given the same content writes nothing, and goes on
// when the blob is gone.
func TestMediaWaitsForRemoval(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	slow, put := slowShelf{asked: make(chan struct{}), may: make(chan struct{})}, make(chan struct{})
	one := nodeArchive(w, func(s media.Shelf) media.Shelf { slow.Shelf = s; return slow })
	two := nodeArchive(w, func(s media.Shelf) media.Shelf { return putShelf{s, put} })
	old, err := putBy(w, one, "a.txt", "the same text")
	w.must(err)
	removed := make(chan error, 1)
	go func() { removed <- removeBy(w, one, old.ID) }()
	<-slow.asked
	looks := make(chan struct{})
	w.tn.DB = lookedAt{w.tn.DB, looks}
	stored := make(chan error, 1)
	var f *media.File
	go func() {
		var err error
		f, err = putBy(w, two, "b.txt", "the same text")
		stored <- err
	}()
	for range 3 { // it sees the removal, and looks again
		select {
		case <-looks:
		case <-put:
			t.Fatal("the second node wrote the blob that the first is about to delete")
		case err := <-stored:
			t.Fatalf("stored during the removal: %v", err)
		case <-time.After(takeover):
			t.Fatal("the second node does not look for the removal")
		}
	}
	close(slow.may)
	w.must(<-removed)
	w.must(<-stored)
	c, err := two.Open(context.Background(), w.tn, f, false)
	w.must(err)
	w.must(c.Bytes.Close())
	if b := blobsIn(t, w.shelf); len(b) != 1 {
		t.Errorf("blobs %v", b)
	}
}

func sharedUnderLoad(w *world, nodes ...*media.Archive) {
	t := w.t
	var wg sync.WaitGroup
	kept := make(chan string, 8)
	for n := range 8 {
		wg.Go(func() {
			for round := range 12 {
				a := nodes[n%len(nodes)]
				f, err := putBy(w, a, fmt.Sprint(n, ".txt"), "the same text")
				if err != nil {
					t.Error(err)
					return
				}
				c, err := a.Open(context.Background(), w.tn, f, false)
				if err != nil {
					t.Errorf("a stored file has no bytes: %v", err)
					return
				}
				b, _ := io.ReadAll(c.Bytes)
				_ = c.Bytes.Close()
				if string(b) != "the same text" {
					t.Errorf("%q", b)
				}
				if round == 11 {
					kept <- f.ID
				} else if err := removeBy(w, a, f.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	close(kept)
	if b := blobsIn(t, w.shelf); len(b) != 1 {
		t.Errorf("blobs %v", b)
	}
	for id := range kept {
		w.must(w.removeMedia(id))
	}
	if b := blobsIn(t, w.shelf); len(b) != 0 {
		t.Errorf("blobs %v", b)
	}
}

// TestMediaHalfRemoved: a file whose removal was cut short gives its content to no new one.
func TestMediaHalfRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f, err := w.put("a.txt", "text")
	w.must(err)
	w.cutter = storetest.Cut(w.db, 1)
	if err := w.removeMedia(f.ID); !errors.Is(err, storetest.ErrCut) || len(blobsIn(t, w.shelf)) != 0 {
		t.Fatalf("%v, blobs %v", err, blobsIn(t, w.shelf))
	}
	w.cutter = nil
	again, err := w.put("a.txt", "text")
	w.must(err)
	w.must(w.removeMedia(f.ID))
	c, err := w.archive.Open(context.Background(), w.tn, again, false)
	w.must(err)
	w.must(c.Bytes.Close())
}

// full is a shelf that takes nothing.
type full struct{ media.Shelf }

func (full) Put(context.Context, string, io.ReaderAt, int64, string) error {
	return errors.New("no space left on device")
}

// TestMediaLeftovers: an upload that could not be stored is refused, and its traces are removed after a while.
func TestMediaLeftovers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.storing(func() time.Time { return w.now }, func(s media.Shelf) media.Shelf { return full{s} })
	if _, err := w.put("a.txt", "text"); fault.Of(err) != fault.Unavailable {
		t.Fatalf("%v", err)
	}
	left := func() int {
		jobs, err := w.archive.Leftovers(context.Background(), w.tn)
		w.must(err)
		for _, j := range jobs {
			_, err := w.archive.HandleRemove(context.Background(), w.tn, store.Job{Type: j.Type, Payload: j.Payload})
			w.must(err)
		}
		return len(jobs)
	}
	if n := left(); n != 0 {
		t.Errorf("%d removed although it may be under way", n)
	}
	w.now = w.now.Add(2 * time.Hour)
	if n := left(); n != 1 {
		t.Errorf("%d removed", n)
	}
	if fs, err := media.Files.Find(context.Background(), w.db, store.Query{}); err != nil || len(fs) != 0 {
		t.Errorf("%v, %v", fs, err)
	}
}

// TestMediaHandles: Meta's id of a file is good for a number, for less than the 30 days that it lives.
func TestMediaHandles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.meta.AddAccount(whatsapptest.Account{WABAID: "2002", Token: "tok", Numbers: []whatsapptest.Number{{ID: "3002"}}})
	f, err := w.put("a.csv", "a,b\n1,2\n")
	w.must(err)
	handle := func(number string) string {
		t.Helper()
		h, err := w.archive.Handle(context.Background(), w.tn, f.ID, number)
		w.must(err)
		return h
	}
	first := handle("3001")
	if again := handle("3001"); again != first {
		t.Errorf("handed over again: %s, %s", first, again)
	}
	if kind, b, ok := w.meta.File(first); !ok || kind != "text/plain" || string(b) != "a,b\n1,2\n" {
		t.Errorf("Meta has %q of type %s", b, kind)
	}
	if other := handle("3002"); other == first {
		t.Error("one number's id was used for another")
	}
	w.now = w.now.Add(27 * 24 * time.Hour)
	if handle("3001") != first {
		t.Error("handed over again after 27 days")
	}
	w.now = w.now.Add(2 * 24 * time.Hour)
	if handle("3001") == first {
		t.Error("an id of 29 days was used")
	}
	w.must(w.removeMedia(f.ID))
	var refusal *chat.Refusal
	if _, err := w.archive.Handle(context.Background(), w.tn, f.ID, "3001"); !errors.As(err, &refusal) {
		t.Errorf("a removed file: %v", err)
	}
}

// TestMediaOutage: an outage of Meta's costs no file, for as long as Meta keeps it.
func TestMediaOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.picture("wamid.pic")
	w.meta.When(-1, func(r whatsapptest.Request) bool { return r.Kind == "media" }, whatsapptest.ServerError())
	fetch := func() *chat.Message {
		j := w.fetchJob()
		j.Attempt, j.MaxAttempts = 4, 5 // the last one
		_, err := w.archive.HandleFetch(context.Background(), w.tn, j)
		if err == nil {
			t.Error("fetched during an outage")
		}
		return w.firstMessage()
	}
	if m := fetch(); m.Media.Status != "pending" {
		t.Errorf("given up at once: %+v", m.Media)
	}
	w.now = w.now.Add(8 * 24 * time.Hour)
	m := fetch()
	f, err := w.archive.File(context.Background(), w.tn, m.Media.ID)
	w.must(err)
	if m.Media.Status != "failed" || f.Error != "media.expired" {
		t.Errorf("%+v, %+v", m.Media, f)
	}
}

// TestMediaOfEchoes: a file that the business sent from its phone is had as well; the message begins nothing.
func TestMediaOfEchoes(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	id := meta.AddMedia(c.Number, "image/png", logo(t))
	e.webhook(whatsapptest.Batch(whatsapptest.Change{WABAID: c.WABA, Field: "smb_message_echoes", Value: map[string]any{
		"messaging_product": "whatsapp", "metadata": map[string]string{"phone_number_id": c.Number},
		"message_echoes": []any{map[string]any{
			"from": "15550001111", "to": "12025550143", "id": "wamid.echo", "timestamp": fmt.Sprint(time.Now().Unix()), "type": "image",
			"image": map[string]string{"id": id, "mime_type": "image/png"},
		}},
	}})).want(200)
	if m := c.mediaOf("wamid.echo", "stored"); m.SHA256 != sha(logo(t)) {
		t.Errorf("%+v", m)
	}
}
