package safe

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/rekey"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// Who breaks an object leaves Safe with the version before as the only one that is good, and that
// one's key must not go.
func TestAServedVersionWhoseObjectWasBrokenNeedsItsKey(t *testing.T) {
	fresh, old := newRootKey(t), newRootKey(t)
	ring, err := unseal.NewKeyring(fresh, old)
	if err != nil {
		t.Fatal(err)
	}
	gate := unseal.NewGate()
	gate.Open(ring)
	defer gate.Shut()
	objects, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer objects.Close()
	secrets := cache.New(gate, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(io.Discard, nil)))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = secrets.Run(ctx, objects) }()
	defer func() { stop(); <-ended }()

	apply := func(o *v1alpha1.EncryptedSecret) {
		if _, err := objects.Apply(t.Context(), "local.app", o); err != nil {
			t.Fatal(err)
		}
	}
	put := func(name string, values map[string]string) {
		apply(&v1alpha1.EncryptedSecret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
			Spec:       v1alpha1.EncryptedSecretSpec{EncryptedData: values},
		})
	}
	sealed := func(name string, to *unseal.RootKey) map[string]string {
		o := &v1alpha1.EncryptedSecret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
		text, err := encrypt.Seal([]byte("a value"), encrypt.BindingOf(o, "k"), []encrypt.Recipient{to.Recipient()}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{"k": text}
	}
	before := func() (names []string) {
		for _, i := range secrets.Snapshot() {
			if i.Before.Object != nil {
				names = append(names, i.Before.Object.Name)
			}
		}
		return names
	}
	for name, to := range map[string]*unseal.RootKey{"old": old, "fresh": fresh, "renewed": old, "template": old} {
		put(name, sealed(name, to))
		until(t, func() bool { // it is good once somebody has it
			_, err := secrets.Reveal(t.Context(), store.Key{Namespace: "shop", Name: name})
			return err == nil
		})
	}
	if needs := servedBefore(secrets, gate); len(needs) > 0 {
		t.Errorf("nothing is broken, and %v", needs)
	}
	put("renewed", sealed("renewed", fresh))
	put("old", sealed("elsewhere", fresh))
	put("fresh", sealed("elsewhere", fresh))
	// Its values open, and its template does not make anything of them.
	bad := "{{ .nothing }}"
	failing := &v1alpha1.EncryptedSecret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "template"}}
	failing.Spec.Template = &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{"a": {Text: &bad}}}
	text, err := encrypt.Seal([]byte("a value"), encrypt.BindingOf(failing, "k"), []encrypt.Recipient{fresh.Recipient()}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	failing.Spec.EncryptedData = map[string]string{"k": text}
	apply(failing)
	until(t, func() bool { return len(before()) >= 3 })
	needs := servedBefore(secrets, gate)
	slices.SortFunc(needs, func(a, b rekey.Need) int { return strings.Compare(a.Name, b.Name) })
	if len(needs) != 2 || needs[0].Name != "old" || needs[1].Name != "template" || needs[0].Namespace != "shop" || needs[0].Key != "k" {
		t.Errorf("needs: %+v", needs)
	}
}

func newRootKey(t *testing.T) *unseal.RootKey {
	t.Helper()
	key, err := unseal.Generate(true)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func until(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came to that")
		}
	}
}
