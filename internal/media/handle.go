package media

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// handleLife is how long Meta's id of an uploaded file is used: it lives 30 days, and a message may wait in a queue.
const handleLife = 28 * 24 * time.Hour

// Known tells of a file that a message is to carry; nil if there is none of that id.
func (a *Archive) Known(ctx context.Context, tn *tenant.Tenant, fileID string) (*chat.Media, error) {
	f, err := Files.Get(ctx, tn.DB, fileID)
	if errors.Is(err, store.ErrNotFound) || err == nil && f.Status != Stored {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &chat.Media{ID: f.ID, MIME: f.MIME, SHA256: f.SHA256, Size: f.Size, Filename: f.Filename, Status: Stored}, nil
}

// Handle gives the id by which Meta knows a file on a phone number, uploading it if need be. Uploaded twice, after a
// crash, it has two ids, and nobody minds.
func (a *Archive) Handle(ctx context.Context, tn *tenant.Tenant, fileID, phoneNumberID string) (string, error) {
	f, err := Files.Get(ctx, tn.DB, fileID)
	if errors.Is(err, store.ErrNotFound) || err == nil && f.Status != Stored {
		return "", &chat.Refusal{Code: "media.gone", Detail: "The file is not in the archive any more."}
	}
	if err != nil {
		return "", err
	}
	if h := f.Handles[phoneNumberID]; h.Until.After(a.cfg.Now()) {
		return h.ID, nil
	}
	metaID, err := a.handOver(ctx, tn, f, phoneNumberID)
	if err != nil {
		return "", err
	}
	h := Handle{metaID, a.cfg.Now().Add(handleLife).UTC()}
	for range 20 {
		if f.Handles == nil {
			f.Handles = map[string]Handle{}
		}
		f.Handles[phoneNumberID] = h
		if err = tn.DB.Commit(ctx, Files.Update(f)); !errors.Is(err, store.ErrConflict) {
			break
		}
		if f, err = Files.Get(ctx, tn.DB, fileID); err != nil {
			break
		}
	}
	return metaID, err
}

// handOver uploads a file to Meta.
func (a *Archive) handOver(ctx context.Context, tn *tenant.Tenant, f *File, phoneNumberID string) (string, error) {
	w := tn.Account().WhatsApp
	token, err := tn.Secret("whatsapp.accessToken")
	if err != nil || token == "" || w == nil {
		return "", job.Park("whatsapp.credential", errors.Join(errors.New("no usable access token"), err))
	}
	shelf, err := a.at(tn, f.Place)
	if err != nil {
		return "", err
	}
	r, err := a.read(ctx, shelf, key(tn.Code, f.SHA256))
	if errors.Is(err, ErrGone) {
		return "", &chat.Refusal{Code: "media.gone", Detail: "The file is not in the archive any more."}
	}
	if err != nil {
		return "", err
	}
	defer r.Close()
	kind := f.MIME
	if strings.HasPrefix(kind, "text/") {
		kind = "text/plain" // the only one that Meta knows
	}
	return a.cfg.Graph.UploadMedia(ctx, whatsapp.Account{PhoneNumberID: phoneNumberID, WABAID: w.WABAID, Token: token}, kind, f.Filename, r)
}
