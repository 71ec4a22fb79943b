package rootkey

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

func TestTheSecretIsDeletedInTheMiddleOfARekey(t *testing.T) {
	cp := cluster.Start(t)
	for _, m := range []string{auto, memory} {
		t.Run("mode "+m, func(t *testing.T) {
			s := newSecretSite(t, cp)
			r := given(t, s, m)
			if m == memory {
				r.stages(keyNew)
			}
			r.starts(keyNew)
			looks(t, r)
			was := rekeyOf(t, s)
			r.wrong = true
			s.remove("secrets", "vsecm-root-key")
			looks(t, r)
			r.ring(keyNew, keyA)
			if m == auto {
				if !strings.Contains(r.keeper.Status().Reason, "it is gone") {
					t.Errorf("status %+v", r.status())
				}
				if _, err := r.keeper.AbortRekey(t.Context(), alice); !errors.Is(err, ErrUnavailable) {
					t.Errorf("aborting: %v", err)
				}
				if err := r.unseal(keyNew, ""); err != nil {
					t.Fatal(err)
				}
				looks(t, r)
				if active, retired := keptIDs(t, s); active != idOf(keyNew) || !slices.Equal(retired, []encrypt.KeyID{idOf(keyA)}) {
					t.Errorf("kept: %s and %s", active, retired)
				}
			}
			if rekeyOf(t, s) != was || r.status().Reason != "" {
				t.Errorf("status %+v, %.300s", r.status(), rekeyOf(t, s))
			}
			r.rekeying(keyA, keyNew, false)
			next := woken(t, s, m)
			next.ring(keyNew, keyA)
			if err := r.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyNew)); err != nil {
				t.Fatal(err)
			}
			next.untilRing(keyNew)
		})
	}
}

// A backup of the Secret comes back in the middle of a re-key.
func TestARestoredSecretLosesNoKey(t *testing.T) {
	cp := cluster.Start(t)
	t.Run("of before it", func(t *testing.T) {
		s := newSecretSite(t, cp)
		r := given(t, s, auto)
		r.starts(keyNew)
		looks(t, r)
		r.wrong = true
		s.put(keyA, "", recipientOf(keyNew).String())
		looks(t, r)
		r.ring(keyNew, keyA)
		if reason := r.keeper.Status().Reason; !strings.Contains(reason, "another key stands there") || !strings.Contains(reason, string(idOf(keyNew))) {
			t.Errorf("the reason: %s", reason)
		}
		// One that starts takes no part for the whole.
		late := newRig(t, s.place())
		looks(t, late)
		if st := late.status(); st.State != Sealed || !strings.Contains(st.Reason, string(idOf(keyNew))) {
			t.Errorf("status %+v", st)
		}
		if err := r.unseal(keyNew, ""); err != nil {
			t.Fatal(err)
		}
		looks(t, r)
		looks(t, late)
		late.ring(keyNew, keyA)
		late.rekeying(keyA, keyNew, false)
		if r.status().Reason != "" {
			t.Errorf("status %+v", r.status())
		}
	})
	t.Run("of the middle, after its end", func(t *testing.T) {
		s := newSecretSite(t, cp)
		r := given(t, s, auto)
		r.starts(keyNew)
		looks(t, r)
		backup := s.secret()
		if err := r.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyNew)); err != nil {
			t.Fatal(err)
		}
		r.ring(keyNew)
		s.remove("secrets", "vsecm-root-key")
		secret := &kube.Secret{}
		secret.APIVersion, secret.Kind = "v1", "Secret"
		secret.Namespace, secret.Name, secret.Annotations, secret.Data = s.namespace, backup.Name, backup.Annotations, backup.Data
		s.create("secrets", secret.Name, secret)
		looks(t, r)
		r.rekeying(keyA, keyNew, false)
		// What came back was not looked at by whoever finishes.
		if err := r.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyNew)); !errors.Is(err, ErrUnheard) {
			t.Errorf("finishing: %v", err)
		}
		r.ring(keyNew, keyA)
		if err := r.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyNew)); err != nil {
			t.Fatal(err)
		}
		r.ring(keyNew)
	})
}

