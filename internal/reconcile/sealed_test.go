package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
)

// shut takes the keys away, as the seal gate does.
func (e *env) shut() {
	e.keys.era.Store(0)
	e.keys.ring.Store(nil)
}

func TestPromise05_ASealedSafeAppliesAndJudgesNothing(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "password=one")})
	was := e.sync()
	ring := e.keys.ring.Load()
	e.shut()
	head := e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "password=two"), "bad.yaml": e.seal("other", "bad", "k=v") + "x: y\n"})
	asked := e.keys.asked.Load()
	for range 3 {
		if err := e.source.Sync(context.Background()); !errors.Is(err, reconcile.ErrSealed) {
			t.Errorf("a round of a sealed Safe: %v", err)
		}
	}
	if st := e.source.Status(); fmt.Sprint(st) != fmt.Sprint(was) || e.keys.asked.Load() != asked {
		t.Errorf("status %+v, after %+v", st, was)
	}
	e.wantStored("shop/db{password=one}")

	e.keys.ring.Store(ring)
	e.keys.era.Store(2)
	if st := e.sync(); st.Seen != head || st.Faults.Total != 1 {
		t.Errorf("status %+v", st)
	}
	e.wantStored("shop/db{password=two}")
}

// A seal that comes in the middle of a round is nobody's fault.
func TestASealInTheMiddleOfARoundIsNoFault(t *testing.T) {
	for _, unsealed := range []bool{false, true} {
		t.Run(fmt.Sprintf("unsealed again at once: %v", unsealed), func(t *testing.T) {
			e := newEnv(t)
			e.commit(map[string]string{"gone.yaml": e.seal("shop", "gone", "k=v"), "kept.yaml": e.seal("shop", "kept", "k=v")})
			was := e.sync()
			ring := e.keys.ring.Load()
			files := map[string]string{}
			var want []string
			for i := range 40 {
				name := fmt.Sprintf("s%02d", i)
				files[name+".yaml"] = e.seal("shop", name, "k=v")
				want = append(want, "shop/"+name+"{k=v}")
			}
			head := e.commit(files, "gone.yaml")
			sealAt := e.keys.asked.Load() + 10
			meanwhile := func(n int32) {
				switch {
				case n == sealAt:
					e.shut()
				case n == sealAt+1 && unsealed:
					// After this answer, which is still that of a sealed Safe.
					defer func() { e.keys.era.Store(2) }()
				}
			}
			e.keys.before.Store(&meanwhile)
			if err := e.source.Sync(context.Background()); !errors.Is(err, reconcile.ErrSealed) {
				t.Errorf("the round: %v", err)
			}
			e.keys.before.Store(nil)
			if st := e.source.Status(); fmt.Sprint(st) != fmt.Sprint(was) {
				t.Errorf("status %+v, after %+v", st, was)
			}
			if !strings.Contains(e.stored(), "shop/gone{k=v}") {
				t.Error("it deleted something")
			}
			if log := e.log.String(); strings.Contains(log, "fault") || strings.Contains(log, "sync failed") {
				t.Errorf("the log: %s", log)
			}

			e.keys.ring.Store(ring)
			e.keys.era.Store(3)
			st := e.sync()
			if st.Revision != head || st.Faults.Total != 0 || st.Error != "" {
				t.Errorf("status %+v", st)
			}
			e.wantStored("shop/kept{k=v} " + strings.Join(want, " "))
		})
	}
}

func TestRunWaitsOutASealWithoutSlowingDown(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "password=one")})
	ring := e.keys.ring.Load()
	e.shut()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); e.source.Run(ctx) }()
	e.keys.ring.Store(ring)
	e.keys.era.Store(2)
	e.source.Retry()
	for late := time.Now().Add(30 * time.Second); e.source.Status().Revision == "" && time.Now().Before(late); {
		time.Sleep(time.Millisecond)
	}
	stop()
	<-done
	e.wantStored("shop/db{password=one}")
}
