// Package answer is how large the body of GET /v1/secrets may be: what Safe
// keeps to, and what a workload's client refuses beyond.
package answer

import "encoding/base64"

// MaxSize bounds, in bytes, the body of GET /v1/secrets.
const MaxSize = 32 << 20

const (
	// frame is what stands around all secrets, perSecret around one of them
	// with its version and time, and perValue around a value and its key.
	frame     = 32
	perSecret = 256
	perValue  = 8
	// escaped is what JSON may make of one byte of a name.
	escaped = 6
)

// Frame returns the bytes of an answer without secrets, at most.
func Frame() int { return frame }

// SecretSize returns the bytes that a secret without values takes, at most.
func SecretSize(name string) int { return perSecret + escaped*len(name) }

// ValueSize returns the bytes that a value of n bytes takes with its key, at
// most.
func ValueSize(key string, n int) int {
	return perValue + escaped*len(key) + base64.StdEncoding.EncodedLen(n)
}
