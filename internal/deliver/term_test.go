package deliver_test

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/deliver"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// What a source tells of one term, also when the deliverer's own part in it is over, is not said in the next.
func TestWhatSourcesToldEndsWithTheirTerm(t *testing.T) {
	const source = "terms.main"
	w := newWorld(t, "terms")
	var ahead atomic.Int64
	s := w.safe(t, func(c *deliver.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	}).lead(t)
	db := w.object(t, "db", map[string]string{"a": "1"})
	if _, err := s.store.Apply(t.Context(), source, db); err != nil {
		t.Fatal(err)
	}
	s.Applied(source, keyOf(db), "f1e57")
	until(t, "the revision is known", func() bool { return w.settled(t, "db", deliver.ReasonServed).Status.Revision == "f1e57" })
	s.stop()
	s.Applied(source, keyOf(db), "1a7e")
	s.Refused(source, keyOf(db), []*encrypt.Fault{{File: "db.yaml", Err: errors.New("it is late")}})
	s.Forget() // as whoever has both do their work does at its end

	s.lead(t)
	w.idle(t)
	s.Retry()
	w.put(t, w.object(t, "last", map[string]string{"a": "1"}))
	w.settled(t, "last", deliver.ReasonServed)
	if o := w.settled(t, "db", deliver.ReasonServed); o.Status.Revision != "f1e57" {
		t.Errorf("the revision is %q", o.Status.Revision)
	}
}

// What a source refused is no longer refused when the source is gone, or the object is not its any more.
func TestNoRefusalOutlivesItsSource(t *testing.T) {
	const source = "outlived.main"
	w := newWorld(t, "outlived")
	s := w.safe(t).lead(t)
	refuse := func(name string) {
		t.Helper()
		o := w.object(t, name, map[string]string{"a": "1"})
		if _, err := s.store.Apply(t.Context(), source, o); err != nil {
			t.Fatal(err)
		}
		s.Refused(source, keyOf(o), []*encrypt.Fault{{File: "db.yaml", Err: errors.New("it is malformed")}})
		w.settled(t, name, deliver.ReasonRefused)
	}
	refuse("db")
	refuse("mine")
	w.kubectl(t, "", "label", "encryptedsecret", "-n", "outlived", "mine", "vsecm.com/source-")
	w.settled(t, "mine", deliver.ReasonServed)

	s.SourceRemoved("outlived.other")
	s.SourceRemoved(source)
	w.settled(t, "db", deliver.ReasonServed)

	// A replica that was never told of the refusal clears it as well.
	refuse("old")
	s.stop()
	s = w.safe(t).lead(t)
	w.idle(t)
	w.settled(t, "old", deliver.ReasonRefused)
	s.SourceRemoved(source)
	w.settled(t, "old", deliver.ReasonServed)
}

// Deleted with --cascade=orphan, an object leaves its Secret behind: that is what it means.
func TestOrphanedSecretsStay(t *testing.T) {
	w := newWorld(t, "orphans")
	s := w.safe(t).lead(t)
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered))
	w.settled(t, "db", deliver.ReasonDelivered)
	w.kubectl(t, "", "delete", "encryptedsecret", "-n", "orphans", "db", "--cascade=orphan", "--wait=false")
	until(t, "it is seen", func() bool { _, ok := s.store.Standing(keyOf(w.object(t, "db", nil))); return !ok })
	w.idle(t)
	if w.secret(t, "db") == nil {
		t.Error("its Secret is gone")
	}
	// What the garbage collector does, which this cluster does not have.
	w.kubectl(t, "", "patch", "secret", "-n", "orphans", "db", "--type=json", "-p", `[{"op":"remove","path":"/metadata/ownerReferences"}]`)
	w.kubectl(t, "", "patch", "encryptedsecret", "-n", "orphans", "db", "--type=json", "-p", `[{"op":"remove","path":"/metadata/finalizers"}]`)
	w.idle(t)
	same(t, "data", w.dataOf(t, "db"), map[string]string{"a": "1"})
}

// An admission webhook chooses its status's reason itself, and may write there what it was shown.
func TestPromise01_ReasonOfAWebhookIsNotRepeated(t *testing.T) {
	w := newWorld(t, "webhook")
	s := w.safe(t).lead(t)
	const marker = "marker-6f4922f4"
	s.wire.answering(func(r *http.Request, _ []byte) (int, string) {
		if r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/secrets/db") {
			return http.StatusForbidden, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":403,"message":"denied","reason":"a is ` + marker + `"}`
		}
		return 0, ""
	})
	w.put(t, w.object(t, "db", map[string]string{"a": marker}, delivered))
	o := w.settled(t, "db", deliver.ReasonDeliveryFailed)
	if !strings.Contains(messageOf(o), "403 Forbidden") {
		t.Errorf("it says %q", messageOf(o))
	}
	if all := messageOf(o) + s.events.String() + s.log.String() + s.metrics(t); strings.Contains(all, marker) {
		t.Errorf("the value is in\n%s", all)
	}
}
