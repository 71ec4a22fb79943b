package safe_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// beside starts two replicas, each behind a proxy of its own, and a source whose first commit has arrived.
func beside(t *testing.T) (*gitops, *commits, map[*replica]*apiProxy) {
	t.Helper()
	g := newGitops(t, gitserver.Options{})
	proxies := make(map[*replica]*apiProxy)
	for _, name := range []string{"safe-0", "safe-1"} {
		p := g.proxy()
		r := g.launchBehind(p, name)
		g.published(r)
		proxies[r] = p
	}
	c := newCommits(g, killSeed, 1000)
	c.next()
	g.follow("platform")
	g.arrived(c)
	return g, c, proxies
}

// arrived waits until the last commit is everywhere, and nothing is complained of.
func (g *gitops) arrived(c *commits) {
	g.t.Helper()
	var values []string
	for _, key := range keysOf(c.n) {
		values = append(values, fmt.Sprintf("%s=%d", key, c.n))
	}
	g.applied("platform")
	g.secret("pair", values...)
	g.fetches("pair", "a", strconv.Itoa(c.n))
	wait.For(g.t, "the object is as it should be", func() error {
		o := g.object("pair")
		if err := saysSo(o.Status.Conditions, "True", "Delivered", nil); err != nil {
			return err
		}
		if len(o.Status.Conditions) != 1 || o.Status.Revision != g.repo.Head() {
			return fmt.Errorf("its status is %+v", o.Status)
		}
		return nil
	})
	wait.For(g.t, "the source is as it should be", func() error {
		if s := g.gitSource("platform").Status; len(s.Conditions) != 1 || len(s.Faults) > 0 {
			return fmt.Errorf("its status is %+v", s)
		}
		return nil
	})
}

// servedThroughout has a workload ask every replica, again and again, until the function that it returns is called.
func (g *gitops) servedThroughout(name string) (stop func()) {
	g.t.Helper()
	ctx, end := context.WithCancel(context.Background())
	var asking sync.WaitGroup
	for _, r := range g.replicas {
		w := g.workload(r, name)
		asking.Go(func() {
			n := 0
			for newest := 0; ctx.Err() == nil; n++ {
				a, err := w.get(context.Background(), "", "")
				if err != nil {
					g.t.Errorf("%s did not serve: %+v, %v", r.name, a, err)
					return
				}
				version, err := strconv.Atoi(a.values[name+"/a"])
				if err != nil || a.values[name+"/b"] != a.values[name+"/a"] || version < newest {
					g.t.Errorf("%s, after version %d, serves %s", r.name, newest, show(a.values))
					return
				}
				newest = version
				select {
				case <-ctx.Done():
				case <-time.After(5 * time.Millisecond): // leave the machine to others
				}
			}
			if n == 0 {
				g.t.Errorf("nobody asked %s", r.name)
			}
		})
	}
	var once sync.Once
	stop = func() { once.Do(func() { end(); asking.Wait() }) }
	g.t.Cleanup(stop)
	return stop
}

// nobodyLeads waits until every replica has noticed that it cannot hold the Lease.
func (g *gitops) nobodyLeads(t *testing.T) {
	t.Helper()
	wait.For(t, "nobody leads", func() error {
		for _, r := range g.replicas {
			if g.metric(r, "vsecm_leader") != "0" {
				return errors.New(r.name + " does")
			}
		}
		return nil
	})
}

// TestPromise06_AnAPIServerThatIsAwayHarmsNothing has the API server fail in every way while commits are pushed.
// Workloads are served all the while, and everything catches up by itself.
func TestPromise06_AnAPIServerThatIsAwayHarmsNothing(t *testing.T) {
	g, c, proxies := beside(t)
	all := func(answer func(http.ResponseWriter, *http.Request)) func() {
		return func() {
			for _, p := range proxies {
				p.answers(answer)
			}
			if answer != nil {
				g.nobodyLeads(t)
			}
		}
	}
	fails := func(code int) func() {
		return all(func(w http.ResponseWriter, _ *http.Request) {
			if code == http.StatusTooManyRequests {
				w.Header().Set("Retry-After", "1")
			}
			http.Error(w, "no", code)
		})
	}
	for _, tt := range []struct {
		name            string
		breaks, repairs func()
	}{
		{"it answers 429", fails(http.StatusTooManyRequests), all(nil)},
		{"it answers 500", fails(http.StatusInternalServerError), all(nil)},
		{"it does not answer", all(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), all(nil)},
		{"etcd is away", func() { g.cp.StopEtcd(t); g.nobodyLeads(t) }, func() { g.cp.StartEtcd(t) }},
		{"it is away", func() { g.cp.StopAPIServer(t); g.nobodyLeads(t) }, func() { g.cp.StartAPIServer(t) }},
		{"the Lease is deleted", func() { g.kubectl("delete", "lease", "vsecm-safe", "-n", "vsecm-system") }, func() { g.leads(t) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stop := g.servedThroughout("pair")
			tt.breaks()
			c.next()
			tt.repairs()
			g.arrived(c)
			stop()
		})
	}
}

