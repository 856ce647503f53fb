package chat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// fileKeys are the members of a message's object under which a file stands: the message's own, a header's, a parameter's.
var fileKeys = []string{"image", "video", "audio", "document", "sticker"}

// eachFile visits every file that is named by an id, with its place and kind, and gives the tree with the ids that visit
// gives.
func eachFile(v any, at string, visit func(at, kind, id string) (string, error)) error {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			place := at + "/" + name
			if f, ok := member.(map[string]any); ok && slices.Contains(fileKeys, name) {
				if id, _ := f["id"].(string); id != "" {
					now, err := visit(place+"/id", name, id)
					if err != nil {
						return err
					}
					f["id"] = now
				}
			}
			if err := eachFile(member, place, visit); err != nil {
				return err
			}
		}
	case []any:
		for i, item := range v {
			if err := eachFile(item, at+"/"+strconv.Itoa(i), visit); err != nil {
				return err
			}
		}
	}
	return nil
}

func tree(raw []byte) (any, error) {
	var v any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	err := dec.Decode(&v)
	return v, err
}

// carried is what WhatsApp carries as a kind of message: MIME types and bytes.
var carried = map[string]struct {
	types []string // a prefix each
	most  int64
}{
	"image":    {[]string{"image/jpeg", "image/png"}, 5 << 20},
	"video":    {[]string{"video/mp4", "video/3gpp"}, 16 << 20},
	"audio":    {[]string{"audio/aac", "audio/amr", "audio/mpeg", "audio/mp4", "audio/ogg"}, 16 << 20},
	"document": {[]string{""}, whatsapp.MaxMedia},
	"sticker":  {[]string{"image/webp"}, 500 << 10},
}

// knowFiles checks that every file a message names by id is the client's, and one that WhatsApp carries so. The message's
// own file is noted beside it.
func (d *Desk) knowFiles(ctx context.Context, tn *tenant.Tenant, out *Outgoing) error {
	v, err := tree(out.Object)
	if err != nil {
		return fault.Bad("/"+out.Type, "Expected JSON.")
	}
	return eachFile(map[string]any{out.Type: v}, "", func(at, kind, id string) (string, error) {
		var f *Media
		if d.MediaKnown != nil {
			if f, err = d.MediaKnown(ctx, tn, id); err != nil {
				return "", err
			}
		}
		if f == nil {
			return "", &fault.Error{Kind: fault.Invalid, Code: "media.not_found", Detail: "There is no such file.",
				Fields: []fault.Field{{Pointer: at, Detail: "There is no such file."}}}
		}
		c := carried[kind]
		if !slices.ContainsFunc(c.types, func(t string) bool { return strings.HasPrefix(f.MIME, t) }) {
			return "", fault.Bad(at, "WhatsApp does not carry a file of this type as %s.", kind)
		}
		if f.Size > c.most {
			return "", fault.Bad(at, "WhatsApp carries at most %d bytes as %s.", c.most, kind)
		}
		if at == "/"+out.Type+"/id" {
			own := *f
			own.ID = id
			out.Media = &own
		}
		return id, nil
	})
}

// withFiles is a message's body with our files under the ids by which Meta knows them. It stands before the call: a file
// that cannot be handed over was not sent.
func (d *Desk) withFiles(ctx context.Context, tn *tenant.Tenant, m *Message) ([]byte, error) {
	if d.MediaHandle == nil || m.Type == "text" || !bytes.Contains(m.Send.Body, []byte(`"id"`)) {
		return m.Send.Body, nil
	}
	v, err := tree(m.Send.Body)
	if err != nil {
		return nil, err
	}
	changed := false
	err = eachFile(v, "", func(_, _, id string) (string, error) {
		metaID, err := d.MediaHandle(ctx, tn, id, m.PhoneNumberID)
		changed = changed || metaID != id
		return metaID, err
	})
	if err != nil || !changed {
		return m.Send.Body, err
	}
	return json.Marshal(v)
}

// unready says what is to become of a send whose file could not be handed over: nothing has gone out.
func (d *Desk) unready(ctx context.Context, tn *tenant.Tenant, j store.Job, m *Message, err error) (job.Result, error) {
	var refusal *Refusal
	var api *whatsapp.APIError
	switch {
	case errors.As(err, &refusal):
		return d.refuse(ctx, tn, j, m, &Error{Code: refusal.Code, Title: refusal.Detail}, err)
	case !errors.As(err, &api):
		return job.Result{}, err
	case api.Temporary() && !job.LastAttempt(j), api.Scope() == whatsapp.ScopeAccount:
		return job.Result{}, verdict(err)
	}
	return d.refuse(ctx, tn, j, m, &Error{Code: codeOf(api), Title: api.Class.Meaning, Detail: api.Details}, err)
}
