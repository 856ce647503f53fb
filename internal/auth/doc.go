// Package auth knows who may come in: a client's dashboard users, their sessions,
// and the passes that sockets are let in with.
//
// A Porter checks passwords, hands out session tokens and takes them back, counts
// failed logins until an account is locked, and admits sockets. Users and sessions
// live in the client's own database; failed logins, which are counted for accounts
// that do not exist as well, in the services database.
//
// It does not know HTTP (package api), nor what a role may do there. API keys are
// the registry's (package tenant).
package auth
