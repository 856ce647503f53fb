package campaign

import (
	"context"
	"slices"
	"strings"

	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/smtp"
	"github.com/ecodrix/ecod/internal/store"
)

// form is a content by e-mail, read once for all of its recipients. The link to unsubscribe stands in every form of it.
type form struct {
	subject, html, text *mail.Template
	names               []string
}

func read(t *Content) *form {
	const link = "{{" + unsubscribeURL + "}}"
	linked := func(s string) bool {
		names, _ := mail.Names(s)
		return slices.Contains(names, unsubscribeURL)
	}
	html, text := t.HTML, t.Text
	if html != "" && !linked(html) {
		html = appendHTML(html, `<p style="font-size:12px"><a href="`+link+`">Unsubscribe</a></p>`)
	}
	if text != "" && !linked(text) {
		text += "\n\nUnsubscribe: " + link + "\n"
	}
	return &form{mail.Read(t.Subject), mail.ReadHTML(html), mail.Read(text), t.names()}
}

// compose fills a form for a recipient. A form with names missing is not to be sent.
func (f *form) compose(r *Recipient, link string) (m smtp.Message, missing []string) {
	value := func(name string) (string, bool) {
		if name == unsubscribeURL {
			return link, true
		}
		v, ok := r.Values[name]
		return v, ok
	}
	m = smtp.Message{To: r.Address, ToName: r.Name, ListUnsubscribe: link}
	var in [3][]string
	m.Subject, in[0] = f.subject.Fill(value)
	m.HTML, in[1] = f.html.Fill(value)
	m.Text, in[2] = f.text.Fill(value)
	return m, slices.Concat(in[:]...)
}

// fits tells whether a recipient has a value for every name.
func (f *form) fits(r *Recipient) bool {
	for _, n := range f.names {
		if _, ok := r.Values[n]; !ok {
			return false
		}
	}
	return true
}

// unfit gives up a recipient who lacks a value.
func (rd *round) unfit(ctx context.Context, r *Recipient) {
	err := rd.change(ctx, r, func(r *Recipient) ([]store.Write, bool) {
		if r.State != Planned {
			return nil, false
		}
		r.State, r.Reason, r.Due = Failed, missingVariable, rd.b.Now().UTC()
		return nil, true
	})
	if err != nil {
		rd.fail(err)
	}
}

// compose makes the mail to a recipient.
func (rd *round) compose(r *Recipient) smtp.Message {
	m, _ := rd.form.compose(r, rd.b.PublicURL+"/u/"+rd.seal.token(rd.tn.Code, Email, rd.c.ID, r.Address))
	m.ID = letterID(rd.tn.Code, r)
	return m
}

// appendHTML puts something at the end of a document's body.
func appendHTML(doc, more string) string {
	if i := strings.LastIndex(strings.ToLower(doc), "</body>"); i >= 0 && i < len(doc) {
		return doc[:i] + more + doc[i:]
	}
	return doc + more
}
