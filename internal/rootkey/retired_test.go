package rootkey

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

var keyC = textOf(true)

// idsIn returns the ids of the keys in a text, one after the other.
func idsIn(t testing.TB, text string) (ids []encrypt.KeyID) {
	t.Helper()
	if text == "" {
		return nil
	}
	all, err := unseal.ParseAll([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range all {
		ids = append(ids, k.KeyID())
	}
	return ids
}

func TestAnUnsealedSafeTakesNoKeyButItsOwn(t *testing.T) {
	for _, m := range []string{auto, memory} {
		t.Run("mode "+m, func(t *testing.T) {
			sites(t, func(t *testing.T, s site) {
				s.put(keyA, "", recipientOf(keyA).String())
				r := newRig(t, s.place(), mode(m)).run()
				r.settled()
				if m == memory {
					if err := r.unseal(keyA, ""); err != nil {
						t.Fatal(err)
					}
				}
				r.wrong = true
				setRecord(t, s, recipientOf(keyB).String())
				before := s.all()
				err := r.unseal(keyB, idOf(keyB))
				if !errors.Is(err, ErrWrongKey) || !strings.Contains(err.Error(), string(idOf(keyA))) || !strings.Contains(err.Error(), string(idOf(keyB))) {
					t.Errorf("unsealing with the record's key: %v", err)
				}
				if st := r.status(); st.State != Unsealed || st.KeyID != idOf(keyA) || !r.holds(keyA) || s.all() != before {
					t.Errorf("status %+v, kept %.300s", st, s.all())
				}
			})
		})
	}
}

func TestAKeyThatAnotherTakesThePlaceOfIsRetired(t *testing.T) {
	two := keyA + "\n" + keyB
	for _, tt := range []struct {
		name, key, retired string
		want               []encrypt.KeyID // retired, once keyC is Safe's; nil: as it was
		damaged            bool
	}{
		{name: "the first retired one", key: keyA, want: []encrypt.KeyID{idOf(keyA)}},
		{name: "in the placeholder's stead", key: keyA, retired: "{}", want: []encrypt.KeyID{idOf(keyA)}},
		{name: "one more", key: keyA, retired: keyB, want: []encrypt.KeyID{idOf(keyB), idOf(keyA)}},
		{name: "one more, with CRLF", key: keyA, retired: strings.ReplaceAll(keyB, "\n", "\r\n"), want: []encrypt.KeyID{idOf(keyB), idOf(keyA)}},
		{name: "two where one is expected", key: two, want: []encrypt.KeyID{idOf(keyA), idOf(keyB)}},
		{name: "Safe's own beside another", key: keyC + "\n" + keyA, want: []encrypt.KeyID{idOf(keyA)}},
		{name: "retired already", key: keyA, retired: two},
		{name: "no key", key: keyA[:40], retired: keyB},
		{name: "nothing", key: "{}", retired: keyB},
		{name: "beside damaged ones", key: keyA, retired: keyB[:60], damaged: true},
		{name: "beside damaged ones, and there already", key: keyA, retired: keyB[:60] + "\n" + keyA},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, mark := range []string{"", marked} {
				sites(t, func(t *testing.T, s site) {
					s.put(tt.key, mark, recipientOf(keyC).String())
					setKeys(t, s, tt.key, tt.retired)
					r := newRig(t, s.place(), mode(manual))
					for range 2 { // the second time there is nothing to do
						if err := r.unseal(keyC, ""); err != nil || s.key() != keyC || s.marked() {
							t.Fatalf("unsealing: %v, kept %.20q", err, s.key())
						}
						kept := retiredOf(t, s)
						switch {
						case tt.damaged:
							if !strings.HasPrefix(kept, tt.retired) || strings.Count(kept, strings.TrimSpace(keyA)) != 1 {
								t.Errorf("retired: %d bytes", len(kept))
							}
						case tt.want == nil:
							if kept != tt.retired {
								t.Errorf("retired: %d bytes", len(kept))
							}
						case !slices.Equal(idsIn(t, kept), tt.want):
							t.Errorf("retired: %v", idsIn(t, kept))
						}
						for _, id := range tt.want {
							if _, held := r.config.Gate.Identity(id); !held {
								t.Errorf("%s is not held", id)
							}
						}
					}
				})
			}
		})
	}
}

