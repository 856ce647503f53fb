package api

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/media"
	"github.com/ecodrix/ecod/internal/tenant"
)

// multipartRoom is what a form may add to the file that it carries.
const multipartRoom = 64 << 10

// RegisterMedia adds files: uploads, what is known of them, and their bytes.
func RegisterMedia(a *API, archive *media.Archive, runner *job.Runner) {
	const tag = "Media"
	m := mediaFiles{a, archive, runner}
	Stream(a, AccessClient, Op{Route: "POST /api/media", ID: "uploadMedia", Tag: tag, Summary: "Upload a file", Status: http.StatusCreated,
		Description: "A multipart form with a field file of at most 100 MiB. Pictures are made small and lose what they tell beside themselves.",
		MaxBody:     media.MaxSize + multipartRoom, Doc: m.documentUpload}, m.upload)
	Client(a, Op{Route: "GET /api/media/{id}", ID: "getMedia", Tag: tag, Summary: "Read what is known of a file"},
		func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*Answer[media.FileView], error) {
			f, err := archive.File(ctx, tn, in.ID)
			if err != nil {
				return nil, err
			}
			return OK(f.View())
		})
	Client(a, Op{Route: "DELETE /api/media/{id}", ID: "deleteMedia", Tag: tag, Summary: "Remove a file",
		Description: "Its bytes go when no other file has the same content. Messages keep its id."}, m.remove)
	Stream(a, AccessClient, Op{Route: "GET /api/media/{id}/content", ID: "getMediaContent", Tag: tag, Summary: "Read a file's bytes",
		Description: "The bytes, also in ranges, or a redirect to a link that is good for a few minutes.", Doc: m.documentBytes}, m.bytes(false))
	Stream(a, AccessClient, Op{Route: "GET /api/media/{id}/thumbnail", ID: "getMediaThumbnail", Tag: tag, Summary: "Read a picture's thumbnail",
		Doc: m.documentBytes}, m.bytes(true))
}

type mediaFiles struct {
	api     *API
	archive *media.Archive
	runner  *job.Runner
}

// upload spools the file before it opens the client's database: a slow upload holds nothing.
func (m mediaFiles) upload(w http.ResponseWriter, r *http.Request) error {
	part, err := filePart(r)
	if err != nil {
		return err
	}
	s, err := m.archive.Receive(r.Context(), part)
	if err != nil {
		return formFault(err)
	}
	defer s.Close()
	tn, release, err := m.api.Open(r.Context())
	if err != nil {
		return err
	}
	defer release()
	f, err := m.archive.Upload(r.Context(), tn, part.FileName(), s)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	return marshalJSON(w, f.View())
}

// filePart finds the file in a multipart form.
func filePart(r *http.Request) (*multipart.Part, error) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		return nil, fault.New(fault.Unsupported, "body.content_type", "This call takes multipart/form-data with a field file.")
	}
	if params["boundary"] == "" {
		return nil, formFault(errors.New("no boundary"))
	}
	form, err := r.MultipartReader()
	if err != nil {
		return nil, formFault(err)
	}
	for range 20 {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, formFault(err)
		}
		if part.FormName() == "file" {
			return part, nil
		}
	}
	return nil, fault.Bad("/file", "The form has no field file.")
}

// formFault is the fault for a form that cannot be read to its end.
func formFault(err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fault.Wrap(err, fault.Malformed, "body.form", "The form cannot be read to its end.")
}

// bytes serves a file, or its thumbnail. The record is read first: a slow reader does not hold the database.
func (m mediaFiles) bytes(thumbnail bool) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		f, c, err := m.open(r, thumbnail)
		if err != nil {
			return err
		}
		h := w.Header()
		if c.Link != "" {
			h.Set("Cache-Control", "private, no-store")
			h.Set("Location", c.Link)
			w.WriteHeader(http.StatusFound)
			return nil
		}
		defer c.Bytes.Close()
		h.Set("Content-Type", c.MIME)
		h.Set("Content-Disposition", f.Disposition(c.MIME))
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
		h.Set("Cache-Control", "private, no-cache") // kept, but asked for again: who may see it can change
		h.Set("ETag", c.ETag)
		http.ServeContent(w, r, "", time.Time{}, c.Bytes)
		return nil
	}
}

func (m mediaFiles) open(r *http.Request, thumbnail bool) (*media.File, media.Content, error) {
	tn, release, err := m.api.Open(r.Context())
	if err != nil {
		return nil, media.Content{}, err
	}
	defer release()
	f, err := m.archive.File(r.Context(), tn, r.PathValue("id"))
	if err != nil {
		return nil, media.Content{}, err
	}
	c, err := m.archive.Open(r.Context(), tn, f, thumbnail)
	return f, c, err
}

func (m mediaFiles) remove(ctx context.Context, tn *tenant.Tenant, in *ByID) (*struct{}, error) {
	if _, err := m.archive.File(ctx, tn, in.ID); err != nil {
		return nil, err
	}
	made, _, err := m.runner.DoAnyway(ctx, media.RemoveOf(tn, in.ID))
	if err != nil && made.Job.ID != "" {
		err = nil // a bucket that cannot be reached now: the job goes on
	}
	return nil, err
}

func (m mediaFiles) documentUpload(op *huma.Operation) {
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"multipart/form-data": {Schema: &huma.Schema{
		Type: huma.TypeObject, Required: []string{"file"}, Properties: map[string]*huma.Schema{"file": {Type: huma.TypeString, Format: "binary"}},
	}}}}
	op.Responses["201"].Content = map[string]*huma.MediaType{"application/json": {Schema: m.api.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[media.FileView](), true, "FileView")}}
	m.api.alsoAnswers(http.StatusUnprocessableEntity)(op)
}

func (m mediaFiles) documentBytes(op *huma.Operation) {
	op.Responses["200"].Content = map[string]*huma.MediaType{"*/*": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}
	op.Responses["206"] = &huma.Response{Description: "Partial Content", Content: op.Responses["200"].Content}
	op.Responses["302"] = &huma.Response{Description: "Found", Headers: map[string]*huma.Param{"Location": {Schema: &huma.Schema{Type: huma.TypeString}}}}
	m.api.alsoAnswers(http.StatusConflict)(op)
}
