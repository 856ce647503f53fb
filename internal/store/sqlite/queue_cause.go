package sqlite

import (
	"strings"

	"github.com/ecodrix/ecod/internal/store"
)

// cause is one thing that a job may be made for: a column of its own, with an index over the jobs that have it. The
// column says again what causation says, for whoever looks for the jobs of one thing.
type cause struct {
	column, index string
	of            func(store.Causation) string
}

// causes are all of them, the one that most narrows a search first.
//
// The indexes hold ended jobs, too, until they are pruned: what became of a run's jobs can be asked for, and neither a
// claim nor a finish touches an index of them.
var causes = []cause{
	{"runId", "jobsOfRun", func(c store.Causation) string { return c.RunID }},
	{"appointmentId", "jobsOfAppointment", func(c store.Causation) string { return c.AppointmentID }},
	{"eventId", "jobsOfEvent", func(c store.Causation) string { return c.EventID }},
	{"leadId", "jobsOfLead", func(c store.Causation) string { return c.LeadID }},
	{"campaignId", "jobsOfCampaign", func(c store.Causation) string { return c.CampaignID }},
}

func causeColumns() (names []string) {
	for _, c := range causes {
		names = append(names, c.column)
	}
	return names
}

// causeArgs are the values of the causes' columns, in their order.
func causeArgs(of store.Causation) (args []any) {
	for _, c := range causes {
		args = append(args, orNull(c.of(of)))
	}
	return args
}

var setCauses = strings.Join(causeColumns(), " = ?, ") + " = ?"

// within gives the index and the terms that select the jobs of a causation; "" where it selects nothing.
func within(of store.Causation) (index, where string, args []any) {
	for _, c := range causes {
		v := c.of(of)
		if v == "" {
			continue
		}
		if index == "" {
			index = c.index
		}
		where += " AND " + c.column + " = ?"
		args = append(args, v)
	}
	return index, where, args
}

// causeTables gives the jobs, which have these columns, the columns and indexes that a file of an earlier layout lacks.
func causeTables(tx *wtx, have map[string]bool) error {
	var ddl, fill []string
	for _, c := range causes {
		if !have[c.column] {
			ddl = append(ddl, "ALTER TABLE jobs ADD COLUMN "+c.column+" TEXT")
			fill = append(fill, c.column+" = causation ->> '"+c.column+"'")
		}
	}
	if len(fill) > 0 {
		ddl = append(ddl, "UPDATE jobs SET "+strings.Join(fill, ", ")+" WHERE causation IS NOT NULL AND json_valid(causation)")
	}
	for _, c := range causes {
		ddl = append(ddl, "CREATE INDEX IF NOT EXISTS "+c.index+" ON jobs ("+c.column+") WHERE "+c.column+" IS NOT NULL")
	}
	return tx.script(strings.Join(ddl, ";\n"))
}
