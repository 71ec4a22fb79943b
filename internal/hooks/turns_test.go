package hooks

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/attempts"
)

func TestReplayedRequestsAreOneHintASecondAndThePushAfterThemIsNotMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.now, r.turns.after = time.Now, time.After
		var running sync.WaitGroup
		start := time.Now()
		for range 500 {
			running.Go(func() {
				if resp := r.send("shop/generic", strings.NewReader(push), "X-Signature", "sha256="+sum(secret, push)); resp.StatusCode != 202 {
					t.Error(resp.Status)
				}
			})
		}
		synctest.Wait()
		if r.told() != 1 {
			t.Errorf("told %d times at once", r.told())
		}
		running.Wait()
		if r.told() != 2 || time.Since(start) != hintEvery {
			t.Errorf("told %d times in %v", r.told(), time.Since(start))
		}
		if r.count(accepted) != 500 {
			t.Errorf("%d were accepted", r.count(accepted))
		}
	})
}

// A hint that has begun may have come too late for a push that comes now.
func TestNobodyLeavesAPushToAHintThatHasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(time.Now)
		done := make(chan struct{})
		var hints atomic.Int64
		var running sync.WaitGroup
		running.Go(func() {
			_ = turns.take("shop/a", func() error { hints.Add(1); <-done; return nil })
		})
		synctest.Wait()
		running.Go(func() {
			_ = turns.take("shop/a", func() error { hints.Add(1); return errors.New("it did not work") })
		})
		running.Go(func() { _ = turns.take("shop/b", func() error { return nil }) })
		synctest.Wait()
		if hints.Load() != 1 {
			t.Errorf("%d hints", hints.Load())
		}
		time.Sleep(hintEvery)
		synctest.Wait()
		if hints.Load() != 2 {
			t.Errorf("%d hints", hints.Load())
		}
		close(done)
		running.Wait()
	})
}

func TestSourcesThatAreGoneAreForgotten(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	turns := newTurns(func() time.Time { return now })
	for i := range 3 * attempts.Most {
		now = now.Add(time.Millisecond)
		if err := turns.take(fmt.Sprint("shop/", i), func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(turns.sources); n > attempts.Most+1 {
		t.Errorf("%d are remembered", n)
	}
}
