// Package tenant is the registry of the clients: who they are, whose a phone
// number is, which keys open which door, and the open handles to their databases.
//
// A Tenant is a value that every domain method takes as its second argument.
// It can only be had from Registry.Use, and it reaches one client's database
// and secrets: there is no way from one tenant to another.
//
// The registry's record is the ClientSecrets collection of the services
// database, which operators also edit by hand: Watch picks such edits up within
// seconds. Package app builds the registry; api, job and chat call it.
package tenant
