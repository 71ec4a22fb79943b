package kubestore_test

import (
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

func standing(t testing.TB, s *kubestore.Store, name string) kubestore.Standing {
	t.Helper()
	is, ok := s.Standing(keyOf(name))
	if !ok {
		t.Fatalf("%s does not stand", name)
	}
	return is
}

// statusOf returns a status that says text.
func statusOf(generation int64, text string) *v1alpha1.EncryptedSecretStatus {
	status := &v1alpha1.EncryptedSecretStatus{ObservedGeneration: generation}
	condition.Set(&status.Conditions, condition.Verdict{State: condition.Failed, Reason: "Test", Message: text}, generation, time.Unix(1e9, 0))
	return status
}

func TestStatusIsWrittenAndStands(t *testing.T) {
	w := shared(t)
	s, _ := w.open(t)
	apply(t, s, object("db", "1"))
	before := standing(t, s, "db")
	if before.UID == "" || before.Generation != 1 || before.Status != nil && before.Status.ObservedGeneration != -1 {
		t.Errorf("at first it stands as %+v", before)
	}
	status := statusOf(1, "first")
	status.KeyIDs, status.Revision = []string{"k1"}, "r1"
	status.Secret = &v1alpha1.DeliveredSecret{UID: "u", ResourceVersion: "7", Generation: 1, DeliveredAt: metav1.NewTime(time.Unix(1e9, 0)), Adopted: true}
	told := make(chan string, 10)
	go func() {
		defer close(told)
		_ = s.Watch(t.Context(), func(e store.Event) {
			if e.Type == store.Applied {
				told <- textOf(e.Object)
			}
		})
	}()
	if text := <-told; text != "1" {
		t.Errorf("the watch tells of %q", text)
	}
	if err := s.WriteStatus(t.Context(), keyOf("db"), before, status); err != nil {
		t.Fatal(err)
	}
	is := standing(t, s, "db")
	if is.Generation != 1 || is.UID != before.UID || is.Status == nil || is.Status.Revision != "r1" || is.Status.KeyIDs[0] != "k1" ||
		is.Status.Secret == nil || is.Status.Secret.UID != "u" || !is.Status.Secret.Adopted || len(is.Status.Conditions) != 2 {
		t.Errorf("it stands as %+v", is.Status)
	}
	// What the next one does not say is gone.
	if err := s.WriteStatus(t.Context(), keyOf("db"), is, statusOf(1, "second")); err != nil {
		t.Fatal(err)
	}
	if is := standing(t, s, "db").Status; is.Secret != nil || is.KeyIDs != nil || is.Revision != "" || is.Conditions[0].Message != "second" {
		t.Errorf("it stands as %+v", is)
	}
	// Another store learns of it, and no watch tells of it as of a change.
	other, _ := w.open(t)
	if _, err := other.Get(t.Context(), keyOf("db")); err != nil {
		t.Fatal(err)
	}
	if is := standing(t, other, "db"); is.Status == nil || is.Status.Conditions[0].Message != "second" {
		t.Errorf("elsewhere it stands as %+v", is)
	}
	if changed := apply(t, s, object("db", "1")); changed {
		t.Error("with a status, the object is another")
	}
	if !apply(t, s, object("db", "2")) || standing(t, s, "db").Generation != 2 || standing(t, s, "db").Status.Conditions[0].Message != "second" {
		t.Errorf("with another spec, it stands as %+v", standing(t, s, "db"))
	}
	if text := <-told; text != "2" {
		t.Errorf("the watch told of a status, too: as of %q", text)
	}
}

func TestStatusOfAnotherObjectIsNotWritten(t *testing.T) {
	w := shared(t)
	s, _ := w.open(t)
	apply(t, s, object("db", "1"))
	before := standing(t, s, "db")
	if err := s.Delete(t.Context(), owner, keyOf("db")); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Standing(keyOf("db")); ok {
		t.Error("it stands, though it is gone")
	}
	if err := s.WriteStatus(t.Context(), keyOf("db"), before, statusOf(1, "late")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of one that is gone: %v", err)
	}
	apply(t, s, object("db", "1"))
	if err := s.WriteStatus(t.Context(), keyOf("db"), before, statusOf(1, "late")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of one whose place another took: %v", err)
	}
	if is := standing(t, s, "db").Status; is != nil && len(is.Conditions) > 0 {
		t.Errorf("it stands as %+v", is)
	}
	bad := statusOf(1, "bad")
	bad.Conditions[0].Reason = "no reason at all"
	if err := s.WriteStatus(t.Context(), keyOf("db"), standing(t, s, "db"), bad); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("one that the CRD refuses: %v", err)
	}
}

