package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

func TestWorkloadReadsWhatNamesIt(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "own name"))
	r.apply(r.one("shop", "api", "for others", "worker"))
	r.apply(r.one("shop", "shared", "two readers", "db", "api"))
	r.apply(r.one("web", "db", "other namespace"))
	r.apply(seal(t, r.key, "shop", "z", map[string]string{"a": "1", "b": "", "c": "bin\x00\xff"}, "db"))
	r.run()
	tests := map[identity.Workload]map[string]string{
		db:                                  {"db/password": "own name", "shared/password": "two readers", "z/a": "1", "z/b": "", "z/c": "bin\x00\xff"},
		api:                                 {"shared/password": "two readers"},
		{Namespace: "shop", Name: "worker"}: {"api/password": "for others"},
		{Namespace: "web", Name: "db"}:      {"db/password": "other namespace"},
		{Namespace: "web", Name: "shared"}:  {},
		{Namespace: "shop", Name: "shared"}: {},
		{}:                                  {},
	}
	for w, want := range tests {
		r.expect(w, want)
	}
}

func TestSecretTellsItsVersionAndAge(t *testing.T) {
	r := newRoom(t)
	old, recent := time.Unix(1_700_000_000, 0), time.Unix(1_750_000_000, 0)
	o := sealAt(t, r.key, old, "shop", "db", map[string]string{"a": "1", "c": "3"})
	o.Spec.EncryptedData["b"] = sealAt(t, r.key, recent, "shop", "db", map[string]string{"b": ""}).Spec.EncryptedData["b"]
	r.apply(o)
	r.run()
	for range 2 {
		secrets, _, err := r.cache.Secrets(t.Context(), db)
		if err != nil || len(secrets) != 1 {
			t.Fatal(secrets, err)
		}
		s := secrets[0]
		if s.Name != "db" || !s.Updated.Equal(recent) || s.Version != newVersion(o).id() || len(s.Version) != 16 {
			t.Errorf("it is %s of %s, version %s", s.Name, s.Updated, s.Version)
		}
		if b, ok := s.Data["b"]; !ok || b == nil {
			t.Error("an empty value is missing, or nil")
		}
		Wipe(secrets)
		if got := string(s.Data["a"]); got != "\x00" {
			t.Errorf("after Wipe it is %q", got)
		}
	}
}

func TestNothingIsDecryptedThatNobodyAskedFor(t *testing.T) {
	r := newRoom(t)
	for i := range 5 {
		r.apply(r.one("shop", fmt.Sprintf("s%d", i), "x"))
	}
	r.apply(seal(t, r.key, "shop", "db", map[string]string{"a": "1", "b": "2", "c": "3"}))
	r.run()
	r.cache.ETag(db)
	if n := r.opened(); n != 0 {
		t.Errorf("%d values were opened before anybody asked", n)
	}
	for range 3 {
		read(t, r.cache, db)
	}
	if n := r.opened(); n != 3 {
		t.Errorf("%d values were opened for three keys", n)
	}
	// One value of three changes: the others are known.
	o := seal(t, r.key, "shop", "db", map[string]string{"a": "9"})
	was, err := r.store.Get(t.Context(), store.Key{Namespace: "shop", Name: "db"})
	if err != nil {
		t.Fatal(err)
	}
	o.Spec.EncryptedData["b"], o.Spec.EncryptedData["c"] = was.Spec.EncryptedData["b"], was.Spec.EncryptedData["c"]
	r.applyAndSee(o)
	r.expect(db, map[string]string{"db/a": "9", "db/b": "2", "db/c": "3"})
	if n := r.opened(); n != 4 {
		t.Errorf("%d values were opened after one of three changed", n)
	}
}

func TestThousandReadersDecryptOnce(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "correct horse"))
	r.run()
	start := make(chan struct{})
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			<-start
			secrets, _, err := r.cache.Secrets(t.Context(), db)
			if err != nil || len(secrets) != 1 || string(secrets[0].Data["password"]) != "correct horse" {
				t.Errorf("a reader got %v, %v", secrets, err)
			}
			// If readers shared bytes, this would spoil the others'.
			Wipe(secrets)
		})
	}
	close(start)
	all.Wait()
	if n := r.opened(); n != 1 {
		t.Errorf("the value was opened %d times", n)
	}
}

