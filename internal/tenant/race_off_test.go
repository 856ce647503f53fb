//go:build !race

package tenant_test

const crowd = 10_000
