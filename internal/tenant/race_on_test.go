//go:build race

package tenant_test

// crowd is smaller under the race detector, which makes SQLite ten times slower.
const crowd = 1_000
