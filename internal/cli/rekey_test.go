//go:build linux

package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// An archivist is who may open the archive of the old key.
type archivist struct{ *age.HybridIdentity }

func newArchivist(t *testing.T) archivist {
	t.Helper()
	identity, err := age.GenerateHybridIdentity()
	check(t, err)
	return archivist{identity}
}

func (a archivist) to() string { return a.Recipient().String() }

// opens returns the keys in an archive.
func (a archivist) opens(t *testing.T, file string) []*unseal.RootKey {
	t.Helper()
	text, err := os.ReadFile(file)
	check(t, err)
	plain, err := decryptAge(file, text, unseal.MaxTextSize, a)
	check(t, err)
	keys, err := unseal.ParseAll(plain)
	check(t, err)
	return keys
}

// A rekeyer runs the verbs of a re-key, and sees that no key is shown.
type rekeyer struct {
	t     *testing.T
	place *twinPlace
	keys  []*unseal.RootKey
}

func (r rekeyer) run(code int, args ...string) (stdout, stderr string) {
	r.t.Helper()
	got, stdout, stderr := run(r.t, "", append([]string{"rekey"}, args...)...)
	if got != code {
		r.t.Fatalf("rekey %q: exit code %d, want %d:\n%s%s", args, got, code, stdout, stderr)
	}
	hidesKeys(r.t, stdout+stderr, r.keys...)
	return stdout, stderr
}

func hidesKeys(t *testing.T, text string, keys ...*unseal.RootKey) {
	t.Helper()
	for _, key := range keys {
		lines := strings.Split(string(key.Text()), "\n")
		for _, secret := range []string{lines[0][20:44], lines[2][:24]} {
			if strings.Contains(strings.ToUpper(text), strings.ToUpper(secret)) {
				t.Errorf("a part of a root key is shown:\n%s", text)
			}
		}
	}
}

func says(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
}

