package deliver_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/deliver"
)

func ofType(name string) option {
	return func(o *v1alpha1.EncryptedSecret) { o.Spec.Secret = &v1alpha1.SecretDelivery{Type: name} }
}

func immutable(o *v1alpha1.EncryptedSecret) {
	o.Spec.Secret = &v1alpha1.SecretDelivery{Immutable: true}
}

func TestSecretThatCannotBeChangedIsReplaced(t *testing.T) {
	w := newWorld(t, "replaced")
	s := w.safe(t).lead(t)
	old, next := map[string]string{"a": "1"}, map[string]string{"a": "2", "b": "3"}
	for name, options := range map[string][2]option{
		"another-type":      {ofType("example.com/a"), ofType("example.com/b")},
		"immutable":         {immutable, immutable},
		"immutable-no-more": {immutable, delivered},
	} {
		t.Run(name, func(t *testing.T) {
			w.put(t, w.object(t, name, old, options[0]))
			w.settled(t, name, deliver.ReasonDelivered)
			before := w.secret(t, name)
			o := w.object(t, name, next, options[1])
			w.put(t, o)
			status := w.settled(t, name, deliver.ReasonDelivered).Status
			now := w.secret(t, name)
			same(t, "data", w.dataOf(t, name), next)
			if now.UID == before.UID || (now.Immutable != nil) != o.Spec.Secret.Immutable || status.Secret.UID != string(now.UID) {
				t.Errorf("it was %+v, is %+v, and the status has %+v", before.ObjectMeta, now.ObjectMeta, status.Secret)
			}
			s.events.saying(t, name, deliver.EventReplaced)
		})
	}
}

// Whoever leads next finds a Secret that was deleted to be made anew.
func TestPromise07_ReplacementThatBrokeOffIsFinished(t *testing.T) {
	w := newWorld(t, "broken-off")
	first := w.safe(t).lead(t)
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, ofType("example.com/a")))
	w.settled(t, "db", deliver.ReasonDelivered)
	gone := make(chan struct{}, 1)
	first.wire.refusing(func(r *http.Request) int {
		if r.Method != http.MethodPatch || w.secret(t, "db") != nil {
			return 0
		}
		select {
		case gone <- struct{}{}:
		default:
		}
		return http.StatusInternalServerError
	})
	w.put(t, w.object(t, "db", map[string]string{"a": "2"}, ofType("example.com/b")))
	<-gone
	first.stop()
	if w.secret(t, "db") != nil {
		t.Fatal("there is a Secret")
	}
	w.safe(t).lead(t)
	w.settled(t, "db", deliver.ReasonDelivered)
	same(t, "data", w.dataOf(t, "db"), map[string]string{"a": "2"})
}

func TestSomebodyElsesSecretIsLeftAloneUntilItIsAdopted(t *testing.T) {
	w := newWorld(t, "adopted")
	s := w.safe(t).lead(t)
	w.kubectl(t, "", "create", "secret", "generic", "-n", "adopted", "db", "--from-literal=a=theirs", "--from-literal=other=stays")
	before := w.secret(t, "db")
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered))
	o := w.settled(t, "db", deliver.ReasonSecretExists)
	if now := w.secret(t, "db"); now.ResourceVersion != before.ResourceVersion {
		t.Error("it was touched")
	}
	opened := s.opened(t)
	s.wire.requests()
	until(t, "it is looked at again", func() bool {
		return slices.ContainsFunc(s.wire.requests(), func(line string) bool { return strings.Contains(line, " GET ") })
	})
	if s.opened(t) != opened {
		t.Error("values were decrypted to find that nothing has changed")
	}
	_, command, _ := strings.Cut(messageOf(o), "kubectl ")
	w.kubectl(t, "", strings.Fields(command)...) // as the status says
	o = w.settled(t, "db", deliver.ReasonDelivered)
	same(t, "data", w.dataOf(t, "db"), map[string]string{"a": "1", "other": "stays"})
	secret := w.secret(t, "db")
	if len(secret.OwnerReferences) != 0 || secret.UID != before.UID || !o.Status.Secret.Adopted {
		t.Errorf("owners %v, delivered %+v", secret.OwnerReferences, o.Status.Secret)
	}
	s.events.saying(t, "db", deliver.ReasonSecretExists, deliver.EventAdopted, deliver.ReasonDelivered)

	// It stays adopted, also for who takes over, and outlives the object.
	s.stop()
	s = w.safe(t).lead(t)
	w.put(t, w.object(t, "db", map[string]string{"a": "2"}, delivered))
	if o = w.settled(t, "db", deliver.ReasonDelivered); !o.Status.Secret.Adopted || len(w.secret(t, "db").OwnerReferences) != 0 {
		t.Errorf("delivered %+v", o.Status.Secret)
	}
	w.put(t, w.object(t, "db", map[string]string{"a": "3"}, ofType("example.com/a")))
	if o = w.settled(t, "db", deliver.ReasonDeliveryFailed); !strings.Contains(messageOf(o), "delete it") {
		t.Errorf("it says %q", messageOf(o))
	}
	same(t, "data", w.dataOf(t, "db"), map[string]string{"a": "2", "other": "stays"})
	w.remove(t, "db")
	w.idle(t)
	if w.secret(t, "db") == nil {
		t.Error("the Secret was deleted with the object")
	}
}

