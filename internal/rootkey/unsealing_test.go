package rootkey

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func TestUnsealTakesTheRightKeyAlone(t *testing.T) {
	objects := []*v1alpha1.EncryptedSecret{sealedToKey(t, keyA)}
	recordA := recipientOf(keyA).String()
	secret, _, _ := strings.Cut(keyA, "\n")
	for _, tt := range []struct {
		name              string
		mode              string
		key, mark, record string
		objects           []*v1alpha1.EncryptedSecret
		objectsErr        error
		given             string
		accept            encrypt.KeyID
		err               error
		says              []encrypt.KeyID
	}{
		{name: "the first key, manual", mode: manual, given: keyA},
		{name: "the first key, memory", mode: memory, given: keyA},
		{name: "the first key, in the placeholder's stead", mode: manual, key: "{}", given: keyA},
		{name: "the first key, with CRLF", mode: manual, given: strings.ReplaceAll(keyA, "\n", "\r\n")},
		{name: "the key on record, memory", mode: memory, record: recordA, given: keyA},
		{name: "after a seal", key: keyA, mark: marked, record: recordA, given: keyA},
		{name: "after a seal, memory", mode: memory, mark: marked, record: recordA, given: keyA},
		{name: "after a seal, the record lost", key: keyA, mark: marked, given: keyA},
		{name: "the key was lost", record: recordA, given: keyA},
		{name: "the key is damaged", key: keyA[:40], record: recordA, given: keyA},
		{name: "another key stands there", key: keyB, record: recordA, given: keyA},

		{name: "a wrong key", record: recordA, given: keyB, err: ErrWrongKey, says: []encrypt.KeyID{idOf(keyA), idOf(keyB)}},
		{name: "a wrong key, memory", mode: memory, record: recordA, given: keyB, err: ErrWrongKey, says: []encrypt.KeyID{idOf(keyA), idOf(keyB)}},
		{name: "a wrong key, accepted", record: recordA, given: keyB, accept: idOf(keyB), err: ErrWrongKey},
		{name: "a wrong key after a seal", key: keyA, mark: marked, record: recordA, given: keyB, err: ErrWrongKey},
		{name: "a wrong key after a seal, the record lost", key: keyA, mark: marked, given: keyB, accept: idOf(keyB), err: ErrWrongKey},

		{name: "half a key", record: recordA, given: keyA[:len(keyA)/2], err: unseal.ErrMalformed},
		{name: "its first line", record: recordA, given: secret, err: unseal.ErrMalformed},
		{name: "lines that do not belong together", record: recordA, given: halves(), err: unseal.ErrMismatch},
		{name: "two keys", record: recordA, given: keyA + "\n" + keyB, err: unseal.ErrMalformed},
		{name: "noise", record: recordA, given: strings.Repeat("\x00\xff AGE-SECRET", 90_000), err: unseal.ErrMalformed},
		{name: "the placeholder", mode: manual, given: "{}", err: unseal.ErrMalformed},
		{name: "nothing", mode: manual, given: "", err: unseal.ErrMalformed},

		{name: "the record lost, objects there", objects: objects, given: keyA, err: ErrConfirm, says: []encrypt.KeyID{idOf(keyA)}},
		{name: "the record lost, objects there, memory", mode: memory, objects: objects, given: keyA, err: ErrConfirm},
		{name: "the record lost, and accepted", objects: objects, given: keyA, accept: idOf(keyA)},
		{name: "the record lost, and accepted, memory", mode: memory, objects: objects, given: keyA, accept: idOf(keyA)},
		{name: "the record lost, accepted is what objects do not need", objects: objects, given: keyB, accept: idOf(keyB)},
		{name: "the record lost, another accepted", objects: objects, given: keyA, accept: idOf(keyB), err: ErrConfirm, says: []encrypt.KeyID{idOf(keyA), idOf(keyB)}},
		{name: "the record damaged, objects there", mode: manual, record: "scribble", objects: objects, given: keyA, err: ErrConfirm},
		{name: "the record damaged, and accepted", mode: manual, record: "scribble", objects: objects, given: keyA, accept: idOf(keyA)},
		{name: "what is stored is not known", objectsErr: errors.New("away"), given: keyA, err: ErrConfirm},
		{name: "what is stored is not known, and accepted", objectsErr: errors.New("away"), given: keyA, accept: idOf(keyA)},
		{name: "a damaged key alone", key: keyB[:40], given: keyA, err: ErrConfirm, says: []encrypt.KeyID{idOf(keyA)}},
		{name: "a damaged key alone, and accepted", key: keyB[:40], given: keyA, accept: idOf(keyA)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sites(t, func(t *testing.T, s site) {
				s.put(tt.key, tt.mark, tt.record)
				r := newRig(t, s.place(), mode(tt.mode), stored(tt.objectsErr, tt.objects...)).run()
				was, before := r.settled(), s.all()
				if was.State != Sealed {
					t.Fatalf("at first: %+v", was)
				}
				err := r.unseal(tt.given, tt.accept)
				if tt.err != nil {
					if !errors.Is(err, tt.err) {
						t.Errorf("got %v", err)
					}
					for _, id := range tt.says {
						if !strings.Contains(err.Error(), string(id)) {
							t.Errorf("%q does not say %s", err, id)
						}
					}
					if st := r.status(); !reflect.DeepEqual(st, was) || s.all() != before {
						t.Errorf("changed: %+v, %.300s", st, s.all())
					}
					return
				}
				given, _ := unseal.Parse([]byte(tt.given))
				if st := r.status(); err != nil || st.State != Unsealed || st.KeyID != given.KeyID() || s.marked() || s.record() != given.Recipient().String() {
					t.Fatalf("got %v, %+v, marked %v, record %.20s", err, st, s.marked(), s.record())
				}
				kept := s.key()
				if tt.mode == memory && kept != "" {
					t.Error("the key was written")
				} else if tt.mode != memory && idOf(kept) != given.KeyID() {
					t.Error("the key was not kept")
				}
				// Once more is fine, and with another key is not.
				before = s.all()
				if err := r.unseal(tt.given, ""); err != nil || s.all() != before {
					t.Errorf("once more: %v", err)
				}
				if err := r.unseal(textOf(true), ""); !errors.Is(err, ErrWrongKey) || r.status().State != Unsealed || s.all() != before {
					t.Errorf("another key: %v", err)
				}
				// A restart: only what is kept in memory alone is gone.
				r.stop()
				again := newRig(t, s.place(), mode(tt.mode), stored(tt.objectsErr, tt.objects...)).run()
				if st := again.settled(); (st.State == Unsealed) == (tt.mode == memory) || st.KeyID != given.KeyID() {
					t.Errorf("started again: %+v", st)
				}
			})
		})
	}
}

