package rootkey

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// Replicas of one Safe, which share nothing but what is kept.
func replicas(t *testing.T, s site, n int, m string) []*rig {
	all := make([]*rig, n)
	for i := range all {
		all[i] = newRig(t, s.place(), mode(m))
	}
	var starting sync.WaitGroup
	for _, r := range all {
		starting.Go(func() { r.run() })
	}
	starting.Wait()
	return all
}

func TestReplicasThatStartTogetherAgreeOnOneKey(t *testing.T) {
	cp := cluster.Start(t)
	for _, before := range []string{"", "{}"} {
		for range 8 {
			s := newSecretSite(t, cp)
			s.put(before, "", "")
			all := replicas(t, s, 3, auto)
			for _, r := range all {
				r.until(Unsealed)
			}
			key := s.key()
			for _, r := range all {
				if st := r.status(); st.KeyID != idOf(key) || !r.holds(key) {
					t.Fatalf("the key that is kept is %s, but one holds %s", idOf(key), st.KeyID)
				}
			}
			if s.record() != recipientOf(key).String() {
				t.Errorf("on record: %.20s", s.record())
			}
			for _, r := range all {
				r.stop()
			}
		}
	}
}

// In memory mode nothing but the record stands between two operators who bring two keys.
func TestOfTwoFirstKeysOneIsTaken(t *testing.T) {
	cp := cluster.Start(t)
	for _, m := range []string{manual, memory} {
		for range 5 {
			s := newSecretSite(t, cp)
			all := replicas(t, s, 2, m)
			for _, r := range all {
				r.settled()
			}
			var errs [2]error
			var both sync.WaitGroup
			for i, text := range []string{keyA, keyB} {
				both.Go(func() { errs[i] = all[i].unseal(text, "") })
			}
			both.Wait()
			first, text := 0, keyA
			if errs[0] != nil {
				first, text = 1, keyB
			}
			if errs[first] != nil || !errors.Is(errs[1-first], ErrWrongKey) || s.record() != recipientOf(text).String() {
				t.Fatalf("%v, %v, on record %.20s", errs[0], errs[1], s.record())
			}
			if m == memory {
				if st := all[1-first].status(); st.State != Sealed {
					t.Errorf("the other: %+v", st)
				}
			} else if all[1-first].until(Unsealed); !all[1-first].holds(text) {
				t.Error("the other holds another key")
			}
			for _, r := range all {
				r.stop()
			}
		}
	}
}

func TestUnsealAndSealReachEveryReplica(t *testing.T) {
	s := newSecretSite(t, cluster.Start(t))
	all := replicas(t, s, 3, manual)
	for _, r := range all {
		if st := r.settled(); st.State != Sealed {
			t.Fatalf("status %+v", st)
		}
	}
	for round := range 3 {
		if err := all[round].unseal(keyA, ""); err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if r.until(Unsealed); !r.holds(keyA) {
				t.Error("it holds another key")
			}
		}
		if err := all[(round+1)%3].keeper.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if st := r.until(Sealed); r.holds(keyA) || !strings.Contains(st.Reason, "by an operator") {
				t.Errorf("status %+v", st)
			}
		}
	}
	// Killing one loses nothing.
	all[0].stop()
	if err := all[1].unseal(keyA, ""); err != nil {
		t.Fatal(err)
	}
	all[2].until(Unsealed)
	if r := newRig(t, s.place(), mode(manual)).run(); r.settled().State != Unsealed {
		t.Errorf("the next one: %+v", r.status())
	}
}

