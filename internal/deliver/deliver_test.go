package deliver_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/deliver"
)

func TestObjectIsDeliveredAsItAsks(t *testing.T) {
	w := newWorld(t, "asks")
	s := w.safe(t).lead(t)
	values := map[string]string{"tls.crt": "a certificate", "tls.key": "a key", "empty": ""}
	w.put(t, w.object(t, "db", values, func(o *v1alpha1.EncryptedSecret) {
		o.Spec.Secret = &v1alpha1.SecretDelivery{Type: "kubernetes.io/tls", Metadata: v1alpha1.SecretMetadata{
			Labels: map[string]string{"team": "shop"}, Annotations: map[string]string{"example.com/note": "<&>\" ü"},
		}}
	}))
	o := w.settled(t, "db", deliver.ReasonDelivered)
	secret := w.secret(t, "db")
	same(t, "data", w.dataOf(t, "db"), values)
	same(t, "labels", secret.Labels, map[string]string{"team": "shop", v1alpha1.LabelDelivered: "true"})
	same(t, "annotations", secret.Annotations, map[string]string{"example.com/note": "<&>\" ü"})
	if secret.Type != "kubernetes.io/tls" || secret.Immutable != nil {
		t.Errorf("type %s, immutable %v", secret.Type, secret.Immutable)
	}
	if len(secret.OwnerReferences) != 1 || secret.OwnerReferences[0].UID != o.UID || secret.OwnerReferences[0].Kind != v1alpha1.KindEncryptedSecret {
		t.Errorf("owners %v", secret.OwnerReferences)
	}
	status := o.Status
	if !slices.Equal(status.KeyIDs, []string{string(w.key.KeyID())}) || status.Revision != "" {
		t.Errorf("keys %v, revision %q", status.KeyIDs, status.Revision)
	}
	if d := status.Secret; d == nil || d.UID != string(secret.UID) || d.ResourceVersion != secret.ResourceVersion || d.Generation != o.Generation || d.DeliveredAt.IsZero() || d.Adopted {
		t.Errorf("delivered: %+v", status.Secret)
	}
	if len(status.Conditions) != 1 || !meta.IsStatusConditionTrue(status.Conditions, condition.Ready) {
		t.Errorf("conditions %v", status.Conditions)
	}
	w.kubectl(t, "", "wait", "-n", "asks", "--for=condition=Ready", "encryptedsecret/db")
	if told := s.events.of("db"); len(told) != 0 {
		t.Errorf("told of what is as it should be: %v", told)
	}
	if n := s.opened(t); n != 3 {
		t.Errorf("%v values were decrypted", n)
	}
}

func TestObjectWithoutDeliveryIsServed(t *testing.T) {
	w := newWorld(t, "served")
	s := w.safe(t).lead(t)
	w.put(t, w.object(t, "db", map[string]string{"a": "1", "b": "2"}))
	o := w.settled(t, "db", deliver.ReasonServed)
	if w.secret(t, "db") != nil || o.Status.Secret != nil {
		t.Error("there is a Secret")
	}
	w.kubectl(t, "", "label", "encryptedsecret", "-n", "served", "db", "a=b")
	w.kubectl(t, "", "annotate", "encryptedsecret", "-n", "served", "db", "a=b")
	s.Retry()
	w.put(t, w.object(t, "later", map[string]string{"a": "1"}))
	w.settled(t, "later", deliver.ReasonServed)
	if n := s.opened(t); n != 3 {
		t.Errorf("%v values were decrypted: each once for each generation is 3", n)
	}
}

