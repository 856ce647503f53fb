// Package mongo is the MongoDB engine of the storage contract: DB, Queue and Inbox, each in collections that read well
// in a database browser. Only app and the tenant registry open them; domains see package store.
//
// A Clusters is the process's one way to MongoDB: it shares a driver's client among the databases of a cluster and keeps
// all of them within a budget of connections. What decides is read at the primary and written to a majority with its
// journal. Nothing rests on transactions of several documents: they are used where the deployment has them (and a
// probe has seen one taken back), so that a refused commit leaves no prefix; without them a prefix may stand, as the
// contract says. No query of ours is anybody's text.
//
// Errors carry the server's codes, and never its words: those quote values and addresses.
package mongo