// A badKind is a way for an object to be unreadable.
type badKind struct {
	reason string
	make   func(r *room, namespace, name string) *v1alpha1.EncryptedSecret
}

// opens tells whether its values open all the same.
func (b badKind) opens() bool { return b.reason == "template" }

var badKinds = map[string]badKind{
	"sealed for another place": {"elsewhere", func(r *room, namespace, name string) *v1alpha1.EncryptedSecret {
		o := r.one("elsewhere", name, "stolen")
		o.Namespace = namespace
		return o
	}},
	"a reader added": {"elsewhere", func(r *room, namespace, name string) *v1alpha1.EncryptedSecret {
		o := r.one(namespace, name, "stolen")
		o.Spec.Workloads = []string{name, "thief"}
		return o
	}},
	"sealed to a key that is not held": {"key_not_held", func(r *room, namespace, name string) *v1alpha1.EncryptedSecret {
		return seal(r.t, r.other, namespace, name, map[string]string{"password": "foreign"})
	}},
	"sealed in the future": {"future", func(r *room, namespace, name string) *v1alpha1.EncryptedSecret {
		return sealAt(r.t, r.key, time.Now().Add(time.Hour), namespace, name, map[string]string{"password": "early"})
	}},
	"cut off": {"malformed", func(r *room, namespace, name string) *v1alpha1.EncryptedSecret {
		o := r.one(namespace, name, "whole")
		sealed := o.Spec.EncryptedData["password"]
		o.Spec.EncryptedData["password"] = sealed[:len(sealed)-8]
		return o
	}},
	"one value of two": {"malformed", func(r *room, namespace, name string) *v1alpha1.EncryptedSecret {
		o := r.one(namespace, name, "whole")
		o.Spec.EncryptedData["z"] = "not base64"
		return o
	}},
	"an unknown scope": {"invalid", func(r *room, namespace, name string) *v1alpha1.EncryptedSecret {
		o := r.one(namespace, name, "whole")
		o.Spec.Scope = "universe"
		return o
	}},
	"too many keys": {"invalid", func(r *room, namespace, name string) *v1alpha1.EncryptedSecret {
		o := r.one(namespace, name, "whole")
		for i := range encrypt.MaxKeys {
			o.Spec.EncryptedData[fmt.Sprint(i)] = ""
		}
		return o
	}},
	"a template that needs a key that is not there": failing(map[string]string{"url": "{{ .user }}"}),
	"a template that cannot be parsed":              failing(map[string]string{"url": "{{ .password"}),
	"a template that loops":                         failing(map[string]string{"url": `{{ range 1000000000 }}{{ end }}`}),
	"a template that prints too much":               failing(map[string]string{"url": `{{ range 9000 }}0123456789012345678901234567890123456789{{ $.password }}{{ end }}`}),
	"a template that fails after a good key":        failing(map[string]string{"a": "{{ .password }}", "z": "{{ .password | b64dec | fromJson }}"}),
	"a template for a path":                         failing(map[string]string{"../password": "{{ .password }}"}),
	"a template without keys":                       failing(nil),
}

// failing is an object that has a template of these texts, with which there is something wrong.
func failing(texts map[string]string) badKind {
	return badKind{"template", func(r *room, namespace, name string) *v1alpha1.EncryptedSecret {
		return r.templated(namespace, name, texts, map[string]string{"password": "whole"})
	}}
}

