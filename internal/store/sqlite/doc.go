// Package sqlite is the embedded engine of the storage contract, on modernc.org/sqlite (pure Go): DB, Queue and
// Inbox, each on files of its own. Only app and the tenant registry open them; domains see package store.
//
// Every file has one connection that writes and shares commits between concurrent callers (writer.go), and a few
// that read (file.go). A write returns after its fsync. It is no ORM and runs nobody's SQL but its own.
//
// The files are made to be looked at: an operator may read, and for watched kinds edit, them with the sqlite3
// shell while the engine runs.
package sqlite
