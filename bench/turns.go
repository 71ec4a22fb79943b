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
func inTurns(ctx context.Context, rounds int, contestants ...contestant) ([]duration, error) {
	times := make([][]duration, len(contestants))
	for round := range rounds + 1 {
		for turn := range contestants {
			i := (round + turn) % len(contestants)
			start := time.Now()
			if err := contestants[i].do(ctx); err != nil {
				return nil, fmt.Errorf("%s: %w", contestants[i].name, err)
			}
			if round > 0 {
				times[i] = append(times[i], duration(time.Since(start)))
			}
		}
	}
	medians := make([]duration, len(contestants))
	for i, ts := range times {
		medians[i] = median(ts)
	}
	return medians, nil
}

func median[T duration | float64](values []T) T {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	if n%2 == 0 {
		return (values[n/2-1] + values[n/2]) / 2
	}
	return values[n/2]
}
