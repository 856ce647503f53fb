package api

import (
	"html"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ecodrix/ecod/internal/campaign"
)

// RegisterUnsubscribe adds the page that the links in mails lead to. Whoever has a link may use it: mail programs post to
// it by one click (RFC 8058), people by its button. To look at it changes nothing, since scanners look at every link.
func RegisterUnsubscribe(a *API, bureau *campaign.Bureau) {
	a.HandleFunc("GET /u/{token}", func(w http.ResponseWriter, r *http.Request) error {
		sender, err := bureau.Sender(r.Context(), r.PathValue("token"))
		if err != nil {
			return err
		}
		return sheet(w, "Unsubscribe", "Do you want no more news from "+sender+"?", true)
	})
	a.HandleFunc("POST /u/{token}", func(w http.ResponseWriter, r *http.Request) error {
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 16<<10)) // List-Unsubscribe=One-Click, or nothing: the link says it all
		if err := bureau.Unsubscribe(r.Context(), r.PathValue("token")); err != nil {
			return err
		}
		return sheet(w, "Unsubscribed", "You will get no more news from this sender.", false)
	})
	a.documentLink("GET", "showUnsubscribe", "The page that a link in a mail leads to", "Changes nothing.")
	a.documentLink("POST", "unsubscribe", "Unsubscribe by one click (RFC 8058)", "The body is not looked at. Repeated, it does no harm.")
}

// documentLink puts the page into the OpenAPI document: plain handlers have no place in it.
func (a *API) documentLink(method, id, summary, more string) {
	res := map[string]*huma.Response{"200": {Description: "A page for people.", Content: map[string]*huma.MediaType{"text/html": {Schema: &huma.Schema{Type: huma.TypeString}}}}}
	for _, code := range []int{http.StatusNotFound, http.StatusServiceUnavailable} {
		res[strconv.Itoa(code)] = a.problemResponse(code)
	}
	a.huma.OpenAPI().AddOperation(&huma.Operation{
		OperationID: id, Method: method, Path: "/u/{token}", Tags: []string{"Campaigns"}, Summary: summary, Description: more, Security: security(AccessPublic),
		Parameters: []*huma.Param{{Name: "token", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}}}, Responses: res,
	})
}

// sheet answers with a small page that loads nothing.
func sheet(w http.ResponseWriter, title, text string, ask bool) error {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Robots-Tag", "noindex")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	var b strings.Builder
	b.WriteString(`<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>` + title + `</title>` +
		`<style>body{font:18px/1.5 system-ui,sans-serif;max-width:32em;margin:4em auto;padding:0 1em}button{font:inherit;padding:.5em 1.5em}</style>` +
		`<h1>` + title + `</h1><p>` + html.EscapeString(text) + `</p>`)
	if ask {
		b.WriteString(`<form method="post"><button type="submit">Unsubscribe</button></form>`)
	}
	b.WriteString("</html>\n")
	return write(w, []byte(b.String()))
}
