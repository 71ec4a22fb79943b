package rootkey

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

func TestARekeyOfReplicasThatKeepTheKeyInMemory(t *testing.T) {
	s := newSecretSite(t, cluster.Start(t))
	s.put("", "", recipientOf(keyA).String())
	all := replicas(t, s, 3, memory)
	for _, r := range all {
		r.settled()
		if err := r.unseal(keyA, ""); err != nil {
			t.Fatal(err)
		}
	}
	// The third one is left out.
	for _, r := range all[:2] {
		r.stages(keyNew)
		r.stages(keyNew) // again is fine
		if got := r.keeper.Staged(); !slices.Equal(got, []encrypt.KeyID{idOf(keyNew)}) {
			t.Errorf("staged: %s", got)
		}
		r.ring(keyA, keyNew)
	}
	all[0].starts(keyNew)
	for _, r := range all[:2] {
		r.untilRing(keyNew, keyA)
		if got := r.keeper.Staged(); got != nil {
			t.Errorf("staged: %s", got)
		}
	}
	if s.record() != recipientOf(keyNew).String() || s.key() != "" || strings.Contains(s.all(), "AGE-SECRET") {
		t.Error("what is kept is not what it should be")
	}
	left := all[2]
	left.wrong = true
	wait.Until(t, "it says what it lacks", func() bool {
		return strings.Contains(left.keeper.Status().Reason, "was not given the new key") && strings.Contains(left.keeper.Status().Reason, string(idOf(keyNew)))
	})
	left.ring(keyA)
	left.rekeying(keyA, keyNew, false)
	// The key that it holds helps nothing, and harms nothing.
	before := s.all()
	if err := left.unseal(keyA, ""); err != nil || s.all() != before {
		t.Errorf("with the old key: %v", err)
	}
	left.ring(keyA)
	if err := left.unseal(keyOther, ""); !errors.Is(err, ErrWrongKey) {
		t.Errorf("with another: %v", err)
	}
	if _, _, err := left.start(keyOther); !errors.Is(err, ErrRekeying) {
		t.Errorf("starting another: %v", err)
	}
	if err := left.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyNew)); !errors.Is(err, ErrNotHeld) {
		t.Errorf("finishing: %v", err)
	}
	if err := left.unseal(keyNew, ""); err != nil {
		t.Fatal(err)
	}
	left.ring(keyNew, keyA)
	wait.Until(t, "nothing is wrong any more", func() bool { return left.keeper.Status().Reason == "" })
	left.wrong = false
	// Giving either again to one that has both is fine.
	for _, key := range []string{keyA, keyNew} {
		if err := all[0].unseal(key, ""); err != nil {
			t.Error(err)
		}
	}
	if err := all[1].keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyNew)); err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		r.untilRing(keyNew)
		wait.Until(t, "it is over", func() bool { return r.keeper.Status().Rekey == nil && r.keeper.Status().Reason == "" })
	}
	// One that starts now needs the one key.
	late := newRig(t, s.place(), mode(memory)).run()
	if st := late.settled(); st.Missing != nil || st.KeyID != idOf(keyNew) {
		t.Errorf("status %+v", st)
	}
	if err := late.unseal(keyNew, ""); err != nil {
		t.Fatal(err)
	}
	late.ring(keyNew)
}

// A staged key that a replica got after the start is taken at once.
func TestStagingLateTakesPart(t *testing.T) {
	s := newSecretSite(t, cluster.Start(t))
	first, late := given(t, s, memory), again(t, s, memory)
	first.stages(keyNew)
	first.starts(keyNew)
	late.wrong = true
	late.stages(keyNew)
	late.ring(keyNew, keyA)
	if got := late.keeper.Staged(); got != nil {
		t.Errorf("staged: %s", got)
	}
	if _, err := late.keeper.StageRekey(t.Context(), []byte(keyOther)); !errors.Is(err, ErrRekeying) {
		t.Errorf("another: %v", err)
	}
}

