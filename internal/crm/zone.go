package crm

import (
	"time"

	"github.com/nyaruka/phonenumbers"

	"github.com/ecodrix/ecod/internal/clock"
)

// Zone is the zone in which a lead's days are counted: the one in its field timeZone, else the only one that its phone
// number can be in, else the client's.
func (l *Lead) Zone(clients *time.Location) *time.Location {
	if name, ok := l.Fields["timeZone"].(string); ok {
		if z, err := clock.Zone(name); err == nil {
			return z
		}
	}
	if l.Phone == "" {
		return clients
	}
	n, err := phonenumbers.Parse(l.Phone, "")
	if err != nil {
		return clients
	}
	names, err := phonenumbers.GetTimezonesForNumber(n)
	if err != nil || len(names) != 1 {
		return clients
	}
	if z, err := clock.Zone(names[0]); err == nil && names[0] != phonenumbers.UNKNOWN_TIMEZONE {
		return z
	}
	return clients
}
