package safe_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// TestPromise09_InAClusterCostFollowsTheChange counts what one changed file costs, in requests to the API server and in
// decryptions, of two repositories of which one is eight times as large: the same.
func TestPromise09_InAClusterCostFollowsTheChange(t *testing.T) {
	g := newGitops(t, gitserver.Options{})
	p := g.proxy()
	r := g.launchBehind(p, "safe-0")
	g.published(r)
	to := g.recipient()
	g.follow("platform")

	grow := func(from, until int) {
		files := make(map[string]string)
		for i := from; i < until; i++ {
			name := fmt.Sprintf("s%d", i)
			files[fmt.Sprintf("%d/%s.json", i/50, name)] = g.manifest(to, name, "a=1", "b=1")
		}
		g.repo.Commit(files)
		g.sync("platform")
		g.applied("platform")
		g.allDelivered(until)
	}
	var changed, restarted []map[string]int
	for _, size := range []struct{ from, to int }{{0, 50}, {50, 400}} {
		grow(size.from, size.to)
		first := p.settled(g, r)

		// One of two values of one of them changes.
		g.repo.Commit(map[string]string{"0/s7.json": g.change(to, "s7", size.to)})
		g.sync("platform")
		g.applied("platform")
		g.secret("s7", "a=1", fmt.Sprintf("b=%d", size.to))
		g.objectSays("s7", "True", "Delivered")
		after := p.settled(g, r)
		cost := less(after, first)
		changed = append(changed, cost)
		t.Logf("%d manifests: a changed file costs %v", size.to, cost)

		// A restart, and nothing has changed.
		before := after
		// Those of the new process begin anew.
		before["vsecm_delivery_opened_total"], before["vsecm_values_opened_total"] = 0, 0
		r.process.stop(t)
		g.gone(r)
		r = g.launchBehind(p, "safe-0")
		g.leads(t)
		g.applied("platform")
		g.allDelivered(size.to)
		cost = less(p.settled(g, r), before)
		for what := range cost {
			// Who gets which of those, and how often, is a matter of time.
			if strings.HasPrefix(what, "watch ") {
				delete(cost, what)
			}
		}
		restarted = append(restarted, cost)
		t.Logf("%d manifests: a restart costs %v", size.to, cost)
	}
	for i, cost := range changed {
		for what, n := range cost {
			least, most := 0, 0
			switch what {
			case "patch encryptedsecrets", "patch secrets":
				least, most = 1, 1
			case "vsecm_delivery_opened_total", "vsecm_values_opened_total":
				// The values of this one object: its Secret is written as a whole, and the cache sees that a version opens
				// as a whole before it serves it.
				least, most = 2, 2
			case "get encryptedsecrets":
				least, most = 1, 2 // before its Secret is written over; and when its status was written by two at a time
			case "patch encryptedsecrets/status":
				least, most = 1, 2 // delivered, and of which revision
			case "patch gitsources/status":
				least, most = 1, 4 // under way, if that takes long; applied; all is well
			case "post events", "patch events":
				most = 2
			}
			if n < least || n > most {
				t.Errorf("a changed file costs %d × %q, want %d to %d: %v", n, what, least, most, changed[i])
			}
		}
		if cost["patch encryptedsecrets"] == 0 || cost["patch secrets"] == 0 || cost["vsecm_delivery_opened_total"] == 0 {
			t.Errorf("a changed file costs %v", cost)
		}
	}
	for _, cost := range restarted {
		for what, n := range cost {
			verb, resource, _ := strings.Cut(what, " ")
			switch {
			case resource == "configmaps" && n <= 20: // which says who Safe is
			case (verb == "get" || verb == "list") && n <= 20:
			default:
				t.Errorf("a restart costs %d × %q", n, what)
			}
		}
		if cost["get encryptedsecrets"] > 0 || cost["list encryptedsecrets"] > 1 || cost["list secrets"] > 1 {
			t.Errorf("a restart costs %v", cost)
		}
	}
}

// change seals one value anew, and leaves the other as it stands in the cluster.
func (g *gitops) change(to encrypt.Recipient, name string, value int) string {
	g.t.Helper()
	was := g.object(name)
	o := &v1alpha1.EncryptedSecret{TypeMeta: was.TypeMeta, ObjectMeta: metav1.ObjectMeta{Namespace: was.Namespace, Name: name}, Spec: was.Spec}
	sealed, err := encrypt.Seal([]byte(strconv.Itoa(value)), encrypt.BindingOf(o, "b"), []encrypt.Recipient{to}, time.Now())
	if err != nil {
		g.t.Fatal(err)
	}
	o.Spec.EncryptedData["b"] = sealed
	text, err := json.Marshal(o)
	if err != nil {
		g.t.Fatal(err)
	}
	return string(text)
}

// allDelivered waits until n objects are, by their status.
func (g *gitops) allDelivered(n int) {
	g.t.Helper()
	wait.For(g.t, fmt.Sprintf("%d objects are delivered", n), func() error {
		if got := strings.Count(g.kubectl("get", "encryptedsecrets", "-n", "shop", "--no-headers"), "Delivered"); got != n {
			return fmt.Errorf("%d are", got)
		}
		return nil
	})
}

// settled waits until nothing is done any more, and returns what was asked for until then, and how many values
// were decrypted. Leases are renewed all the time.
func (p *apiProxy) settled(g *gitops, r *replica) map[string]int {
	g.t.Helper()
	var now map[string]int
	wait.For(g.t, "Safe comes to rest", func() error {
		before := p.counted(g, r)
		g.leaseRenewed(p)
		now = p.counted(g, r)
		if !maps.Equal(before, now) {
			return fmt.Errorf("it goes on: %v", less(now, before))
		}
		return nil
	})
	return now
}

func (p *apiProxy) counted(g *gitops, r *replica) map[string]int {
	all := p.asked()
	maps.DeleteFunc(all, func(what string, _ int) bool { return strings.HasSuffix(what, " leases") })
	for _, name := range []string{"vsecm_delivery_opened_total", "vsecm_values_opened_total"} {
		n, err := strconv.ParseFloat(g.metric(r, name), 64)
		if err != nil {
			g.t.Fatal(err)
		}
		all[name] = int(n)
	}
	return all
}

// leaseRenewed waits until the Lease was renewed four times, which is a second.
func (g *gitops) leaseRenewed(p *apiProxy) {
	g.t.Helper()
	renewals := func() int { return p.asked()["put leases"] }
	before := renewals()
	wait.For(g.t, "the Lease is renewed", func() error {
		if renewals() < before+4 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
}

// less returns what is in a and not in b.
func less(a, b map[string]int) map[string]int {
	rest := make(map[string]int)
	for what, n := range a {
		if n != b[what] {
			rest[what] = n - b[what]
		}
	}
	return rest
}
