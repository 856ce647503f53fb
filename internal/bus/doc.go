// Package bus carries news between the nodes of one installation: "this client has news", "a job is ready", who looks at a
// conversation.
//
// It is best effort, and nothing may rest on it: whoever is told looks at what is durable, and looks now and then by
// himself too. So a bus never blocks who publishes, keeps little, drops what it cannot carry, and after a gap says that
// there was one (OnGap). Memory joins nodes within a process; Redis joins processes, by publish and subscribe. What
// travels holds codes and ids, names at most, never a customer's text.
package bus
