// Package rule is the automation: an event comes in, the client's live rules
// decide, leads change and sends are planned.
//
// Deciding is pure (match.go, walk.go, render.go: no clock, no network, no
// database). Engine makes it durable: one commit holds an event's whole effect,
// and everything outside this process is a job that the commit's event job makes
// (law 2). The sends themselves are package chat's. Package api hands events in;
// package app registers the job types.
package rule