// A site in the middle of a re-key, with no replica that runs.
func midway(t *testing.T, s site, aborted bool) {
	t.Helper()
	r := given(t, s, memory)
	r.stages(keyNew)
	r.starts(keyNew)
	if aborted {
		if _, err := r.keeper.AbortRekey(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
	}
	r.stop()
}

func TestASealedReplicaInTheMiddleOfARekeyNeedsBothKeys(t *testing.T) {
	for _, tt := range []struct {
		name    string
		aborted bool
		order   []string
	}{
		{"the new one first", false, []string{keyNew, keyA}},
		{"the old one first", false, []string{keyA, keyNew}},
		{"aborted, the new one first", true, []string{keyNew, keyA}},
		{"aborted, the old one first", true, []string{keyA, keyNew}},
	} {
		for _, how := range []string{"keys", "shares", "a share and a key"} {
			for _, marked := range []bool{false, true} {
				name := tt.name + ", " + how
				if marked {
					name += ", after a seal"
				}
				if how != "keys" && (marked || tt.aborted) {
					continue // shares only lead to keys
				}
				t.Run(name, func(t *testing.T) {
					sites(t, func(t *testing.T, s site) {
						midway(t, s, tt.aborted)
						active, old := keyNew, keyA
						if tt.aborted {
							active, old = keyA, keyNew
						}
						if marked {
							if err := newRig(t, s.place(), mode(memory)).keeper.Seal(t.Context()); err != nil {
								t.Fatal(err)
							}
						}
						r := newRig(t, s.place(), mode(memory)).run()
						st := r.settled()
						if st.State != Sealed || !slices.Equal(st.Missing, []encrypt.KeyID{idOf(active), idOf(old)}) || st.KeyID != idOf(active) || !strings.Contains(st.Reason, "both keys") {
							t.Fatalf("status %+v", st)
						}
						r.rekeying(old, active, tt.aborted)
						if err := r.unseal(keyOther, idOf(keyOther)); !errors.Is(err, ErrWrongKey) || !strings.Contains(err.Error(), string(idOf(old))) {
							t.Errorf("a third key: %v", err)
						}
						foreign := deal(t, keyOther, 2, 2)
						if err := r.give(foreign, 1, ""); !errors.Is(err, ErrWrongKey) {
							t.Errorf("a third key's share: %v", err)
						}
						for i, key := range tt.order {
							if how == "keys" || how == "a share and a key" && i == 1 {
								if err := r.unseal(key, ""); err != nil {
									t.Fatal(err)
								}
							} else {
								d := deal(t, key, 3, 2)
								r.watch(d)
								r.gives(d, 1)
								r.has(d, 1)
								r.gives(d, 3)
							}
							if i == 1 {
								break
							}
							for range 2 { // looks do not end it, and the same again is no second key
								st := r.status()
								if st.State != Sealed || !slices.Equal(st.Missing, []encrypt.KeyID{idOf(tt.order[1])}) || st.Progress.Given != 1 || st.Progress.Needed != 2 || st.Progress.Expires.IsZero() {
									t.Fatalf("after the first: %+v", st)
								}
								if r.holds(key) || r.config.Gate.Era() != 0 || s.marked() != marked {
									t.Fatal("it opens something")
								}
								looks(t, r)
								if err := r.unseal(key, ""); err != nil {
									t.Fatal(err)
								}
							}
						}
						r.ring(active, old)
						if st := r.status(); st.State != Unsealed || st.Missing != nil || st.Reason != "" || s.marked() {
							t.Errorf("status %+v", st)
						}
						if s.key() != "" {
							t.Error("a key was written")
						}
						r.keeper.turn.Lock()
						part := r.keeper.part
						r.keeper.turn.Unlock()
						if part != nil {
							t.Error("the first key waits still")
						}
					})
				})
			}
		}
	}
}

func TestTheFirstOfTwoKeysDoesNotOutlastASeal(t *testing.T) {
	for name, seal := range map[string]func(t *testing.T, s site, r *rig){
		"here": func(t *testing.T, s site, r *rig) {
			if err := r.keeper.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		"elsewhere": func(t *testing.T, s site, r *rig) {
			if err := newRig(t, s.place(), mode(memory)).keeper.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
			looks(t, r)
		},
		"elsewhere, not seen": func(t *testing.T, s site, r *rig) {
			if err := newRig(t, s.place(), mode(memory)).keeper.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		"a reset": func(t *testing.T, s site, r *rig) { r.keeper.ResetShares() },
	} {
		t.Run(name, func(t *testing.T) {
			sites(t, func(t *testing.T, s site) {
				midway(t, s, false)
				r := newRig(t, s.place(), mode(memory))
				looks(t, r)
				if err := r.unseal(keyA, ""); err != nil {
					t.Fatal(err)
				}
				seal(t, s, r)
				if err := r.unseal(keyNew, ""); err != nil {
					t.Fatal(err)
				}
				looks(t, r)
				if st := r.status(); st.State != Sealed || !slices.Equal(st.Missing, []encrypt.KeyID{idOf(keyA)}) {
					t.Fatalf("status %+v", st)
				}
				if err := r.unseal(keyA, ""); err != nil {
					t.Fatal(err)
				}
				r.ring(keyNew, keyA)
			})
		})
	}
}

func TestTheFirstOfTwoKeysLapses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDirSite(t)
		midway(t, s, false)
		r := newRig(t, s.place(), mode(memory)).run()
		r.settled()
		if err := r.unseal(keyNew, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(ShareLifetime - time.Second)
		synctest.Wait()
		if st := r.status(); len(st.Missing) != 1 {
			t.Errorf("status %+v", st)
		}
		r.keeper.turn.Lock()
		part := r.keeper.part
		r.keeper.turn.Unlock()
		changed := r.keeper.Changed()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		select {
		case <-changed:
		default:
			t.Error("nobody was told")
		}
		if st := r.status(); len(st.Missing) != 2 || st.Progress.Given != 0 {
			t.Errorf("status %+v", st)
		}
		if strings.Contains(string(part.Text()), strings.SplitN(keyNew, "\n", 2)[0]) {
			t.Error("it was not wiped")
		}
		if err := r.unseal(keyA, ""); err != nil {
			t.Fatal(err)
		}
		if st := r.status(); len(st.Missing) != 1 || st.State != Sealed {
			t.Errorf("status %+v", st)
		}
		// What stops leaves none.
		r.stop()
		if st := r.keeper.Status(); len(st.Missing) != 2 {
			t.Errorf("after it was stopped: %+v", st)
		}
		if err := r.unseal(keyA, ""); !errors.Is(err, ErrUnavailable) {
			t.Errorf("after it was stopped: %v", err)
		}
	})
}

func TestStagedKeysLapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDirSite(t)
		r := given(t, s, memory)
		r.stages(keyNew)
		time.Sleep(ShareLifetime / 2)
		r.stages(keyOther)
		r.stages(keyNew) // renewed
		time.Sleep(ShareLifetime/2 + time.Second)
		synctest.Wait()
		r.ring(keyA, keyNew, keyOther)
		time.Sleep(ShareLifetime / 2)
		synctest.Wait()
		r.ring(keyA)
		if got := r.keeper.Staged(); got != nil {
			t.Errorf("staged: %s", got)
		}
		if _, _, err := r.start(keyNew); !errors.Is(err, ErrNotStaged) {
			t.Errorf("starting: %v", err)
		}
		// One that was taken does not.
		r.stages(keyNew)
		r.starts(keyNew)
		time.Sleep(3 * ShareLifetime)
		synctest.Wait()
		r.ring(keyNew, keyA)
	})
}

