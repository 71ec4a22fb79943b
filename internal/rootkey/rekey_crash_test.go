package rootkey

import (
	"errors"
	"fmt"
	"testing"
)

// A step of a re-key, in a crash test.
type rekeyStep struct {
	name string
	// before brings a Safe with keyA to where the step begins.
	before func(t *testing.T, r *rig)
	do     func(r *rig) error
	// done is what the step comes to: the active key, and the other one.
	active, other string
}

var rekeySteps = []rekeyStep{
	{
		name: "start", active: keyNew, other: keyA,
		before: func(t *testing.T, r *rig) {},
		do:     func(r *rig) error { _, _, err := r.start(keyNew); return err },
	}, {
		name: "abort", active: keyA, other: keyNew,
		before: func(t *testing.T, r *rig) { r.starts(keyNew) },
		do:     func(r *rig) error { _, err := r.keeper.AbortRekey(r.t.Context(), alice); return err },
	}, {
		name: "finish", active: keyNew,
		before: func(t *testing.T, r *rig) { r.starts(keyNew) },
		do:     func(r *rig) error { return r.keeper.FinishRekey(r.t.Context(), idOf(keyA), idOf(keyNew)) },
	}, {
		name: "finish what was aborted", active: keyA,
		before: func(t *testing.T, r *rig) {
			r.starts(keyNew)
			if _, err := r.keeper.AbortRekey(t.Context(), alice); err != nil {
				t.Fatal(err)
			}
		},
		do: func(r *rig) error { return r.keeper.FinishRekey(r.t.Context(), idOf(keyNew), idOf(keyA)) },
	},
}

// woken is a Safe that starts on what is kept, with whatever it asks for.
func woken(t *testing.T, s site, m string) *rig {
	t.Helper()
	r := newRig(t, s.place(), mode(m)).run()
	st := r.settled()
	if m == memory {
		key := keyA
		if st.KeyID == idOf(keyNew) {
			key = keyNew
		}
		if err := r.unseal(key, ""); err != nil {
			t.Fatal(err)
		}
		for _, id := range r.keeper.Status().Missing {
			if key = keyA; id == idOf(keyNew) {
				key = keyNew
			}
			if err := r.unseal(key, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	if st := r.status(); st.State != Unsealed || st.Reason != "" {
		t.Fatalf("Safe does not come back: %+v\n%s", st, r.log.String())
	}
	return r
}

// judge checks that nothing was lost by a death in a step, and that repeating it completes it.
func (step rekeyStep) judge(t *testing.T, s site, r *rig, m string, acknowledged bool) {
	t.Helper()
	looks(t, r)
	rekey, under := r.keeper.Rekeying()
	_, isDir := s.(*dirSite)
	switch finishing := step.other == ""; {
	case finishing && !under: // it was done
		r.ring(step.active)
	case finishing && !r.holds(keyA) && !r.holds(keyNew), !finishing && !r.holds(keyA), step.name == "abort" && !r.holds(keyNew):
		t.Fatal("a key was lost")
	case under && m != memory && idOf(s.key()) != rekey.To:
		t.Errorf("a re-key to %s is under way, and %s is kept", rekey.To, idOf(s.key()))
	}
	// A key that is told of as the active one is kept, and opens.
	if active, _ := r.config.Gate.Held(); m != memory && idOf(s.key()) != active || r.keeper.Status().KeyID != active || s.record() != recipientOf(map[bool]string{true: keyA, false: keyNew}[active == idOf(keyA)]).String() {
		t.Errorf("kept %.20s, on record %.20s, active %s", idOf(s.key()), s.record(), active)
	}
	if acknowledged && (step.other == "") == under {
		t.Errorf("it was acknowledged, and now a re-key is under way: %v", under)
	}
	if m == memory && step.name == "start" && !under {
		r.stages(keyNew)
	}
	if err := step.do(r); err != nil && !(step.other == "" && isDir && !under && errors.Is(err, ErrNoRekey)) {
		t.Fatalf("repeating it: %v\n%s", err, r.log.String())
	}
	looks(t, r)
	if step.other == "" {
		r.ring(step.active)
		r.rekeying("", "", false)
	} else {
		r.ring(step.active, step.other)
		r.rekeying(step.other, step.active, step.name == "abort")
	}
	if st := r.status(); st.Reason != "" || s.record() != recipientOf(step.active).String() {
		t.Errorf("status %+v", st)
	}
	if m != memory && (s.key() != step.active || (retiredOf(t, s) == "") != (step.other == "")) {
		t.Errorf("kept: %.300s", s.all())
	}
	// Nothing is left of it that a start would stumble over.
	r.stop()
	next := woken(t, s, m)
	if step.other == "" {
		next.ring(step.active)
	} else {
		next.ring(step.active, step.other)
	}
	next.stop()
}

func TestPromise07_DyingInARekeyLosesNoKey(t *testing.T) {
	for _, step := range rekeySteps {
		for _, m := range []string{auto, memory} {
			t.Run(step.name+" "+m, func(t *testing.T) {
				sites(t, func(t *testing.T, s site) {
					for lives, died := int32(0), true; died; lives++ {
						died = false
						for _, after := range []bool{false, true} {
							for _, on := range []bool{false, true} { // the process goes on
								if _, isDir := s.(*dirSite); isDir {
									s = newDirSite(t)
								}
								name := fmt.Sprintf("%d writes, after %v, goes on %v", lives, after, on)
								place := &dying{Place: nil, after: after}
								place.lives.Store(1000)
								place.Place = s.place()
								key := keyA
								if m == memory {
									key = ""
								}
								s.put(key, "", recipientOf(keyA).String())
								r := newRig(t, place, mode(m))
								looks(t, r)
								if m == memory {
									if err := r.unseal(keyA, ""); err != nil {
										t.Fatal(err)
									}
									r.stages(keyNew)
								}
								step.before(t, r)
								looks(t, r)
								place.lives.Store(lives)
								err := step.do(r)
								dead := place.lives.Load() < 0
								died = died || dead
								place.lives.Store(1000)
								if err != nil && !errors.Is(err, ErrUnavailable) || err != nil && !dead {
									t.Errorf("%s: %v", name, err)
								}
								if on {
									r.run().settled()
								} else {
									r = woken(t, s, m)
								}
								step.judge(t, s, r, m, err == nil)
								if t.Failed() {
									t.Fatal(name)
								}
							}
						}
					}
				})
			})
		}
	}
}

// In a directory a step is several files.
func TestPromise07_DyingBetweenTheFilesOfARekeyLosesNoKey(t *testing.T) {
	for _, step := range rekeySteps {
		t.Run(step.name, func(t *testing.T) {
			for lives, died := 0, true; died; lives++ {
				for _, on := range []bool{false, true} {
					s := newDirSite(t)
					ready := given(t, s, auto)
					step.before(t, ready)
					ready.stop()
					place := dyingDir(s, lives)
					r := newRig(t, place)
					looks(t, r)
					err := step.do(r)
					if died = err != nil; died && !errors.Is(err, ErrUnavailable) {
						t.Fatalf("after %d: %v", lives, err)
					}
					if place.step = nil; on {
						r.run().settled()
					} else {
						r = woken(t, s, auto)
					}
					step.judge(t, s, r, auto, err == nil)
					if t.Failed() {
						t.Fatalf("after %d files, goes on %v", lives, on)
					}
				}
			}
		})
	}
}
