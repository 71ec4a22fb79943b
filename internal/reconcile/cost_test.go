package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

func TestWhatWasRefusedIsTriedAgainWithPauses(t *testing.T) {
	e := newEnv(t)
	files := map[string]string{}
	for _, name := range []string{"a", "b", "c"} {
		other := encrypt.ReadManifests("x", []byte(e.seal("shop", name, "k=theirs")), "").Objects[0].Object
		if _, err := e.store.Apply(context.Background(), "shop.other", other); err != nil {
			t.Fatal(err)
		}
		files[name+".yaml"] = e.seal("shop", name, "k=ours")
	}
	e.commit(files)
	e.sync()
	for i, step := range []struct {
		wait time.Duration
		want int32
	}{{0, 0}, {9 * time.Second, 0}, {time.Second, 3}, {10 * time.Second, 0}, {10 * time.Second, 3}, {24 * time.Hour, 3}} {
		e.now = e.now.Add(step.wait)
		e.spy.gets.Store(0)
		for range 3 {
			e.sync()
		}
		if got := e.spy.gets.Load(); got != step.want {
			t.Errorf("step %d: %d objects were looked up, want %d", i, got, step.want)
		}
	}
}

func TestManyFaultsFillNoLog(t *testing.T) {
	e := newEnv(t)
	files := map[string]string{}
	var names []string
	for i := range 300 {
		names = append(names, fmt.Sprintf("%d.yaml", i))
		files[names[i]] = "vsecm.com/: ["
	}
	e.commit(files)
	for range 3 {
		if st := e.sync(); st.Faults.Total != 300 {
			t.Fatalf("%d faults", st.Faults.Total)
		}
	}
	e.commit(map[string]string{"notes.txt": ""}, names...)
	e.sync()
	log := e.log.String()
	if faults, gone := strings.Count(log, "msg=fault "), strings.Count(log, "fault is gone"); faults != 100 || gone != 100 || strings.Count(log, "dropped=200") != 2 {
		t.Errorf("%d faults and %d gone were logged", faults, gone)
	}
}

func TestPromise06_WhatPanicsHarmsOnlyItself(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v")})
	e.sync()

	e.keys.panics.Store(true)
	e.commit(map[string]string{"b.yaml": e.seal("shop", "b", "k=v")})
	e.wantFaults(e.sync(), "internal error", "b.yaml:1 ")
	e.keys.panics.Store(false)

	e.spy.apply = func(key store.Key) error {
		if key.Name == "c" {
			panic("something secret")
		}
		return nil
	}
	e.commit(map[string]string{"c.yaml": e.seal("shop", "c", "k=v"), "d.yaml": e.seal("shop", "d", "k=v")})
	if err := e.source.Sync(context.Background()); !errors.Is(err, reconcile.ErrPanic) {
		t.Errorf("an object that panics: %v", err)
	}
	e.wantStored("shop/a{k=v} shop/d{k=v}")
	e.spy.apply = nil

	e.spy.save = func(store.SourceState) { panic("something secret") }
	if err := e.source.Sync(context.Background()); !errors.Is(err, reconcile.ErrPanic) {
		t.Errorf("a round that panics: %v", err)
	}
	e.spy.save = nil
	if st := e.sync(); st.Revision != e.repo.Head() || st.Error != "" || st.Faults.Total != 0 {
		t.Errorf("status: %+v", st)
	}
	e.wantStored("shop/a{k=v} shop/b{k=v} shop/c{k=v} shop/d{k=v}")
	if log := e.log.String(); strings.Contains(log, "something secret") || !strings.Contains(log, "spy_test.go") {
		t.Errorf("log: %s", log)
	}
}
