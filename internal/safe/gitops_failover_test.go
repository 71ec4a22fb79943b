package safe_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// normalFailovers is how often `make test` kills the replica that leads; `make soak` does it as
// often as VSECM_SOAK_FAILOVERS says.
const normalFailovers = 10

// ahead is how many commits there may be that have not arrived.
const ahead = 3

// TestPromise10_KilledLeaderLosesNothing kills the replica that leads with SIGKILL, at random, while
// commits are pushed. All that ever stood in the cluster is looked at, as the API server tells
// it to who watches: no object and no Secret is a mix of two commits, goes back to an older one, or is deleted
// unless git said so. In the end all is as in the last commit.
func TestPromise10_KilledLeaderLosesNothing(t *testing.T) {
	kills, seed := number(t, "VSECM_SOAK_FAILOVERS", normalFailovers), uint64(number(t, "VSECM_SOAK_SEED", killSeed))
	random := rand.New(rand.NewPCG(seed, 3))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d; the moments of the kills differ from run to run all the same", seed)
		}
	}()
	g := newGitops(t, gitserver.Options{}, "safe-0", "safe-1")
	c := newCommits(g, seed, kills)
	c.next()
	secrets, objects := g.observe(secretsPath, c.versionOfSecret, c.mayDelete), g.observe(objectsPath, c.versionOfObject, c.mayDelete)
	g.follow("platform")
	g.applied("platform")
	secrets.reaches("pair", 1)

	ctx, stop := context.WithCancel(t.Context())
	var committing sync.WaitGroup
	committing.Go(func() {
		for ctx.Err() == nil && !t.Failed() {
			if c.n > secrets.version("pair")+ahead {
				time.Sleep(time.Millisecond)
				continue
			}
			c.next()
			c.hint()
			if c.n%100 == 0 {
				// As a server does at times; what thousands of commits leave behind takes it long to send.
				g.repo.Git("", "repack", "-a", "-d", "-q")
			}
		}
	})
	defer func() { stop(); committing.Wait() }()

	others := 0
	for kill := 0; kill < kills && !t.Failed(); kill++ {
		leader := g.leads(t)
		if kill%2 == 0 {
			// It is at work; else it may have just begun to lead.
			secrets.reaches("pair", secrets.version("pair")+1)
		}
		time.Sleep(time.Duration(random.Int64N(int64(300 * time.Millisecond)))) // the moment of the kill: any will do
		leader.process.kill()
		g.gone(leader)
		// Others serve on.
		for _, r := range g.replicas {
			a, err := g.workload(r, "pair").get(t.Context(), "", "")
			if err != nil || a.values["pair/a"] == "" || a.values["pair/a"] != a.values["pair/b"] {
				t.Errorf("while nobody leads, %s answers %d: %s, %v", r.name, a.code, show(a.values), err)
			}
		}
		// Its container is started again, or another pod takes its place.
		name := leader.name
		if random.IntN(2) == 0 {
			name = fmt.Sprintf("safe-%d", kill+2)
		}
		g.launch(name)
		if g.leads(t).name != leader.name {
			others++
		}
		if t.Failed() {
			t.Logf("after kill %d", kill)
		}
	}
	stop()
	committing.Wait()
	if t.Failed() {
		return
	}

	c.hint()
	g.applied("platform")
	for name, n := range c.live {
		secrets.reaches(name, n)
		objects.reaches(name, n)
	}
	g.allDelivered(len(c.live))
	// As they stand, and not only as they were told of.
	for _, o := range []*observer{secrets, objects} {
		o.stands(c.live)
	}
	for name, n := range c.live {
		g.fetches(name, "a", strconv.Itoa(n))
	}
	s := g.gitSource("platform").Status
	if s.Deletions != nil && s.Deletions.Waiting || len(s.Faults) > 0 {
		t.Errorf("the status is %+v", s)
	}
	t.Logf("%d kills, after %d of which another replica led; %d commits, %d deletions; %d changes of objects and %d of Secrets were looked at",
		kills, others, c.n, len(c.deleted), objects.changes(), secrets.changes())
	if secrets.changes() < ballast+kills {
		t.Errorf("the test saw too little to tell anything")
	}
}

// leads waits until a replica that runs leads.
func (g *gitops) leads(t *testing.T) *replica {
	t.Helper()
	var found *replica
	wait.For(t, "a replica that runs leads", func() error {
		for _, r := range g.replicas {
			// The Lease may still name one that was killed.
			if g.metric(r, "vsecm_leader") == "1" {
				found = r
				return nil
			}
		}
		return errors.New("none does")
	})
	return found
}

// metric returns the value of a replica's metric, by its name with labels.
func (c *cluster) metric(r *replica, name string) string {
	c.t.Helper()
	return (&world{t: c.t, at: r.at}).metric(name)
}

