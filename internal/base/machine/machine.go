// Package machine says what this machine has.
package machine

// Memory returns the memory of this machine in bytes; 0: it cannot be told.
func Memory() int64 { return memory() }
