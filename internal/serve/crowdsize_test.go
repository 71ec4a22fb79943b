//go:build !race

package serve

// crowdSize is how many watches there are at once where that matters.
const (
	crowdSize      = 5000
	measuresMemory = true
)
