package rootkey

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// keyNew is what takes the place of keyA in most tests, keyOther a third one of their kind.
var keyNew, keyOther = textOf(false), textOf(false)

const alice = "system:serviceaccount:vsecm-system:vsecm-admin (alice)"

// rekeyOf returns the record of a re-key as it stands.
func rekeyOf(t testing.TB, s site) string {
	t.Helper()
	switch s := s.(type) {
	case *dirSite:
		return strings.TrimSpace(s.read("rekey.json"))
	case *secretSite:
		return s.secret().Annotations[AnnotationRekey]
	}
	t.Fatalf("%T", s)
	return ""
}

// setRekey edits the record of a re-key where it stands; an empty one is taken off.
func setRekey(t testing.TB, s site, text string) {
	t.Helper()
	switch s := s.(type) {
	case *dirSite:
		if text == "" {
			if err := os.Remove(s.file("rekey.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			return
		}
		if err := encrypt.ReplaceFile(s.file("rekey.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	case *secretSite:
		s.annotate(AnnotationRekey, text)
	}
}

// annotate sets an annotation of the Secret, or takes it off.
func (s *secretSite) annotate(name, text string) {
	s.t.Helper()
	var value any
	if text != "" {
		value = text
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{name: value}}})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.client.Core.Patch(types.MergePatchType).Namespace(s.namespace).Resource("secrets").Name("vsecm-root-key").
		Body(body).Do(s.t.Context()).Error(); err != nil {
		s.t.Fatal(err)
	}
}

// start begins a re-key; an empty text gives no key.
func (r *rig) start(text string) (Rekey, bool, error) {
	r.t.Helper()
	var given []byte
	if text != "" {
		given = []byte(text)
	}
	rekey, began, err := r.keeper.StartRekey(r.t.Context(), given, alice)
	if text != "" && string(given) != text {
		r.t.Error("the caller's text was changed")
	}
	r.shown(err)
	return rekey, began, err
}

func (r *rig) shown(err error) {
	r.t.Helper()
	if err != nil {
		showsNoKey(r.t, "an error", err.Error(), keyA, keyB, keyNew, keyOther)
	}
	showsNoKey(r.t, "the log", r.log.String(), keyA, keyB, keyNew, keyOther)
}

// starts begins one that has to begin.
func (r *rig) starts(text string) Rekey {
	r.t.Helper()
	rekey, began, err := r.start(text)
	if err != nil || !began {
		r.t.Fatalf("starting a re-key: began %v, %v\n%s", began, err, r.log.String())
	}
	return rekey
}

func (r *rig) stages(text string) {
	r.t.Helper()
	if id, err := r.keeper.StageRekey(r.t.Context(), []byte(text)); err != nil || id != idOf(text) {
		r.t.Fatalf("staging: %s, %v", id, err)
	}
}

// ring checks which keys the gate holds, the active one first, and that it opens with them.
func (r *rig) ring(active string, others ...string) {
	r.t.Helper()
	if !r.has2(active, others...) {
		held, more := r.config.Gate.Held()
		r.t.Errorf("it holds %s and %s\n%s", held, more, r.log.String())
		return
	}
	for _, text := range append(others, active) {
		if !opens(r.t, r, text) {
			r.t.Error("a key that is held opens nothing")
		}
	}
}

func (r *rig) has2(active string, others ...string) bool {
	held, more := r.config.Gate.Held()
	if held != idOf(active) || len(more) != len(others) {
		return false
	}
	for _, text := range others {
		if !r.holds(text) {
			return false
		}
	}
	return true
}

// untilRing waits until the gate holds exactly these keys.
func (r *rig) untilRing(active string, others ...string) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !r.has2(active, others...); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			held, more := r.config.Gate.Held()
			r.t.Fatalf("it holds %s and %s, status %+v\n%s", held, more, r.keeper.Status(), r.log.String())
		}
	}
	r.ring(active, others...)
}

// rekeying checks which re-key is under way; the empty text stands for none.
func (r *rig) rekeying(from, to string, aborted bool) {
	r.t.Helper()
	got, under := r.keeper.Rekeying()
	st := r.keeper.Status()
	if from == "" {
		if under || st.Rekey != nil {
			r.t.Errorf("a re-key is under way: %+v", got)
		}
		return
	}
	if !under || got.From != idOf(from) || got.To != idOf(to) || got.Aborted != aborted ||
		got.FromRecipient != recipientOf(from).String() || got.ToRecipient != recipientOf(to).String() {
		r.t.Errorf("re-keying %v: %+v", under, got)
	}
	if st.Rekey == nil || st.Rekey.From != got.From || st.Rekey.To != got.To || st.Rekey.Aborted != aborted {
		r.t.Errorf("status %+v", st)
	}
}

// given is a Safe that was unsealed with keyA.
func given(t testing.TB, s site, m string) *rig {
	t.Helper()
	key := keyA
	if m == memory {
		key = ""
	}
	s.put(key, "", recipientOf(keyA).String())
	return again(t, s, m)
}

// again is one more replica, or the next one.
func again(t testing.TB, s site, m string) *rig {
	t.Helper()
	r := newRig(t, s.place(), mode(m)).run()
	r.settled()
	if m == memory {
		if err := r.unseal(keyA, ""); err != nil {
			t.Fatal(err)
		}
	}
	r.until(Unsealed)
	return r
}

// keptIDs returns the ids of the key that is kept and of the retired ones.
func keptIDs(t *testing.T, s site) (active encrypt.KeyID, retired []encrypt.KeyID) {
	t.Helper()
	active = idOf(s.key())
	if text := retiredOf(t, s); text != "" {
		retired = idsIn(t, text)
	}
	return active, retired
}

// What dies in dir.go dies between two files.
func dyingDir(d *dirSite, lives int) *dirPlace {
	p := d.place().(*dirPlace)
	p.step = func() error {
		if lives--; lives < 0 {
			return errDead
		}
		return nil
	}
	return p
}

func (d *dying) WriteRekey(ctx context.Context, was *Kept, c Change) error {
	return d.write(func() error { return d.Place.WriteRekey(ctx, was, c) })
}

// A dark place is one that cannot be read, while it is.
type dark struct {
	Place
	is atomic.Bool
}

func (d *dark) Read(ctx context.Context, all bool) (*Kept, error) {
	if d.is.Load() {
		return nil, errors.New("away")
	}
	return d.Place.Read(ctx, all)
}
