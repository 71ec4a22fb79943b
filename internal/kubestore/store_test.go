package kubestore_test

import (
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/store/storetest"
)

func TestStore(t *testing.T) {
	cluster.Start(t)
	storetest.Run(t, func(t *testing.T) store.Store {
		w := shared(t)
		s, _ := w.open(t)
		// The suite looks for goroutines that a watch leaves. Those of the store's own
		// are all there once it has told what somebody else did.
		w.raw(t, "shop", toJSON(t, object("first", "1")))
		await(t, s, "an object of somebody else's", func() bool { return exists(t, s, "first") })
		w.kubectl(t, "", "delete", "encryptedsecrets", "-n", "shop", "first")
		await(t, s, "its deletion", func() bool { return !exists(t, s, "first") })
		return s
	})
}
