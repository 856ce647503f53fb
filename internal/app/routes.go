package app

import (
	"context"

	"github.com/ecodrix/ecod/internal/api"
	"github.com/ecodrix/ecod/internal/campaign"
	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
)

// replayable is the inbox for operators: what they set back is sorted at once, not at the next sweep.
type replayable struct {
	store.Inbox
	intake *chat.Intake
}

// Replay implements store.Inbox.
func (r replayable) Replay(ctx context.Context, ids ...string) ([]string, error) {
	return r.intake.Replay(ctx, ids...)
}

// routes registers every resource.
func (a *App) routes(book *crm.Book, bureau *campaign.Bureau) {
	api.RegisterClients(a.API, a.Tenants, a.Queue)
	api.RegisterMoves(a.API, a.Tenants, a.services, a.mover())
	api.RegisterSecrets(a.API, a.Tenants, a.secretLines())
	api.RegisterUsers(a.API, a.Porter)
	api.RegisterSessions(a.API, a.Porter)
	api.RegisterRealtime(a.API, a.Porter)
	api.RegisterEvents(a.API, a.Door)
	api.RegisterRules(a.API, a.Engine)
	api.RegisterRuns(a.API, a.Engine, a.Runner)
	api.RegisterLeads(a.API, book)
	api.RegisterContacts(a.API, book)
	api.RegisterPipelines(a.API, book)
	api.RegisterTags(a.API, book)
	api.RegisterImports(a.API, book)
	api.RegisterAppointments(a.API, a.Diary)
	api.RegisterWebhook(a.API, api.MetaApp{
		AppSecret: secret.Text(a.Config.MetaAppSecret), VerifyToken: secret.Text(a.Config.MetaVerifyToken),
	}, a.Tenants, a.Intake)
	api.RegisterWhatsApp(a.API, a.Desk, a.Runner)
	api.RegisterMedia(a.API, a.Media, a.Runner)
	api.RegisterDeliveries(a.API, replayable{a.Inbox, a.Intake})
	api.RegisterCampaigns(a.API, bureau, a.Runner)
	api.RegisterSuppressions(a.API, book)
	api.RegisterUnsubscribe(a.API, bureau)
	api.RegisterSchedules(a.API, a.Timetable, a.Tenants)
	api.RegisterScheduledEvents(a.API, a.Timetable, book)
	api.RegisterJobs(a.API, a.Queue, a.Runner)
}
