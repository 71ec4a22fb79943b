package safe_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// TestPromise01_MemoryModeLeavesNothing lets the story of a Safe whose root key is in memory
// alone happen in a fresh cluster, and then looks for key and value in every file that
// was written, the API server's audit log and etcd's data among them, in all that
// programs said, and in the arguments of every process.
func TestPromise01_MemoryModeLeavesNothing(t *testing.T) {
	c := newCluster(t, "memory")
	arguments := watchArguments(t)
	heard := make(haystack)
	hear := func(what, out, errOut string, code int) {
		t.Helper()
		if code != 0 {
			t.Fatalf("%s: %d\n%s%s", what, code, out, errOut)
		}
		heard["what "+what+" said"] = append(heard["what "+what+" said"], out+errOut...)
	}
	text := string(c.key.Text())
	run := func(who, stdin string, args ...string) {
		t.Helper()
		out, errOut, code := c.vsecm(who, stdin, args...)
		hear(args[0], out, errOut, code)
	}

	one, two := c.start("safe-0"), c.start("safe-1")
	run(c.olga, text, "unseal", "--file", "-")
	out, errOut, code := c.vsecmAt(c.dana, marker1, "", "encrypt", "db", "-n", "shop", "--key", "password")
	hear("encrypt", out, errOut, code)
	c.as(c.dana, out, "apply", "-f", "-")
	for _, r := range c.replicas {
		c.workload(r, "db").wants(map[string]string{"db/password": marker1})
	}
	run(c.olga, "", "status", "-o", "json")
	run(c.olga, "", "seal")
	c.sealed(one, "db")
	c.sealed(two, "db")
	// Every way to be refused.
	half := text[:len(text)/2]
	for _, wrong := range []string{half, text + text, strings.ReplaceAll(text, "AGE-SECRET", "AGE_SECRET"), strings.TrimPrefix(text, "AGE-")} {
		if out, errOut, code := c.vsecm(c.olga, wrong, "unseal", "--file", "-"); code != 1 {
			t.Errorf("it took a wrong key: %s", out)
		} else {
			heard["refusals"] = append(heard["refusals"], out+errOut...)
		}
	}
	run(c.olga, strings.ReplaceAll(text, "\n", `\n`), "unseal", "--file", "-") // as VSecM writes it
	c.kubectl("create", "rolebinding", "reveal", "-n", "shop", "--clusterrole=vsecm-reveal", "--serviceaccount=vsecm-system:vsecm-admin")
	if got := c.must(c.ada, "", "reveal", "db", "-n", "shop", "--key", "password"); strings.TrimSpace(got) != marker1 {
		t.Errorf("reveal says %q", got)
	}
	one.process.kill()
	two.process.stop(t)
	heard["the log of safe-0"], heard["the audit log of safe-0"] = []byte(one.process.stderr.String()), []byte(one.process.stdout.String())
	heard["the log of safe-1"], heard["the audit log of safe-1"] = []byte(two.process.stderr.String()), []byte(two.process.stdout.String())
	heard["arguments"] = arguments()

	if !strings.Contains(string(heard["arguments"]), "unseal\x00--file\x00-") {
		t.Error("the arguments of kubectl vsecm unseal were not seen")
	}
	lines := strings.Fields(text)
	secrets := []string{marker1, lines[0], strings.TrimPrefix(lines[0], "AGE-SECRET-KEY-PQ-1"), lines[2]}
	state, err := hex.DecodeString(lines[2])
	if err != nil {
		t.Fatal(err)
	}
	secrets = append(secrets, string(state), lines[0][30:60])
	search := func() []string {
		all := make(haystack)
		for place, text := range heard {
			all[place] = text
		}
		all.files(t, c.cp.Dir(), c.dir, filepath.Dir(t.TempDir()))
		if len(all[c.cp.AuditLog()]) == 0 {
			t.Error("there is no audit log")
		}
		return all.find(secrets...)
	}
	if places := search(); len(places) > 0 {
		t.Errorf("found:\n%s", strings.Join(places, "\n"))
	}

	// The search finds what is there: an object in the API server's audit log and in etcd, a Secret
	// in etcd alone, a file, an argument.
	plant := func(where, value string, put func()) {
		t.Helper()
		secrets = []string{value}
		if places := search(); len(places) > 0 {
			t.Fatalf("%s: found before it was planted: %v", where, places)
		}
		put()
		wait.For(t, "the search finds what was planted in "+where, func() error {
			for _, place := range search() {
				if strings.Contains(place, where) {
					return nil
				}
			}
			return errors.New("it does not")
		})
	}
	plant("audit.log", marker2, func() {
		c.as(c.cp.Kubeconfig(), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: planted, namespace: shop}\ndata: {x: "+marker2+"}\n", "create", "-f", "-")
	})
	other, err := unseal.Generate(true)
	if err != nil {
		t.Fatal(err)
	}
	planted := strings.Fields(string(other.Text()))[0]
	plant(c.cp.EtcdDir(), planted, func() {
		c.as(c.cp.Kubeconfig(), "apiVersion: v1\nkind: Secret\nmetadata: {name: planted, namespace: shop}\nstringData: {x: "+planted+"}\n", "create", "-f", "-")
	})
	plant(c.dir, marker3, func() {
		if err := os.WriteFile(filepath.Join(c.dir, "planted"), []byte(hex.EncodeToString([]byte(marker3))), 0o600); err != nil {
			t.Fatal(err)
		}
	})
}

// files adds every file below some folders. Files come and go while programs run.
func (h haystack) files(t *testing.T, folders ...string) {
	t.Helper()
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			if strings.HasPrefix(path, filepath.Dir(programs.safe)) {
				return nil // programs
			}
			text, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			h[path] = text
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// watchArguments looks at the arguments of every process until the function that it
// returns is called, which returns all that were seen.
func watchArguments(t *testing.T) (seen func() []byte) {
	t.Helper()
	var (
		wait sync.WaitGroup
		all  = make(map[string]bool)
		stop = make(chan struct{})
		once sync.Once
	)
	wait.Go(func() {
		for {
			files, err := filepath.Glob("/proc/[0-9]*/cmdline")
			if err != nil {
				panic(err) // the pattern is right
			}
			for _, file := range files {
				// Processes come and go.
				if text, err := os.ReadFile(file); err == nil {
					all[string(text)] = true
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	end := func() { once.Do(func() { close(stop); wait.Wait() }) }
	t.Cleanup(end)
	return func() []byte {
		end()
		var text []byte
		for line := range all {
			text = fmt.Appendln(text, line)
		}
		return text
	}
}
