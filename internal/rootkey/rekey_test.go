package rootkey

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func TestARekeyFromBeginningToEnd(t *testing.T) {
	sites(t, func(t *testing.T, s site) {
		r := given(t, s, auto)
		turn := r.config.Gate.Turn()
		changed := r.keeper.Changed()
		began := r.starts("")
		made := s.key()
		if began.From != idOf(keyA) || began.To != idOf(made) || began.By != alice || began.Aborted || time.Since(began.Started) > time.Minute {
			t.Errorf("began %+v", began)
		}
		if !recipientOf(made).Hybrid() {
			t.Error("the new key is of another kind")
		}
		select {
		case <-changed:
		default:
			t.Error("nobody was told")
		}
		if r.config.Gate.Turn() == turn || r.config.Gate.Era() == 0 {
			t.Error("the gate's turn is the same")
		}
		if active, retired := keptIDs(t, s); active != idOf(made) || !slices.Equal(retired, []encrypt.KeyID{idOf(keyA)}) || s.record() != recipientOf(made).String() {
			t.Errorf("kept: %s and %s, on record %.20s", active, retired, s.record())
		}
		showsNoKey(t, "the record of a re-key", rekeyOf(t, s), keyA, made)
		looks(t, r)
		r.ring(made, keyA)
		r.rekeying(keyA, made, false)
		if st := r.status(); st.KeyID != idOf(made) || st.Reason != "" {
			t.Errorf("status %+v", st)
		}

		// Whoever repeats it gets the same one, and whoever means another is told.
		before := s.all()
		for _, text := range []string{"", made} {
			if same, began, err := r.start(text); err != nil || began || same.To != idOf(made) {
				t.Errorf("again: %v, %v, %+v", began, err, same)
			}
		}
		var other *RekeyingError
		if _, _, err := r.start(keyOther); !errors.Is(err, ErrRekeying) || !errors.As(err, &other) || other.Rekey.To != idOf(made) || !strings.Contains(err.Error(), alice) {
			t.Errorf("another one: %v", err)
		}
		if err := r.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyOther)); !errors.Is(err, ErrRekeying) {
			t.Errorf("finishing another one: %v", err)
		}
		if s.all() != before {
			t.Error("something was written")
		}

		r.stop()
		r = newRig(t, s.place()).run()
		if st := r.settled(); st.State != Unsealed || st.Reason != "" {
			t.Errorf("started again: %+v", st)
		}
		r.ring(made, keyA)
		r.rekeying(keyA, made, false)

		if err := r.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(made)); err != nil {
			t.Fatal(err)
		}
		r.ring(made)
		r.rekeying("", "", false)
		if r.holds(keyA) || opens(t, r, keyA) {
			t.Error("the old key opens still")
		}
		if retiredOf(t, s) != "" || rekeyOf(t, s) != "" || s.key() != made || s.record() != recipientOf(made).String() {
			t.Errorf("kept: %.300s", s.all())
		}
		if _, err := r.keeper.AbortRekey(t.Context(), alice); !errors.Is(err, ErrNoRekey) {
			t.Errorf("aborting: %v", err)
		}
		if err := r.keeper.FinishRekey(t.Context(), idOf(keyB), idOf(made)); !errors.Is(err, ErrNoRekey) {
			t.Errorf("finishing what never was: %v", err)
		}
		looks(t, r)
		r.ring(made)
		r.stop()
		r = newRig(t, s.place()).run()
		if st := r.settled(); st.State != Unsealed || st.Reason != "" || st.Rekey != nil {
			t.Errorf("started again: %+v", st)
		}
		r.ring(made)

		// And the next one, to a key that is given.
		r.starts(keyNew)
		r.ring(keyNew, made)
		if st := r.status(); st.Reason != "" || s.key() != keyNew {
			t.Errorf("status %+v", st)
		}
	})
}

