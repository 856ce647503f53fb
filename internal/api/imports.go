package api

import (
	"context"
	"encoding/csv"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// maxImport is the largest file that is imported.
const maxImport = 64 << 20

// imports is the API of leads as files.
type imports struct {
	api  *API
	book *crm.Book
}

// RegisterImports adds the import and export of leads. jobs are shown with the progress of theirs.
func RegisterImports(a *API, book *crm.Book) {
	s := imports{a, book}
	const tag = "CRM"
	file := &huma.Schema{Type: huma.TypeString, Format: "binary"}
	Stream(a, AccessClient, Op{Route: "POST /api/crm/leads/import", ID: "importLeads", Tag: tag, Summary: "Import leads from a CSV file", Status: http.StatusAccepted, MaxBody: maxImport,
		Description: "The first row names the columns: name, phone, email, source, tags (separated by ;), stage, pipeline, ownerId, value, currency; any other is a custom field. " +
			"A row with a phone or an e-mail that a lead has completes that lead. The first row has at most 300 columns and 64 KiB; a row of more than 300 cells or 256 KiB is left out. The job shows progress, and in the end result.errorsUrl: the rows that were left out, and why.",
		Doc: func(op *huma.Operation) {
			op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
				"text/csv":            {Schema: file},
				"multipart/form-data": {Schema: &huma.Schema{Type: huma.TypeObject, Required: []string{"file"}, Properties: map[string]*huma.Schema{"file": file}}},
			}}
			job := &huma.Schema{Type: huma.TypeObject, Required: []string{"jobId"}, Properties: map[string]*huma.Schema{"jobId": {Type: huma.TypeString}}}
			op.Responses["202"].Content = map[string]*huma.MediaType{"application/json": {Schema: job}}
		}}, s.upload)
	Stream(a, AccessClient, Op{Route: "GET /api/crm/leads/export", ID: "exportLeads", Tag: tag, Summary: "Export leads as a CSV file",
		Description: "Takes the filters and the order of the list. A text that a spreadsheet would take for a formula has ' before it.",
		Doc: func(op *huma.Operation) {
			op.Parameters = append(op.Parameters, a.parametersOf("/api/crm/leads", "limit", "cursor")...)
			op.Responses["200"].Content = map[string]*huma.MediaType{"text/csv": {Schema: file}}
		}}, s.export)
	Stream(a, AccessClient, Op{Route: "GET /api/crm/imports/{id}/errors", ID: "getImportErrors", Tag: tag, Summary: "Read which rows an import left out, and why",
		Doc: func(op *huma.Operation) {
			op.Responses["200"].Content = map[string]*huma.MediaType{"text/csv": {Schema: file}}
		}}, s.errors)
	a.showProgress(crm.ImportJob, s.progress)
}

// parametersOf gives the documented query parameters of a list, but for some.
func (a *API) parametersOf(path string, but ...string) []*huma.Param {
	var out []*huma.Param
	for _, p := range a.huma.OpenAPI().Paths[path].Get.Parameters {
		skip := p.In != "query"
		for _, b := range but {
			skip = skip || p.Name == b
		}
		if !skip {
			out = append(out, p)
		}
	}
	return out
}

// progress is how far the import of a job got.
func (s imports) progress(ctx context.Context, tn *tenant.Tenant, j store.Job) (*Progress, error) {
	im, err := s.book.ImportOf(ctx, tn, j.ID)
	if err != nil {
		return nil, err
	}
	return &Progress{Done: int64(im.Done), Total: int64(im.Total), Failed: int64(im.Failed)}, nil
}

func (s imports) upload(w http.ResponseWriter, r *http.Request) error {
	tn, release, err := s.api.Open(r.Context())
	if err != nil {
		return err
	}
	defer release()
	file, err := csvBody(r)
	if err != nil {
		return err
	}
	jobID, err := s.book.ImportFile(r.Context(), tn, once(r.Context()), CallerOf(r.Context()).UserID, file)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Location", "/api/jobs/"+jobID)
	w.WriteHeader(http.StatusAccepted)
	return marshalJSON(w, map[string]string{"jobId": jobID})
}

// csvBody gives the file of a request: its body, or the part of a form that is called file.
func csvBody(r *http.Request) (io.Reader, error) {
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err != nil:
	case media == "text/csv", media == "application/csv", media == "application/vnd.ms-excel":
		return r.Body, nil
	case media == "multipart/form-data" && params["boundary"] != "":
		form, err := r.MultipartReader()
		if err != nil {
			return nil, fault.Wrap(err, fault.Malformed, "body.malformed", "The body is not a form.")
		}
		for {
			part, err := form.NextPart()
			var p *Problem
			switch {
			case errors.Is(err, io.EOF):
				return nil, fault.Bad("/file", "The form has no part of this name.")
			case errors.As(err, &p): // too large, or too slow
				return nil, err
			case err != nil:
				return nil, fault.Wrap(err, fault.Malformed, "body.malformed", "The form cannot be read.")
			case part.FormName() == "file":
				return formFile{part}, nil
			}
		}
	}
	return nil, fault.New(fault.Unsupported, "body.content_type", "The content type must be text/csv or multipart/form-data.")
}

// formFile tells a form that was cut from a file that ended.
type formFile struct{ io.Reader }

func (f formFile) Read(b []byte) (int, error) {
	n, err := f.Reader.Read(b)
	var p *Problem
	var known *fault.Error
	if err != nil && !errors.Is(err, io.EOF) && !errors.As(err, &p) && !errors.As(err, &known) {
		err = fault.Wrap(err, fault.Malformed, "body.malformed", "The form cannot be read to its end.")
	}
	return n, err
}

// csvAnswer begins an answer that is a CSV file.
func csvAnswer(w http.ResponseWriter, name string) *csv.Writer {
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
	w.WriteHeader(http.StatusOK)
	return csv.NewWriter(w)
}

func (s imports) errors(w http.ResponseWriter, r *http.Request) error {
	tn, release, err := s.api.Open(r.Context())
	if err != nil {
		return err
	}
	defer release()
	const page = 1000
	rows, err := s.book.ImportErrors(r.Context(), tn, r.PathValue("id"), nil, page)
	if err != nil {
		return err
	}
	out := csvAnswer(w, "import-errors.csv")
	if err := out.Write([]string{"row", "reason"}); err != nil {
		return err
	}
	for len(rows) > 0 {
		for _, e := range rows {
			if err := out.Write([]string{strconv.Itoa(e.Row), e.Reason}); err != nil {
				return err
			}
		}
		if len(rows) < page {
			break
		}
		if rows, err = s.book.ImportErrors(r.Context(), tn, r.PathValue("id"), rows[len(rows)-1], page); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}