// TestPromise10_ALateWriteChangesNothing holds a write of the leader back until another replica leads and has
// delivered a newer commit: what arrives then is refused.
func TestPromise10_ALateWriteChangesNothing(t *testing.T) {
	t.Parallel()
	g, c, proxies := beside(t)
	secrets := g.observe(secretsPath, c.versionOfSecret, c.mayDelete)
	objects := g.observe(objectsPath, c.versionOfObject, c.mayDelete)
	both := func() { c.next(); c.hint() }
	comes := func(name string) func() {
		return func() {
			c.n++
			c.head = g.repo.Commit(map[string]string{name + ".yaml": c.manifest(name)})
			c.hint()
		}
	}
	for _, tt := range []struct {
		name, asked, path string
		first, second     func()
	}{
		{"an object is written", "patch encryptedsecrets", "/pair", both, both},
		{"a Secret is written", "patch secrets", "/pair", both, both},
		{"the status of an object is written", "patch encryptedsecrets/status", "/pair/status", both, both},
		{"the status of the source is written", "patch gitsources/status", "/platform/status", both, both},
		{"an object is created", "patch encryptedsecrets", "/one", comes("one"), comes("one")},
		{"a Secret is created", "patch secrets", "/two", comes("two"), comes("two")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stop := g.servedThroughout("pair")
			leader := g.leads(t)
			h := proxies[leader].holds(tt.asked, tt.path)
			tt.first()
			select {
			case <-h.came:
			case <-time.After(patience):
				t.Fatal("nothing was written")
			}
			wait.For(t, "the other replica leads", func() error {
				for _, r := range g.replicas {
					if r != leader && g.metric(r, "vsecm_leader") == "1" && g.metric(leader, "vsecm_leader") == "0" {
						return nil
					}
				}
				return errors.New("not yet")
			})
			tt.second()
			g.applied("platform")
			for name, n := range c.live {
				objects.reaches(name, n)
				secrets.reaches(name, n)
			}
			g.objectSays("pair", "True", "Delivered")
			close(h.release)
			if code := <-h.code; code < 400 {
				t.Errorf("the late write was taken: %d", code)
			}
			proxies[leader].set(nil)
			g.applied("platform")
			for _, o := range []*observer{secrets, objects} {
				o.stands(c.live)
			}
			stop()
		})
	}
}

// TestPromise10_ANewLeaderThatIsBehindTakesNothingBack has a replica lead that has not been told yet what the last
// leader did.
func TestPromise10_ANewLeaderThatIsBehindTakesNothingBack(t *testing.T) {
	t.Parallel()
	g, c, proxies := beside(t)
	secrets := g.observe(secretsPath, c.versionOfSecret, c.mayDelete)
	leader := g.leads(t)
	var other *replica
	for _, r := range g.replicas {
		if r != leader {
			other = r
		}
	}
	p := proxies[other]
	p.hidesChanges(true)
	c.next()
	c.hint()
	secrets.reaches("pair", c.n)
	wait.For(t, "the leader says so in the status", func() error {
		if s := g.gitSource("platform").Status; s.Revision != g.repo.Head() {
			return errors.New("not yet")
		}
		return saysSo(g.object("pair").Status.Conditions, "True", "Delivered", nil)
	})
	before := p.asked()
	leader.process.kill()
	g.gone(leader)
	if g.leads(t) != other {
		t.Fatal("who else leads?")
	}
	wait.For(t, "it has looked at the Secrets", func() error {
		now := p.asked()
		if now["watch secrets"] > before["watch secrets"] || now["list secrets"] > before["list secrets"] {
			return nil
		}
		return fmt.Errorf("it asked for %v", now)
	})
	time.Sleep(time.Second) // whatever it would do wrong, it may do now
	p.hidesChanges(false)
	g.arrived(c)
}