func TestARekeyGoesStepByStepAndEachStepIsRepeated(t *testing.T) {
	t.Chdir(t.TempDir())
	old, made := newKey(t), newKey(t)
	p := newTwins(t, false, old, "a", "b", "c")
	p.generate = func() *unseal.RootKey { return made }
	p.replicas[0].sealed = true
	t.Setenv(safeVariable, p.sockets())
	who := newArchivist(t)
	r := rekeyer{t, p, []*unseal.RootKey{old, made}}
	archive := []string{"finish", "--archive", "old.age", "--archive-to", who.to()}

	stdout, _ := r.run(exitOK, "status")
	says(t, stdout, "No re-key is under way.", "a", "sealed", short(string(old.KeyID())))
	r.run(exitError, "abort")
	stdout, _ = r.run(exitOK, archive...)
	says(t, stdout, "no re-key is under way: there is no old root key to destroy; "+string(old.KeyID())+" is the active one\n")

	for range 2 {
		stdout, stderr := r.run(exitOK, "start", "--no-backup")
		if stdout != made.Recipient().String()+"\n" || p.times() != 1 {
			t.Errorf("the re-key began %d times: %s", p.times(), stdout)
		}
		says(t, stderr, "is sealed; it follows when it is unsealed", "note: put this recipient into .vsecm.yaml", "kubectl vsecm reencrypt", string(old.KeyID())+" under retiredKeys")
	}
	p.finds(rekeyReport{
		Opened: 7, NeedCount: 1201, BySource: map[string]int{"shop.config": 1200, "": 1},
		Needs: []rekeyNeed{
			{Source: "shop.config", File: "db.yaml", Line: 12, Namespace: "shop", Name: "db", Key: "password", KeyIDs: []encrypt.KeyID{old.KeyID()}, Why: "it is sealed to\x1b[31m the old key"},
			{Namespace: "test", Name: "web", Key: "token", Why: "it is sealed to the old key"},
		},
		Unread:     []rekeyUnread{{Source: "vsecm-system.infra", Why: "suspended"}},
		Unreadable: []rekeyNeed{{Source: "shop.config", File: "lost.yaml", Line: 3, Namespace: "shop", Name: "lost", Key: "k", Why: "no key that is held opens it"}}, UnreadableCount: 1,
	})
	stdout, _ = r.run(exitSomeLeft, "status")
	says(t, stdout, string(old.KeyID())+" → "+string(made.KeyID())+": begun 0s ago by olga.",
		"SOURCE               NEEDS OLD KEY\n", "<none>               1\n", "shop/config          1200\n", "vsecm-system/infra   not read\n",
		"vsecm-system/infra: not read: suspended\n", "shop/config db.yaml:12: shop/db key password: it is sealed to\\u001b[31m the old key\n",
		"stored: test/web key token: it is sealed to the old key\n", "and 1199 more\n", "shop/config lost.yaml:3: shop/lost key k: ")
	stdout, _ = r.run(exitSomeLeft, "status", "-o", "json")
	var shown shownRekey
	check(t, json.Unmarshal([]byte(stdout), &shown))
	if shown.Rekey.From != old.KeyID() || len(shown.Replicas) != 3 || shown.Replicas[1].Active != string(made.KeyID()) || shown.Report.NeedCount != 1201 || shown.Report.Needs[0].Line != 12 {
		t.Errorf("-o json: %s", stdout)
	}
	r.run(exitSomeLeft, "status", "-o", "yaml")

	before := files(t)
	_, stderr := r.run(exitSomeLeft, archive...)
	says(t, stderr, "shop/config db.yaml:12: shop/db", "is still needed; nothing was destroyed")
	_, stderr = r.run(exitError, append(archive, "--force-key-id", string(made.KeyID()))...)
	says(t, stderr, "that is not the id of the key that would be destroyed; nothing was destroyed")
	_, stderr = r.run(exitError, "start", "--no-backup", "--root-key", keyFile(t, newKey(t)))
	says(t, stderr, "is under way, and the key given is")
	if unchanged(t, before); p.now() == nil {
		t.Fatal("it is over")
	}

	// Back, and forth again.
	for range 2 {
		stdout, _ = r.run(exitOK, "abort")
		says(t, stdout, "root key "+string(old.KeyID())+" is the active one again")
	}
	_, stderr = r.run(exitError, "start", "--no-backup")
	says(t, stderr, "was aborted, and has to end first", "hint: 'kubectl vsecm rekey status'")
	p.finds(rekeyReport{Opened: 1207})
	stdout, _ = r.run(exitOK, "status")
	says(t, stdout, "aborted, and to be finished", "Nothing needs another key than "+short(string(old.KeyID()))+", which opens all 1207 values.")
	stdout, _ = r.run(exitOK, "finish", "--no-archive")
	says(t, stdout, "root key "+string(made.KeyID())+" is destroyed; "+string(old.KeyID())+" is the only one")
	if archived, forced := p.told(); archived != noArchive || forced {
		t.Errorf("finish was told %q, %v", archived, forced)
	}

	r.run(exitOK, "start", "--no-backup")
	stdout, stderr = r.run(exitOK, archive...)
	says(t, stdout, "root key "+string(old.KeyID())+" is destroyed; "+string(made.KeyID())+" is the only one")
	says(t, stderr, "note: root key "+string(old.KeyID())+" is archived in old.age")
	if keys := who.opens(t, "old.age"); len(keys) != 1 || keys[0].KeyID() != old.KeyID() {
		t.Errorf("the archive holds %v", keys)
	}
	text, err := os.ReadFile("old.age")
	check(t, err)
	sum := sha256.Sum256(text)
	if archived, forced := p.told(); archived != hex.EncodeToString(sum[:]) || forced {
		t.Errorf("Safe was told %s, %v", archived, forced)
	}
	if info, err := os.Stat("old.age"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	before = files(t)
	stdout, _ = r.run(exitOK, archive...)
	says(t, stdout, "no re-key is under way")
	unchanged(t, before)
}

// keyFile writes a root key.
func keyFile(t *testing.T, key *unseal.RootKey) string {
	t.Helper()
	path := t.TempDir() + "/root-key.txt"
	check(t, os.WriteFile(path, key.Text(), 0o600))
	return path
}

func TestInMemoryModeTheKeyIsHandedToEveryReplica(t *testing.T) {
	t.Chdir(t.TempDir())
	old, own := newKey(t), newKey(t)
	p := newTwins(t, true, old, "a", "b", "c")
	t.Setenv(safeVariable, p.sockets())
	r := rekeyer{t, p, []*unseal.RootKey{old, own}}
	_, stderr := r.run(exitError, "start", "--no-backup")
	says(t, stderr, "keeps its root key in memory alone", "hint: make one with 'kubectl vsecm keygen -o FILE'")
	_, stderr = r.run(exitError, "start", "--no-backup", "--root-key", keyFile(t, old))
	says(t, stderr, "is the active one already")
	classic, err := unseal.Generate(true)
	check(t, err)
	_, stderr = r.run(exitError, "start", "--no-backup", "--root-key", keyFile(t, classic))
	says(t, stderr, "the key given is classic, and the active one is hybrid")
	p.on(func(r *twin) {
		if len(r.did) > 0 {
			t.Errorf("%s was asked to %q", r.name, r.did)
		}
	})
	stdout, _ := r.run(exitOK, "start", "--no-backup", "--root-key", keyFile(t, own))
	if stdout != own.Recipient().String()+"\n" {
		t.Errorf("got %s", stdout)
	}
	p.on(func(r *twin) {
		if r.active.KeyID() != own.KeyID() || r.others[old.KeyID()] == nil {
			t.Errorf("%s has key %s", r.name, r.active.KeyID())
		}
	})
	// One that was started anew, and unsealed with the old key alone.
	p.on(func(r *twin) {
		if r.name == "b" {
			r.active, r.others = old, map[encrypt.KeyID]*unseal.RootKey{}
		}
	})
	stdout, _ = r.run(exitSomeLeft, "status")
	says(t, stdout, short(string(old.KeyID())))
	_, stderr = r.run(exitError, "finish", "--no-archive")
	says(t, stderr, "its active key is still "+string(old.KeyID()), "nothing was destroyed", "hint: 'kubectl vsecm rekey start' with the same key")
	r.run(exitOK, "start", "--no-backup", "--root-key", keyFile(t, own))
	r.run(exitOK, "finish", "--no-archive")
	p.on(func(r *twin) {
		if r.active.KeyID() != own.KeyID() || len(r.others)+len(r.staged) > 0 {
			t.Errorf("%s has key %s and %d more", r.name, r.active.KeyID(), len(r.others)+len(r.staged))
		}
	})
}

func TestTheNewKeyComesFromShares(t *testing.T) {
	t.Chdir(t.TempDir())
	old, own := newKey(t), shareKey(t, 3, 2)
	check(t, os.WriteFile("public", own.set.Text(), 0o644))
	check(t, os.WriteFile("one", []byte(own.shares[0]), 0o600))
	check(t, os.WriteFile("two", []byte(own.shares[2]), 0o600))
	p := newTwins(t, true, old, "a", "b")
	t.Setenv(safeVariable, p.sockets())
	r := rekeyer{t, p, []*unseal.RootKey{old, own.RootKey}}
	_, stderr := r.run(exitError, "start", "--no-backup", "--shares", "public", "--share", "one")
	says(t, stderr, "hint: 2 of the 3 shares are needed, and 1 are given")
	r.run(exitOK, "start", "--no-backup", "--shares", "public", "--share", "one", "--share", "two")
	p.on(func(r *twin) {
		if r.active.KeyID() != own.KeyID() {
			t.Errorf("%s has key %s", r.name, r.active.KeyID())
		}
	})
}

// Unless every replica takes the new key, nothing changes, and none keeps it.
func TestAReplicaThatDoesNotTakeTheKeyLeavesAllAsTheyWere(t *testing.T) {
	release := make(chan struct{})
	for name, tt := range map[string]struct {
		before func(do string, w http.ResponseWriter) bool
		want   string
	}{
		"it refuses": {func(do string, w http.ResponseWriter) bool {
			if do == "stage" {
				refuse(w, problem.Unavailable, "not now")
			}
			return do == "stage"
		}, "not now"},
		"it hangs": {func(do string, _ http.ResponseWriter) bool {
			if do == "stage" {
				<-release
			}
			return do == "stage"
		}, "it did not answer in time"},
		"it goes away": {func(do string, w http.ResponseWriter) bool {
			if do == "stage" {
				panic(http.ErrAbortHandler)
			}
			return false
		}, "reaching Safe at"},
		"it answers something else": {func(do string, w http.ResponseWriter) bool {
			if do == "stage" {
				_, _ = w.Write([]byte(`{"keyID":"` + strings.Repeat("0", 32) + `"}`))
			}
			return do == "stage"
		}, "its answer is not Safe's"},
		"it was sealed meanwhile": {func(do string, w http.ResponseWriter) bool {
			if do == "stage" {
				refuse(w, problem.Sealed, "sealed")
			}
			return do == "stage"
		}, "sealed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			old, own := newKey(t), newKey(t)
			p := newTwins(t, true, old, "a", "b", "c")
			p.replicas[1].intervene(tt.before)
			t.Setenv(safeVariable, p.sockets())
			args := []string{"start", "--no-backup", "--root-key", keyFile(t, own)}
			if name == "it hangs" {
				args = append(args, "--request-timeout", "5s")
				t.Cleanup(func() { close(release) })
			}
			r := rekeyer{t, p, []*unseal.RootKey{old, own}}
			_, stderr := r.run(exitError, args...)
			says(t, stderr, tt.want, "error: nothing was changed: every replica has to take the new key")
			if p.now() != nil || p.times() != 0 {
				t.Error("it has begun")
			}
			p.on(func(r *twin) {
				if len(r.staged) > 0 || r.active.KeyID() != old.KeyID() {
					t.Errorf("%s has key %s, and %d staged", r.name, r.active.KeyID(), len(r.staged))
				}
				if r.name != "b" && strings.Join(r.did, " ") != "stage unstage" {
					t.Errorf("%s was asked to %q", r.name, r.did)
				}
			})
			p.replicas[1].intervene(nil)
			r.run(exitOK, "start", "--no-backup", "--root-key", keyFile(t, own))
		})
	}
	// One that is not there at all.
	t.Chdir(t.TempDir())
	old, own := newKey(t), newKey(t)
	p := newTwins(t, true, old, "a", "b")
	t.Setenv(safeVariable, p.sockets()+",unix:///none")
	r := rekeyer{t, p, []*unseal.RootKey{old, own}}
	_, stderr := r.run(exitError, "start", "--no-backup", "--root-key", keyFile(t, own))
	says(t, stderr, "error: reaching Safe at unix:///none", "error: nothing was changed: every replica has to take the new key")
	p.on(func(r *twin) {
		if len(r.did) > 0 {
			t.Errorf("%s was asked to %q", r.name, r.did)
		}
	})
	// A sealed one gets both keys when it is unsealed.
	p.replicas[1].sealed = true
	t.Setenv(safeVariable, p.sockets())
	_, stderr = r.run(exitOK, "start", "--no-backup", "--root-key", keyFile(t, own))
	says(t, stderr, p.replicas[1].socket+" is sealed; it follows when it is unsealed")
}

