// Package app builds the engine and runs it: configuration, keys, storage, every
// part and how they are wired, the order of starting and stopping. It is the
// only package that knows all others; imports_test.go holds who may import whom.
package app
