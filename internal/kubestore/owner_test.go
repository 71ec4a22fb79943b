package kubestore_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// inCluster returns a field of an object as the API server has it.
func (w *world) inCluster(t testing.TB, name, jsonPath string) string {
	t.Helper()
	return w.kubectl(t, "", "get", "encryptedsecrets", "-n", "shop", name, "-o", "jsonpath="+jsonPath)
}

func TestObjectsOfNobodyAreServedAndLeftAlone(t *testing.T) {
	w := shared(t)
	s, _ := w.open(t)
	w.kubectl(t, toJSON(t, object("db", "by hand")), "apply", "-f", "-")
	await(t, s, "the object", func() bool { return exists(t, s, "db") })
	o := get(t, s, "db")
	if textOf(o) != "by hand" || o.UID == "" || o.Generation != 1 {
		t.Errorf("it is %+v", o)
	}
	if len(o.ManagedFields) > 0 || len(o.Annotations) > 0 {
		t.Errorf("what Kubernetes and kubectl note is kept: %v %v", o.ManagedFields, o.Annotations)
	}
	// Not even with the very same content.
	for _, text := range []string{"by hand", "other"} {
		if changed, err := s.Apply(t.Context(), owner, object("db", text)); changed || !errors.Is(err, store.ErrNotOwned) {
			t.Errorf("Apply: %t, %v", changed, err)
		}
	}
	if err := s.Delete(t.Context(), owner, keyOf("db")); !errors.Is(err, store.ErrNotOwned) {
		t.Errorf("Delete: %v", err)
	}
	if label := w.inCluster(t, "db", `{.metadata.labels}`); label != "" {
		t.Errorf("its labels are %s", label)
	}
}

func TestUnchangedIsNotWritten(t *testing.T) {
	w := shared(t)
	s, _ := w.open(t)
	o := object("db", "1")
	o.Labels, o.Annotations = map[string]string{"team": "pay"}, map[string]string{v1alpha1.AnnotationPath: "db.yaml"}
	apply(t, s, o)
	before := w.inCluster(t, "db", "{.metadata.resourceVersion}")
	if manager := w.inCluster(t, "db", "{.metadata.managedFields[*].manager}"); manager != kubestore.FieldManager {
		t.Errorf("its managers are %s", manager)
	}

	again, _ := w.open(t) // as after a restart
	for _, s := range []store.Store{s, again} {
		if apply(t, s, o) {
			t.Error("the same object is a change")
		}
	}
	if after := w.inCluster(t, "db", "{.metadata.resourceVersion}"); after != before {
		t.Errorf("it was written: %s, then %s", before, after)
	}
}

func TestOthersEditsArePutBack(t *testing.T) {
	w := shared(t)
	s, _ := w.open(t)
	o := object("db", "1")
	o.Labels = map[string]string{"team": "pay"}
	o.Spec.Secret = &v1alpha1.SecretDelivery{Type: "Opaque"}
	apply(t, s, o)
	edits := map[string]string{
		"a value":         `{"spec":{"encryptedData":{"password":"` + sealed + `x"}}}`,
		"one more key":    `{"spec":{"encryptedData":{"more":"` + sealed + `"}}}`,
		"one more reader": `{"spec":{"workloads":["thief"]}}`,
		"no delivery":     `{"spec":{"secret":null}}`,
		"a label":         `{"metadata":{"labels":{"team":"web"}}}`,
		"no label":        `{"metadata":{"labels":{"team":null}}}`,
	}
	for name, patch := range edits {
		before := get(t, s, "db")
		w.kubectl(t, "", "patch", "encryptedsecrets", "-n", "shop", "db", "--type=merge", "-p", patch)
		await(t, s, name, func() bool { return get(t, s, "db") != before })
		if !apply(t, s, o) {
			t.Errorf("%s: it was left as it was", name)
		}
		now := get(t, s, "db")
		if !store.EqualSpec(&now.Spec, &o.Spec) || now.Labels["team"] != "pay" {
			t.Errorf("%s: it is %v %+v", name, now.Labels, now.Spec)
		}
		if spec := w.inCluster(t, "db", "{.spec}"); strings.Contains(spec, "more") || strings.Contains(spec, "thief") {
			t.Errorf("%s: in the cluster it is %s", name, spec)
		}
	}
}

func TestOthersLabelsStay(t *testing.T) {
	w := shared(t)
	s, _ := w.open(t)
	o := object("db", "1")
	o.Labels = map[string]string{"team": "pay", "old": "x"}
	apply(t, s, o)
	w.kubectl(t, "", "label", "encryptedsecrets", "-n", "shop", "db", "seen-by=others")
	w.kubectl(t, "", "annotate", "encryptedsecrets", "-n", "shop", "db", "note=others")
	await(t, s, "the annotation", func() bool { return get(t, s, "db").Annotations["note"] == "others" })
	if apply(t, s, o) {
		t.Error("labels of others are a change")
	}
	delete(o.Labels, "old")
	if !apply(t, s, o) {
		t.Error("one label less is no change")
	}
	now := get(t, s, "db")
	if _, is := now.Labels["old"]; is || now.Labels["seen-by"] != "others" || now.Labels["team"] != "pay" || now.Annotations["note"] != "others" {
		t.Errorf("it has %v %v", now.Labels, now.Annotations)
	}
}