// The start was written by another replica, and this one cannot see it when the time runs out.
func TestAKeyThatWasTakenElsewhereDoesNotLapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDirSite(t)
		place := &dark{Place: s.place()}
		s.put("", "", recipientOf(keyA).String())
		r := newRig(t, place, mode(memory)).run()
		r.settled()
		if err := r.unseal(keyA, ""); err != nil {
			t.Fatal(err)
		}
		r.stages(keyNew)
		place.is.Store(true)
		other := again(t, s, memory)
		other.stages(keyNew)
		other.starts(keyNew)
		time.Sleep(2 * ShareLifetime)
		synctest.Wait()
		r.ring(keyA, keyNew)
		if got := r.keeper.Staged(); got != nil {
			t.Errorf("staged: %s", got)
		}
		place.is.Store(false)
		time.Sleep(2 * lookEvery)
		synctest.Wait()
		r.ring(keyNew, keyA)
	})
}

func TestUnstagingDropsWhatWasNotTaken(t *testing.T) {
	sites(t, func(t *testing.T, s site) {
		r := given(t, s, memory)
		before := s.all()
		r.stages(keyNew)
		r.stages(keyOther)
		r.keeper.UnstageRekey(t.Context())
		r.ring(keyA)
		if got := r.keeper.Staged(); got != nil || s.all() != before {
			t.Errorf("staged: %s", got)
		}
		for range MaxStaged {
			r.stages(textOf(false))
		}
		if _, err := r.keeper.StageRekey(t.Context(), []byte(keyNew)); !errors.Is(err, ErrTooManyStaged) {
			t.Errorf("one too many: %v", err)
		}
		r.keeper.UnstageRekey(t.Context())
		r.stages(keyNew)
		r.stages(keyOther)
		r.starts(keyNew)
		r.keeper.UnstageRekey(t.Context())
		r.ring(keyNew, keyA)

		// A seal drops what was staged, too.
		if err := r.keeper.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := r.keeper.Staged(); got != nil || r.holds(keyNew) {
			t.Errorf("staged: %s", got)
		}
	})
}

