package rootkey

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// A seal lasts until somebody unseals: what is done to its Secret meanwhile is no unseal.

func TestADeletedSecretUnsealsNothing(t *testing.T) {
	recordA := recipientOf(keyA).String()
	for _, tt := range []struct {
		name, mode string
		do         func(s *secretSite)
	}{
		{"deleted", auto, func(s *secretSite) { s.remove("secrets", "vsecm-root-key") }},
		{"deleted, manual", manual, func(s *secretSite) { s.remove("secrets", "vsecm-root-key") }},
		{"deleted, memory", memory, func(s *secretSite) { s.remove("secrets", "vsecm-root-key") }},
		{"brought back from a backup", auto, func(s *secretSite) { s.put(keyA, "", recordA) }},
		{"brought back from a backup, memory", memory, func(s *secretSite) { s.put(keyA, "", recordA) }},
		{"deleted with the record", auto, func(s *secretSite) { s.put("", "", "") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSecretSite(t, cluster.Start(t))
			s.put(keyA, "", recordA)
			s.mount(keyA)
			all := replicas(t, s, 2, tt.mode)
			for _, r := range all {
				r.settled()
				if tt.mode == memory {
					if err := r.unseal(keyA, ""); err != nil {
						t.Fatal(err)
					}
				}
				r.until(Unsealed)
			}
			if err := all[0].keeper.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, r := range all {
				wait.Until(t, "the mark is obeyed", func() bool { return strings.Contains(r.keeper.Status().Reason, ", at ") })
			}
			reason, was := all[0].status().Reason, s.secret().UID
			for range 2 { // what was put back is put back again
				tt.do(s)
				wait.Until(t, "the mark is back", s.marked)
				if s.secret().UID == was {
					t.Fatal("the Secret is the same")
				}
				was = s.secret().UID
				for _, r := range all {
					looks(t, r)
					if st := r.status(); st.State != Sealed || st.Reason != reason {
						t.Errorf("status %+v, at first %s", st, reason)
					}
				}
			}
			// One that starts only now obeys it, too, and so does one that was there.
			late := newRig(t, s.place(), mode(tt.mode)).run()
			if st := late.settled(); st.State != Sealed || st.Reason != reason {
				t.Errorf("the next one: %+v", st)
			}
			// And unsealing works as ever.
			for _, r := range append(all, late) {
				if err := r.unseal(keyA, ""); err != nil || s.marked() {
					t.Errorf("unsealing: %v", err)
				}
				r.until(Unsealed)
			}
			for _, r := range all {
				looks(t, r)
				if st := r.status(); st.State != Unsealed || s.marked() {
					t.Errorf("later: %+v", st)
				}
			}
		})
	}
}

