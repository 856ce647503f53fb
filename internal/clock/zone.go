package clock

import (
	"errors"
	"sync"
	"time"
)

// zones keeps what was read, by name: thousands of clients live in few zones.
var zones sync.Map

// Zone is time.LoadLocation for names that people give: neither none nor the machine's own is one.
func Zone(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, errors.New("clock: no zone")
	}
	if z, ok := zones.Load(name); ok {
		return z.(*time.Location), nil
	}
	z, err := time.LoadLocation(name)
	if err == nil {
		zones.Store(name, z)
	}
	return z, err
}