func TestAnAbortedRekeyGoesBack(t *testing.T) {
	for _, m := range []string{auto, memory} {
		t.Run("mode "+m, func(t *testing.T) {
			sites(t, func(t *testing.T, s site) {
				r := given(t, s, m)
				if m == memory {
					r.stages(keyNew)
				}
				r.starts(keyNew)
				back, err := r.keeper.AbortRekey(t.Context(), "bob")
				if err != nil || back.From != idOf(keyNew) || back.To != idOf(keyA) || !back.Aborted || back.By != "bob" {
					t.Fatalf("aborting: %+v, %v", back, err)
				}
				looks(t, r)
				r.ring(keyA, keyNew)
				r.rekeying(keyNew, keyA, true)
				if st := r.status(); st.Reason != "" || s.record() != recipientOf(keyA).String() {
					t.Errorf("status %+v", st)
				}
				before := s.all()
				if same, err := r.keeper.AbortRekey(t.Context(), alice); err != nil || same != back || s.all() != before {
					t.Errorf("again: %+v, %v", same, err)
				}
				if _, _, err := r.start(keyNew); !errors.Is(err, ErrRekeying) {
					t.Errorf("starting again: %v", err)
				}
				if m == auto {
					if active, retired := keptIDs(t, s); active != idOf(keyA) || !slices.Contains(retired, idOf(keyNew)) {
						t.Errorf("kept: %s and %s", active, retired)
					}
					r.stop()
					r = again(t, s, m)
					r.ring(keyA, keyNew)
				}
				if err := r.keeper.FinishRekey(t.Context(), idOf(keyNew), idOf(keyA)); err != nil {
					t.Fatal(err)
				}
				looks(t, r)
				r.ring(keyA)
				r.rekeying("", "", false)
				if st := r.status(); st.Reason != "" {
					t.Errorf("status %+v", st)
				}
			})
		})
	}
}

func TestARekeyIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name, mode string
		text       string
		err        error
	}{
		{"to the active key", auto, keyA, ErrActiveKey},
		{"to one of another kind", auto, keyB, ErrOtherKind},
		{"to half a key", auto, keyNew[:100], unseal.ErrMalformed},
		{"to the placeholder", auto, "{}", unseal.ErrMalformed},
		{"to lines that do not belong together", auto, halves(), unseal.ErrMismatch},
		{"to one that nobody would keep", memory, "", ErrKeyWanted},
		{"to one that was not staged", memory, keyNew, ErrNotStaged},
		{"to the active key, memory", memory, keyA, ErrActiveKey},
		{"to one of another kind, memory", memory, keyB, ErrOtherKind},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sites(t, func(t *testing.T, s site) {
				r := given(t, s, tt.mode)
				before := s.all()
				if _, began, err := r.start(tt.text); !errors.Is(err, tt.err) || began || errors.Is(err, ErrUnavailable) {
					t.Errorf("began %v, %v", began, err)
				}
				if tt.mode == memory && tt.text != "" && tt.err != ErrNotStaged {
					if _, err := r.keeper.StageRekey(t.Context(), []byte(tt.text)); !errors.Is(err, tt.err) {
						t.Errorf("staging: %v", err)
					}
				}
				if tt.mode == auto {
					if _, err := r.keeper.StageRekey(t.Context(), []byte(keyNew)); !errors.Is(err, ErrNotMemory) {
						t.Errorf("staging: %v", err)
					}
				}
				r.rekeying("", "", false)
				r.ring(keyA)
				if s.all() != before {
					t.Errorf("changed to %.300s", s.all())
				}
				if err := r.keeper.Seal(t.Context()); err != nil {
					t.Fatal(err)
				}
				before = s.all()
				_, _, serr := r.start(keyNew)
				_, aerr := r.keeper.AbortRekey(t.Context(), alice)
				ferr := r.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyNew))
				for _, err := range []error{serr, aerr, ferr} {
					if !errors.Is(err, ErrSealed) {
						t.Errorf("while it is sealed: %v", err)
					}
				}
				if s.all() != before || r.config.Gate.Turn() != 0 {
					t.Error("a sealed Safe did something")
				}
			})
		})
	}
}

