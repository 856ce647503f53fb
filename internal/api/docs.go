package api

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"path"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/swaggest/swgui/v5/static"
)

// docsPage and docsScript show the OpenAPI document with Swagger UI. Everything comes from this program: no other host
// is named, nothing is inline, and the policy allows nothing else. Addresses are relative, for proxies with a prefix.
const (
	docsPage = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ecod API</title>
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/init.js"></script>
</body>
</html>
`
	docsScript = `SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  docExpansion: "none",
  displayRequestDuration: true,
  filter: true,
});
`
	// Swagger UI draws its icons as data: images.
	docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
		"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

func (a *API) docs() {
	a.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-cache")
		return write(w, a.openAPI())
	})
	a.HandleFunc("GET /docs", func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Security-Policy", docsPolicy)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
		return write(w, []byte(docsPage))
	})
	a.mux.Handle("GET /docs/{$}", http.RedirectHandler("../docs", http.StatusMovedPermanently))
	a.HandleFunc("GET /docs/{file}", docsFile)
}

func write(w http.ResponseWriter, body []byte) error {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, err := w.Write(body)
	return err
}

var docsTypes = map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".png": "image/png"}

// docsFile serves the embedded assets; the large ones are embedded compressed.
func docsFile(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("file")
	ct, ok := docsTypes[path.Ext(name)]
	if !ok {
		return newProblem(http.StatusNotFound, "not_found", "There is nothing at this path.")
	}
	h := w.Header()
	h.Set("Content-Type", ct)
	h.Set("Cache-Control", "public, max-age=3600")
	if name == "init.js" {
		return write(w, []byte(docsScript))
	}
	if plain, err := static.FS.ReadFile(name); err == nil {
		return write(w, plain)
	}
	packed, err := static.FS.ReadFile(name + ".gz")
	if err != nil {
		return newProblem(http.StatusNotFound, "not_found", "There is nothing at this path.")
	}
	h.Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		return write(w, packed)
	}
	zr, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return err
	}
	_, err = io.Copy(w, zr)
	return err
}

// marshalOpenAPI is called once, when the document is first asked for: all operations are registered then.
func (a *API) marshalOpenAPI() []byte {
	b, err := json.Marshal(a.huma.OpenAPI())
	if err != nil { // a schema that does not marshal: a fault of the declaration
		panic("api: the OpenAPI document does not marshal: " + err.Error())
	}
	return b
}

func (a *API) problemResponse(status int) *huma.Response {
	schema := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	return &huma.Response{
		Description: statusText(status),
		Content:     map[string]*huma.MediaType{problemContentType: {Schema: schema}},
	}
}