func TestASealReachesReplicasThatKeepTheKeyInMemory(t *testing.T) {
	s := newSecretSite(t, cluster.Start(t))
	all := replicas(t, s, 2, memory)
	for _, r := range all {
		r.settled()
		if err := r.unseal(keyA, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := all[0].keeper.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	all[1].until(Sealed)
	if err := all[0].unseal(keyA, ""); err != nil || s.key() != "" {
		t.Fatal(err)
	}
	wait.Until(t, "the other waits for its own", func() bool { return strings.Contains(all[1].keeper.Status().Reason, "waiting") })
}

func TestWhileTheAPIServerIsAwayNothingChanges(t *testing.T) {
	cp := controlplane.Start(t)
	s := newSecretSite(t, cp)
	r := newRig(t, s.place(), mode(manual)).run()
	r.settled()

	// Sealed, waiting for its first key.
	cp.StopAPIServer(t)
	was := r.status()
	if err := r.unseal(keyA, ""); !errors.Is(err, ErrUnavailable) || !reflect.DeepEqual(r.status(), was) {
		t.Errorf("the first key: %v, %+v", err, r.status())
	}
	if err := r.unseal(keyA[:70], ""); errors.Is(err, ErrUnavailable) || err == nil {
		t.Errorf("half a key: %v", err)
	}
	cp.StartAPIServer(t)
	if s.key() != "" || s.record() != "" {
		t.Errorf("kept: %s", s.all())
	}
	eventuallyNil(t, func() error { return r.unseal(keyA, "") })
	before := s.all()

	// Unsealed.
	cp.StopAPIServer(t)
	r.keeper.hint()
	wait.Until(t, "it looked in vain", func() bool { return strings.Contains(r.log.String(), "looking after the root key failed") })
	if st := r.status(); st.State != Unsealed || !r.holds(keyA) {
		t.Errorf("status %+v", st)
	}
	late := newRig(t, s.place(), mode(manual)).run()
	if st := late.settled(); st.State != Sealed || !strings.Contains(st.Reason, "cannot be reached") {
		t.Errorf("one that starts: %+v", st)
	}
	// A seal takes effect here all the same, and says what it could not do.
	if err := r.keeper.Seal(t.Context()); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "sealed here") || r.holds(keyA) {
		t.Errorf("sealing: %v", err)
	}
	if err := r.unseal(keyA, ""); !errors.Is(err, ErrUnavailable) || r.status().State != Sealed {
		t.Errorf("unsealing: %v", err)
	}
	cp.StartAPIServer(t)
	late.until(Unsealed)
	if s.all() != before {
		t.Errorf("changed from %.300s to %.300s", before, s.all())
	}
	// What was sealed here stays so, though nothing that is kept says so.
	r.keeper.hint()
	if st := r.status(); st.State != Sealed {
		t.Errorf("status %+v", st)
	}
	eventuallyNil(t, func() error { return r.keeper.Seal(t.Context()) })
	late.until(Sealed)
	if err := r.unseal(keyA, ""); err != nil {
		t.Error(err)
	}
	late.until(Unsealed)
}

// A blocking place answers when it is let.
type blocking struct {
	Place
	mu   sync.Mutex
	gate chan struct{} // nil: it does not block
	in   chan struct{}
}

func (b *blocking) block() (release func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gate, b.in = make(chan struct{}), make(chan struct{}, 100)
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		close(b.gate)
		b.gate = nil
	})
}

func (b *blocking) wait(ctx context.Context) error {
	b.mu.Lock()
	gate, in := b.gate, b.in
	b.mu.Unlock()
	if gate == nil {
		return nil
	}
	in <- struct{}{}
	select {
	case <-gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *blocking) Read(ctx context.Context, all bool) (*Kept, error) {
	if err := b.wait(ctx); err != nil {
		return nil, err
	}
	return b.Place.Read(ctx, all)
}

func TestASlowPlaceHoldsUpNeitherStatusNorSeal(t *testing.T) {
	s := newDirSite(t)
	place := &blocking{Place: s.place()}
	r := newRig(t, place).run()
	r.settled()
	key := s.key()

	release := place.block()
	defer release()
	r.keeper.hint()
	<-place.in // Run is in the middle of a look
	if st := r.status(); st.State != Unsealed {
		t.Errorf("status %+v", st)
	}
	sealed := make(chan error, 1)
	go func() { sealed <- r.keeper.Seal(t.Context()) }()
	r.until(Sealed) // while the place does not answer
	if r.holds(key) {
		t.Error("the key is still held")
	}
	release()
	if err := <-sealed; err != nil || !s.marked() || r.status().State != Sealed {
		t.Errorf("sealing: %v", err)
	}

	// An unseal that a seal meets has lost, whatever the place does.
	release = place.block()
	unsealed := make(chan error, 1)
	go func() { unsealed <- r.unseal(key, "") }()
	<-place.in
	go func() { sealed <- r.keeper.Seal(t.Context()) }()
	wait.Until(t, "the seal is on its way", func() bool { r.keeper.turn.Lock(); defer r.keeper.turn.Unlock(); return r.keeper.held })
	release()
	if err := <-unsealed; !errors.Is(err, ErrUnavailable) {
		t.Errorf("unsealing: %v", err)
	}
	if err := <-sealed; err != nil || !s.marked() || r.status().State != Sealed {
		t.Errorf("sealing: %v, marked %v", err, s.marked())
	}
	// Who gives up waiting changes nothing.
	release = place.block()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { unsealed <- r.keeper.Unseal(ctx, []byte(key), encrypt.KeyID("")) }()
	<-place.in
	cancel()
	if err := <-unsealed; !errors.Is(err, context.Canceled) || r.status().State != Sealed {
		t.Errorf("unsealing: %v", err)
	}
	release()
}