// Only the word of whoever finished it makes another replica drop a key.
func TestNoKeyIsDroppedSinceSomethingIsMissing(t *testing.T) {
	cp := cluster.Start(t)
	for _, m := range []string{auto, memory} {
		for name, spoil := range map[string]func(s *secretSite){
			"the record is taken off": func(s *secretSite) { s.annotate(AnnotationRekey, "") },
			"the retired keys are too": func(s *secretSite) {
				s.annotate(AnnotationRekey, "")
				s.edit(func(data map[string][]byte) { delete(data, DataRetired) })
			},
			"the record is damaged": func(s *secretSite) { s.annotate(AnnotationRekey, "{}") },
			"another end was written": func(s *secretSite) {
				s.annotate(AnnotationRekeyed, `{"from":"a","to":"b","finished":"2026-01-02T03:04:05Z","destroyed":["`+string(idOf(keyA))+`"]}`)
			},
			"an end while it goes on": func(s *secretSite) {
				s.annotate(AnnotationRekeyed, encodeRecord(&ended{From: idOf(keyA), To: idOf(keyNew), Finished: time.Now(), Destroyed: []encrypt.KeyID{idOf(keyA), idOf(keyNew)}}))
			},
		} {
			t.Run(m+" "+name, func(t *testing.T) {
				s := newSecretSite(t, cp)
				r := given(t, s, m)
				if m == memory {
					r.stages(keyNew)
				}
				r.starts(keyNew)
				looks(t, r)
				r.wrong = true
				spoil(s)
				looks(t, r)
				r.ring(keyNew, keyA)
			})
		}
	}
}

// Taken off by hand, the record of a re-key is a way out: of needing two keys, for one.
func TestARecordOfARekeyThatIsTakenOffIsOver(t *testing.T) {
	sites(t, func(t *testing.T, s site) {
		midway(t, s, false)
		r := newRig(t, s.place(), mode(memory))
		looks(t, r)
		setRekey(t, s, "")
		looks(t, r)
		if st := r.status(); st.Missing != nil || st.Rekey != nil || st.Progress.Needed != 1 {
			t.Errorf("status %+v", st)
		}
		if err := r.unseal(keyNew, ""); err != nil {
			t.Fatal(err)
		}
		r.ring(keyNew)
		if rekeyOf(t, s) != "" {
			t.Error("it was put back")
		}
	})
}

// Who may write the Secret, but never had the key that Safe holds, makes no Safe take another.
func TestPromise01_ARekeyOfSomebodyElsesIsNotGoneWith(t *testing.T) {
	cp := cluster.Start(t)
	forged := func(from, to string) string {
		return encodeRecord(newRekey(recipientOf(from), recipientOf(to), "mallory", time.Now()))
	}
	for _, tt := range []struct {
		name, mode, rekey, key, retired string
	}{
		{"without the old key", auto, forged(keyA, keyOther), keyOther, ""},
		{"with another for the old key", auto, forged(keyA, keyOther), keyOther, keyNew},
		{"with the old key left in its place", auto, forged(keyA, keyOther), keyA, ""},
		{"from another key", auto, forged(keyNew, keyOther), keyOther, keyA},
		{"in memory", memory, forged(keyA, keyOther), keyOther, keyA},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSecretSite(t, cp)
			s.put(keyA, "", recipientOf(keyA).String())
			r := newRig(t, s.place(), mode(tt.mode))
			looks(t, r)
			if tt.mode == memory {
				if err := r.unseal(keyA, ""); err != nil {
					t.Fatal(err)
				}
			}
			r.wrong = true
			setKeys(t, s, tt.key, tt.retired)
			setRekey(t, s, tt.rekey)
			looks(t, r)
			if active, _ := r.config.Gate.Held(); active != idOf(keyA) || r.holds(keyOther) {
				t.Errorf("it holds %s", active)
			}
			if tt.key != keyA && r.status().Reason == "" {
				t.Error("it says nothing")
			}
			// Nor does one that starts.
			next := newRig(t, s.place(), mode(tt.mode))
			looks(t, next)
			if st := next.status(); next.holds(keyOther) || (st.State == Unsealed) != (tt.mode == auto && tt.key == keyA) {
				t.Errorf("one that starts: %+v", st)
			}
			if s.record() != recipientOf(keyA).String() {
				t.Errorf("on record: %.20s", s.record())
			}
		})
	}
}