func TestTwoOperatorsBeginAtOnce(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, memory := range map[string]bool{"in one place": false, "in memory": true} {
		t.Run(name, func(t *testing.T) {
			old := newKey(t)
			p := newTwins(t, memory, old, "a", "b", "c")
			t.Setenv(safeVariable, p.sockets())
			keys := []*unseal.RootKey{newKey(t), newKey(t)}
			paths := []string{keyFile(t, keys[0]), keyFile(t, keys[1])}
			codes, said := make([]int, 2), make([]string, 2)
			var both sync.WaitGroup
			for i := range 2 {
				both.Go(func() {
					code, stdout, stderr := run(t, "", "rekey", "start", "--no-backup", "--root-key", paths[i])
					codes[i], said[i] = code, stdout+stderr
				})
			}
			both.Wait()
			hidesKeys(t, said[0]+said[1], append(keys, old)...)
			if p.times() > 1 {
				t.Fatalf("it began %d times", p.times())
			}
			for i, key := range keys {
				if won := p.now() != nil && p.now().To == key.KeyID(); won != (codes[i] == exitOK) && !strings.Contains(said[i], "not every replica has followed") {
					t.Errorf("operator %d: exit code %d:\n%s", i, codes[i], said[i])
				}
			}
			// Whoever repeats it completes it, and nothing of the other is left.
			winner := 0
			if p.now() != nil && p.now().To == keys[1].KeyID() {
				winner = 1
			}
			code, stdout, stderr := run(t, "", "rekey", "start", "--no-backup", "--root-key", paths[winner])
			if code != exitOK {
				t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
			}
			p.on(func(r *twin) {
				if r.active.KeyID() != keys[winner].KeyID() || r.began != 1 {
					t.Errorf("%s has key %s; it began %d times", r.name, r.active.KeyID(), r.began)
				}
			})
		})
	}
}