func TestSomebodyElsesSecretThatGoesMakesRoom(t *testing.T) {
	w := newWorld(t, "in-the-way")
	w.safe(t).lead(t)
	w.kubectl(t, "", "create", "secret", "generic", "-n", "in-the-way", "db", "--from-literal=a=theirs")
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered))
	w.settled(t, "db", deliver.ReasonSecretExists)
	w.kubectl(t, "", "delete", "secret", "-n", "in-the-way", "db")
	w.settled(t, "db", deliver.ReasonDelivered)
	same(t, "data", w.dataOf(t, "db"), map[string]string{"a": "1"})
}

func TestSecretGoesWithItsObjectUnlessItIsRetained(t *testing.T) {
	w := newWorld(t, "policy")
	first := w.safe(t).lead(t)
	for name, o := range map[string]option{"goes": delivered, "stays": retained, "goes-later": delivered, "stays-later": retained} {
		w.put(t, w.object(t, name, map[string]string{"a": "1"}, o))
		w.settled(t, name, deliver.ReasonDelivered)
	}
	w.remove(t, "goes")
	w.remove(t, "stays")
	until(t, "the Secret is gone", func() bool { return w.secret(t, "goes") == nil })
	first.stop()
	w.remove(t, "goes-later")
	w.remove(t, "stays-later")
	// A namespace in which nothing asks for delivery is left to Kubernetes' garbage collector.
	w.put(t, w.object(t, "another", map[string]string{"a": "1"}, delivered))
	w.safe(t).lead(t)
	until(t, "the Secret is gone", func() bool { return w.secret(t, "goes-later") == nil })
	w.idle(t)
	for _, name := range []string{"stays", "stays-later"} {
		if s := w.secret(t, name); s == nil || len(s.OwnerReferences) != 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	// The next object of the name takes up what the last one left.
	w.put(t, w.object(t, "stays", map[string]string{"b": "2"}, delivered))
	o := w.settled(t, "stays", deliver.ReasonDelivered)
	same(t, "data", w.dataOf(t, "stays"), map[string]string{"b": "2"})
	if s := w.secret(t, "stays"); len(s.OwnerReferences) != 1 || s.OwnerReferences[0].UID != o.UID {
		t.Errorf("owners %v", s.OwnerReferences)
	}
}

func TestSecretThatIsAskedForNoMoreIsDeleted(t *testing.T) {
	w := newWorld(t, "no-more")
	s := w.safe(t).lead(t)
	for name, o := range map[string]option{"goes": delivered, "stays": retained} {
		w.put(t, w.object(t, name, map[string]string{"a": "1"}, o))
		w.settled(t, name, deliver.ReasonDelivered)
		w.put(t, w.object(t, name, map[string]string{"a": "1"}))
		if o := w.settled(t, name, deliver.ReasonServed); o.Status.Secret != nil {
			t.Errorf("delivered %+v", o.Status.Secret)
		}
	}
	if w.secret(t, "goes") != nil || w.secret(t, "stays") == nil {
		t.Errorf("goes %v, stays %v", w.dataOf(t, "goes"), w.dataOf(t, "stays"))
	}
	s.events.saying(t, "goes", deliver.EventDeleted)
	// And asked for again.
	w.put(t, w.object(t, "goes", map[string]string{"a": "2"}, delivered))
	w.settled(t, "goes", deliver.ReasonDelivered)
	same(t, "data", w.dataOf(t, "goes"), map[string]string{"a": "2"})
}

func TestObjectThatIsMadeAnewHasItsSecret(t *testing.T) {
	w := newWorld(t, "anew")
	first := w.safe(t).lead(t)
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered))
	w.settled(t, "db", deliver.ReasonDelivered)
	first.stop()
	w.remove(t, "db")
	w.put(t, w.object(t, "db", map[string]string{"b": "2"}, delivered))
	w.safe(t).lead(t)
	o := w.settled(t, "db", deliver.ReasonDelivered)
	same(t, "data", w.dataOf(t, "db"), map[string]string{"b": "2"})
	if s := w.secret(t, "db"); len(s.OwnerReferences) != 1 || s.OwnerReferences[0].UID != o.UID {
		t.Errorf("owners %v", s.OwnerReferences)
	}
}
