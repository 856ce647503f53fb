//go:build !race

package rule

// slower is by how much the race detector slows what is measured.
const slower = 1
