// Package storetest holds what every [store.Store] must do: one suite that the
// directory store and the Kubernetes store both pass.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// patience bounds every wait of the suite. It only ends a test that has failed.
const patience = 30 * time.Second

const (
	alice = "shop.alice"
	bob   = "shop.bob"
)

// Run runs the suite. open returns an empty store, which lives as long as the
// test that it is given.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	tests := []struct {
		name string
		run  func(t *testing.T, s store.Store)
	}{
		{"an object that was applied is there as given", appliedIsThere},
		{"an unchanged object is no change", unchanged},
		{"every part of an object that changes is a change", everyPartCounts},
		{"an object has one owner", oneOwner},
		{"what cannot be stored is refused", refused},
		{"deleting twice is deleting once", deleteTwice},
		{"the list is in order", listInOrder},
		{"an object handed out never changes", handedOut},
		{"the caller keeps what it applied", callerKeeps},
		{"an object of 1 MiB is kept whole", large},
		{"a call whose context ended does nothing", endedContext},
		{"a watch tells what there is, then Synced, then changes", watchTells},
		{"a watch of an empty store is synced", watchEmpty},
		{"a slow watcher gets the newest state", watchCoalesces},
		{"watches do not wait for each other", watchesAreIndependent},
		{"a watch ends with its context", watchEnds},
		{"concurrent writers and readers agree in the end", concurrent},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, open(t)) })
	}
}

// Object returns a valid object whose one value is data.
func Object(namespace, name, data string) *v1alpha1.EncryptedSecret {
	o := &v1alpha1.EncryptedSecret{}
	o.APIVersion, o.Kind = v1alpha1.APIVersion, v1alpha1.KindEncryptedSecret
	o.Namespace, o.Name = namespace, name
	o.Spec.EncryptedData = map[string]string{"password": data}
	return o
}

// header is how every sealed value begins: base64 of an age file's first line.
const header = "YWdlLWVuY3J5cHRpb24ub3JnL3Yx"

// object returns an object whose one value looks like a sealed one, which a store may
// demand, and says text.
func object(namespace, name, text string) *v1alpha1.EncryptedSecret {
	return Object(namespace, name, header+text)
}

// text returns what the value of an object says.
func text(o *v1alpha1.EncryptedSecret) string {
	return strings.TrimPrefix(o.Spec.EncryptedData["password"], header)
}

func apply(t *testing.T, s store.Store, owner string, o *v1alpha1.EncryptedSecret) bool {
	t.Helper()
	changed, err := s.Apply(t.Context(), owner, o)
	if err != nil {
		t.Fatalf("Apply %s: %v", store.KeyOf(o), err)
	}
	return changed
}

func get(t *testing.T, s store.Store, key store.Key) *v1alpha1.EncryptedSecret {
	t.Helper()
	o, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("Get %s: %v", key, err)
	}
	if store.KeyOf(o) != key {
		t.Fatalf("Get %s returned %s", key, store.KeyOf(o))
	}
	return o
}

func full() *v1alpha1.EncryptedSecret {
	o := object("shop", "db", "one")
	o.Labels = map[string]string{"team": "pay"}
	o.Annotations = map[string]string{v1alpha1.AnnotationPath: "secrets/db.yaml", "note": "yes: \"no\"\n# null\ttab"}
	o.Spec.Scope = "namespace"
	o.Spec.Workloads = []string{"api", "worker"}
	o.Spec.EncryptedData["tls.key"] = header + "true"
	o.Spec.Secret = &v1alpha1.SecretDelivery{
		Type:           "Opaque",
		Metadata:       v1alpha1.SecretMetadata{Labels: map[string]string{"a": "1"}, Annotations: map[string]string{"b": "2"}},
		Immutable:      true,
		DeletionPolicy: "Retain",
	}
	return o
}