// Where the old key is gone for good, the new one opens what it can, to whoever says so.
func TestTheNewKeyAloneOpensForWhoeverAcceptsThat(t *testing.T) {
	sites(t, func(t *testing.T, s site) {
		midway(t, s, false)
		r := newRig(t, s.place(), mode(memory)).run()
		r.settled()
		if err := r.unseal(keyA, idOf(keyA)); err != nil || r.status().State != Sealed {
			t.Errorf("the old one alone: %v, %+v", err, r.status())
		}
		r.keeper.ResetShares()
		r.wrong = true
		if err := r.unseal(keyNew, idOf(keyNew)); err != nil {
			t.Fatal(err)
		}
		looks(t, r)
		r.ring(keyNew)
		if st := r.status(); st.State != Unsealed || !strings.Contains(st.Reason, "was not given the old key") {
			t.Errorf("status %+v", st)
		}
		if _, err := r.keeper.AbortRekey(t.Context(), alice); !errors.Is(err, ErrNotHeld) {
			t.Errorf("aborting: %v", err)
		}
		// It is found after all.
		if err := r.unseal(keyA, ""); err != nil {
			t.Fatal(err)
		}
		looks(t, r)
		r.ring(keyNew, keyA)
		if st := r.status(); st.Reason != "" {
			t.Errorf("status %+v", st)
		}
	})
}

// Cut off through all of it, a replica knows neither the new key nor what became of its own.
func TestAReplicaThatMissesAllOfARekeyInMemorySaysSo(t *testing.T) {
	s := newSecretSite(t, cluster.Start(t))
	s.put("", "", recipientOf(keyA).String())
	late := newRig(t, s.place(), mode(memory))
	looks(t, late)
	if err := late.unseal(keyA, ""); err != nil {
		t.Fatal(err)
	}
	other := again(t, s, memory)
	other.stages(keyNew)
	other.starts(keyNew)
	if err := other.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyNew)); err != nil {
		t.Fatal(err)
	}
	late.wrong = true
	looks(t, late)
	late.ring(keyA)
	if reason := late.status().Reason; !strings.Contains(reason, "was finished while") || !strings.Contains(reason, string(idOf(keyNew))) {
		t.Errorf("the reason: %s", reason)
	}
	before := s.all()
	late.shown(func() error { _, err := late.keeper.StageRekey(t.Context(), []byte(keyOther)); return err }())
	if _, _, err := late.start(keyOther); !errors.Is(err, ErrUnavailable) {
		t.Errorf("starting another: %v", err)
	}
	if s.all() != before {
		t.Errorf("changed to %.300s", s.all())
	}
	if err := late.unseal(keyNew, ""); err != nil {
		t.Fatal(err)
	}
	looks(t, late)
	late.ring(keyNew)
	if st := late.status(); st.Reason != "" {
		t.Errorf("status %+v", st)
	}
}
