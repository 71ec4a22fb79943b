package workload

import (
	"math/rand/v2"
	"testing"
	"time"
)

// crowd returns when each of n clients tries, that all lost Safe at time 0 and
// find it again at back.
func crowd(n int, back time.Duration) []time.Duration {
	source := rand.New(rand.NewPCG(1, 2))
	var tries []time.Duration
	for range n {
		b := backoff{random: source.Float64}
		for at := time.Duration(0); ; {
			at += b.next()
			tries = append(tries, at)
			if at >= back {
				break
			}
		}
	}
	return tries
}

// busiest returns the most tries in any of the windows that time is cut into.
func busiest(tries []time.Duration, window time.Duration) int {
	counts, most := map[time.Duration]int{}, 0
	for _, at := range tries {
		counts[at/window]++
		most = max(most, counts[at/window])
	}
	return most
}

// A thousand clients that lose Safe in one moment do not come back in one.
func TestAThousandClientsDoNotStampede(t *testing.T) {
	const n = 1000
	for _, back := range []time.Duration{0, time.Second, 5 * time.Second, 30 * time.Second, 5 * time.Minute} {
		tries := crowd(n, back)
		// Were all to come at once, it would be 1,000. Evenly spread over the
		// first two seconds, it is 50; twice that leaves room for chance.
		if got := busiest(tries, 100*time.Millisecond); got > 100 {
			t.Errorf("Safe back after %v: %d tries in a tenth of a second", back, got)
		}
		// The last one is served within the longest pause.
		for _, at := range tries {
			if at >= back+lastPause {
				t.Errorf("Safe back after %v: a client tries at %v", back, at)
			}
		}
	}
	// Who is away for long is not asked for all the time.
	if tries := crowd(n, time.Hour); len(tries) > n*int(time.Hour/lastPause)*5/2 {
		t.Errorf("%d tries in an hour", len(tries))
	}
}

func TestPausesGrowToABound(t *testing.T) {
	almostOne := backoff{random: func() float64 { return 0.999 }}
	var before time.Duration
	for i := range 20 {
		got := almostOne.next()
		if got < before || got > lastPause || i == 0 && got > firstPause {
			t.Fatalf("pause %d is %v after %v", i, got, before)
		}
		before = got
	}
	if before < lastPause*9/10 {
		t.Errorf("the longest pause is %v", before)
	}
	almostOne.reset()
	if got := almostOne.next(); got > firstPause {
		t.Errorf("after a success the pause is %v", got)
	}
	none := backoff{random: func() float64 { return 0 }}
	if got := none.next(); got <= 0 {
		t.Errorf("the shortest pause is %v", got)
	}
}
