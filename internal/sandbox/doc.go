// Package sandbox is the world around `ecod demo`: a simulated Meta, two example
// clients with rules, and customers who book, write and answer, all through the
// engine's own HTTP API. It runs on the same fakes as the tests.
package sandbox
