// Package clock turns wall-clock times into instants and moves instants along
// the calendar, in a zone, by one rule: a time that a change of the clocks skips
// is the first moment after the gap; a time that comes twice is the first of the
// two. time.Date guarantees neither. Cron expressions go by it too. It imports
// nothing of ours; whoever plans something in somebody's time uses it.
package clock