// A plugin that dies between the archive and the end leaves an archive that is whole, and nothing is destroyed; the
// next attempt ends it, and loses no archive.
func TestFinishIsKilledBetweenTheArchiveAndTheEnd(t *testing.T) {
	t.Chdir(t.TempDir())
	old := newKey(t)
	p := newTwins(t, false, old, "a")
	t.Setenv(safeVariable, p.sockets())
	who := newArchivist(t)
	r := rekeyer{t, p, []*unseal.RootKey{old}}
	r.run(exitOK, "start", "--no-backup")
	reached, release := make(chan struct{}), make(chan struct{})
	p.replicas[0].intervene(func(do string, _ http.ResponseWriter) bool {
		if do == "finish" {
			close(reached)
			<-release
		}
		return do == "finish"
	})
	args := []string{"rekey", "finish", "--archive", "old.age", "--archive-to", who.to()}
	cmd := exec.Command("kubectl-vsecm", args...)
	check(t, cmd.Start())
	select {
	case <-reached:
	case <-time.After(patience):
		t.Fatal("it does not come to the end")
	}
	check(t, cmd.Process.Signal(unix.SIGKILL))
	_ = cmd.Wait()
	close(release)
	if keys := who.opens(t, "old.age"); len(keys) != 1 || keys[0].KeyID() != old.KeyID() || p.now() == nil {
		t.Fatalf("the archive holds %v", keys)
	}
	p.replicas[0].intervene(nil)
	_, stderr := r.run(exitOK, args[1:]...)
	says(t, stderr, "note: old.age was there already; it is old.age.1 now")
	for _, file := range []string{"old.age", "old.age.1"} {
		if keys := who.opens(t, file); len(keys) != 1 || keys[0].KeyID() != old.KeyID() {
			t.Errorf("%s holds %v", file, keys)
		}
	}
	// What is no archive is not moved.
	check(t, os.WriteFile("db.yaml", []byte("a: b\n"), 0o644))
	r.run(exitOK, "start", "--no-backup")
	own := ""
	p.on(func(r *twin) { own = r.others[r.record.From].Recipient().String() })
	before := files(t)
	_, stderr = r.run(exitError, "finish", "--archive", "db.yaml", "--archive-to", who.to())
	says(t, stderr, "db.yaml exists already, is no age file, and is left as it is")
	_, stderr = r.run(exitError, "finish", "--archive", "new.age", "--archive-to", own)
	says(t, stderr, "this is the old key's own recipient", "nothing was destroyed")
	unchanged(t, before)
}