func TestNoKeyIsLostWhereItCannotBeRetired(t *testing.T) {
	t.Run("no room", func(t *testing.T) {
		s := newSecretSite(t, cluster.Start(t))
		s.put(keyA, marked, recipientOf(keyC).String())
		setKeys(t, s, keyA, strings.Repeat("x\n", unseal.MaxTextSize/2))
		before := s.all()
		if err := newRig(t, s.place()).unseal(keyC, ""); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "room") || s.all() != before {
			t.Errorf("unsealing: %v", err)
		}
	})
	t.Run("a file that others can reach", func(t *testing.T) {
		s := newDirSite(t)
		s.put(keyA, marked, recipientOf(keyC).String())
		setKeys(t, s, keyA, keyB)
		chmod(t, s.file("root-key.txt.retired"), 0o644)
		before := s.all()
		r := newRig(t, s.place())
		if err := r.unseal(keyC, ""); !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrExposed) || s.all() != before {
			t.Errorf("unsealing: %v", err)
		}
		// Nothing else suffers from it.
		if err := r.unseal(keyA, ""); !errors.Is(err, ErrWrongKey) {
			t.Errorf("another key: %v", err)
		}
		s.put(keyC, "", recipientOf(keyC).String())
		if err := r.unseal(keyC, ""); err != nil || r.holds(keyB) || !strings.Contains(r.log.String(), "retired root keys cannot be read") {
			t.Errorf("with nothing to retire: %v", err)
		}
	})
}

func TestUnsealingAgainReadsTheRetiredKeys(t *testing.T) {
	sites(t, func(t *testing.T, s site) {
		s.put(keyA, "", recipientOf(keyA).String())
		r := newRig(t, s.place()).run()
		r.settled()
		for _, step := range []struct {
			retired string
			b, c    bool
		}{{keyB, true, false}, {keyB + "\n" + keyC, true, true}} {
			setKeys(t, s, keyA, step.retired)
			before := s.all()
			if err := r.unseal(keyA, ""); err != nil || !r.holds(keyA) || r.holds(keyB) != step.b || r.holds(keyC) != step.c || s.all() != before {
				t.Errorf("with %d retired: %v, held %v and %v", len(idsIn(t, step.retired)), err, r.holds(keyB), r.holds(keyC))
			}
		}
		if !opens(t, r, keyA) || !opens(t, r, keyB) || !opens(t, r, keyC) {
			t.Error("a key that is held opens nothing")
		}
	})
}

// opens tells whether what is sealed to a key is opened through the gate.
func opens(t testing.TB, r *rig, key string) bool {
	t.Helper()
	o := sealedToKey(t, key)
	value, err := encrypt.Open(o.Spec.EncryptedData["password"], encrypt.BindingOf(o, "password"), r.config.Gate, time.Now())
	return err == nil && string(value) == "correct horse"
}

func TestUnsealingAgainPutsLostRetiredKeysBack(t *testing.T) {
	for _, tt := range []struct {
		name, key, retired string // what is left
	}{
		{"all is lost", "", ""},
		{"the retired ones are", keyA, ""},
		{"one of them is", keyA, keyB},
		{"they are damaged", keyA, keyC[:60]},
		{"another key took all their places", keyC, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sites(t, func(t *testing.T, s site) {
				d := textOf(true)
				s.put(keyA, "", recipientOf(keyA).String())
				setKeys(t, s, keyA, keyB+"\n"+d)
				r := newRig(t, s.place()).run()
				r.settled()
				r.wrong = true
				setKeys(t, s, tt.key, tt.retired)
				if err := r.unseal(keyA, ""); err != nil || s.key() != keyA {
					t.Fatalf("unsealing: %v", err)
				}
				kept := retiredOf(t, s)
				for _, want := range []string{keyB, d} {
					if strings.Count(kept, strings.TrimSpace(want)) != 1 || !opens(t, r, want) {
						t.Error("a retired key was not put back, or not once, or is not held any more")
					}
				}
				if tt.key == keyC && !strings.Contains(kept, strings.TrimSpace(keyC)) {
					t.Error("the key that stood there was lost")
				}
				if strings.Contains(kept, strings.TrimSpace(keyA)) {
					t.Error("the active key stands among the retired ones")
				}
			})
		})
	}
}
