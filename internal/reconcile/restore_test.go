package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func override(revision string) reconcile.Override {
	return reconcile.Override{AcceptRewrite: sync.Revision(revision)}
}

func key(name string) store.Key { return store.Key{Namespace: "shop", Name: name} }

// edit changes an object behind its source's back; the source's label stays.
func (e *env) edit(name string, change func(*v1alpha1.EncryptedSecret)) {
	e.t.Helper()
	o, err := e.store.Get(context.Background(), key(name))
	if err != nil {
		e.t.Fatal(err)
	}
	o = o.DeepCopy()
	change(o)
	if _, err := e.store.Apply(context.Background(), e.config.Name, o); err != nil {
		e.t.Fatal(err)
	}
	e.saw(key(name))
}

func (e *env) delete(name string) {
	e.t.Helper()
	if err := e.store.Delete(context.Background(), e.config.Name, key(name)); err != nil {
		e.t.Fatal(err)
	}
	e.saw(key(name))
}

// saw tells the source what became of an object, as a watch does.
func (e *env) saw(key store.Key) {
	e.t.Helper()
	o, err := e.store.Get(context.Background(), key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		e.source.Saw(store.Event{Type: store.Deleted, Key: key})
	case err != nil:
		e.t.Fatal(err)
	default:
		e.source.Saw(store.Event{Type: store.Applied, Key: key, Object: o})
	}
}

func spoil(o *v1alpha1.EncryptedSecret) { o.Spec.EncryptedData["k"] = "QQ==" }

func TestWhatSomebodyChangedIsPutBack(t *testing.T) {
	tests := map[string]struct {
		do  func(e *env)
		how string
	}{
		"a value":       {func(e *env) { e.edit("a", spoil) }, reconcile.Edited},
		"another value": {func(e *env) { e.edit("a", func(o *v1alpha1.EncryptedSecret) { o.Spec.EncryptedData["l"] = "QQ==" }) }, reconcile.Edited},
		"a reader":      {func(e *env) { e.edit("a", func(o *v1alpha1.EncryptedSecret) { o.Spec.Workloads = []string{"evil"} }) }, reconcile.Edited},
		"delivery": {func(e *env) {
			e.edit("a", func(o *v1alpha1.EncryptedSecret) { o.Spec.Secret = &v1alpha1.SecretDelivery{} })
		}, reconcile.Edited},
		"its path": {func(e *env) {
			e.edit("a", func(o *v1alpha1.EncryptedSecret) { o.Annotations[v1alpha1.AnnotationPath] = "x" })
		}, reconcile.Edited},
		"a label":    {func(e *env) { e.edit("a", func(o *v1alpha1.EncryptedSecret) { o.Labels["tier"] = "x" }) }, reconcile.Edited},
		"a deletion": {func(e *env) { e.delete("a") }, reconcile.Deleted},
	}
	for name, test := range tests {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, remote away %v", name, away), func(t *testing.T) {
				e := newEnv(t)
				files := map[string]string{"a.yaml": strings.Replace(e.seal("shop", "a", "k=v"), "namespace: shop", "namespace: shop, labels: {tier: db}", 1)}
				for i := range 30 {
					name := fmt.Sprint("s", i)
					files[name+".yaml"] = e.seal("shop", name, "k=v")
				}
				e.commit(files)
				e.sync()
				want := e.stored()
				before, err := e.store.Get(context.Background(), key("a"))
				if err != nil {
					t.Fatal(err)
				}
				e.told.take()
				test.do(e)
				if away {
					if err := os.Rename(e.repo.Dir, e.repo.Dir+".away"); err != nil {
						t.Fatal(err)
					}
				}
				read := e.source.ObjectsRead()
				e.spy.gets.Store(0)
				if err := e.source.Sync(context.Background()); (err != nil) != away {
					t.Fatal(err)
				}
				if n := e.source.ObjectsRead() - read; n != 1 {
					t.Errorf("%d git objects were read for one", n)
				}
				e.wantTold("applied shop/a "+sync.Revision(e.source.Status().Revision).Short(), "restored shop/a "+test.how)
				e.wantStored(want)
				after, err := e.store.Get(context.Background(), key("a"))
				if err != nil || !maps.Equal(before.Labels, after.Labels) || !maps.Equal(before.Annotations, after.Annotations) || after.Spec.Secret != nil {
					t.Errorf("%v, %+v", err, after)
				}
				// What we did ourselves is nothing to put back.
				read = e.source.ObjectsRead()
				e.saw(key("a"))
				_ = e.source.Sync(context.Background())
				e.wantTold()
				if n := e.source.ObjectsRead() - read; n != 0 {
					t.Errorf("%d git objects were read for nothing", n)
				}
			})
		}
	}
}