func appliedIsThere(t *testing.T, s store.Store) {
	want := full()
	if !apply(t, s, alice, want) {
		t.Error("a new object is no change")
	}
	got := get(t, s, store.KeyOf(want))
	if got.APIVersion != v1alpha1.APIVersion || got.Kind != v1alpha1.KindEncryptedSecret {
		t.Errorf("it is a %s of %s", got.Kind, got.APIVersion)
	}
	if got.Labels["team"] != "pay" || got.Labels[v1alpha1.LabelSource] != alice {
		t.Errorf("labels are %v", got.Labels)
	}
	if !maps.Equal(got.Annotations, want.Annotations) {
		t.Errorf("annotations are %v", got.Annotations)
	}
	if g, w := fmt.Sprintf("%+v %+v", got.Spec, *got.Spec.Secret), fmt.Sprintf("%+v %+v", want.Spec, *want.Spec.Secret); cut(g) != cut(w) {
		t.Errorf("spec is %s, want %s", g, w)
	}
	if _, err := s.Get(t.Context(), store.Key{Namespace: "shop", Name: "other"}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get of what is not there: %v", err)
	}
}

// cut takes the one pointer out of a printed spec.
func cut(printed string) string {
	before, after, _ := strings.Cut(printed, "Secret:0x")
	_, after, _ = strings.Cut(after, " ")
	return before + after
}

func unchanged(t *testing.T, s store.Store) {
	apply(t, s, alice, full())
	if apply(t, s, alice, full()) {
		t.Error("the same object again is a change")
	}
	o := full()
	o.Labels[v1alpha1.LabelSource] = "forged.owner"
	if apply(t, s, alice, o) {
		t.Error("a source label in the manifest is a change")
	}
}

func everyPartCounts(t *testing.T, s store.Store) {
	changes := map[string]func(o *v1alpha1.EncryptedSecret){
		"label":               func(o *v1alpha1.EncryptedSecret) { o.Labels["team"] = "web" },
		"label removed":       func(o *v1alpha1.EncryptedSecret) { delete(o.Labels, "team") },
		"annotation":          func(o *v1alpha1.EncryptedSecret) { o.Annotations["note"] = "other" },
		"annotation removed":  func(o *v1alpha1.EncryptedSecret) { delete(o.Annotations, "note") },
		"scope":               func(o *v1alpha1.EncryptedSecret) { o.Spec.Scope = "cluster" },
		"workload removed":    func(o *v1alpha1.EncryptedSecret) { o.Spec.Workloads = o.Spec.Workloads[:1] },
		"value":               func(o *v1alpha1.EncryptedSecret) { o.Spec.EncryptedData["password"] = header + "two" },
		"key added":           func(o *v1alpha1.EncryptedSecret) { o.Spec.EncryptedData["new"] = header + "one" },
		"key removed":         func(o *v1alpha1.EncryptedSecret) { delete(o.Spec.EncryptedData, "tls.key") },
		"delivery removed":    func(o *v1alpha1.EncryptedSecret) { o.Spec.Secret = nil },
		"delivery type":       func(o *v1alpha1.EncryptedSecret) { o.Spec.Secret.Type = "kubernetes.io/tls" },
		"delivery immutable":  func(o *v1alpha1.EncryptedSecret) { o.Spec.Secret.Immutable = false },
		"delivery policy":     func(o *v1alpha1.EncryptedSecret) { o.Spec.Secret.DeletionPolicy = "Delete" },
		"delivery label":      func(o *v1alpha1.EncryptedSecret) { o.Spec.Secret.Metadata.Labels["a"] = "9" },
		"delivery annotation": func(o *v1alpha1.EncryptedSecret) { o.Spec.Secret.Metadata.Annotations = nil },
	}
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		apply(t, s, alice, full())
		o := full()
		changes[name](o)
		if !apply(t, s, alice, o) {
			t.Errorf("%s: no change", name)
		}
		if apply(t, s, alice, o) {
			t.Errorf("%s: a change twice", name)
		}
	}
}