// An answer that is lost does not make it unknown how it ended, if Safe can still be asked.
func TestALostAnswerIsMadeUpFor(t *testing.T) {
	t.Chdir(t.TempDir())
	old := newKey(t)
	p := newTwins(t, false, old, "a")
	t.Setenv(safeVariable, p.sockets())
	r := rekeyer{t, p, []*unseal.RootKey{old}}
	lose := func(what string) {
		a := p.replicas[0]
		a.intervene(func(do string, _ http.ResponseWriter) bool {
			if do != what {
				return false
			}
			a.intervene(nil)
			recorder := discardAnswer{http.Header{}}
			a.mu.Lock()
			a.do(recorder, do, "", nil, noArchive, false, func(any) {})
			a.mu.Unlock()
			panic(http.ErrAbortHandler)
		})
	}
	lose("start")
	_, stderr := r.run(exitError, "start", "--no-backup")
	says(t, stderr, "whether the re-key has begun is not known", "hint: say it again")
	if r.run(exitOK, "start", "--no-backup"); p.times() != 1 {
		t.Errorf("it began %d times", p.times())
	}
	lose("finish")
	stdout, _ := r.run(exitOK, "finish", "--no-archive")
	says(t, stdout, "root key "+string(old.KeyID())+" is destroyed")
	if p.now() != nil {
		t.Error("it is not over")
	}
}