func TestASealLastsUntilTheNextUnseal(t *testing.T) {
	for _, m := range []string{auto, manual, memory} {
		t.Run("mode "+m, func(t *testing.T) {
			sites(t, func(t *testing.T, s site) {
				r := newRig(t, s.place(), mode(m)).run()
				r.settled()
				key := keyA
				if m == auto {
					key = s.key()
				} else if err := r.unseal(key, ""); err != nil {
					t.Fatal(err)
				}
				if err := r.keeper.Seal(t.Context()); err != nil || r.status().State != Sealed || !s.marked() || r.holds(key) {
					t.Fatalf("sealing: %v, %+v, marked %v", err, r.status(), s.marked())
				}
				if _, known := r.keeper.Recipient(); !known {
					t.Error("a sealed Safe does not know its recipient")
				}
				kept := s.key()
				if err := r.keeper.Seal(t.Context()); err != nil || !s.marked() || s.key() != kept || r.status().State != Sealed {
					t.Errorf("sealing again: %v", err)
				}
				r.stop()
				r = newRig(t, s.place(), mode(m)).run()
				if st := r.settled(); st.State != Sealed || st.KeyID != idOf(key) || !strings.Contains(st.Reason, "by an operator") {
					t.Errorf("started again: %+v", st)
				}
				if err := r.unseal(key, ""); err != nil || r.status().State != Unsealed || s.marked() {
					t.Errorf("unsealing: %v, %+v", err, r.status())
				}
			})
		})
	}
}

func TestSealingASealedSafeLeavesTheMark(t *testing.T) {
	sites(t, func(t *testing.T, s site) {
		r := newRig(t, s.place(), mode(memory)).run()
		r.settled()
		if err := r.keeper.Seal(t.Context()); err != nil || !s.marked() || s.key() != "" {
			t.Errorf("%v, marked %v", err, s.marked())
		}
	})
}

func TestTheRecordOfAnUnsealedSafeIsPutBack(t *testing.T) {
	for _, m := range []string{auto, memory} {
		sites(t, func(t *testing.T, s site) {
			r := newRig(t, s.place(), mode(m)).run()
			r.settled()
			if m == memory {
				if err := r.unseal(keyA, ""); err != nil {
					t.Fatal(err)
				}
			}
			key, want := s.key(), s.record()
			r.wrong = true // for the moment in which there is no Secret
			for _, record := range []string{"", "scribble"} {
				s.put(key, "", record)
				wait.Until(t, "the record is back", func() bool { return s.record() == want })
			}
			if st := r.status(); st.State != Unsealed {
				t.Errorf("status %+v", st)
			}
			wait.Until(t, "nothing is wrong any more", func() bool { return r.keeper.Status().Reason == "" })
		})
	}
}

func TestAnUnsealedSafeTellsThatItsKeyIsGone(t *testing.T) {
	sites(t, func(t *testing.T, s site) {
		r := newRig(t, s.place()).run()
		r.settled()
		key, record := s.key(), s.record()
		s.put("{}", "", record)
		r.wrong = true
		wait.Until(t, "a warning", func() bool { return strings.Contains(r.keeper.Status().Reason, "it is gone") })
		if st := r.status(); st.State != Unsealed || !strings.Contains(r.log.String(), "not kept as it should be") {
			t.Errorf("status %+v", st)
		}
		if err := r.unseal(key, ""); err != nil || s.key() != key {
			t.Errorf("unsealing to put it back: %v", err)
		}
		wait.Until(t, "nothing is wrong any more", func() bool { return r.keeper.Status().Reason == "" })
	})
}

func TestAKeyThatAppearsUnseals(t *testing.T) {
	sites(t, func(t *testing.T, s site) {
		s.put("", "", recipientOf(keyA).String())
		r := newRig(t, s.place()).run()
		if st := r.settled(); st.State != Sealed {
			t.Fatalf("status %+v", st)
		}
		s.put(keyA, "", recipientOf(keyA).String()) // from a backup, by hand
		r.until(Unsealed)
	})
}
