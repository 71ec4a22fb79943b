package deliver_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	gosync "sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/deliver"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func TestMissingGrantIsAConditionThatSaysWhatToDo(t *testing.T) {
	w := newWorldOf(t, cluster.Start(t), "forbidden")
	s := w.safe(t).lead(t)
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered))
	w.put(t, w.object(t, "api", map[string]string{"a": "1"}))
	o := w.settled(t, "db", deliver.ReasonDeliveryForbidden)
	w.settled(t, "api", deliver.ReasonServed)
	if !meta.IsStatusConditionTrue(o.Status.Conditions, condition.Stalled) || len(o.Status.KeyIDs) != 1 {
		t.Errorf("status %+v", o.Status)
	}
	_, command, _ := strings.Cut(messageOf(o), "to let it: kubectl ")
	w.kubectl(t, "", strings.Fields(command)...) // as the status says
	w.settled(t, "db", deliver.ReasonDelivered)
	same(t, "data", w.dataOf(t, "db"), map[string]string{"a": "1"})

	// Taken away again, it is noticed with the next write.
	w.kubectl(t, "", "delete", "rolebinding", "-n", "forbidden", "vsecm-deliver")
	w.put(t, w.object(t, "db", map[string]string{"a": "2"}, delivered))
	o = w.settled(t, "db", deliver.ReasonDeliveryForbidden)
	if o.Status.Secret == nil {
		t.Error("what was delivered is forgotten")
	}
	w.grant(t)
	w.settled(t, "db", deliver.ReasonDelivered)
	same(t, "data", w.dataOf(t, "db"), map[string]string{"a": "2"})
	s.events.saying(t, "db", deliver.ReasonDeliveryForbidden, deliver.ReasonDelivered, deliver.ReasonDeliveryForbidden, deliver.ReasonDelivered)
}

func TestWhatIsNeverDelivered(t *testing.T) {
	w := newWorld(t, "never")
	w.safe(t).lead(t)
	meta := func(labels, annotations map[string]string) option {
		return func(o *v1alpha1.EncryptedSecret) {
			o.Spec.Secret = &v1alpha1.SecretDelivery{Metadata: v1alpha1.SecretMetadata{Labels: labels, Annotations: annotations}}
		}
	}
	for name, tt := range map[string]struct {
		option       option
		reason, says string
	}{
		"a-label-of-kubernetes":  {meta(map[string]string{"app.kubernetes.io/name": "x"}, nil), deliver.ReasonLabelsRefused, "spec.secret.metadata.labels: app.kubernetes.io/name"},
		"an-annotation-of-ours":  {meta(nil, map[string]string{"vsecm.com/adopt": "true"}), deliver.ReasonLabelsRefused, "spec.secret.metadata.annotations: vsecm.com/adopt"},
		"in-capitals":            {meta(nil, map[string]string{"Kubernetes.IO/x": "true"}), deliver.ReasonLabelsRefused, "Kubernetes.IO/x"},
		"what-only-looks-alike":  {meta(map[string]string{"notkubernetes.io/x": "y"}, nil), deliver.ReasonDelivered, ""},
		"a-type-that-wants-more": {ofType("kubernetes.io/tls"), deliver.ReasonDeliveryFailed, "data[tls.crt] is required"},
	} {
		t.Run(name, func(t *testing.T) {
			w.put(t, w.object(t, name, map[string]string{"a": "1"}, tt.option))
			o := w.settled(t, name, tt.reason)
			if !strings.Contains(messageOf(o), tt.says) {
				t.Errorf("it says %q", messageOf(o))
			}
			if (w.secret(t, name) == nil) != (tt.reason != deliver.ReasonDelivered) {
				t.Errorf("there is %v", w.dataOf(t, name))
			}
		})
	}
	in := *w
	in.namespace = safeNamespace
	o := in.object(t, "db", map[string]string{"a": "1"}, delivered)
	in.put(t, o)
	t.Cleanup(func() { in.kubectl(t, "", "delete", "encryptedsecret", "-n", safeNamespace, "db") })
	in.settled(t, "db", deliver.ReasonDeliveryRefused)
	if in.secret(t, "db") != nil {
		t.Error("there is a Secret in Safe's own namespace")
	}
}