type discardAnswer struct{ header http.Header }

func (d discardAnswer) Header() http.Header         { return d.header }
func (d discardAnswer) Write(p []byte) (int, error) { return len(p), nil }
func (d discardAnswer) WriteHeader(int)             {}

func TestForceHasTheKeyIDTyped(t *testing.T) {
	t.Chdir(t.TempDir())
	old := newKey(t)
	p := newTwins(t, false, old, "a")
	t.Setenv(safeVariable, p.sockets())
	r := rekeyer{t, p, []*unseal.RootKey{old}}
	r.run(exitOK, "start", "--no-backup")
	p.finds(rekeyReport{NeedCount: 1, BySource: map[string]int{"shop.config": 1}, Needs: []rekeyNeed{{Source: "shop.config", File: "db.yaml", Line: 12, Namespace: "shop", Name: "db", Key: "k", Why: "old"}}})
	const prompt = "Its whole key id, to destroy it: "
	for _, typed := range []string{"\r", "yes\r", short(string(old.KeyID())) + "\r", string(p.now().To) + "\r", "\x04"} {
		at := at(t, "rekey", "finish", "--no-archive", "--force")
		at.sees(prompt, 1)
		at.types(typed)
		code, screen := at.leaves()
		if code != exitError || p.now() == nil || !strings.Contains(screen, "nothing was destroyed") || !strings.Contains(screen, "shop/config db.yaml:12: shop/db key k: old") {
			t.Fatalf("%q: exit code %d; the screen shows:\n%s", typed, code, screen)
		}
	}
	at1 := at(t, "rekey", "finish", "--no-archive", "--force")
	at1.sees(prompt, 1)
	at1.types("\x03")
	if code, screen := at1.leaves(); code == exitOK || p.now() == nil {
		t.Errorf("Ctrl-C: exit code %d:\n%s", code, screen)
	}
	// Without a terminal there is nobody to ask.
	out, err := exec.Command("setsid", "-w", "kubectl-vsecm", "rekey", "finish", "--no-archive", "--force").CombinedOutput()
	if err == nil || p.now() == nil || !strings.Contains(string(out), "hint: in a script, say --force-key-id") {
		t.Errorf("%v: %s", err, out)
	}
	at2 := at(t, "rekey", "finish", "--no-archive", "--force")
	at2.sees(prompt, 1)
	at2.types(string(old.KeyID()) + "\r")
	if code, screen := at2.leaves(); code != exitOK || p.now() != nil || !forced(p) {
		t.Errorf("exit code %d; the screen shows:\n%s", code, screen)
	}
	// In a script; and where nothing is in the way, nothing is forced.
	r.run(exitOK, "start", "--no-backup")
	r.run(exitOK, "finish", "--no-archive", "--force-key-id", string(p.now().From))
	if p.now() != nil || !forced(p) {
		t.Error("not forced")
	}
	p.finds(rekeyReport{})
	r.run(exitOK, "start", "--no-backup")
	r.run(exitOK, "finish", "--no-archive", "--force-key-id", strings.Repeat("0", 32))
	if p.now() != nil || forced(p) {
		t.Error("forced")
	}
}

