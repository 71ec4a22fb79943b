package rootkey

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/logs"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func TestPromise05_NoRequestThatStartsAfterASealGetsPlaintext(t *testing.T) {
	const objects, readers, rounds = 8, 3, 10
	objectsIn, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer objectsIn.Close()
	for i := range objects {
		o := &v1alpha1.EncryptedSecret{}
		o.Namespace, o.Name, o.Spec.Workloads = "shop", fmt.Sprintf("s%d", i), []string{"db"}
		sealed, err := encrypt.Seal([]byte("correct horse"), encrypt.BindingOf(o, "password"), []encrypt.Recipient{recipientOf(keyB)}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		o.Spec.EncryptedData = map[string]string{"password": sealed}
		if _, err := objectsIn.Apply(t.Context(), "shop.main", o); err != nil {
			t.Fatal(err)
		}
	}

	s := newDirSite(t)
	s.put(keyB, "", "")
	var log logs.Buffer
	gate := unseal.NewGate()
	secrets := cache.New(gate, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&log, nil)))
	keeper := New(Config{
		Place: s.place(), Gate: gate, Holder: secrets, Objects: objectsIn.List,
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = secrets.Run(ctx, objectsIn) })
	running.Go(func() { _ = keeper.Run(ctx) })
	defer running.Wait()
	defer stop()
	<-keeper.Looked()
	wait.Until(t, "the cache is filled", secrets.Synced)

	// Odd from when a seal has answered to when an unseal is asked for.
	var phase atomic.Int64
	var asked, got [readers]atomic.Int64
	for i := range readers {
		running.Go(func() {
			for ctx.Err() == nil {
				before := phase.Load()
				all, _, err := secrets.Secrets(ctx, identity.Workload{Namespace: "shop", Name: "db"})
				after := phase.Load()
				switch {
				case ctx.Err() != nil:
				case err == nil && before%2 == 1 && before == after:
					t.Error("a request that started after the seal had answered got secrets")
				case err == nil && len(all) != objects:
					t.Errorf("got %d secrets of %d: a seal was taken for a fault", len(all), objects)
				case err != nil && !errors.Is(err, cache.ErrSealed):
					t.Errorf("got %v", err)
				}
				if err == nil {
					got[i].Add(1)
				}
				cache.Wipe(all)
				asked[i].Add(1)
			}
		})
	}
	// everyone waits until each reader has gone on by some.
	everyone := func(of *[readers]atomic.Int64) {
		var from [readers]int64
		for i := range of {
			from[i] = of[i].Load()
		}
		wait.Until(t, "requests of every reader", func() bool {
			for i := range of {
				if of[i].Load() < from[i]+2 {
					return false
				}
			}
			return true
		})
	}
	for range rounds {
		everyone(&got)
		if err := keeper.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
		phase.Add(1)
		everyone(&asked)
		phase.Add(1)
		if err := keeper.Unseal(t.Context(), []byte(keyB), ""); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	running.Wait()
	if strings.Contains(log.String(), "cannot be read") {
		t.Errorf("a seal was taken for a fault: %s", log.String())
	}
	showsNoKey(t, "the log", log.String(), keyB)
}
