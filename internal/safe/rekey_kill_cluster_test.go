package safe_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/logs"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// normalRekeyKills is how many kills in the middle of re-keys of a cluster `make test` does; `make soak` does one for
// each four kills of the leader that VSECM_SOAK_FAILOVERS asks for.
const normalRekeyKills = 4

// A clusterRekey is a cluster of two replicas whose root key is replaced while replicas and the
// plugin are killed.
type clusterRekey struct {
	*gitops
	random  *rand.Rand
	values  map[string]string // by OBJECT/KEY
	kills   map[string]int
	usual   map[string]time.Duration // how long a step takes undisturbed
	reached sync.Mutex               // guards where a workload may ask
	apis    []string
}

// TestPromise07_KilledReplicaInARekeyLosesNothing replaces the root key of a cluster with two replicas, and kills one
// of them, or the plugin, at random while the re-key begins, and while it ends. A workload reads at both
// of them all the while, and what is stored opens with the keys that are stored.
func TestPromise07_KilledReplicaInARekeyLosesNothing(t *testing.T) {
	kills, seed := max(number(t, "VSECM_SOAK_FAILOVERS", 1)/4, normalRekeyKills), uint64(number(t, "VSECM_SOAK_SEED", killSeed))
	c := &clusterRekey{
		gitops: newGitops(t, gitserver.Options{}, "safe-0", "safe-1"), random: rand.New(rand.NewPCG(seed, 6)),
		values: map[string]string{}, kills: map[string]int{}, usual: map[string]time.Duration{},
	}
	c.commit()
	c.follow("platform")
	c.applied("platform")
	c.tell()
	for _, r := range c.replicas {
		c.serves(r)
	}
	ctx, stop := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	want, client := c.of("object-0"), c.workload(c.replicas[0], "object-0").http
	reading.Go(func() { c.reads(ctx, client, want) })
	defer func() { stop(); reading.Wait() }()

	rounds := 0
	for ; c.kills["replica"]+c.kills["plugin"] < kills || c.kills["replica"] == 0; rounds++ { // nobody is killed in the first
		c.round(rounds)
	}
	t.Logf("%d re-keys; %d kills of replicas and %d of the plugin", rounds, c.kills["replica"], c.kills["plugin"])
}

// round is one re-key.
func (c *clusterRekey) round(n int) {
	old := c.kept()[0]
	archive := filepath.Join(c.dir, fmt.Sprintf("old-%d.age", n))
	c.completes("rekey", "start", "--no-backup")
	keys := c.kept()
	if len(keys) != 2 || keys[0].KeyID() == old.KeyID() || keys[1].KeyID() != old.KeyID() {
		c.t.Fatalf("after start, %d keys are kept", len(keys))
	}
	if got := c.recipient(); got.KeyID() != keys[0].KeyID() {
		c.t.Errorf("the recipient that is published is %s", got.KeyID())
	}
	c.commit()
	c.sync("platform")
	c.applied("platform")
	c.stored([]*unseal.RootKey{keys[0]})
	c.completes("rekey", "finish", "--archive", archive, "--archive-to", c.key.Recipient().String())
	if now := c.kept(); len(now) != 1 || now[0].KeyID() != keys[0].KeyID() {
		c.t.Errorf("after finish, %d keys are kept", len(now))
	}
	c.archives(archive, old)
	for _, r := range c.replicas {
		c.holdsOnly(r, keys[0].KeyID())
		c.serves(r)
	}
	if c.t.Failed() {
		c.t.FailNow()
	}
}

// commit seals every value to the recipient that is published.
func (c *clusterRekey) commit() {
	c.t.Helper()
	to, files := c.recipient(), map[string]string{}
	for i := range 6 {
		name := fmt.Sprintf("object-%d", i)
		var pairs []string
		for _, key := range []string{"a", "b"} {
			value := fmt.Sprintf("%s of %s", key, name)
			pairs = append(pairs, key+"="+value)
			c.values[name+"/"+key] = value
		}
		files[name+".yaml"] = c.manifest(to, name, pairs...) + "\n"
	}
	c.repo.Commit(files)
}

// completes runs the plugin as an admin, kills it or a replica at random, and repeats the command until it ends
// well. Nothing is lost at any time.
func (c *clusterRekey) completes(args ...string) {
	c.t.Helper()
	usual := c.usual[args[1]]
	for try := 0; ; try++ {
		if try == 2 {
			usual = 0
		}
		begun := time.Now()
		out, code, killed := c.attempt(args, usual)
		if c.usual[args[1]] == 0 {
			c.usual[args[1]] = time.Since(begun)
		}
		c.stored(c.kept())
		for _, r := range c.replicas {
			c.serves(r)
		}
		switch {
		case c.t.Failed():
			c.t.Fatalf("after %q (killed %q, exit code %d):\n%s", args[:2], killed, code, out)
		case code == 0:
			return
		case killed == "":
			c.t.Fatalf("%q does not complete: exit code %d:\n%s", args[:2], code, out)
		}
	}
}

