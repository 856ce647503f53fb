// Package sandbox is the world around `ecod demo`: a simulated Meta, mail server
// and Google, two example clients with rules, campaigns and appointments, and
// customers who book, write and answer. All of it goes through the engine's own
// HTTP API and webhooks, on the same fakes as the tests.
//
// What the engine fails at is reported (watch.go), not hidden. What the world
// keeps is bounded: the same people come again, and journals have limits.
package sandbox