func TestAPIServerThatFailsIsCaughtUpWith(t *testing.T) {
	w := newWorld(t, "fails")
	s := w.safe(t).lead(t)
	codes := map[string]int{
		"/secrets/busy-secret": http.StatusTooManyRequests, "/secrets/broken-secret": http.StatusInternalServerError,
		"/encryptedsecrets/busy-status/status": http.StatusTooManyRequests, "/encryptedsecrets/broken-status/status": http.StatusServiceUnavailable,
	}
	var mu gosync.Mutex
	refused := make(map[string]int)
	s.wire.refusing(func(r *http.Request) int {
		mu.Lock()
		defer mu.Unlock()
		for path, code := range codes {
			if r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, path) && refused[path] < 4 {
				refused[path]++
				return code
			}
		}
		return 0
	})
	names := []string{"busy-secret", "broken-secret", "busy-status", "broken-status"}
	for _, name := range names {
		w.put(t, w.object(t, name, map[string]string{"a": "1"}, delivered))
	}
	for _, name := range names {
		w.settled(t, name, deliver.ReasonDelivered)
		same(t, "data", w.dataOf(t, name), map[string]string{"a": "1"})
	}
	for path := range codes {
		if refused[path] != 4 {
			t.Errorf("%s was refused %d times", path, refused[path])
		}
	}
	// For each try to write a Secret, and once where only the status could not be written.
	if n := s.opened(t); n != 5+5+1+1 {
		t.Errorf("%v values were decrypted", n)
	}
}

func TestPromise05_NothingIsDeliveredOrJudgedWhileSealed(t *testing.T) {
	w := newWorld(t, "sealed")
	s := w.safe(t)
	s.gate.Shut()
	s.lead(t)
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered))
	w.put(t, w.object(t, "api", map[string]string{"a": "1"}))
	until(t, "it has come", func() bool { _, ok := s.store.Standing(keyOf(w.get(t, "api"))); return ok })
	s.Retry()
	for _, name := range []string{"db", "api"} {
		if o := w.get(t, name); len(o.Status.Conditions) != 0 || w.secret(t, name) != nil {
			t.Errorf("%s: %+v", name, o.Status)
		}
	}
	s.unseal(t, w.key)
	s.Retry()
	w.settled(t, "db", deliver.ReasonDelivered)
	w.settled(t, "api", deliver.ReasonServed)
}

func TestKeysThatChangeAreLookedInto(t *testing.T) {
	w := newWorld(t, "rekeyed")
	s := w.safe(t).lead(t)
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered))
	w.settled(t, "db", deliver.ReasonDelivered)
	other, err := unseal.Generate(true)
	if err != nil {
		t.Fatal(err)
	}
	s.unseal(t, other)
	s.Retry()
	o := w.settled(t, "db", deliver.ReasonKeyNotHeld)
	if o.Status.KeyIDs != nil || w.secret(t, "db") == nil || !strings.Contains(messageOf(o), string(w.key.KeyID())) {
		t.Errorf("status %+v", o.Status)
	}
	s.unseal(t, other, w.key)
	s.Retry()
	w.settled(t, "db", deliver.ReasonDelivered)
}

func TestValueFromTheFutureOpensWhenItIsTime(t *testing.T) {
	w := newWorld(t, "future")
	var ahead atomic.Int64
	w.safe(t, func(c *deliver.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	}).lead(t)
	o := w.object(t, "db", nil)
	o.Spec.EncryptedData["a"] = sealTo(t, w.key, o, "a", "1", time.Now().Add(encrypt.MaxClockSkew+3*time.Second))
	w.put(t, o)
	o = w.settled(t, "db", deliver.ReasonUnreadable)
	if !meta.IsStatusConditionTrue(o.Status.Conditions, condition.Reconciling) {
		t.Errorf("conditions %v", o.Status.Conditions)
	}
	ahead.Store(int64(time.Hour))
	w.settled(t, "db", deliver.ReasonServed)
}