func TestWhatIsNoneOfTheSourcesIsLeftAlone(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v")})
	e.sync()
	o, err := e.store.Get(context.Background(), key("a"))
	if err != nil {
		t.Fatal(err)
	}
	labelled := o.DeepCopy()
	labelled.Labels["team"], labelled.Annotations["note"] = "x", "y"
	e.spy.gets.Store(0)
	e.source.Saw(store.Event{Type: store.Applied, Key: key("a"), Object: labelled})
	e.source.Saw(store.Event{Type: store.Applied, Key: key("other"), Object: labelled})
	e.source.Saw(store.Event{Type: store.Deleted, Key: key("other")})
	e.source.Saw(store.Event{Type: store.Synced})
	e.sync()
	if n := e.spy.gets.Load(); n != 0 {
		t.Errorf("%d objects were looked up", n)
	}
}

// Deleted while its manifest is at fault, there is nothing to put in its place; git is what brings
// it back.
func TestWhatCannotBePutBackIsNotMissed(t *testing.T) {
	e := newEnv(t)
	good := map[string]string{"a.yaml": e.seal("shop", "a", "k=v"), "b.yaml": e.seal("shop", "b", "k=v")}
	e.commit(good)
	e.sync()
	e.commit(map[string]string{"a.yaml": "vsecm.com/: ["})
	e.sync()
	e.delete("a")
	for range 2 {
		if st := e.sync(); st.Objects != 1 || st.PendingDeletions.Total != 0 {
			t.Errorf("status: %+v", st)
		}
	}
	e.commit(good)
	if st := e.sync(); st.Objects != 2 {
		t.Errorf("status: %+v", st)
	}
	e.wantStored("shop/a{k=v} shop/b{k=v}")
}

func TestWhatWasChangedDuringASealIsPutBackAfterIt(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v"), "b.yaml": e.seal("shop", "b", "k=v")})
	e.sync()
	ring := e.keys.ring.Load()
	e.shut()
	e.delete("a")
	e.edit("b", spoil)
	if err := e.source.Sync(context.Background()); !errors.Is(err, reconcile.ErrSealed) {
		t.Fatal(err)
	}
	e.keys.ring.Store(ring)
	e.keys.era.Store(2)
	e.sync()
	e.wantStored("shop/a{k=v} shop/b{k=v}")
}

