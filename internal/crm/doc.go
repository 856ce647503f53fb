// Package crm keeps a client's people and deals: contacts (keyed by identity, so
// that a phone number may be absent), leads, tags, stages and scores.
//
// Its Book reads, and builds the writes of a change; whoever owns the change
// commits them together with its own. It knows no channel and no rule. Packages
// chat, rule and api call it.
package crm