// attempt runs the plugin once, and kills somebody within the time that it usually takes; nobody, where that is 0. A
// replica that was killed is started again.
func (c *clusterRekey) attempt(args []string, usual time.Duration) (out string, code int, killed string) {
	c.t.Helper()
	var urls []string
	for _, r := range c.replicas {
		urls = append(urls, "https://"+r.at.API)
	}
	cmd := exec.Command(programs.plugin, append(args, "--safe", strings.Join(urls, ","), "--request-timeout", "10s")...)
	cmd.Dir, cmd.Env = c.dir, c.cp.KubectlEnv(c.ada)
	text := &logs.Buffer{}
	cmd.Stdout, cmd.Stderr = text, text
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	victim, after := c.replicas[c.random.IntN(len(c.replicas))], time.Duration(c.random.Int64N(int64(usual)+1))
	plugin := c.random.IntN(3) == 0
	ended, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		if usual == 0 {
			return
		}
		select {
		case <-ended:
			return
		case <-time.After(after):
		}
		if plugin {
			_ = cmd.Process.Kill()
			return
		}
		victim.process.kill()
		killed = "replica"
	}()
	err := cmd.Wait()
	close(ended)
	<-watched
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		c.t.Fatal(err)
	}
	if code = cmd.ProcessState.ExitCode(); code < 0 {
		killed = "plugin"
	}
	if killed != "" {
		c.kills[killed]++
	}
	if killed == "replica" {
		c.gone(victim)
		c.start(victim.name)
		c.tell()
	}
	return text.String(), code, killed
}

// tell lets the reader know where replicas are.
func (c *clusterRekey) tell() {
	c.reached.Lock()
	defer c.reached.Unlock()
	c.apis = nil
	for _, r := range c.replicas {
		c.apis = append(c.apis, r.at.API)
	}
}

// reads has a workload read at every replica until ctx ends. Whatever it gets is right.
func (c *clusterRekey) reads(ctx context.Context, client *http.Client, want map[string]string) {
	for ctx.Err() == nil {
		c.reached.Lock()
		apis := c.apis
		c.reached.Unlock()
		for _, api := range apis {
			a, err := (&workload{&world{t: c.t, at: logLine{API: api}}, client}).get(ctx, "", "")
			if err == nil && !maps.Equal(a.values, want) {
				c.t.Errorf("a read at %s got %s", api, show(a.values))
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// of returns the values of an object.
func (c *clusterRekey) of(name string) map[string]string {
	values := map[string]string{}
	for at, value := range c.values {
		if strings.HasPrefix(at, name+"/") {
			values[at] = value
		}
	}
	return values
}

// serves waits until a replica gives every workload what was sealed.
func (c *clusterRekey) serves(r *replica) {
	c.t.Helper()
	for i := range 6 {
		name := fmt.Sprintf("object-%d", i)
		c.workload(r, name).wants(c.of(name))
	}
}

// kept returns the keys of Secret vsecm-root-key, the active one first.
func (c *clusterRekey) kept() []*unseal.RootKey {
	c.t.Helper()
	var s struct{ Data map[string][]byte }
	if err := json.Unmarshal([]byte(c.kubectl("get", "secret", "vsecm-root-key", "-n", "vsecm-system", "-o", "json")), &s); err != nil {
		c.t.Fatal(err)
	}
	active, err := unseal.Parse(s.Data["KEY_TXT"])
	if err != nil {
		c.t.Fatal(err)
	}
	keys := []*unseal.RootKey{active}
	if len(s.Data["RETIRED_TXT"]) > 0 {
		retired, err := unseal.ParseAll(s.Data["RETIRED_TXT"])
		if err != nil {
			c.t.Fatal(err)
		}
		keys = append(keys, retired...)
	}
	return keys
}

// stored fails unless these keys open all that is stored, and it is what was sealed.
func (c *clusterRekey) stored(keys []*unseal.RootKey) {
	c.t.Helper()
	ring, err := unseal.NewKeyring(keys[0], keys[1:]...)
	if err != nil {
		c.t.Fatal(err)
	}
	var list v1alpha1.EncryptedSecretList
	if err := json.Unmarshal([]byte(c.kubectl("get", "encryptedsecrets", "-n", "shop", "-o", "json")), &list); err != nil {
		c.t.Fatal(err)
	}
	got := map[string]string{}
	for _, o := range list.Items {
		for key, sealed := range o.Spec.EncryptedData {
			value, err := encrypt.Open(sealed, encrypt.BindingOf(&o, key), ring, time.Now())
			if err != nil {
				c.t.Errorf("%s/%s: %v", o.Name, key, err)
			}
			got[o.Name+"/"+key] = string(value)
		}
	}
	if !maps.Equal(got, c.values) {
		c.t.Errorf("what is stored is %s", show(got))
	}
}

// archives fails unless a file holds a key, for the one who was named.
func (c *clusterRekey) archives(file string, key *unseal.RootKey) {
	c.t.Helper()
	f, err := os.Open(file)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	ring, err := unseal.NewKeyring(c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	identity, _ := ring.Identity(c.key.KeyID())
	text, err := age.Decrypt(f, identity)
	if err != nil {
		c.t.Fatalf("the archive: %v", err)
	}
	all, err := io.ReadAll(text)
	if err != nil {
		c.t.Fatalf("the archive: %v", err)
	}
	keys, err := unseal.ParseAll(all)
	if err != nil {
		c.t.Fatalf("the archive: %v", err)
	}
	for _, k := range keys {
		if k.KeyID() == key.KeyID() {
			return
		}
	}
	c.t.Errorf("the archive does not hold %s", key.KeyID())
}

// holdsOnly waits until a replica says that it holds this key alone.
func (c *clusterRekey) holdsOnly(r *replica, id encrypt.KeyID) {
	c.t.Helper()
	wait.For(c.t, r.name+" holds one key", func() error {
		out, errOut, code := c.vsecmAt(c.ada, "", "https://"+r.at.API, "rekey", "status", "-o", "json")
		var said struct {
			Rekey    json.RawMessage
			Replicas []struct {
				Active string
				Others []string
			}
		}
		if err := json.Unmarshal([]byte(out), &said); err != nil {
			return fmt.Errorf("%d, %w: %s", code, err, errOut)
		}
		if len(said.Replicas) != 1 || said.Replicas[0].Active != string(id) || len(said.Replicas[0].Others) > 0 || said.Rekey != nil {
			return fmt.Errorf("it says %s", out)
		}
		return nil
	})
}
