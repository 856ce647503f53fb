package app

import (
	"github.com/ecodrix/ecod/internal/crm"
)

// routes registers every resource.
func (a *App) routes(storage *Embedded, book *crm.Book) {
}