func TestOfTwoWhoRekeyAtOnceOneBegins(t *testing.T) {
	cp := cluster.Start(t)
	for _, keys := range [][2]string{{keyNew, keyOther}, {"", ""}, {keyNew, ""}, {keyNew, keyNew}} {
		for range 3 {
			s := newSecretSite(t, cp)
			s.put(keyA, "", recipientOf(keyA).String())
			all := replicas(t, s, 2, auto)
			for _, r := range all {
				r.until(Unsealed)
			}
			var rekeys [2]Rekey
			var began [2]bool
			var errs [2]error
			var both sync.WaitGroup
			for i, r := range all {
				both.Go(func() { rekeys[i], began[i], errs[i] = r.start(keys[i]) })
			}
			both.Wait()
			if began[0] == began[1] {
				t.Fatalf("began %v: %v", began, errs)
			}
			loser := 0
			if began[0] {
				loser = 1
			}
			other := keys[0] != keys[1] && keys[loser] != ""
			if errs[1-loser] != nil || other != errors.Is(errs[loser], ErrRekeying) || !other && rekeys[0] != rekeys[1] {
				t.Errorf("%v: to %s and to %s", errs, rekeys[0].To, rekeys[1].To)
			}
			made := s.key()
			for _, r := range all {
				r.untilRing(made, keyA)
				wait.Until(t, "all is well", func() bool { return r.keeper.Status().Reason == "" })
				r.rekeying(keyA, made, false)
			}
			if s.record() != recipientOf(made).String() {
				t.Errorf("on record: %.20s", s.record())
			}
			for _, r := range all {
				r.stop()
			}
		}
	}
}

func TestReplicasGoWithARekey(t *testing.T) {
	s := newSecretSite(t, cluster.Start(t))
	s.put(keyA, "", recipientOf(keyA).String())
	all := replicas(t, s, 3, auto)
	for _, r := range all {
		r.until(Unsealed)
	}
	all[0].starts(keyNew)
	for _, r := range all {
		r.untilRing(keyNew, keyA)
	}
	if _, err := all[1].keeper.AbortRekey(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		r.untilRing(keyA, keyNew)
	}
	if err := all[2].keeper.FinishRekey(t.Context(), idOf(keyNew), idOf(keyA)); err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		r.untilRing(keyA)
		wait.Until(t, "all is well", func() bool { return r.keeper.Status().Reason == "" && r.keeper.Status().Rekey == nil })
	}
	// Repeated anywhere, it has ended so.
	for _, r := range all {
		if err := r.keeper.FinishRekey(t.Context(), idOf(keyNew), idOf(keyA)); err != nil {
			t.Errorf("finishing again: %v", err)
		}
	}
}

// A replica that saw nothing of it takes part when it next looks.
func TestAReplicaThatMissesEventsCatchesUp(t *testing.T) {
	cp := cluster.Start(t)
	start := func(t *testing.T, r *rig) { r.starts(keyNew) }
	abort := func(t *testing.T, r *rig) {
		if _, err := r.keeper.AbortRekey(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
	}
	finish := func(from, to string) func(t *testing.T, r *rig) {
		return func(t *testing.T, r *rig) {
			if err := r.keeper.FinishRekey(t.Context(), idOf(from), idOf(to)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name   string
		steps  []func(t *testing.T, r *rig)
		active string
		others []string
	}{
		{"a start", []func(*testing.T, *rig){start}, keyNew, []string{keyA}},
		{"a start and an abort", []func(*testing.T, *rig){start, abort}, keyA, nil},
		{"a start and a finish", []func(*testing.T, *rig){start, finish(keyA, keyNew)}, keyNew, nil},
		{"all but the end of the way back", []func(*testing.T, *rig){start, abort, finish(keyNew, keyA)}, keyA, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSecretSite(t, cp)
			s.put(keyA, "", recipientOf(keyA).String())
			late := newRig(t, s.place())
			looks(t, late)
			other := again(t, s, auto)
			for _, step := range tt.steps {
				step(t, other)
			}
			looks(t, late)
			late.ring(tt.active, tt.others...)
			if st := late.status(); st.Reason != "" {
				t.Errorf("status %+v", st)
			}
			// And one that is given the old key, late, does not undo it.
			lagging := newRig(t, s.place())
			s2 := s.key()
			looks(t, lagging)
			if err := lagging.unseal(keyOther, ""); !errors.Is(err, ErrWrongKey) || s.key() != s2 {
				t.Errorf("unsealing: %v", err)
			}
		})
	}
}

// An operator gives the old key to a replica that has not seen yet that it was replaced.
func TestTheOldKeyGivenLateDoesNotUndoARekey(t *testing.T) {
	s := newSecretSite(t, cluster.Start(t))
	s.put(keyA, "", recipientOf(keyA).String())
	late := newRig(t, s.place())
	looks(t, late)
	again(t, s, auto).starts(keyNew)
	before := s.all()
	if err := late.unseal(keyA, ""); !errors.Is(err, ErrWrongKey) || s.all() != before {
		t.Errorf("unsealing: %v", err)
	}
	late.ring(keyNew, keyA)
	if _, began, err := late.start(""); began || err != nil {
		t.Errorf("began %v, %v", began, err)
	}
}

func TestASealInTheMiddleOfARekey(t *testing.T) {
	sites(t, func(t *testing.T, s site) {
		r := given(t, s, auto)
		r.starts(keyNew)
		if err := r.keeper.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
		looks(t, r)
		if st := r.status(); st.State != Sealed || st.KeyID != idOf(keyNew) || st.Rekey == nil || st.Missing != nil {
			t.Errorf("status %+v", st)
		}
		if err := r.unseal(keyA, ""); !errors.Is(err, ErrWrongKey) {
			t.Errorf("with the old key: %v", err)
		}
		if err := r.unseal(keyNew, ""); err != nil {
			t.Fatal(err)
		}
		r.ring(keyNew, keyA)
		r.rekeying(keyA, keyNew, false)
		if err := r.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyNew)); err != nil {
			t.Fatal(err)
		}
		r.ring(keyNew)
	})
}

