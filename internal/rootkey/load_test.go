package rootkey

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// halves is a key whose lines do not belong together.
func halves() string {
	a, b := strings.SplitN(textOf(true), "\n", 2), strings.SplitN(keyB, "\n", 2)
	return a[0] + "\n" + b[1]
}

const (
	auto   = ""
	manual = "manual"
	memory = "memory"

	marked = "2026-01-02T03:04:05Z\n"
)

func mode(m string) func(*Config) {
	return func(c *Config) { c.Manual, c.Memory = m == manual, m == memory }
}

func stored(err error, objects ...*v1alpha1.EncryptedSecret) func(*Config) {
	return func(c *Config) {
		c.Objects = func(context.Context) ([]*v1alpha1.EncryptedSecret, error) { return objects, err }
	}
}

func TestWhatIsKeptDecidesAtTheStart(t *testing.T) {
	objects := []*v1alpha1.EncryptedSecret{sealedToKey(t, keyA)}
	unreadable := &v1alpha1.EncryptedSecret{}
	unreadable.Spec.EncryptedData = map[string]string{"password": "nonsense"}
	const made = "made"
	recordA, idA, idB := recipientOf(keyA).String(), string(idOf(keyA)), string(idOf(keyB))
	for _, tt := range []struct {
		name              string
		mode              string
		key, mark, record string
		objects           []*v1alpha1.EncryptedSecret
		objectsErr        error
		opens             string   // the key that it opens with; empty: it stays sealed
		says              []string // in the reason
	}{
		{name: "nothing yet", opens: made},
		{name: "VSecM's placeholder", key: "{}", opens: made},
		{name: "objects that no key opens", objects: []*v1alpha1.EncryptedSecret{unreadable}, opens: made},
		{name: "nothing yet, manual", mode: manual, says: []string{"waiting"}},
		{name: "VSecM's placeholder, manual", mode: manual, key: "{}\n", says: []string{"waiting"}},
		{name: "nothing yet, memory", mode: memory, says: []string{"waiting"}},

		{name: "a key and its record", key: keyA, record: recordA, opens: keyA},
		{name: "a key and its record, manual", mode: manual, key: keyA, record: recordA, opens: keyA},
		{name: "VSecM's Secret", key: keyB, opens: keyB},
		{name: "VSecM's Secret, manual", mode: manual, key: keyB, opens: keyB},
		{name: "VSecM's Secret, with CRLF", key: strings.ReplaceAll(keyB, "\n", "\r\n"), opens: keyB},
		{name: `VSecM's Secret, with \n spelled out`, key: "VSecM App version: 0.27\n\n" + strings.ReplaceAll(keyB, "\n", `\n`), opens: keyB},
		{name: "a key whose record is damaged", key: keyA, record: "scribble", opens: keyA},
		{name: "a key, and objects of another", key: keyB, objects: objects, opens: keyB},

		{name: "another key than the record's", key: keyB, record: recordA, says: []string{idA, idB}},
		{name: "lost, with a record", record: recordA, says: []string{"no root key", idA}},
		{name: "lost, with a record, manual", mode: manual, record: recordA, says: []string{"no root key", idA}},
		{name: "the placeholder applied again", key: "{}", record: recordA, says: []string{"no root key", idA}},
		{name: "lost, with objects", objects: objects, says: []string{"not on record", idA}},
		{name: "lost, and what is stored is not known", objectsErr: errors.New("away"), says: []string{"cannot be told"}},
		{name: "damaged, with a record", key: keyA[:40], record: recordA, says: []string{"malformed", idA}},
		{name: "damaged, with objects", key: keyA[:40], objects: objects, says: []string{"malformed", idA}},
		{name: "damaged, with neither", key: keyA[:40], says: []string{"malformed"}},
		{name: "damaged, with neither, manual", mode: manual, key: keyA[:40], says: []string{"malformed"}},
		{name: "emptied", key: emptyText, says: []string{"malformed"}},
		{name: "lines that do not belong together", key: halves(), record: recordA, says: []string{"do not belong together", idA}},
		{name: "two keys", key: keyA + keyB, record: recordA, says: []string{"malformed"}},
		{name: "noise", key: strings.Repeat("\x00\xffnoise", 100_000), says: []string{"malformed"}},

		{name: "marked as sealed", key: keyA, mark: marked, record: recordA, says: []string{"by an operator", "2026-01-02 03:04:05"}},
		{name: "marked as sealed, some time", key: keyA, mark: "yes", record: recordA, says: []string{"by an operator"}},
		{name: "marked as sealed before there was a key", mark: marked, says: []string{"by an operator"}},
		{name: "memory, with a key", mode: memory, key: keyA, record: recordA, says: []string{"waiting", "not used", idA}},
		{name: "memory, with a record", mode: memory, record: recordA, says: []string{"waiting"}},
		{name: "memory, marked as sealed", mode: memory, mark: marked, record: recordA, says: []string{"by an operator"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sites(t, func(t *testing.T, s site) {
				s.put(tt.key, tt.mark, tt.record)
				before, opens := s.all(), tt.opens
				r := newRig(t, s.place(), mode(tt.mode), stored(tt.objectsErr, tt.objects...)).run()
				st := r.settled()
				if opens == "" {
					if st.State != Sealed {
						t.Errorf("status %+v", st)
					}
					for _, want := range tt.says {
						if !strings.Contains(st.Reason, want) {
							t.Errorf("the reason %q does not say %q", st.Reason, want)
						}
					}
					if tt.record != "" && st.KeyID != idOf(keyA) {
						t.Errorf("the key id is %q", st.KeyID)
					}
					if after := s.all(); after != before {
						t.Errorf("changed to %.300s", after)
					}
					return
				}
				if st.State != Unsealed {
					t.Fatalf("status %+v", st)
				}
				kept := s.key()
				if opens == made {
					if !recipientOf(kept).Hybrid() {
						t.Error("it made a key that is not hybrid")
					}
					opens = kept
				} else if kept != tt.key {
					t.Error("the key was written anew")
				}
				if !r.holds(opens) || st.KeyID != idOf(opens) || s.record() != recipientOf(opens).String() {
					t.Errorf("status %+v, record %.20s", st, s.record())
				}
				// The next start finds the same.
				before = s.all()
				r.stop()
				again := newRig(t, s.place(), mode(tt.mode), stored(nil, objects...)).run()
				if st := again.settled(); st.State != Unsealed || !again.holds(opens) || s.all() != before {
					t.Errorf("started again: %+v", st)
				}
			})
		})
	}
}