func oneOwner(t *testing.T, s store.Store) {
	apply(t, s, alice, object("shop", "db", "alice's"))
	key := store.Key{Namespace: "shop", Name: "db"}
	if changed, err := s.Apply(t.Context(), bob, object("shop", "db", "bob's")); !errors.Is(err, store.ErrNotOwned) || changed {
		t.Errorf("Apply by another: %t, %v", changed, err)
	}
	if err := s.Delete(t.Context(), bob, key); !errors.Is(err, store.ErrNotOwned) {
		t.Errorf("Delete by another: %v", err)
	}
	if got := get(t, s, key); text(got) != "alice's" || got.Labels[v1alpha1.LabelSource] != alice {
		t.Errorf("it is %v, %v now", got.Spec.EncryptedData, got.Labels)
	}
	if err := s.Delete(t.Context(), alice, key); err != nil {
		t.Errorf("Delete by its owner: %v", err)
	}
	apply(t, s, bob, object("shop", "db", "bob's"))
}

func refused(t *testing.T, s store.Store) {
	objects := map[string]*v1alpha1.EncryptedSecret{
		"a name that climbs out":      object("shop", "../../x", ""),
		"a namespace that climbs out": object("..", "x", ""),
		"a separator in the name":     object("shop", "a/b", ""),
		"no name":                     object("shop", "", ""),
		"no namespace":                object("", "db", ""),
		"a dot in the namespace":      object("a.b", "db", ""),
		"a hidden name":               object("shop", ".db", ""),
		"a zero byte":                 object("shop", "d\x00b", ""),
		"upper case":                  object("shop", "DB", ""),
		"an endless name":             object("shop", strings.Repeat("a", 254), ""),
	}
	for name, o := range objects {
		if _, err := s.Apply(t.Context(), alice, o); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("Apply of %s: %v", name, err)
		}
		if err := s.Delete(t.Context(), alice, store.KeyOf(o)); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("Delete of %s: %v", name, err)
		}
		if _, err := s.Get(t.Context(), store.KeyOf(o)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get of %s: %v", name, err)
		}
	}
	for _, owner := range []string{"", "a/b", "-a", strings.Repeat("a", 64)} {
		if _, err := s.Apply(t.Context(), owner, object("shop", "db", "")); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("Apply by %q: %v", owner, err)
		}
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("the store holds %d objects, %v", len(all), err)
	}
	// The longest name that there may be is not too long for a store.
	long := object(strings.Repeat("n", 63), strings.Repeat("a", 253), "one")
	apply(t, s, alice, long)
	get(t, s, store.KeyOf(long))
}

func deleteTwice(t *testing.T, s store.Store) {
	key := store.Key{Namespace: "shop", Name: "db"}
	if err := s.Delete(t.Context(), alice, key); err != nil {
		t.Errorf("Delete of what never was: %v", err)
	}
	apply(t, s, alice, object("shop", "db", "one"))
	for range 2 {
		if err := s.Delete(t.Context(), alice, key); err != nil {
			t.Errorf("Delete: %v", err)
		}
		if _, err := s.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get after Delete: %v", err)
		}
	}
	if !apply(t, s, alice, object("shop", "db", "one")) {
		t.Error("an object that comes back is no change")
	}
}