func TestARekeyWhoseRecordNamesAThirdKey(t *testing.T) {
	sites(t, func(t *testing.T, s site) {
		midway(t, s, false)
		setRecord(t, s, recipientOf(keyOther).String())
		r := newRig(t, s.place(), mode(memory))
		looks(t, r)
		// Which of them is wrong is for people to say: it is as without a re-key.
		if st := r.status(); st.Missing != nil || st.KeyID != idOf(keyOther) {
			t.Errorf("status %+v", st)
		}
		if err := r.unseal(keyNew, ""); !errors.Is(err, ErrWrongKey) {
			t.Errorf("unsealing: %v", err)
		}
		setRecord(t, s, "")
		looks(t, r)
		if st := r.status(); len(st.Missing) != 2 {
			t.Errorf("status %+v", st)
		}
		if err := errors.Join(r.unseal(keyNew, ""), r.unseal(keyA, "")); err != nil {
			t.Fatal(err)
		}
		r.ring(keyNew, keyA)
		if s.record() != recipientOf(keyNew).String() {
			t.Errorf("on record: %.20s", s.record())
		}
	})
}

func TestADamagedRecordOfARekeyCountsAsNone(t *testing.T) {
	good := encodeRecord(newRekey(recipientOf(keyA), recipientOf(keyNew), alice, time.Now()))
	for name, text := range map[string]string{
		"empty":                "{}",
		"half":                 good[:len(good)/2],
		"noise":                "\x00\xff",
		"more":                 good + good,
		"an unknown field":     strings.Replace(good, `"by"`, `"from2":"x","by"`, 1),
		"another id":           strings.Replace(good, string(idOf(keyNew)), string(idOf(keyOther)), 1),
		"the same key twice":   encodeRecord(newRekey(recipientOf(keyA), recipientOf(keyA), alice, time.Now())),
		"too long":             strings.Repeat(" ", maxRekeySize) + good,
		"a key for recipients": strings.ReplaceAll(good, recipientOf(keyNew).String(), "AGE-SECRET-KEY-1"),
	} {
		if r, err := parseRekey(text); !errors.Is(err, errBadRekey) || r != nil || len(err.Error()) > 200 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r, err := parseRekey(good); err != nil || encodeRecord(r) != good {
		t.Errorf("the good one: %v", err)
	}
	sites(t, func(t *testing.T, s site) {
		r := given(t, s, auto)
		setKeys(t, s, keyA, keyOther)
		setRekey(t, s, "{}")
		r.wrong = true
		looks(t, r)
		if st := r.status(); st.State != Unsealed || st.Rekey != nil || !strings.Contains(st.Reason, "damaged") {
			t.Errorf("status %+v", st)
		}
		// A new one takes its place.
		r.starts(keyNew)
		looks(t, r)
		r.ring(keyNew, keyA, keyOther)
		if st := r.status(); st.Reason != "" {
			t.Errorf("status %+v", st)
		}
	})
}

func FuzzRekeyRecord(f *testing.F) {
	f.Add(encodeRecord(newRekey(recipientOf(keyA), recipientOf(keyNew), alice, time.Now())))
	f.Add(`{"from":"a","to":"b","destroyed":["c"],"finished":"2026-01-02T03:04:05Z"}`)
	f.Add("{}")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRekey(text)
		if (r == nil) == (err == nil) {
			t.Fatalf("%v, %v", r, err)
		}
		if r != nil {
			again, err := parseRekey(encodeRecord(r))
			if err != nil || *again != *r || r.recipient().KeyID() != r.To || r.From == r.To {
				t.Errorf("%+v, %v", again, err)
			}
		}
		parseEnded(text)
	})
}
