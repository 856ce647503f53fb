package rule

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/ecodrix/ecod/internal/clock"
	"github.com/ecodrix/ecod/internal/fault"
)

// Triggers are the names of events that the contract knows; "custom.*" is open.
var Triggers = []string{
	"appointment_confirmed", "product_purchased", "service_enrolled", "form_submitted", "appointment_reminder",
	"deal_won", "deal_lost", "tag_added", "tag_removed",
	"lead_created", "stage_changed", "message_received", "message_failed", "link_clicked", "score_crossed",
	"appointment_cancelled", "appointment_rescheduled",
}

var customTrigger = regexp.MustCompile(`^custom\.[A-Za-z0-9_.-]{1,64}$`)

// KnownTrigger tells whether an event may have this name.
func KnownTrigger(t string) bool { return slices.Contains(Triggers, t) || customTrigger.MatchString(t) }

// UnknownTrigger is the fault for another name; it lists the known ones.
func UnknownTrigger(pointer string) error {
	return fault.Bad(pointer, "is not a known trigger; known are %s and custom.*", strings.Join(Triggers, ", "))
}

// Definition is what a rule does, as its author writes it.
type Definition struct {
	Trigger   string   `json:"trigger"`
	Condition string   `json:"condition,omitempty"`
	Reenrol   Reenrol  `json:"reenrol"`
	Exits     []string `json:"exits,omitzero"` // nil: the default
	Actions   []Action `json:"actions"`
}

// Limits of a definition.
const (
	maxActions = 100 // with those of branches
	maxDepth   = 5   // of branches
	maxHTML    = 64 << 10
	maxSubject = 500
	maxTags    = 100      // of one action
	maxFields  = 16 << 10 // bytes of all fields of one action, as JSON
)

// Reenrol says whether a lead that went through a rule may enter it again.
type Reenrol struct {
	Mode     string // once_active, once_ever, every_event, cooldown
	Cooldown string // of mode cooldown: a duration such as "24h" or "7d"
}

// The modes.
const (
	OnceActive = "once_active"
	OnceEver   = "once_ever"
	EveryEvent = "every_event"
	Cooldown   = "cooldown"
)

// MarshalJSON gives "once_active" or {"cooldown":"24h"}.
func (r Reenrol) MarshalJSON() ([]byte, error) {
	if r.Mode == Cooldown {
		return json.Marshal(map[string]string{"cooldown": r.Cooldown})
	}
	if r.Mode == "" {
		return json.Marshal(OnceActive)
	}
	return json.Marshal(r.Mode)
}

// UnmarshalJSON reads both forms.
func (r *Reenrol) UnmarshalJSON(b []byte) error {
	var mode string
	if json.Unmarshal(b, &mode) == nil {
		*r = Reenrol{Mode: mode}
		return nil
	}
	var o struct {
		Cooldown *string `json:"cooldown"`
	}
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil || o.Cooldown == nil {
		return fault.Bad("/reenrol", `must be "once_active", "once_ever", "every_event" or {"cooldown":"24h"}`)
	}
	*r = Reenrol{Mode: Cooldown, Cooldown: *o.Cooldown}
	return nil
}

// Validate tells everything that is wrong with a definition, with JSON pointers.
func (d *Definition) Validate() error { return d.validate(&validation{}) }

func (d *Definition) validate(v *validation) error {
	if !KnownTrigger(d.Trigger) {
		v.add("/trigger", "is not a known trigger; known are %s and custom.*", strings.Join(Triggers, ", "))
	}
	v.condition("/condition", d.Condition)
	switch d.Reenrol.Mode {
	case "", OnceActive, OnceEver, EveryEvent:
	case Cooldown:
		if sp, err := clock.ParseSpan(d.Reenrol.Cooldown); err != nil || sp.Negative() {
			v.add("/reenrol/cooldown", `must be a duration such as "30m", "24h" or "7d"`)
		}
	default:
		v.add("/reenrol", `must be "once_active", "once_ever", "every_event" or {"cooldown":"24h"}`)
	}
	v.exits(d.Exits)
	if len(d.Actions) == 0 {
		v.add("/actions", "must hold at least one action")
	}
	v.actions("/actions", d.Actions, 0)
	if v.count > maxActions {
		v.add("/actions", "holds more than %d actions", maxActions)
	}
	return fault.BadFields(v.fields)
}

type validation struct {
	fields   []fault.Field
	count    int
	absent   func(typ string) bool // whether nobody does a type of action here; nil: all are done
	networks networks
}

func (v *validation) add(pointer, format string, args ...any) {
	if len(v.fields) < 20 {
		v.fields = append(v.fields, fault.Field{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
	}
}

func (v *validation) condition(pointer, src string) {
	if src == "" {
		return
	}
	if _, err := compile(src); err != nil {
		v.add(pointer, "%s", err)
	}
}

func (v *validation) placeholders(pointer, text string) {
	if err := checkPlaceholders(text); err != nil {
		v.add(pointer, "%s", err)
	}
}
