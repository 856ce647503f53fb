package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// MoveClientJob is the type of the system's job that moves a client's database.
const MoveClientJob = "client.move"

// Mover moves clients' databases.
type Mover interface {
	// Ask begins a move to a database of the client's own, or ("") to the engine's storage, by making its job.
	Ask(ctx context.Context, code string, to secret.Text) (jobID string, err error)
	// Where and OldCopy tell where a client's database and the old copy of its last move are, without a secret; "": none.
	Where(a *tenant.Account) (string, error)
	OldCopy(a *tenant.Account) (string, error)
	// DropOld deletes the old copy of a client's last move, and tells where it was.
	DropOld(ctx context.Context, code string) (string, error)
}

// MoveView is the last move of a client's database.
type MoveView struct {
	JobID    string    `json:"jobId"`
	State    string    `json:"state" enum:"asked,preparing,copying,verifying,failing,done,failed"`
	Reason   *string   `json:"reason" nullable:"true" doc:"Of one that failed: a stable code."`
	Progress *Progress `json:"progress" doc:"Of records."`
	Database string    `json:"database" doc:"Where the client's database is now, without its password."`
	OldCopy  *string   `json:"oldCopy" nullable:"true" doc:"Where it was before; null: nothing is left there."`
	AskedAt  Time      `json:"askedAt"`
	BeganAt  *Time     `json:"beganAt" nullable:"true" doc:"Since then the client was not served."`
	EndedAt  *Time     `json:"endedAt" nullable:"true"`
}

type moves struct {
	tenants  *tenant.Registry
	services store.DB
	mover    Mover
}

// RegisterMoves adds the admin API of moves.
func RegisterMoves(a *API, tenants *tenant.Registry, services store.DB, mover Mover) {
	m := moves{tenants, services, mover}
	const tag = "Clients"
	Admin(a, Op{Route: "POST /api/clients/{code}/move", ID: "moveClient", Tag: tag, Summary: "Move a client to another database", Status: http.StatusAccepted,
		Description: "A job moves it: the client is out of service meanwhile (its calls are answered 503 client.moving, its webhooks are kept and sorted afterwards, its jobs rest), everything is copied and compared, and the client goes on in the new database. The old copy is kept until it is dropped. The new database must hold nothing of a client of this code."}, m.move)
	Admin(a, Op{Route: "GET /api/clients/{code}/move", ID: "getClientMove", Tag: tag, Summary: "Look how far a client's move is"}, m.get)
	Admin(a, Op{Route: "DELETE /api/clients/{code}/move/old-copy", ID: "dropClientOldCopy", Tag: tag, Summary: "Drop the old copy of a client that was moved", Status: http.StatusNoContent}, m.drop)
	a.nullable("MoveView", "progress")
	a.showSystemProgress(MoveClientJob, m.progress)
}

type clientMoveInput struct {
	ByCode
	Body struct {
		DatabaseURL Optional[string] `json:"databaseUrl" maxLength:"2000" doc:"mongodb:// or mongodb+srv://; null: the engine's own storage."`
	}
}

func (m moves) move(ctx context.Context, in *clientMoveInput) (*Answer[JobStarted], error) {
	to := in.Body.DatabaseURL
	if !to.Set || (!to.Null && to.Value == "") {
		return nil, fault.Bad("/databaseUrl", "Expected an address, or null for the engine's own storage.")
	}
	jobID, err := m.mover.Ask(ctx, in.Code, secret.Text(to.Value))
	if err != nil {
		return nil, err
	}
	return OK(JobStarted{jobID})
}

func (m moves) get(ctx context.Context, in *ByCode) (*Answer[MoveView], error) {
	acct, err := m.tenants.Account(ctx, in.Code)
	if err != nil {
		return nil, err
	}
	v := acct.Move
	if v == nil {
		return nil, fault.Missing("move")
	}
	out := MoveView{JobID: v.ID, State: v.Phase, Reason: orNull(v.Reason), AskedAt: Time{v.AskedAt}, BeganAt: At(v.BeganAt), EndedAt: At(v.EndedAt)}
	p, err := tenant.Moves.Get(ctx, m.services, acct.Code)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return nil, err
	case p.JobID == v.ID:
		out.Progress = &Progress{Done: p.Done, Total: p.Total}
		if v.Phase == tenant.MoveCopying {
			out.State = p.Step
		}
	}
	if out.Database, err = m.mover.Where(acct); err != nil {
		return nil, err
	}
	old, err := m.mover.OldCopy(acct)
	if err != nil {
		return nil, err
	}
	out.OldCopy = orNull(old)
	return OK(out)
}

func (m moves) drop(ctx context.Context, in *ByCode) (*struct{}, error) {
	_, err := m.mover.DropOld(ctx, in.Code)
	return nil, err
}

// progress is how far a move's job got.
func (m moves) progress(ctx context.Context, j store.Job) (*Progress, error) {
	var p struct{ ClientCode string }
	if err := json.Unmarshal(j.Payload, &p); err != nil {
		return nil, err
	}
	rec, err := tenant.Moves.Get(ctx, m.services, p.ClientCode)
	if errors.Is(err, store.ErrNotFound) || err == nil && rec.JobID != j.ID {
		return &Progress{}, nil
	}
	if err != nil {
		return nil, err
	}
	return &Progress{Done: rec.Done, Total: rec.Total}, nil
}