func TestAMountedFileRestoresALostSecret(t *testing.T) {
	recordA, idA := recipientOf(keyA).String(), string(idOf(keyA))
	for _, tt := range []struct {
		name, key, record, mounted string
		opens                      bool
		says                       string
	}{
		{"lost", "", recordA, keyA, true, ""},
		{"the placeholder applied again", "{}", recordA, keyA, true, ""},
		{"damaged", keyA[:30], recordA, keyA, true, ""},
		{"another key is mounted", "", recordA, keyB, false, idA},
		{"the placeholder is mounted", "", recordA, "{}", false, idA},
		{"noise is mounted", "", recordA, strings.Repeat("x", 1<<20), false, idA},
		{"another key is kept", keyB, recordA, keyA, false, idA},
		{"nothing is on record", "", "", keyA, false, idA},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSecretSite(t, cluster.Start(t))
			s.put(tt.key, "", tt.record)
			s.mount(tt.mounted)
			before := s.all()
			r := newRig(t, s.place()).run()
			st := r.settled()
			if !tt.opens {
				if st.State != Sealed || !strings.Contains(st.Reason, tt.says) || s.all() != before {
					t.Errorf("status %+v, kept %s", st, s.all())
				}
				return
			}
			if st.State != Unsealed || !r.holds(keyA) || s.key() != keyA {
				t.Errorf("status %+v, kept %.20q", st, s.key())
			}
		})
	}
}

func TestRetiredKeysOpenToo(t *testing.T) {
	s := newSecretSite(t, cluster.Start(t))
	for text, held := range map[string]bool{keyB: true, keyA + "\n" + keyB: true, "{}": false, keyB[:60]: false} {
		s.put(keyA, "", recipientOf(keyA).String())
		secret := s.secret()
		secret.APIVersion, secret.Kind = "v1", "Secret"
		secret.Data[DataRetired] = []byte(text)
		if err := s.client.Core.Put().Namespace(s.namespace).Resource("secrets").Name("vsecm-root-key").Body(secret).Do(t.Context()).Error(); err != nil {
			t.Fatal(err)
		}
		r := newRig(t, s.place()).run()
		if st := r.settled(); st.State != Unsealed || !r.holds(keyA) || r.holds(keyB) != held {
			t.Errorf("with %.30q: %+v, the retired key is held: %v", text, st, r.holds(keyB))
		}
		if damaged := text == keyB[:60]; damaged != strings.Contains(r.log.String(), "retired") {
			t.Errorf("with %.30q the log says %s", text, r.log.String())
		}
		// Unsealing has them, too.
		if err := errors.Join(r.keeper.Seal(t.Context()), r.unseal(keyA, "")); err != nil || r.holds(keyB) != held {
			t.Errorf("unsealed: %v, the retired key is held: %v", err, r.holds(keyB))
		}
		r.stop()
	}
}

func TestAKeyFileThatOthersReachIsNotUsed(t *testing.T) {
	s := newDirSite(t)
	s.put(keyA, "", "")
	chmod(t, s.file("root-key.txt"), 0o644)
	before := s.all()
	r := newRig(t, s.place()).run()
	if st := r.settled(); st.State != Sealed || !strings.Contains(st.Reason, "not safe from other users") {
		t.Errorf("status %+v", st)
	}
	if err := r.unseal(keyA, idOf(keyA)); !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrExposed) || s.all() != before {
		t.Errorf("unsealing: %v", err)
	}
	if err := r.keeper.Seal(t.Context()); err != nil || !s.marked() {
		t.Errorf("sealing: %v", err)
	}
	s.put(keyA, "", "")
	chmod(t, s.file("root-key.txt"), 0o600) // Safe sees it by itself
	r.keeper.hint()
	r.until(Unsealed)
}

func TestTheTextStaysTheCallers(t *testing.T) {
	s := newDirSite(t)
	r := newRig(t, s.place(), mode(manual)).run()
	r.settled()
	text := []byte(keyA)
	if err := r.keeper.Unseal(t.Context(), text, ""); err != nil || string(text) != keyA {
		t.Errorf("%v, and the text was changed: %v", err, string(text) != keyA)
	}
	if _, err := unseal.Parse([]byte(s.key())); err != nil {
		t.Error(err)
	}
}