func TestPromise09_RestartDecryptsAndWritesNothing(t *testing.T) {
	const n = 30
	w := newWorld(t, "restart")
	for i := range n {
		options := []option{delivered}
		if i%3 == 0 {
			options = nil
		}
		w.put(t, w.object(t, fmt.Sprintf("db-%d", i), map[string]string{"a": "1", "b": "2"}, options...))
	}
	first := w.safe(t).lead(t)
	for i := range n {
		reason := deliver.ReasonDelivered
		if i%3 == 0 {
			reason = deliver.ReasonServed
		}
		w.settled(t, fmt.Sprintf("db-%d", i), reason)
	}
	if got := first.opened(t); got != 2*n {
		t.Errorf("%v values were decrypted at first", got)
	}
	first.stop()
	before := w.kubectl(t, "", "get", "secrets,encryptedsecrets", "-n", "restart", "-o", "jsonpath={.items[*].metadata.resourceVersion}")

	second := w.safe(t).lead(t)
	w.put(t, w.object(t, "db-1", map[string]string{"a": "3", "b": "2", "c": "4"}, delivered)) // and one changes
	w.settled(t, "db-1", deliver.ReasonDelivered)
	same(t, "the one that changed", w.dataOf(t, "db-1"), map[string]string{"a": "3", "b": "2", "c": "4"})
	want := []string{
		"1 PATCH /api/v1/namespaces/restart/secrets/db-1",
		"1 PATCH /apis/vsecm.com/v1alpha1/namespaces/restart/encryptedsecrets/db-1/status",
		"1 WATCH /api/v1/namespaces/restart/secrets",
		"1 WATCH /apis/vsecm.com/v1alpha1/encryptedsecrets",
	}
	if sent := second.wire.requests(); !slices.Equal(sent, want) {
		t.Errorf("sent:\n%s", strings.Join(sent, "\n"))
	}
	if got := second.opened(t); got != 3 {
		t.Errorf("%v values were decrypted", got)
	}
	// What was written is told by the watches, and is no reason to do anything.
	second.Retry()
	w.put(t, w.object(t, "last", map[string]string{"a": "1"}))
	w.settled(t, "last", deliver.ReasonServed)
	want = []string{"1 PATCH /apis/vsecm.com/v1alpha1/namespaces/restart/encryptedsecrets/last/status"}
	if sent := second.wire.requests(); !slices.Equal(sent, want) {
		t.Errorf("then sent:\n%s", strings.Join(sent, "\n"))
	}
	after := w.kubectl(t, "", "get", "secrets,encryptedsecrets", "-n", "restart", "-o", "jsonpath={.items[*].metadata.resourceVersion}")
	if changed := len(strings.Fields(after)) - len(common(before, after)); changed != 3 {
		t.Errorf("%d things have changed", changed)
	}
}

// common returns the words that are in both.
func common(a, b string) []string {
	in := make(map[string]bool)
	for _, word := range strings.Fields(a) {
		in[word] = true
	}
	return slices.DeleteFunc(strings.Fields(b), func(word string) bool { return !in[word] })
}

func TestPromise06_ValueThatDoesNotOpenLeavesTheLastGoodOne(t *testing.T) {
	w := newWorld(t, "unreadable")
	s := w.safe(t).lead(t)
	good := map[string]string{"host": "h1", "password": "p1"}
	w.put(t, w.object(t, "db", good, delivered))
	w.settled(t, "db", deliver.ReasonDelivered)

	o := w.object(t, "db", map[string]string{"host": "h2", "password": "p2"}, delivered)
	other := w.object(t, "other", map[string]string{"password": "p3"}, delivered)
	o.Spec.EncryptedData["password"] = other.Spec.EncryptedData["password"]
	w.put(t, o)
	o = w.settled(t, "db", deliver.ReasonUnreadable)
	if message := messageOf(o); !strings.Contains(message, "key password does not open") || !strings.Contains(message, "not bound to this place") {
		t.Errorf("it says %q", message)
	}
	if !meta.IsStatusConditionTrue(o.Status.Conditions, condition.Stalled) || o.Status.KeyIDs != nil || o.Status.Secret == nil {
		t.Errorf("status %+v", o.Status)
	}
	same(t, "the last good one", w.dataOf(t, "db"), good)

	better := map[string]string{"host": "h3", "password": "p3"}
	w.put(t, w.object(t, "db", better, delivered))
	w.settled(t, "db", deliver.ReasonDelivered)
	same(t, "after the repair", w.dataOf(t, "db"), better)
	s.events.saying(t, "db", deliver.ReasonUnreadable, deliver.ReasonDelivered)
}