func listInOrder(t *testing.T, s store.Store) {
	// shop-a sorts before shop/… as text, and after it as a pair.
	want := []string{"a/z", "shop/a", "shop/a.b", "shop/b", "shop-a/a"}
	for _, key := range slices.Backward(want) {
		namespace, name, _ := strings.Cut(key, "/")
		apply(t, s, alice, object(namespace, name, "one"))
	}
	all, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range all {
		got = append(got, store.KeyOf(o).String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("List is %v, want %v", got, want)
	}
}

func handedOut(t *testing.T, s store.Store) {
	apply(t, s, alice, full())
	old := get(t, s, store.KeyOf(full()))
	next := full()
	next.Spec.EncryptedData["password"] = header + "two"
	next.Spec.Workloads[0] = "other"
	next.Labels["team"] = "web"
	next.Spec.Secret.Metadata.Labels["a"] = "9"
	apply(t, s, alice, next)
	if err := s.Delete(t.Context(), alice, store.KeyOf(next)); err != nil {
		t.Fatal(err)
	}
	if text(old) != "one" || old.Spec.Workloads[0] != "api" || old.Labels["team"] != "pay" ||
		old.Spec.Secret.Metadata.Labels["a"] != "1" {
		t.Errorf("the object that was handed out became %+v", old)
	}
}

func callerKeeps(t *testing.T, s store.Store) {
	o := full()
	apply(t, s, alice, o)
	if len(o.Labels) != 1 {
		t.Errorf("Apply changed its argument: labels %v", o.Labels)
	}
	o.Spec.EncryptedData["password"] = header + "two"
	o.Spec.Workloads[0] = "other"
	o.Labels["team"] = "web"
	o.Annotations["note"] = "other"
	o.Spec.Secret.Type = "other"
	o.Spec.Secret.Metadata.Labels["a"] = "9"
	if apply(t, s, alice, full()) {
		t.Error("changing what was given to Apply changed the store")
	}
}

func large(t *testing.T, s store.Store) {
	// Keys and values together are what counts.
	value := strings.Repeat("0123456789abcdef", 1<<16)[len("password"+header):]
	apply(t, s, alice, object("shop", "large", value))
	if got := get(t, s, store.Key{Namespace: "shop", Name: "large"}); text(got) != value {
		t.Error("the value came back changed")
	}
}

func endedContext(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	key := store.Key{Namespace: "shop", Name: "db"}
	if _, err := s.Apply(ctx, alice, object("shop", "db", "one")); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply: %v", err)
	}
	if _, err := s.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	apply(t, s, alice, object("shop", "db", "one"))
	if err := s.Delete(ctx, alice, key); !errors.Is(err, context.Canceled) {
		t.Errorf("Delete: %v", err)
	}
	get(t, s, key)
}

// concurrent has writers with keys of their own, writers that fight over one
// key, and readers. It is for the race detector as much as for its checks.
func concurrent(t *testing.T, s store.Store) {
	const writers, rounds = 4, 12
	w := watch(t, s)
	var all sync.WaitGroup
	for i := range writers {
		owner := fmt.Sprintf("shop.owner-%d", i)
		all.Go(func() {
			for r := range rounds {
				if _, err := s.Apply(t.Context(), owner, object("shop", fmt.Sprintf("own-%d", i), fmt.Sprint(r))); err != nil {
					t.Errorf("Apply: %v", err)
				}
				if _, err := s.Apply(t.Context(), owner, object("shop", "shared", owner)); err != nil && !errors.Is(err, store.ErrNotOwned) {
					t.Errorf("Apply of the shared object: %v", err)
				}
				if err := s.Delete(t.Context(), owner, store.Key{Namespace: "shop", Name: "shared"}); err != nil && !errors.Is(err, store.ErrNotOwned) {
					t.Errorf("Delete of the shared object: %v", err)
				}
			}
		})
		all.Go(func() {
			for range rounds {
				list, err := s.List(t.Context())
				if err != nil {
					t.Errorf("List: %v", err)
				}
				for _, o := range list {
					if o.Name == "shared" && o.Labels[v1alpha1.LabelSource] != text(o) {
						t.Errorf("the object of %s is owned by %s", text(o), o.Labels[v1alpha1.LabelSource])
					}
				}
			}
		})
	}
	all.Wait()
	want := make(map[store.Key]string)
	list, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list {
		want[store.KeyOf(o)] = text(o)
	}
	for i := range writers {
		if got := want[store.Key{Namespace: "shop", Name: fmt.Sprintf("own-%d", i)}]; got != fmt.Sprint(rounds-1) {
			t.Errorf("writer %d's last object holds %q", i, got)
		}
	}
	w.until(t, "the watch knows what the store holds", func(known map[store.Key]string, _ bool) bool {
		return maps.Equal(known, want)
	})
}

// verifyNoLeak fails t if goroutines that do not run now run at its end, after
// what is registered later was cleaned up.
func verifyNoLeak(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}
