package safe_test

import (
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
)

// TestAPushIsDelivered is the main road: git push, and the workload and the Kubernetes Secret have it.
func TestAPushIsDelivered(t *testing.T) {
	t.Parallel()
	g := newGitops(t, gitserver.Options{}, "safe-0", "safe-1")
	to := g.recipient()
	g.repo.Commit(map[string]string{"db.json": g.manifest(to, "db", "password=one", "user=app")})
	g.follow("platform")
	g.applied("platform")
	g.secret("db", "password=one", "user=app")
	g.fetches("db", "password", "one")
	g.objectSays("db", "True", "Delivered")

	g.repo.Commit(map[string]string{"db.json": g.manifest(to, "db", "password=two")})
	g.sync("platform")
	g.applied("platform")
	g.secret("db", "password=two")
	g.fetches("db", "password", "two")
	if o := g.objectSays("db", "True", "Delivered"); o.Status.Revision != g.repo.Head() {
		t.Errorf("the object is of revision %q", o.Status.Revision)
	}
}