func TestKeysThatAreDeclaredNoMoreVanishAndOthersStay(t *testing.T) {
	w := newWorld(t, "keys")
	s := w.safe(t).lead(t)
	labelled := func(label string) option {
		return func(o *v1alpha1.EncryptedSecret) {
			o.Spec.Secret = &v1alpha1.SecretDelivery{Metadata: v1alpha1.SecretMetadata{Labels: map[string]string{label: "1"}}}
		}
	}
	w.put(t, w.object(t, "db", map[string]string{"a": "1", "b": "2"}, labelled("first")))
	w.settled(t, "db", deliver.ReasonDelivered)
	before := w.get(t, "db").Status.Secret
	w.kubectl(t, "", "patch", "secret", "-n", "keys", "db", "-p", `{"data":{"theirs":"eA=="},"metadata":{"labels":{"theirs":"x"}}}`)
	until(t, "the status knows the Secret", func() bool {
		now := w.get(t, "db").Status.Secret
		return now.ResourceVersion != before.ResourceVersion && now.ResourceVersion == w.secret(t, "db").ResourceVersion
	})
	w.put(t, w.object(t, "db", map[string]string{"b": "3", "c": "4"}, labelled("second")))
	w.settled(t, "db", deliver.ReasonDelivered)
	same(t, "data", w.dataOf(t, "db"), map[string]string{"b": "3", "c": "4", "theirs": "x"})
	same(t, "labels", w.secret(t, "db").Labels, map[string]string{"second": "1", "theirs": "x", v1alpha1.LabelDelivered: "true"})
	if told := s.events.of("db"); len(told) != 0 {
		t.Errorf("told %v", told)
	}
}

func TestWhatOthersDoToASecretIsReverted(t *testing.T) {
	w := newWorld(t, "drift")
	s := w.safe(t).lead(t)
	values := map[string]string{"a": "1", "b": "2"}
	for name, act := range map[string][]string{
		"changed":          {"patch", "secret", "changed", "-p", `{"data":{"a":"eA=="}}`},
		"a-key-is-removed": {"patch", "secret", "a-key-is-removed", "--type=json", "-p", `[{"op":"remove","path":"/data/a"}]`},
		"deleted":          {"delete", "secret", "deleted"},
		"disowned":         {"label", "secret", "disowned", v1alpha1.LabelDelivered + "-"},
		"owner-removed":    {"patch", "secret", "owner-removed", "--type=json", "-p", `[{"op":"remove","path":"/metadata/ownerReferences"}]`},
		"label-is-another": {"label", "secret", "--overwrite", "label-is-another", v1alpha1.LabelDelivered + "=false"},
	} {
		t.Run(name, func(t *testing.T) {
			w.put(t, w.object(t, name, values, delivered))
			uid := w.settled(t, name, deliver.ReasonDelivered).UID
			w.kubectl(t, "", append([]string{"-n", "drift"}, act...)...)
			until(t, "reverted", func() bool { return s.events.count(name, deliver.EventReverted) == 1 })
			secret := w.secret(t, name)
			same(t, "data", w.dataOf(t, name), values)
			if secret.Labels[v1alpha1.LabelDelivered] != "true" || len(secret.OwnerReferences) != 1 || secret.OwnerReferences[0].UID != uid {
				t.Errorf("labels %v, owners %v", secret.Labels, secret.OwnerReferences)
			}
			until(t, "the status knows", func() bool {
				d := w.get(t, name).Status.Secret
				return d.UID == string(secret.UID) && d.ResourceVersion == secret.ResourceVersion
			})
		})
	}
	if n := s.metric(t, "vsecm_delivery_reverted_total"); n != 6 {
		t.Errorf("%v were reverted", n)
	}
}

func TestWhatWasDoneToASecretWhileNobodyLedIsReverted(t *testing.T) {
	w := newWorld(t, "later")
	first := w.safe(t).lead(t)
	for _, name := range []string{"changed", "deleted", "left"} {
		w.put(t, w.object(t, name, map[string]string{"a": "1"}, delivered))
		w.settled(t, name, deliver.ReasonDelivered)
	}
	first.stop()
	w.kubectl(t, "", "patch", "secret", "-n", "later", "changed", "-p", `{"data":{"a":"eA=="}}`)
	w.kubectl(t, "", "delete", "secret", "-n", "later", "deleted")
	second := w.safe(t).lead(t)
	for _, name := range []string{"changed", "deleted"} {
		until(t, name+" is put back", func() bool { return maps.Equal(w.dataOf(t, name), map[string]string{"a": "1"}) })
		until(t, "told", func() bool { return second.events.count(name, deliver.EventReverted) == 1 })
	}
	if n := second.opened(t); n != 2 {
		t.Errorf("%v values were decrypted", n)
	}
}
