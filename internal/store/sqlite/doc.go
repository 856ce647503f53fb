// Package sqlite is the embedded engine of the storage contract, on modernc.org/sqlite.
package sqlite
