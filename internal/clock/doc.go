// Package clock turns wall-clock times into instants and moves instants along
// the calendar, in a zone, by one rule: a time that a change of the clocks skips
// is the first moment after the gap; a time that comes twice is the first of the
// two. time.Date guarantees neither. It imports nothing of ours; whoever plans
// something in a customer's time uses it.
package clock
