package rootkey

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

var errDead = errors.New("dead")

// A dying place is one whose Safe dies at a write: before it, or after it and before
// it hears of it. Nothing is written later.
type dying struct {
	Place
	lives atomic.Int32 // writes that still succeed
	after bool         // the last one is done, but not answered
}

func (d *dying) write(do func() error) error {
	left := d.lives.Add(-1)
	switch {
	case left >= 0:
		return do()
	case left == -1 && d.after:
		if err := do(); err != nil {
			return err
		}
	}
	return errDead
}

func (d *dying) WriteKey(ctx context.Context, was *Kept, key, retired []byte) error {
	return d.write(func() error { return d.Place.WriteKey(ctx, was, key, retired) })
}

func (d *dying) WriteMark(ctx context.Context, was *Kept, at time.Time) error {
	return d.write(func() error { return d.Place.WriteMark(ctx, was, at) })
}

func (d *dying) WriteRecord(ctx context.Context, was *Kept, r Record) error {
	return d.write(func() error { return d.Place.WriteRecord(ctx, was, r) })
}

func TestPromise07_DyingBetweenTwoWritesLosesNoKey(t *testing.T) {
	recordA := recipientOf(keyA).String()
	for _, tt := range []struct {
		name              string
		mode              string
		key, mark, record string
		do                func(r *rig) error // nil: what the start does
		undone            State              // what the next start finds if nothing was done
	}{
		{name: "making a key", undone: Unsealed},
		{name: "making a key in the placeholder's stead", key: "{}", undone: Unsealed},
		{name: "adopting VSecM's key", key: keyA, undone: Unsealed},
		{name: "unsealing with the first key", mode: manual, do: func(r *rig) error { return r.unseal(keyA, "") }, undone: Sealed},
		{name: "unsealing after a seal", key: keyA, mark: marked, record: recordA, do: func(r *rig) error { return r.unseal(keyA, "") }, undone: Sealed},
		{name: "unsealing after a seal, the record lost", key: keyA, mark: marked, do: func(r *rig) error { return r.unseal(keyA, "") }, undone: Sealed},
		{name: "unsealing after a seal, memory", mode: memory, mark: marked, do: func(r *rig) error { return r.unseal(keyA, "") }, undone: Sealed},
		{name: "sealing", key: keyA, record: recordA, do: func(r *rig) error { return r.keeper.Seal(r.t.Context()) }, undone: Unsealed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sites(t, func(t *testing.T, s site) {
				for lives, died := int32(0), true; died; lives++ {
					died = false
					for _, after := range []bool{false, true} {
						s.put(tt.key, tt.mark, tt.record)
						place := &dying{Place: s.place(), after: after}
						place.lives.Store(lives)
						r := newRig(t, place, mode(tt.mode)).run()
						r.settled()
						if tt.do != nil {
							err := tt.do(r)
							lived := place.lives.Load() >= 0
							// A key that is kept is Safe's, whatever becomes of the record.
							kept := tt.mode != memory && !s.marked() && r.keeper.Status().State == Unsealed && idOf(s.key()) == r.keeper.Status().KeyID
							if (err == nil) != lived && (err != nil || !kept) || err != nil && !errors.Is(err, ErrUnavailable) {
								t.Errorf("after %d writes: %v", lives, err)
							}
						}
						r.stop()
						died = died || place.lives.Load() < 0
						kept, nothingDone := s.key(), place.lives.Load() < 0 && lives == 0 && !after

						next := newRig(t, s.place(), mode(tt.mode)).run()
						st := next.settled()
						if nothingDone && st.State != tt.undone {
							t.Errorf("nothing was written, and the next start finds %+v", st)
						}
						if kept != "" && kept != "{}" && s.key() != kept {
							t.Error("the key that was kept is another now")
						}
						if st.State == Unsealed {
							if !next.holds(s.key()) || s.record() != recipientOf(s.key()).String() {
								t.Errorf("after %d writes: %+v", lives, st)
							}
						} else if err := next.unseal(keyA, ""); err != nil || next.status().State != Unsealed {
							t.Errorf("after %d writes Safe stays sealed: %v", lives, err)
						}
						next.stop()
					}
				}
			})
		})
	}
}