func TestAContestedObjectIsLeftAlone(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v"), "b.yaml": e.seal("shop", "b", "k=v")})
	e.sync()
	// round reports whether an edit of the moment was put back.
	round := func() bool {
		t.Helper()
		e.sync()
		o, err := e.store.Get(context.Background(), key("a"))
		if err != nil {
			t.Fatal(err)
		}
		return o.Spec.EncryptedData["k"] != "QQ=="
	}
	for i := range 5 {
		e.edit("a", spoil)
		if !round() {
			t.Fatalf("edit %d was not put back", i)
		}
		e.now = e.now.Add(time.Second)
	}
	for _, pause := range []time.Duration{10, 20, 40, 80, 160, 320, 600, 600} {
		pause *= time.Second
		e.edit("a", spoil)
		if round() {
			t.Fatalf("put back before its pause of %v", pause)
		}
		st := e.source.Status()
		e.wantFaults(st, "someone else keeps changing it", "a.yaml:3 metadata.name")
		if st.Contested != 1 || st.Error != "" {
			t.Errorf("status: %+v", st)
		}
		e.now = e.now.Add(pause - 2*time.Second)
		if round() {
			t.Fatalf("put back 2 s before its pause of %v was over", pause)
		}
		e.now = e.now.Add(2 * time.Second)
		if !round() {
			t.Fatalf("not put back after %v", pause)
		}
	}
	// What somebody else fights over holds up nothing but itself.
	e.edit("a", spoil)
	e.commit(map[string]string{"c.yaml": e.seal("shop", "c", "k=v")}, "b.yaml")
	if round() {
		t.Error("put back at once")
	}
	if st := e.source.Status(); st.DeletionsWait != "" || st.Revision != e.repo.Head() {
		t.Errorf("status: %+v", st)
	}
	e.now = e.now.Add(10 * time.Minute)
	if !round() {
		t.Error("not put back")
	}
	e.now = e.now.Add(10*time.Minute + 1)
	if st := e.sync(); st.Contested != 0 || st.Faults.Total != 0 {
		t.Errorf("left in peace, and still contested: %+v", st.Faults)
	}
	e.edit("a", spoil)
	if !round() {
		t.Error("not put back at once")
	}
}

// An object belongs to whom its label names, whoever set that.
func TestAnObjectThatSomebodyTakesIsTheirs(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=ours"), "b.yaml": e.seal("shop", "b", "k=v")})
	e.sync()
	e.told.take()
	theirs := encrypt.ReadManifests("x", []byte(e.seal("shop", "a", "k=theirs")), "").Objects[0].Object
	if err := e.store.Delete(context.Background(), e.config.Name, key("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := e.store.Apply(context.Background(), "shop.other", theirs); err != nil {
		t.Fatal(err)
	}
	e.saw(key("a"))
	st := e.sync()
	e.wantFaults(st, "shop.other", "a.yaml:3 metadata.name")
	e.wantStored("shop/a{k=theirs} shop/b{k=v}")
	e.wantTold("refused shop/a [a.yaml:3]")
	if st.Objects != 1 {
		t.Errorf("%d objects", st.Objects)
	}
	// As long as it is theirs, what they do to it is nothing to us.
	e.spy.gets.Store(0)
	e.saw(key("a"))
	e.sync()
	if n := e.spy.gets.Load(); n != 0 {
		t.Errorf("%d objects were looked up", n)
	}
	// It is ours as soon as they let go, and not only after the pause.
	if err := e.store.Delete(context.Background(), "shop.other", key("a")); err != nil {
		t.Fatal(err)
	}
	e.saw(key("a"))
	st = e.sync()
	e.wantFaults(st, "")
	e.wantStored("shop/a{k=ours} shop/b{k=v}")
	if st.Objects != 2 {
		t.Errorf("%d objects", st.Objects)
	}
}

// What could not be written is tried again when something happens to it. That is nobody's edit.
func TestAWriteThatFailedIsNotTakenForAnEdit(t *testing.T) {
	for name, lands := range map[string]bool{"it was not done": false, "it was done": true} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v")})
			e.sync()
			manifest := e.seal("shop", "a", "k=w")
			head := sync.Revision(e.commit(map[string]string{"a.yaml": manifest}))
			e.spy.apply = func(store.Key) error {
				if lands {
					o := encrypt.ReadManifests("a.yaml", []byte(manifest), "").Objects[0].Object
					o.Annotations = map[string]string{v1alpha1.AnnotationPath: "a.yaml"}
					if _, err := e.store.Apply(context.Background(), e.config.Name, o); err != nil {
						t.Error(err)
					}
				}
				return errors.New("no answer")
			}
			if err := e.source.Sync(context.Background()); err == nil || e.source.Status().ErrorReason != "apply" {
				t.Fatal(err)
			}
			e.spy.apply = nil
			e.told.take()
			e.saw(key("a"))
			e.sync()
			e.wantStored("shop/a{k=w}")
			if lands {
				e.wantTold("stands shop/a " + head.Short())
			} else {
				e.wantTold("applied shop/a " + head.Short())
			}
			e.wantSeries("vsecm_sync_restored_total")
			e.edit("a", spoil)
			e.sync()
			e.wantStored("shop/a{k=w}")
			e.wantTold("applied shop/a "+head.Short(), "restored shop/a edited")
		})
	}
}

