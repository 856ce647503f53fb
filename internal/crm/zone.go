package crm

import (
	"errors"
	"time"

	"github.com/nyaruka/phonenumbers"
)

// LoadZone is time.LoadLocation for names that people give: the machine's own zone is none.
func LoadZone(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, errors.New("crm: no zone")
	}
	return time.LoadLocation(name)
}

// Zone is the zone in which a lead's days are counted: the one in its field timeZone, else the only one that its phone
// number can be in, else the client's.
func (l *Lead) Zone(clients *time.Location) *time.Location {
	if name, ok := l.Fields["timeZone"].(string); ok {
		if z, err := LoadZone(name); err == nil {
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
	if z, err := LoadZone(names[0]); err == nil && names[0] != phonenumbers.UNKNOWN_TIMEZONE {
		return z
	}
	return clients
}
