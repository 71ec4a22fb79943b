package cache

import (
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

func TestASnapshotIsOfOneMoment(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "one"))
	r.apply(r.one("shop", "api", "x"))
	r.apply(r.one("bank", "db", "y"))
	r.run()
	taken := r.cache.Snapshot()
	var names []string
	for _, i := range taken {
		names = append(names, i.Newest.Object.Namespace+"/"+i.Newest.Object.Name)
	}
	if len(names) != 3 || names[0] != "bank/db" || names[1] != "shop/api" || names[2] != "shop/db" || r.opened() != 0 {
		t.Fatalf("got %q, %v opened", names, r.opened())
	}
	was := taken[2].Newest.Object.Spec.EncryptedData["password"]

	// The next version does not open: the one before it is served, and both are in a snapshot.
	bad := seal(t, r.other, "shop", "db", map[string]string{"password": "two"})
	r.apply(bad)
	wait.Until(t, "the version before is kept", func() bool { return r.cache.Snapshot()[2].Before.Object != nil })
	next := r.cache.Snapshot()[2]
	if next.Newest.Object.Spec.EncryptedData["password"] != bad.Spec.EncryptedData["password"] ||
		next.Before.Object.Spec.EncryptedData["password"] != was || next.Before.Version != taken[2].Newest.Version || next.Newest.Version == next.Before.Version {
		t.Errorf("got %+v", next)
	}
	if taken[2].Newest.Object.Spec.EncryptedData["password"] != was || taken[2].Before.Object != nil {
		t.Error("an older snapshot changed")
	}
}