func forced(p *twinPlace) bool {
	_, forced := p.told()
	return forced
}

func TestNothingIsDoneWithASealedSafe(t *testing.T) {
	t.Chdir(t.TempDir())
	p := newTwins(t, false, newKey(t), "a", "b")
	p.replicas[0].sealed, p.replicas[1].sealed = true, true
	t.Setenv(safeVariable, p.sockets())
	r := rekeyer{t: t, place: p}
	for _, args := range [][]string{{"start", "--no-backup"}, {"status"}, {"finish", "--no-archive"}, {"abort"}} {
		_, stderr := r.run(exitError, args...)
		says(t, stderr, "error: every replica of Safe is sealed\nhint: unseal it with 'kubectl vsecm unseal'")
	}
}

// A Safe that keeps its keys in files and dies in the last step of a finish has destroyed the key, and still has the
// re-key on record: the next attempt ends it, without a key to archive.
func TestFinishEndsWhatDestroyedTheKeyAlready(t *testing.T) {
	t.Chdir(t.TempDir())
	old := newKey(t)
	p := newTwins(t, false, old, "a")
	t.Setenv(safeVariable, p.sockets())
	who := newArchivist(t)
	r := rekeyer{t, p, []*unseal.RootKey{old}}
	r.run(exitOK, "start", "--no-backup")
	p.on(func(r *twin) { clear(r.others) })
	check(t, os.WriteFile("old.age", []byte("age-encryption.org/v1\nof the attempt that did not end"), 0o600))
	before := files(t)
	stdout, stderr := r.run(exitOK, "finish", "--archive", "old.age", "--archive-to", who.to())
	says(t, stderr, "does not hold root key "+string(old.KeyID())+" any more")
	says(t, stdout, "root key "+string(old.KeyID())+" is destroyed")
	unchanged(t, before)
	if p.now() != nil {
		t.Error("the re-key is still under way")
	}
}

// Replicas that keep their keys in memory and were all unsealed without the old one have not destroyed it.
func TestAnArchiveThatWasAskedForIsNotLeftOut(t *testing.T) {
	t.Chdir(t.TempDir())
	old, own := newKey(t), newKey(t)
	p := newTwins(t, true, old, "a")
	t.Setenv(safeVariable, p.sockets())
	r := rekeyer{t, p, []*unseal.RootKey{old, own}}
	r.run(exitOK, "start", "--no-backup", "--root-key", keyFile(t, own))
	p.on(func(r *twin) { clear(r.others) })
	_, stderr := r.run(exitError, "finish", "--archive", "old.age", "--archive-to", newArchivist(t).to())
	says(t, stderr, "no replica holds root key "+string(old.KeyID()), "nothing was destroyed", "hint: give it to one of them")
	if p.now() == nil {
		t.Error("the re-key is over")
	}
	r.run(exitOK, "finish", "--no-archive")
}
