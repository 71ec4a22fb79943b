//go:build race

package serve

// With the race detector everything takes many times as much.
const (
	crowdSize      = 200
	measuresMemory = false
)
