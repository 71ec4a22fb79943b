package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A contestant is one of several ways to do the same work.
type contestant struct {
	name string
	do   func(context.Context) error
}

// inTurns lets each contestant work once a round and returns the median of each,
// in their order. A round before the first fills caches and does not count. The
// order turns with the rounds, so that nobody always comes after the heaviest.
func inTurns(ctx context.Context, rounds int, contestants ...contestant) ([]time.Duration, error) {
	times := make([][]time.Duration, len(contestants))
	for round := range rounds + 1 {
		for turn := range contestants {
			i := (round + turn) % len(contestants)
			start := time.Now()
			if err := contestants[i].do(ctx); err != nil {
				return nil, fmt.Errorf("%s: %w", contestants[i].name, err)
			}
			if round > 0 {
				times[i] = append(times[i], time.Since(start))
			}
		}
	}
	medians := make([]time.Duration, len(contestants))
	for i, ts := range times {
		medians[i] = median(ts)
	}
	return medians, nil
}

func median(ts []time.Duration) time.Duration {
	ts = slices.Sorted(slices.Values(ts))
	if n := len(ts); n%2 == 0 {
		return (ts[n/2-1] + ts[n/2]) / 2
	}
	return ts[len(ts)/2]
}
