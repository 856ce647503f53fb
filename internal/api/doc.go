// Package api is the HTTP door: REST, webhooks, OpenAPI, problem+json. It turns
// requests into calls of the domains and their errors into answers; it decides
// nothing else. Package app builds it and serves it.
//
// The shell is here: who may call (auth.go), the checks of JSON bodies (guard.go,
// validate.go), errors (problem.go), Idempotency-Key (idempotency.go), lists and
// times (list.go, types.go), the standing routes (health.go, metrics.go, docs.go),
// the server (server.go). Every resource is one file beside it that registers its
// operations with Client, ClientCall, Admin, Public or Stream.
//
// # Adding a resource
//
// An operation is an Op and a function from an input to an output. The input has
// fields with path, query or header tags, and Body; what the tags of its types
// say (minLength, enum, format …) is checked before the handler runs and told in
// the OpenAPI document. The handler returns *fault.Error for what the caller must
// know; any other error is a 500 whose text stays in the log.
//
// What to know of huma, which does the checking:
//
//   - A field is required unless its JSON tag has omitempty or omitzero, even if it
//     has a default.
//   - Unknown members are refused. Names compare exactly.
//   - null for an optional member is as if it were absent; where a PATCH must tell
//     the two apart, use Optional.
//   - Embedded structs must be of exported types, or their parameters are not seen.
//   - In an output, every field beside Body is a header, and Status, if there is
//     one, must be set.
//   - A RawBody is only valid until the handler returns.
//   - uniqueItems is refused at start: it panics on hostile input.
//   - A type that decodes itself should return fault.Bad with the whole pointer.
package api