// A replica that no longer leads, or whose watch has yet to tell, takes no newer finding back.
func TestStatusOfAnOlderGenerationIsNotWritten(t *testing.T) {
	w := shared(t)
	late, _ := w.open(t)
	apply(t, late, object("db", "1"))
	before := standing(t, late, "db")
	s, _ := w.open(t)
	if _, err := s.Get(t.Context(), keyOf("db")); err != nil {
		t.Fatal(err)
	}
	apply(t, s, object("db", "2"))
	if err := s.WriteStatus(t.Context(), keyOf("db"), standing(t, s, "db"), statusOf(2, "new")); err != nil {
		t.Fatal(err)
	}
	if err := late.WriteStatus(t.Context(), keyOf("db"), before, statusOf(1, "old")); !errors.Is(err, kubestore.ErrBusy) {
		t.Errorf("of the generation before: %v", err)
	}
	if is := standing(t, late, "db").Status; is == nil || is.Conditions[0].Message != "new" {
		t.Errorf("it stands as %+v", is)
	}
}

// A finding that follows from an older status, though about the same generation, does not take what that one lacked with it.
func TestStatusThatSomebodyHasChangedIsNotWrittenOver(t *testing.T) {
	w := shared(t)
	late, _ := w.open(t)
	apply(t, late, object("db", "1"))
	before := standing(t, late, "db")
	s, _ := w.open(t)
	if _, err := s.Get(t.Context(), keyOf("db")); err != nil {
		t.Fatal(err)
	}
	status := statusOf(1, "new")
	status.Revision = "r1"
	if err := s.WriteStatus(t.Context(), keyOf("db"), standing(t, s, "db"), status); err != nil {
		t.Fatal(err)
	}
	apply(t, s, object("last", "1")) // of which a watch tells
	await(t, late, "what was written last", func() bool { return exists(t, late, "last") })
	if is := standing(t, late, "db").Status; is == nil || is.Revision != "r1" {
		t.Fatalf("it stands as %+v", is)
	}
	if err := late.WriteStatus(t.Context(), keyOf("db"), before, statusOf(1, "old")); !errors.Is(err, kubestore.ErrBusy) {
		t.Errorf("after another: %v", err)
	}
	if err := late.WriteStatus(t.Context(), keyOf("db"), standing(t, late, "db"), status); err != nil {
		t.Errorf("as it stands now: %v", err)
	}
}

// The API server writes no status either to what an older CRD let through, and that harms nobody else.
func TestObjectThatCannotBeDecodedTakesNoStatus(t *testing.T) {
	w := newWorld(t, start(t))
	s, _ := w.open(t)
	apply(t, s, object("good", "1"))
	tighten := w.loosen(t)
	w.raw(t, "shop", `{"apiVersion":"vsecm.com/v1alpha1","kind":"EncryptedSecret","metadata":{"name":"bad"},"spec":{"encryptedData":{"a":8123456789}}}`)
	tighten()
	for deadline := time.Now().Add(patience); len(s.Faults()) == 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
	}
	is := standing(t, s, "bad")
	if is.Fault == nil {
		t.Fatal("it has no fault")
	}
	if err := s.WriteStatus(t.Context(), keyOf("bad"), is, statusOf(is.Generation, "bad")); err == nil {
		t.Error("it has a status")
	}
	if err := s.WriteStatus(t.Context(), keyOf("good"), standing(t, s, "good"), statusOf(1, "good")); err != nil {
		t.Error(err)
	}
}
