package app_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/media"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/whatsapp"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// storing gives a world an archive in a folder, or in what is made of one.
func (w *world) storing(clock func() time.Time, made ...func(media.Shelf) media.Shelf) {
	dir := w.t.TempDir()
	folder, err := media.NewFolder(w.shelf)
	w.must(err)
	var shelf media.Shelf = folder
	for _, f := range made {
		shelf = f(shelf)
	}
	w.archive, err = media.New(media.Config{
		Graph: whatsapp.New(whatsapp.Config{BaseURL: w.meta.URL}, nil), Shelves: []media.Shelf{shelf}, Spool: filepath.Join(dir, "spool"),
		Now: clock, Log: slog.New(slog.DiscardHandler),
	})
	w.must(err)
}

// picture lets Ana send a picture.
func (w *world) picture(wamid string) {
	w.t.Helper()
	id := w.meta.AddMedia("3001", "image/png", logo(w.t))
	_, err := w.ingest(whatsapptest.Batch(w.about(wamid, "image", map[string]any{"id": id, "mime_type": "image/png"})), "dlv_"+wamid)(w)
	w.must(err)
}

// fetchJob is the job of the message whose file is not there yet.
func (w *world) fetchJob() store.Job {
	w.t.Helper()
	ms, err := chat.Messages.Find(context.Background(), w.db, store.Query{})
	w.must(err)
	for _, m := range ms {
		if m.Media != nil && m.Media.Status == "pending" {
			return store.Job{ID: "job_f", Type: media.FetchJob, Tenant: "ACME", Token: 1, MaxAttempts: 5, Payload: payload(map[string]string{"messageId": m.ID})}
		}
	}
	w.t.Fatal("no message waits for its file")
	return store.Job{}
}
