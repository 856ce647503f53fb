package media

import (
	"time"

	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
)

// Statuses of a file.
const (
	Pending = "pending"
	Stored  = "stored"
	Failed  = "failed"
)

// File is one file of a client. Several may have the same content, and then share one blob.
type File struct {
	store.Meta
	ID             string            `json:"id"`
	Status         string            `json:"status"`
	MIME           string            `json:"mime"`
	SHA256         string            `json:"sha256,omitempty"` // of what is served: names the blob
	Size           int64             `json:"size"`             // likewise
	OriginalSHA256 string            `json:"originalSha256,omitempty"`
	Filename       string            `json:"filename,omitempty"`
	Width          int               `json:"width,omitempty"`
	Height         int               `json:"height,omitempty"`
	Thumbnail      string            `json:"thumbnail,omitempty"` // its MIME type; "": there is none
	Place          string            `json:"place,omitempty"`     // the shelf
	MessageID      string            `json:"messageId,omitempty"` // "": an upload
	Error          string            `json:"error,omitempty"`     // a code, of a failed one
	Handles        map[string]Handle `json:"handles,omitempty"`   // Meta's ids of it, by phone number id
	CreatedAt      time.Time         `json:"createdAt"`
	StoredAt       time.Time         `json:"storedAt,omitzero"`
}

// Handle is what Meta calls an uploaded file, and until when.
type Handle struct {
	ID    string    `json:"id"`
	Until time.Time `json:"until"`
}

// Files is the kind.
var Files = store.Kind[File]{
	Schema: store.Schema{
		Kind: "media",
		Fields: []store.Field{
			{Name: "blob", Type: store.Text},     // the content's hash, of every record that leads to it
			{Name: "original", Type: store.Text}, // the hash of what came, of stored ones
			{Name: "begunAt", Type: store.Int},   // of uploads that are not stored yet
		},
		Orders: [][]string{{"blob"}, {"original"}, {"begunAt"}},
	},
	Key: func(f *File) string { return f.ID },
	Index: func(f *File) store.Fields {
		ix := store.Fields{}
		if f.SHA256 != "" {
			ix["blob"] = f.SHA256
		}
		if f.Status == Stored {
			ix["original"] = f.OriginalSHA256
		}
		if f.Status == Pending && f.MessageID == "" {
			ix["begunAt"] = f.CreatedAt.UnixMilli()
		}
		return ix
	},
	Meta: func(f *File) *store.Meta { return &f.Meta },
}

// fileID is the id of a message's file.
func fileID(code, messageID string) string { return id.Derived("med", code, messageID) }

// take makes f a file of the same content as another.
func (f *File) take(of *File) {
	f.MIME, f.SHA256, f.Size, f.OriginalSHA256 = of.MIME, of.SHA256, of.Size, of.OriginalSHA256
	f.Width, f.Height, f.Thumbnail, f.Place = of.Width, of.Height, of.Thumbnail, of.Place
}

// FileView is a file as the API shows it.
type FileView struct {
	ID        string  `json:"id"`
	MIME      string  `json:"mime" doc:"Of what is served: pictures are made small and come out as JPEG or PNG."`
	SHA256    string  `json:"sha256" doc:"Hex, of what is served. Empty until stored."`
	Size      int64   `json:"size" doc:"Bytes, of what is served."`
	Filename  *string `json:"filename"`
	Status    string  `json:"status" enum:"pending,stored,failed"`
	Width     int     `json:"width,omitempty" doc:"Of pictures, in pixels."`
	Height    int     `json:"height,omitempty"`
	Thumbnail bool    `json:"thumbnail" doc:"Whether there is one."`
	MessageID *string `json:"messageId" doc:"The message that it came with; null for uploads."`
	Error     *string `json:"error" doc:"A code, of a failed one."`
	CreatedAt *string `json:"createdAt"`
}

// View is the file as the API shows it.
func (f *File) View() FileView {
	return FileView{
		ID: f.ID, MIME: f.MIME, SHA256: f.SHA256, Size: f.Size, Filename: optional(f.Filename), Status: f.Status, Width: f.Width, Height: f.Height,
		Thumbnail: f.Thumbnail != "", MessageID: optional(f.MessageID), Error: optional(f.Error), CreatedAt: news.Stamp(f.CreatedAt),
	}
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