func TestPromise06_OneBadObjectHarmsOnlyItself(t *testing.T) {
	for name, bad := range badKinds {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			r.apply(r.one("shop", "a", "first", "db"))
			r.apply(bad.make(r, "shop", "db"))
			r.apply(r.one("shop", "z", "last", "db"))
			r.run()
			others := map[string]string{"a/password": "first", "z/password": "last"}
			for range 3 {
				r.expect(db, others)
			}
			r.expect(identity.Workload{Namespace: "shop", Name: "thief"}, nil)
			if n := testutil.ToFloat64(r.cache.metrics.unreadable.WithLabelValues(bad.reason)); n != 1 {
				t.Errorf("%v versions are counted as %s", n, bad.reason)
			}
			log := r.log.String()
			if n := strings.Count(log, "object=shop/db"); n != 1 || strings.Contains(log, "whole") {
				t.Errorf("it was logged %d times:\n%s", n, log)
			}

			// Repaired, it is served at once.
			r.applyAndSee(r.one("shop", "db", "repaired"))
			others["db/password"] = "repaired"
			r.expect(db, others)
		})
	}
}

func TestPromise06_ABadVersionLeavesTheLastGoodOne(t *testing.T) {
	for name, bad := range badKinds {
		for _, wasRead := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, was read: %t", name, wasRead), func(t *testing.T) {
				r := newRoom(t)
				r.apply(r.one("shop", "db", "good"))
				r.run()
				if wasRead {
					r.expect(db, map[string]string{"db/password": "good"})
				}
				etag := r.cache.ETag(db)
				ctx, cancel := context.WithCancel(t.Context())
				waiting := make(chan error, 1)
				go func() { waiting <- r.cache.Wait(ctx, db, etag) }()
				r.applyAndSee(bad.make(r, "shop", "db"))
				r.expect(db, map[string]string{"db/password": "good"})
				r.applyAndSee(r.one("shop", "db", "second bad", "nobody-else")) // good again, for others
				r.expect(db, nil)
				if err := <-waiting; err != nil {
					t.Errorf("Wait: %v", err)
				}
				cancel()
				for _, value := range []string{"good", "stolen", "foreign", "early", "whole"} {
					if s := r.log.String(); strings.Contains(s, value) {
						t.Errorf("a value is in the log:\n%s", s)
					}
				}
			})
		}
	}
}

func TestBadVersionDoesNotWakeReaders(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "good"))
	r.run()
	etag := r.cache.ETag(db)
	changed, err := r.cache.subscribe(db, etag)
	if changed == nil || err != nil {
		t.Fatal(changed, err)
	}
	defer r.cache.unsubscribe(db)
	for _, bad := range badKinds {
		r.applyAndSee(bad.make(r, "shop", "db"))
		select {
		case <-changed:
			t.Fatal("readers were woken for a version that they do not get")
		default:
		}
		if r.cache.ETag(db) != etag {
			t.Error("the tag changed")
		}
	}
	r.expect(db, map[string]string{"db/password": "good"})
}

func TestLabelsAreNoNewVersion(t *testing.T) {
	r := newRoom(t)
	o := r.one("shop", "db", "x")
	r.apply(o)
	r.run()
	read(t, r.cache, db)
	etag := r.cache.ETag(db)
	o.Labels = map[string]string{"team": "pay"}
	o.Annotations = map[string]string{v1alpha1.AnnotationPath: "elsewhere.yaml"}
	r.apply(o)
	key := store.KeyOf(o)
	wait.Until(t, "the cache holds the object that the store holds", func() bool {
		held, err := r.store.Get(t.Context(), key)
		r.cache.mu.RLock()
		defer r.cache.mu.RUnlock()
		return err == nil && held.Labels["team"] == "pay" && r.cache.objects[key].newest.object == held
	})
	if r.cache.ETag(db) != etag {
		t.Error("the tag changed")
	}
	r.expect(db, map[string]string{"db/password": "x"})
	if r.opened() != 1 {
		t.Errorf("opened %d times", r.opened())
	}
}

func TestReplicasAgree(t *testing.T) {
	r := newRoom(t)
	for i := range 20 {
		r.apply(r.one("shop", fmt.Sprintf("s%d", i), "x", "db"))
	}
	r.run()
	replica := r.newCache()
	run(t, replica, r.store)
	if a, b := r.cache.ETag(db), replica.ETag(db); a != b {
		t.Errorf("one says %s, the other %s", a, b)
	}
	read(t, r.cache, db)
	if a, b := r.cache.ETag(db), replica.ETag(db); a != b {
		t.Errorf("after a read one says %s, the other %s", a, b)
	}
	if tag := r.cache.ETag(db); len(tag) != 34 || tag[0] != '"' || tag[33] != '"' {
		t.Errorf("the tag %s is not strong and quoted", tag)
	}
}