// looks has Run look twice at least: what it was about when this began does not count.
func looks(t testing.TB, r *rig) {
	t.Helper()
	for range 2 {
		if err := r.keeper.look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAMountedFileRestoresNothingAfterASeal(t *testing.T) {
	s := newSecretSite(t, cluster.Start(t))
	s.put(keyA, "", recipientOf(keyA).String())
	s.mount(keyA)
	r := newRig(t, s.place()).run()
	r.until(Unsealed)
	if err := r.keeper.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Somebody takes key and mark, and leaves the Secret.
	kept, err := s.place().Read(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.place().WriteKey(t.Context(), kept, []byte("{}"), nil); err != nil {
		t.Fatal(err)
	}
	looks(t, r)
	if st := r.status(); st.State != Sealed || s.key() != "{}" || !strings.Contains(st.Reason, "no root key") {
		t.Errorf("status %+v", st)
	}
	if err := r.unseal(keyA, ""); err != nil || s.key() != keyA {
		t.Errorf("unsealing: %v", err)
	}
}

func TestTheMarkTakenOffByHandUnseals(t *testing.T) {
	s := newSecretSite(t, cluster.Start(t))
	r := newRig(t, s.place()).run()
	r.until(Unsealed)
	if err := r.keeper.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	kept, err := s.place().Read(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.place().WriteMark(t.Context(), kept, time.Time{}); err != nil {
		t.Fatal(err)
	}
	r.until(Unsealed)
}

// A stalled place stops a read of everything, once, after it was read.
type stalled struct {
	Place
	once        sync.Once
	reached, on chan struct{}
}

func newStalled(p Place) *stalled {
	return &stalled{Place: p, reached: make(chan struct{}), on: make(chan struct{})}
}

func (p *stalled) Read(ctx context.Context, keysOfSealed bool) (*Kept, error) {
	kept, err := p.Place.Read(ctx, keysOfSealed)
	if keysOfSealed {
		p.once.Do(func() { close(p.reached); <-p.on })
	}
	return kept, err
}

func TestAnUnsealThatBeganBeforeASealDoesNotUndoIt(t *testing.T) {
	recordA := recipientOf(keyA).String()
	for _, m := range []string{manual, memory} {
		for _, tt := range []struct{ name, key, mark, record string }{
			{"with nothing to write", keyA, "", recordA},
			{"with the record to write", keyA, "", ""},
			{"with the key to write", "{}", "", recordA},
			{"with the Secret to make", "", "", recordA},
			{"with an older mark to lift", keyA, marked, recordA},
		} {
			t.Run(m+", "+tt.name, func(t *testing.T) {
				s := newSecretSite(t, cluster.Start(t))
				s.put(tt.key, tt.mark, tt.record)
				place := newStalled(s.place())
				r := newRig(t, place, mode(m))
				unsealed := make(chan error, 1)
				go func() { unsealed <- r.keeper.Unseal(t.Context(), []byte(keyA), idOf(keyA)) }()
				<-place.reached
				other := newRig(t, s.place(), mode(m))
				if tt.mark != "" { // it was unsealed meanwhile, and sealed again
					if err := other.unseal(keyA, ""); err != nil {
						t.Fatal(err)
					}
				}
				if err := other.keeper.Seal(t.Context()); err != nil {
					t.Fatal(err)
				}
				sealed := s.secret().Annotations[AnnotationSealed]
				close(place.on)
				if err := <-unsealed; !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "sealed meanwhile") {
					t.Errorf("unsealing: %v", err)
				}
				if st := r.status(); st.State != Sealed || s.secret().Annotations[AnnotationSealed] != sealed {
					t.Errorf("status %+v, marked %v", st, s.marked())
				}
				// One that begins now does.
				if err := r.unseal(keyA, idOf(keyA)); err != nil || s.marked() {
					t.Errorf("unsealing: %v", err)
				}
			})
		}
	}
}

// Somebody else's write is no seal.
func TestAnUnsealSurvivesOtherWrites(t *testing.T) {
	s := newSecretSite(t, cluster.Start(t))
	s.put(keyA, marked, recipientOf(keyA).String())
	place := newStalled(s.place())
	r := newRig(t, place, mode(manual))
	unsealed := make(chan error, 1)
	go func() { unsealed <- r.keeper.Unseal(t.Context(), []byte(keyA), "") }()
	<-place.reached
	s.edit(func(data map[string][]byte) { data["other"] = []byte("changed") })
	close(place.on)
	if err := <-unsealed; err != nil || s.marked() || string(s.secret().Data["other"]) != "changed" {
		t.Errorf("unsealing: %v", err)
	}
}

func TestASealThatWaitsTooLongForThePlaceSaysThatItIsSealedHere(t *testing.T) {
	s := newDirSite(t)
	place := &blocking{Place: s.place()}
	r := newRig(t, place).run()
	r.settled()
	release := place.block()
	defer release()
	r.keeper.hint()
	<-place.in // Run has the place, and goes on having it
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err := r.keeper.Seal(ctx)
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(fmt.Sprint(err), "sealed here, but") {
		t.Errorf("sealing: %v", err)
	}
	if st := r.status(); st.State != Sealed {
		t.Errorf("status %+v", st)
	}
}
