// Package media is the archive of what customers send and clients upload: it
// fetches a message's file from Meta, checks it, makes pictures small and takes
// away what they tell beside themselves (where, when, by which device), keeps one
// blob per content, and hands it out again: to dashboards and, for sending, to Meta.
//
// A [File] is a record in a client's database; its bytes stand on a [Shelf], a
// local folder or a bucket, under <CODE>/<aa>/<sha256>, the thumbnail beside it.
// Blobs are never shared between clients. A File is recorded before its blob is
// written and found pending if that was cut short, so no blob is ever without a
// record that leads to it. Blobs are removed when the last record that names them is.
//
// It knows messages (package chat) and Meta's media calls (package whatsapp).
// Package api serves it, app builds it, chat asks it for what is to be sent.
package media