// Somebody deletes a namespace: everything in it is deleted, and cannot be written. That is the
// fault of those objects alone, and is not tried all the time.
func TestPromise06_WhatTheAPIServerRefusesHarmsOnlyItself(t *testing.T) {
	e := newEnv(t)
	files := map[string]string{"z.yaml": e.seal("other", "z", "k=v")}
	for i := range 20 {
		name := fmt.Sprintf("s%02d", i)
		files[name+".yaml"] = e.seal("shop", name, "k=v")
	}
	e.commit(files)
	e.sync()
	want := e.stored()
	tries := 0
	refusing := true
	e.spy.apply = func(k store.Key) error {
		if refusing && k.Namespace == "shop" {
			e.mu.Lock()
			defer e.mu.Unlock()
			tries++
			return fmt.Errorf("storing: %w", apierrors.NewForbidden(schema.GroupResource{Resource: "encryptedsecrets"}, k.Name, errors.New("namespace is being terminated")))
		}
		return nil
	}
	for name := range maps.Keys(files) {
		if name != "z.yaml" {
			e.delete(strings.TrimSuffix(name, ".yaml"))
		}
	}
	e.commit(map[string]string{"z.yaml": e.seal("other", "z", "k=w")})
	for range 5 {
		for name := range maps.Keys(files) {
			e.saw(key(strings.TrimSuffix(name, ".yaml")))
		}
		if st := e.sync(); st.Faults.Total != 20 || st.Revision != e.repo.Head() || !strings.Contains(st.Faults.Items[0].Message, "terminated") {
			t.Fatalf("status: %+v", st)
		}
	}
	if tries != 20 {
		t.Errorf("%d tries at 20 objects", tries)
	}
	e.wantStored("other/z{k=w}")
	refusing = false
	e.now = e.now.Add(10 * time.Second)
	if st := e.sync(); st.Faults.Total != 0 {
		t.Errorf("faults: %+v", st.Faults)
	}
	e.wantStored(strings.Replace(want, "other/z{k=v}", "other/z{k=w}", 1))
}

// Between rounds, without the remote.
func TestRunPutsBackAtOnce(t *testing.T) {
	e := newEnv(t)
	e.config.Interval = time.Hour
	e.restart()
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v")})
	ctx, stop := context.WithCancel(context.Background())
	rounds := make(chan reconcile.Status, 100)
	e.reported = func() { rounds <- e.source.Status() }
	done := make(chan error, 2)
	go func() { e.source.Run(ctx); done <- nil }()
	go func() {
		done <- reconcile.Follow(ctx, e.store, func() []*reconcile.Source { return []*reconcile.Source{e.source} })
	}()
	if st := <-rounds; st.Revision == "" {
		t.Fatalf("status: %+v", st)
	}
	if err := os.Rename(e.repo.Dir, e.repo.Dir+".away"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := e.store.Delete(ctx, e.config.Name, key("a")); err != nil {
			t.Fatal(err)
		}
		if st := <-rounds; st.Error != "" || st.Objects != 1 {
			t.Errorf("status: %+v", st)
		}
		e.wantStored("shop/a{k=v}")
	}
	stop()
	if err := errors.Join(<-done, <-done); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	lines := e.told.take()
	if n := len(slices.DeleteFunc(lines, func(s string) bool { return !strings.HasPrefix(s, "restored") })); n != 3 {
		t.Errorf("told %d times", n)
	}
}