// commits is the stream of commits. Commit n writes n into all values of the objects that change
// with it, which are most, each in a file of several; key c is there in every other commit only. Now and then
// it adds an object, and deletes another.
type commits struct {
	g       *gitops
	api     *api
	to      encrypt.Recipient
	random  *rand.Rand
	rarely  int
	deletes int

	n       int
	head    string
	extras  []int
	live    map[string]int // by name: the commit that wrote it last
	mu      sync.Mutex
	sealed  map[string]int  // by sealed value
	deleted map[string]bool // by name
}

func newCommits(g *gitops, seed uint64, kills int) *commits {
	return &commits{
		g: g, api: g.api(), to: g.recipient(), random: rand.New(rand.NewPCG(seed, 4)), rarely: max(3, kills/10), deletes: 12,
		live: map[string]int{}, sealed: map[string]int{}, deleted: map[string]bool{},
	}
}

// ballast is how many objects stay as they are: of fewer, the deletions would be more than Safe does
// unasked. A deletion counts before it is done, and once more if the leader is killed in between: beside thirty
// objects, twelve deletions and two hundred kills were too much.
const ballast = 80

func (c *commits) next() {
	c.n++
	files := map[string]string{"all.yaml": c.manifest("pair") + "---\n" + c.manifest("web")}
	// This one moves from file to file.
	moves := []string{"moves-a.yaml", "moves-b.yaml"}
	files[moves[c.n%2]] = c.manifest("moves")
	var gone []string
	if c.n > 1 {
		gone = append(gone, moves[(c.n+1)%2])
	} else {
		stay := ""
		for i := range ballast {
			stay += "---\n" + c.manifest(fmt.Sprintf("stays-%d", i))
		}
		files["stays.yaml"] = stay
	}
	if len(c.deleted) < c.deletes && c.random.IntN(c.rarely) == 0 {
		files[extra(c.n)+".yaml"] = c.manifest(extra(c.n))
		if c.extras = append(c.extras, c.n); len(c.extras) > extras {
			name := extra(c.extras[0])
			c.extras = c.extras[1:]
			gone = append(gone, name+".yaml")
			c.delete(name)
		}
	}
	c.head = c.g.repo.Commit(files, gone...)
}

// delete notes that an object is deleted.
func (c *commits) delete(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deleted[name] = true
	delete(c.live, name)
}

// mayDelete tells whether git has deleted it.
func (c *commits) mayDelete(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deleted[name]
}

// keysOf returns the keys of whatever commit n wrote.
func keysOf(n int) []string {
	if n%2 == 0 {
		return []string{"a", "b", "c"}
	}
	return []string{"a", "b"}
}

func (c *commits) manifest(name string) string {
	c.live[name] = c.n
	var values []string
	for _, key := range keysOf(c.n) {
		values = append(values, fmt.Sprintf("%s=%d", key, c.n))
	}
	text := c.g.manifest(c.to, name, values...)
	var o v1alpha1.EncryptedSecret
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		c.g.t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, sealed := range o.Spec.EncryptedData {
		c.sealed[sealed] = c.n
	}
	return text + "\n"
}

// hint asks for a round.
func (c *commits) hint() {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.AnnotationSyncRequested, c.head)
	if err := c.api.do(http.MethodPatch, sourcesPath+"/platform", patch, &named{}); err != nil {
		c.g.t.Errorf("asking for a round: %v", err)
	}
}

// versionOfSecret returns which commit a Secret is of.
func (c *commits) versionOfSecret(object json.RawMessage) (int, error) {
	var s struct{ Data map[string][]byte }
	if err := json.Unmarshal(object, &s); err != nil {
		return 0, err
	}
	values := make(map[string]int)
	for key, value := range s.Data {
		n, err := strconv.Atoi(string(value))
		if err != nil {
			return 0, err
		}
		values[key] = n
	}
	return commitOf(values)
}

// versionOfObject returns which commit an EncryptedSecret is of.
func (c *commits) versionOfObject(object json.RawMessage) (int, error) {
	var o v1alpha1.EncryptedSecret
	if err := json.Unmarshal(object, &o); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	values := make(map[string]int)
	for key, sealed := range o.Spec.EncryptedData {
		values[key] = c.sealed[sealed]
	}
	return commitOf(values)
}

// commitOf returns the commit that all the values are of, which have to be all that it wrote.
func commitOf(values map[string]int) (int, error) {
	n := values["a"]
	for _, key := range keysOf(n) {
		if n == 0 || values[key] != n {
			return 0, fmt.Errorf("a mix of commits: %v", values)
		}
	}
	if len(values) != len(keysOf(n)) {
		return 0, fmt.Errorf("a mix of commits: %v", values)
	}
	return n, nil
}
