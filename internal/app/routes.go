package app

import (
	"github.com/ecodrix/ecod/internal/api"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/secret"
)

// routes registers every resource.
func (a *App) routes(book *crm.Book) {
	api.RegisterClients(a.API, a.Tenants, a.Queue)
	api.RegisterEvents(a.API, a.Door)
	api.RegisterRules(a.API, a.Engine)
	api.RegisterRuns(a.API, a.Engine, a.Runner)
	api.RegisterLeads(a.API, book)
	api.RegisterWebhook(a.API, api.MetaApp{
		AppSecret: secret.Text(a.Config.MetaAppSecret), VerifyToken: secret.Text(a.Config.MetaVerifyToken),
	}, a.Tenants, a.Intake)
	api.RegisterConversations(a.API)
	api.RegisterDeliveries(a.API, a.inbox)
	api.RegisterJobs(a.API, a.Queue, a.Runner)
}
