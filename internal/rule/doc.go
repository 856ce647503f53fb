// Package rule is the automation: an event comes in, the client's live rules
// decide, leads change and external steps are planned.
//
// Deciding is pure (match.go, walk.go, render.go: no clock, no network, no
// database). Engine makes it durable: one commit holds an event's whole effect,
// and everything outside this process is a job that the commit's event job makes
// (law 2). Package api hands events in; package app registers the job types.
//
// # A run
//
// A run goes through its rule in legs (proceed.go). A leg does internal actions
// at once and plans external ones, each of which begins when the one before it has
// ended. It stops at what must be waited for: an action that uses the result of an
// external step of its own leg ({{meet.url}}). When all that is planned has ended, the next
// leg goes on from there (Run.Cursor), with the lead and the contact as they are
// then and the rule's version that the run began with. Variables that will be
// missing hold a run before anything is done.
//
// # Waits and exits
//
// A wait (wait.go) begins when what is planned before it has ended, and is a job
// due at its end. What follows a wait until a moment is not sent after that moment
// is of no more use: the steps up to the next wait are skipped, too_late. What makes a
// run pointless (exit.go: a reply, an opt-out, a goal, a stage) ends it when it
// happens, by a job that every occurrence of the lead leaves, and is looked at again
// before each leg, and by MayBegin right before an external step.
//
// # A new external action
//
// Whoever does a type of action (a Doer, external.go) has to:
//
//   - have its name and members in actionForms (action.go), the root of its result,
//     if later actions may use one, in external and emptyEnv (match.go), and a case in walk.action that
//     renders it into a frozen input, such as EmailInput;
//   - implement Plan, Job and Outcome on records of its own, and be put into
//     Engine.Doers by package app; until then rules with the type are refused;
//   - ask Engine.MayBegin right before the effect, and give StepSkipped as the outcome
//     of what it kept back (NotBegun);
//   - leave Engine.Advance(tn, runID, step, ref) to its job's Result.Next (or to
//     job.Dead) when what it made was done, failed, or lost its answer: also when the
//     job runs again and finds it so.
package rule