func TestOthersMustForceToTakeASourcesObject(t *testing.T) {
	w := shared(t)
	s, _ := w.open(t)
	apply(t, s, object("db", "1"))
	other := toJSON(t, object("db", "other"))
	_, errOut, err := w.Kubectl(t, w.Kubeconfig(), other, "apply", "--server-side", "-f", "-")
	if err == nil || !strings.Contains(errOut, kubestore.FieldManager) || !strings.Contains(errOut, ".spec") {
		t.Errorf("without force: %v, %s", err, errOut)
	}
	w.kubectl(t, other, "apply", "--server-side", "--force-conflicts", "-f", "-")
	await(t, s, "the other's value", func() bool { return textOf(get(t, s, "db")) == "other" })
	if !apply(t, s, object("db", "1")) || textOf(get(t, s, "db")) != "1" {
		t.Error("the source does not take it back")
	}
}

// A second replica may not have heard yet of what the first one wrote.
func TestReplicasNeverTakeEachOthersObjects(t *testing.T) {
	w := shared(t)
	one, _ := w.open(t)
	two, _ := w.open(t)
	const other = "shop.other"
	for i := range 20 {
		name := fmt.Sprintf("db-%d", i)
		var both sync.WaitGroup
		errs := make([]error, 2)
		both.Go(func() { _, errs[0] = one.Apply(t.Context(), owner, object(name, owner)) })
		both.Go(func() { _, errs[1] = two.Apply(t.Context(), other, object(name, other)) })
		both.Wait()
		won := owner
		if errs[0] != nil {
			won, errs[0], errs[1] = other, errs[1], errs[0]
		}
		if errs[0] != nil || !errors.Is(errs[1], store.ErrNotOwned) {
			t.Fatalf("%s: %v", name, errs)
		}
		for _, s := range []store.Store{one, two} {
			if o := get(t, s, name); textOf(o) != won || store.OwnerOf(o) != won {
				t.Errorf("%s of %s says %s", name, store.OwnerOf(o), textOf(o))
			}
		}
	}
	// And the same owner on both: the last one stands, and each has read what it wrote.
	for i := range 20 {
		for _, s := range []store.Store{one, two} {
			text := fmt.Sprintf("%d %p", i, s)
			apply(t, s, object("same", text))
			if got := textOf(get(t, s, "same")); got != text {
				t.Errorf("it says %q after %q was written", got, text)
			}
		}
		if err := one.Delete(t.Context(), owner, keyOf("same")); err != nil || exists(t, one, "same") {
			t.Errorf("Delete: %v", err)
		}
	}
}

func TestAnObjectThatWaitsForItsFinalizersIsGone(t *testing.T) {
	w := shared(t)
	s, _ := w.open(t)
	apply(t, s, object("db", "1"))
	finalizers := func(list string) {
		w.kubectl(t, "", "patch", "encryptedsecrets", "-n", "shop", "db", "--type=merge", "-p", `{"metadata":{"finalizers":`+list+`}}`)
	}
	finalizers(`["example.com/wait"]`)
	if err := s.Delete(t.Context(), owner, keyOf("db")); err != nil {
		t.Fatal(err)
	}
	if exists(t, s, "db") {
		t.Error("it is still there")
	}
	if _, err := s.Apply(t.Context(), owner, object("db", "2")); !errors.Is(err, kubestore.ErrBusy) {
		t.Errorf("Apply: %v", err)
	}
	if exists(t, s, "db") {
		t.Error("it is there again")
	}
	finalizers(`null`)
	apply(t, s, object("db", "2"))
	if got := textOf(get(t, s, "db")); got != "2" {
		t.Errorf("it says %q", got)
	}
}

func TestApplyTellsWhatTheClusterRefuses(t *testing.T) {
	w := shared(t)
	s, _ := w.open(t)
	bad := object("db", "1")
	bad.Spec.Scope = "cluster"
	if _, err := s.Apply(t.Context(), owner, bad); !errors.Is(err, store.ErrInvalid) || !strings.Contains(err.Error(), "needs workloads") {
		t.Errorf("an object that the CRD refuses: %v", err)
	}
	stray := object("db", "1")
	stray.Namespace = "nowhere"
	if _, err := s.Apply(t.Context(), owner, stray); err == nil || errors.Is(err, store.ErrInvalid) || errors.Is(err, kubestore.ErrUnavailable) ||
		!strings.Contains(err.Error(), `namespaces "nowhere" not found`) {
		t.Errorf("an object of a namespace that there is not: %v", err)
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%d objects, %v", len(all), err)
	}
}