// Who puts a retired key by hand where they are kept does not lose it to somebody else's re-key.
func TestFinishingDestroysNoKeyThatNobodyLookedAt(t *testing.T) {
	sites(t, func(t *testing.T, s site) {
		r := given(t, s, auto)
		r.starts(keyNew)
		setKeys(t, s, keyNew, keyA+"\n"+keyOther)
		before := s.all()
		if err := r.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyNew)); !errors.Is(err, ErrUnheard) || s.all() != before {
			t.Errorf("finishing: %v", err)
		}
		r.ring(keyNew, keyA, keyOther)
		if text := string(r.config.Gate.RetiredText()); !strings.Contains(text, strings.TrimSpace(keyOther)) {
			t.Error("it would not be archived")
		}
		r.wrong = true
		setKeys(t, s, keyNew, keyA+"\n"+keyOther[:200])
		before = s.all()
		if err := r.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyNew)); !errors.Is(err, ErrUnavailable) || s.all() != before {
			t.Errorf("what cannot be read: %v", err)
		}
		setKeys(t, s, keyNew, keyA+"\n"+keyOther)
		if err := r.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyNew)); err != nil {
			t.Fatal(err)
		}
		r.ring(keyNew)
	})
}

// While something is wrong with what is kept, a step would build on it.
func TestNoStepOfARekeyBuildsOnWhatIsWrong(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, s site){
		"another record":   func(t *testing.T, s site) { setRecord(t, s, recipientOf(keyOther).String()) },
		"another key":      func(t *testing.T, s site) { setKeys(t, s, keyOther, keyA) },
		"no key":           func(t *testing.T, s site) { setKeys(t, s, "", keyA) },
		"damaged retired":  func(t *testing.T, s site) { setKeys(t, s, keyNew, keyA[:300]) },
		"the old one back": func(t *testing.T, s site) { setKeys(t, s, keyA, "") },
	} {
		t.Run(name, func(t *testing.T) {
			sites(t, func(t *testing.T, s site) {
				r := given(t, s, auto)
				r.starts(keyNew)
				r.wrong = true
				spoil(t, s)
				before := s.all()
				ferr := r.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyNew))
				_, aerr := r.keeper.AbortRekey(t.Context(), alice)
				for _, err := range []error{ferr, aerr} {
					if !errors.Is(err, ErrUnavailable) {
						t.Errorf("got %v", err)
					}
				}
				if s.all() != before {
					t.Errorf("changed to %.400s", s.all())
				}
				r.ring(keyNew, keyA)
				// Unsealing again puts it right, and it goes on.
				if err := r.unseal(keyNew, ""); err != nil {
					t.Fatal(err)
				}
				looks(t, r)
				r.rekeying(keyA, keyNew, false)
				if strings.HasPrefix(name, "damaged") {
					setKeys(t, s, keyNew, keyA)
				}
				if err := r.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyNew)); errors.Is(err, ErrUnheard) {
					err = r.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyNew))
					if err != nil {
						t.Error(err)
					}
				} else if err != nil {
					t.Error(err)
				}
				r.ring(keyNew)
				wait.Until(t, "all is well", func() bool { return r.keeper.Status().Reason == "" })
			})
		})
	}
}