func TestDeletedObjectsAreGone(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "x"))
	r.apply(r.one("shop", "other", "x", "db"))
	r.run()
	r.expect(db, map[string]string{"db/password": "x", "other/password": "x"})
	if err := r.store.Delete(t.Context(), owner, store.Key{Namespace: "shop", Name: "db"}); err != nil {
		t.Fatal(err)
	}
	etag := tagOf([]*version{newVersion(mustGet(t, r.store, "shop", "other"))})
	wait.Until(t, "one is gone", func() bool { return r.cache.ETag(db) == etag })
	r.expect(db, map[string]string{"other/password": "x"})

	// Deleted while nobody watches.
	if err := r.stop(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := r.store.Delete(t.Context(), owner, store.Key{Namespace: "shop", Name: "other"}); err != nil {
		t.Fatal(err)
	}
	r.expect(db, map[string]string{"other/password": "x"})
	run(t, r.cache, r.store)
	wait.Until(t, "the other is gone", func() bool { return r.cache.ETag(db) == emptyTag })
	r.expect(db, nil)
	if n := len(r.cache.vault.held); n != 0 {
		t.Errorf("%d values are kept of no object", n)
	}
	if n := len(r.cache.audiences); n != 0 {
		t.Errorf("%d audiences are kept", n)
	}
}

func mustGet(t testing.TB, s store.Store, namespace, name string) *v1alpha1.EncryptedSecret {
	t.Helper()
	o, err := s.Get(t.Context(), store.Key{Namespace: namespace, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestEndedContextReadsNothing(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "x"))
	r.run()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, _, err := r.cache.Secrets(ctx, db); !errors.Is(err, context.Canceled) || s != nil {
		t.Errorf("Secrets: %v, %v", s, err)
	}
	r.expect(db, map[string]string{"db/password": "x"})
}

// TestReadersBindingAndBytesAreOfOneVersion turns an object over and over from
// one reader's to another's, and back.
func TestReadersBindingAndBytesAreOfOneVersion(t *testing.T) {
	r := newRoom(t)
	versions := []*v1alpha1.EncryptedSecret{r.one("shop", "s", "for db", "db"), r.one("shop", "s", "for api", "api")}
	r.apply(versions[0])
	r.run()
	done := make(chan struct{})
	var all sync.WaitGroup
	for w, want := range map[identity.Workload]string{db: "for db", api: "for api"} {
		for range 2 {
			all.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					secrets, _, err := r.cache.Secrets(t.Context(), w)
					if err != nil {
						t.Error(err)
						return
					}
					for _, s := range secrets {
						if got := string(s.Data["password"]); got != want {
							t.Errorf("%s got %q", w, got)
						}
					}
					Wipe(secrets)
				}
			})
		}
	}
	for i := range 40 {
		r.applyAndSee(versions[(i+1)%2])
	}
	close(done)
	all.Wait()
	if s := r.log.String(); s != "" {
		t.Errorf("logged: %s", s)
	}
}

// A value that is sealed for a whole namespace, for delivery as a Secret alone,
// has no reader: its object's name is whoever's who writes to the repository.
func TestPromise04_ANameThatIsNotBoundMakesNobodyAReader(t *testing.T) {
	r := newRoom(t)
	o := &v1alpha1.EncryptedSecret{}
	o.Namespace, o.Name = "shop", "db"
	o.Spec.Scope, o.Spec.Secret = string(encrypt.Namespace), &v1alpha1.SecretDelivery{Type: "Opaque"}
	sealed, err := encrypt.Seal([]byte("for delivery"), encrypt.BindingOf(o, "password"), []encrypt.Recipient{r.key.Recipient()}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o.Spec.EncryptedData = map[string]string{"password": sealed}
	r.apply(o)
	r.run()
	r.expect(db, map[string]string{})
	if n := r.opened(); n != 0 {
		t.Errorf("%d values were opened", n)
	}
}