func TestSourcesAreHeard(t *testing.T) {
	const source = "heard.main"
	w := newWorld(t, "heard")
	s := w.safe(t).lead(t)
	apply := func(o *v1alpha1.EncryptedSecret, revision string) {
		t.Helper()
		if _, err := s.store.Apply(t.Context(), source, o); err != nil {
			t.Fatal(err)
		}
		s.Applied(source, keyOf(o), sync.Revision(revision))
	}
	db := w.object(t, "db", map[string]string{"a": "1"}, delivered)
	apply(db, "5ea1ed")
	until(t, "the revision is known", func() bool { return w.settled(t, "db", deliver.ReasonDelivered).Status.Revision == "5ea1ed" })

	fault := &encrypt.Fault{File: "secrets/db.yaml", Line: 7, Field: "spec.encryptedData.a", Err: errors.New("it is malformed")}
	s.Refused(source, keyOf(db), []*encrypt.Fault{fault, fault})
	o := w.settled(t, "db", deliver.ReasonRefused)
	if m := messageOf(o); !strings.Contains(m, "secrets/db.yaml:7: spec.encryptedData.a: it is malformed (and 1 more)") || o.Status.Revision != "5ea1ed" {
		t.Errorf("it says %q, revision %q", m, o.Status.Revision)
	}
	// Whoever takes over does not forget, until the source tells.
	s.stop()
	s = w.safe(t).lead(t)
	apply(w.object(t, "db", map[string]string{"a": "2"}, delivered), "5ea1ed")
	w.settled(t, "db", deliver.ReasonRefused)
	until(t, "delivered", func() bool { return w.dataOf(t, "db")["a"] == "2" })
	s.Refused(source, keyOf(db), nil)
	w.settled(t, "db", deliver.ReasonDelivered)

	s.Refused(source, keyOf(db), []*encrypt.Fault{{Err: reconcile.ErrContested}})
	w.settled(t, "db", deliver.ReasonConflict)
	s.Refused(source, keyOf(db), nil)
	w.settled(t, "db", deliver.ReasonDelivered)
	until(t, "told of", func() bool { return s.events.count("db", deliver.ReasonDelivered) == 2 })

	// Another's claim is no fault of the object's.
	s.Refused("heard.other", keyOf(db), []*encrypt.Fault{fault})
	s.Restored(source, keyOf(db), reconcile.Edited)
	if told := s.events.of("db"); !slices.Equal(told[len(told)-2:], []string{deliver.ReasonConflict, deliver.EventRestored}) {
		t.Errorf("told %v", told)
	}
	w.idle(t)
	w.settled(t, "db", deliver.ReasonDelivered)
	// Of what is well, sources tell when they begin: nothing is sent for it.
	s.wire.requests()
	s.Refused(source, keyOf(db), nil)
	w.put(t, w.object(t, "last", map[string]string{"a": "1"}))
	w.settled(t, "last", deliver.ReasonServed)
	if sent := s.wire.requests(); len(sent) != 1 {
		t.Errorf("sent %v", sent)
	}
}

func TestNamespaceThatEndsIsLeftInPeace(t *testing.T) {
	w := newWorld(t, "ends")
	s := w.safe(t).lead(t)
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered))
	w.settled(t, "db", deliver.ReasonDelivered)
	w.kubectl(t, "", "delete", "namespace", "ends", "--wait=false")
	before := w.get(t, "db").ResourceVersion
	s.wire.requests()
	w.kubectl(t, "", "delete", "secret", "-n", "ends", "db")
	until(t, "it was tried", func() bool { return s.opened(t) == 2 })
	s.stop()
	if w.get(t, "db").ResourceVersion != before || len(s.events.of("db")) != 0 {
		t.Errorf("told %v", s.events.of("db"))
	}
	n := 0
	for _, line := range s.wire.requests() {
		if strings.Contains(line, "PATCH") {
			n++
		}
	}
	if n > 1 {
		t.Errorf("it was tried %d times", n)
	}
}

func TestLeadEndsWithItsContext(t *testing.T) {
	w := newWorld(t, "context")
	s := w.safe(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Lead(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Lead ended with %v", err)
	}
	s.Retry() // of a replica that does not lead
}
