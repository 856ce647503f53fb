// Package crm keeps a client's people and deals: contacts (keyed by identity, so
// that a phone number may be absent), leads, pipelines, tags, notes and scores.
//
// Its Book reads, and builds the writes of a change; whoever owns the change
// commits them together with its own (packages chat and rule). What people and
// files change, the Book changes itself, inside jobs: a Mutation is what is
// wanted, a Change what came of it, and what rules hear of it is derived from
// that. It knows no channel and no rule: package app gives it the functions by
// which rules hear and others tell a lead's timeline. Packages chat, rule,
// campaign, meeting and api call it.
package crm
