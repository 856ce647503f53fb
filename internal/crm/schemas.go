package crm

import "github.com/ecodrix/ecod/internal/store"

// Schemas are the kinds of this package, all in a client's database.
var Schemas = []store.Schema{
	Contacts.Schema, Leads.Schema, ScoreEvents.Schema, ScoresDue.Schema, Pipelines.Schema, Changes.Schema, Notes.Schema, Tags.Schema, Aliases.Schema, Imports.Schema, RowErrors.Schema,
}
