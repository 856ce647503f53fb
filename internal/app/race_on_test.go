//go:build race

package app_test

// raced: with the race detector the engine takes several times as long for everything.
const raced = true
