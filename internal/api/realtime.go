package api

import (
	"context"
	"net/http"

	"github.com/ecodrix/ecod/internal/auth"
	"github.com/ecodrix/ecod/internal/tenant"
)

// SocketToken lets sockets in for a while.
type SocketToken struct {
	Token     string `json:"token" doc:"For the socket's handshake, auth: {token}. Good for nothing else."`
	ExpiresAt Time   `json:"expiresAt" doc:"No socket is let in with it after that; those that are in stay."`
}

// RegisterRealtime adds the tokens that dashboards open sockets with.
func RegisterRealtime(a *API, porter *auth.Porter) {
	Client(a, Op{Route: "POST /api/realtime/tokens", ID: "createSocketToken", Tag: "Realtime", Summary: "Make a token for sockets", Status: http.StatusCreated, Role: RoleViewer, OwnIdempotency: true,
		Description: "For 15 minutes it lets sockets in that hear this client; give it to a page that must not know the API key. " +
			"It ends with the key or the session that it was made with, and so do its sockets."},
		func(ctx context.Context, tn *tenant.Tenant, _ *struct{}) (*Answer[SocketToken], error) {
			token, expires, err := porter.SocketToken(tn, CallerOf(ctx).KeyID)
			if err != nil {
				return nil, err
			}
			return OK(SocketToken{token, Time{expires}})
		})
}
