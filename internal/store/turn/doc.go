// Package turn says who goes next: how a worker's free slots are shared among lanes (Claim), how many jobs a rate lets
// start (Limit), and how long lanes rest (Rest). It is what the engines of store.Queue have in common, so that each rule
// is written once: it decides, and neither reads nor writes a store. See docs/adr/0007.
package turn
