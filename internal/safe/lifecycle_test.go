package safe_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func TestSIGTERMEndsWatchesAndLeavesNothingBehind(t *testing.T) {
	w := local(t)
	w.push(map[string]string{"db.yaml": w.seal("db", password("one"))})
	w.start()
	db := w.workload("db")
	first := db.wants(one)
	type result struct {
		answer
		error
	}
	got := make(chan result, 1)
	go func() {
		a, err := db.get(context.Background(), "?watch=1", first.etag)
		got <- result{a, err}
	}()
	wait.For(t, "the watch is held", func() error {
		if w.metric("vsecm_watches") != "1" {
			return errors.New("not yet")
		}
		return nil
	})
	socket := w.at.Operator
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the operator's socket: %v, %v", info, err)
	}
	w.process.stop(t) // exit code 0
	if r := <-got; r.error != nil || r.code != http.StatusNotModified || r.etag != first.etag {
		t.Errorf("the watch ended with %+v, %v", r.answer, r.error)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the operator's socket: %v", err)
	}
	if log := w.process.stderr.String(); !strings.Contains(log, `"msg":"stopped"`) || strings.Contains(log, `"level":"ERROR"`) {
		t.Errorf("log:\n%s", log)
	}
	if audit := w.process.stdout.String(); !strings.Contains(audit, `"verb":"watch"`) {
		t.Errorf("the audit log lacks the watch:\n%s", audit)
	}
}

func TestSIGTERMWhileWaitingForAnSVID(t *testing.T) {
	w := local(t)
	w.process = run(t, nil, "serve", "--config", w.config)
	w.process.logged(t, "waiting for an SVID")
	w.process.stop(t)
}

func TestAWorkloadAPIThatComesLaterIsWaitedFor(t *testing.T) {
	w := local(t)
	w.push(map[string]string{"db.yaml": w.seal("db", password("one"))})
	w.process = run(t, nil, "serve", "--config", w.config)
	w.at = w.process.logged(t, "started")
	w.process.logged(t, "waiting for an SVID")
	w.applied(0) // the operator is answered, and git is followed
	if code, body, err := plain(w.at.Liveness, "/"); err != nil || code != http.StatusOK {
		t.Errorf("liveness: %d %s, %v", code, body, err)
	}
	if err := w.probe(http.StatusServiceUnavailable); err != nil {
		t.Error(err)
	}
	w.giveSVID(time.Hour)
	wait.For(t, "Safe is ready", func() error { return w.probe(http.StatusOK) })
	w.workload("db").wants(one)
}

func TestAnExpiredSVIDMakesSafeUnready(t *testing.T) {
	w := local(t)
	w.push(map[string]string{"db.yaml": w.seal("db", password("one"))})
	w.giveSVID(2 * time.Second) // and a new one each second
	w.start()
	w.workload("db").wants(one)
	w.svid.Revoke()
	wait.For(t, "Safe is not ready", func() error { return w.probe(http.StatusServiceUnavailable) })
	if code, _, err := plain(w.at.Liveness, "/"); err != nil || code != http.StatusOK {
		t.Errorf("liveness: %d, %v", code, err)
	}
	if err := w.svid.Rotate(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "Safe is ready", func() error { return w.probe(http.StatusOK) })
	w.workload("db").wants(one)
}

func TestASecondSafeOnTheSameDataIsRefused(t *testing.T) {
	w := local(t)
	w.start()
	second := run(t, nil, "serve", "--config", w.config)
	if code := second.wait(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if out := second.stderr.String(); !strings.Contains(out, "error: ") || !strings.Contains(out, "in use by another process") || !strings.Contains(out, "hint: a data directory belongs to one process") {
		t.Errorf("it says:\n%s", out)
	}
	// The first one has lost nothing.
	if _, _, err := w.status(); err != nil {
		t.Error(err)
	}
}

func TestARestartServesWhileTheRepositoryIsAway(t *testing.T) {
	w := local(t)
	w.push(map[string]string{"db.yaml": w.seal("db", password("one"))})
	w.start()
	w.workload("db").wants(one)
	w.must(os.Rename(w.repo.Dir, w.repo.Dir+".away"))
	w.restart()
	w.workload("db").has(one) // from the first answer on
}

// Whatever is wrong with the root key, Safe starts, says so, serves nothing, makes no other
// key, and goes on when the key is put right.
func TestRootKeyFiles(t *testing.T) {
	key := func(w *world) string { return filepath.Join(w.dir, "root-key.txt") }
	forget := func(w *world) { w.must(os.Remove(filepath.Join(w.data, "recipient.txt"))) }
	for _, tt := range []struct {
		name    string
		prepare func(*world)
		says    []string
	}{
		{"missing", func(w *world) { w.must(os.Remove(key(w))) },
			[]string{"there is no root key", "KEYID"}},
		{"missing, and not on record, with objects that need it", func(w *world) { w.must(os.Remove(key(w))); forget(w) },
			[]string{"there is no root key", "not on record", "KEYID"}},
		{"missing, and not on record, with objects that cannot be read", func(w *world) {
			w.must(os.Remove(key(w)))
			forget(w)
			w.write(filepath.Join(w.data, "objects", "shop", "db.yaml"), "{{{")
		}, []string{"there is no root key", "1 stored objects cannot be read"}},
		{"open to everybody", func(w *world) { w.must(os.Chmod(key(w), 0o644)) },
			[]string{"open to everybody", "chmod 600"}},
		{"empty", func(w *world) { w.must(os.WriteFile(key(w), nil, 0o600)) },
			[]string{"malformed root key", "KEYID"}},
		{"corrupt", func(w *world) {
			text := bytes.Replace(w.key.Text(), []byte("AGE-SECRET-KEY-1"), []byte("AGE-SECRET-KEY-1QQQ"), 1)
			w.must(os.WriteFile(key(w), text, 0o600))
		}, []string{"malformed root key", "KEYID"}},
		{"a half", func(w *world) { w.must(os.WriteFile(key(w), w.key.Text()[:60], 0o600)) },
			[]string{"malformed root key", "KEYID"}},
		{"another", func(w *world) {
			other, err := unseal.Generate(true)
			w.must(err)
			w.must(os.WriteFile(key(w), other.Text(), 0o600))
		}, []string{"KEYID"}},
		{"a folder", func(w *world) {
			w.must(os.Remove(key(w)))
			w.must(os.Mkdir(key(w), 0o700))
		}, []string{"not a regular file"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := local(t)
			w.push(map[string]string{"db.yaml": w.seal("db", password("one"))})
			w.start()
			w.applied(0)
			w.process.stop(t)
			tt.prepare(w)
			before, _ := os.ReadFile(key(w))
			w.launch()
			w.at = w.process.logged(t, "started")
			w.process.logged(t, "sealed: no secret is served")
			wait.For(t, "Safe is sealed", func() error { return w.probe(http.StatusServiceUnavailable) })
			out := w.process.stderr.String()
			for _, want := range tt.says {
				if want = strings.ReplaceAll(want, "KEYID", string(w.key.KeyID())); !strings.Contains(out, want) {
					t.Errorf("it does not say %q:\n%s", want, out)
				}
			}
			if strings.Contains(out, "AGE-SECRET-KEY") || strings.Contains(out, string(w.key.Text()[20:50])) {
				t.Errorf("it shows the key:\n%s", out)
			}
			if after, _ := os.ReadFile(key(w)); !bytes.Equal(before, after) {
				t.Error("the key's file was changed")
			}
			w.must(os.RemoveAll(key(w)))
			w.must(encrypt.CreateFile(key(w), w.key.Text(), 0o600))
			wait.For(t, "Safe is ready", func() error { return w.probe(http.StatusOK) })
			w.workload("db").wants(one)
		})
	}
}

func TestPromise05_ASealOnOneMachineLastsUntilTheUnseal(t *testing.T) {
	w := local(t)
	w.push(map[string]string{"db.yaml": w.seal("db", password("one"))})
	w.start()
	w.workload("db").wants(one)
	if out, err := w.plugin("seal"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sealed := func() {
		t.Helper()
		wait.For(t, "Safe is sealed", func() error { return w.probe(http.StatusServiceUnavailable) })
		if out, err := w.plugin("status"); err == nil || !strings.Contains(out, "sealed") {
			t.Errorf("%v: %s", err, out)
		}
	}
	sealed()
	w.push(map[string]string{"db.yaml": w.seal("db", password("two"))})
	w.process.stop(t)
	w.launch()
	w.at = w.process.logged(t, "started")
	sealed()

	other, err := unseal.Generate(true)
	w.must(err)
	wrong, right := filepath.Join(w.dir, "wrong.txt"), filepath.Join(w.dir, "right.txt")
	w.must(encrypt.CreateFile(wrong, other.Text(), 0o600))
	w.must(encrypt.CreateFile(right, w.key.Text(), 0o600))
	if out, err := w.plugin("unseal", "--file", wrong); err == nil || !strings.Contains(out, string(w.key.KeyID())) {
		t.Errorf("with a wrong key: %v: %s", err, out)
	}
	sealed()
	if out, err := w.plugin("unseal", "--file", right); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.workload("db").wants(map[string]string{"db/password": "two"})
	w.restart()
	w.workload("db").wants(map[string]string{"db/password": "two"})
}

func TestARootKeyIsMadeAtTheFirstStart(t *testing.T) {
	w := local(t)
	file := filepath.Join(w.dir, "root-key.txt")
	w.must(os.Remove(file))
	w.start()
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	text, err := os.ReadFile(file)
	w.must(err)
	if w.key, err = unseal.Parse(text); err != nil {
		t.Fatal(err)
	}
	if !w.key.Recipient().Hybrid() {
		t.Error("the new key is not hybrid")
	}
	w.push(map[string]string{"db.yaml": w.seal("db", password("one"))})
	w.workload("db").wants(one)
	w.restart()
	w.workload("db").has(one)
	if log := w.process.stderr.String(); strings.Contains(log, "generated") {
		t.Errorf("a second key was made:\n%s", log)
	}
}

// A stored object that cannot be read is told, and comes back from git.
func TestADamagedObjectIsToldAndPutRight(t *testing.T) {
	w := local(t)
	w.push(map[string]string{"db.yaml": w.seal("db", password("one")), "other.yaml": w.seal("other", map[string]string{"k": "v"})})
	w.start()
	w.applied(0)
	w.process.stop(t)
	w.write(filepath.Join(w.data, "objects", "shop", "db.yaml"), "{{{")
	w.must(os.Rename(w.repo.Dir, w.repo.Dir+".away"))
	w.start()
	w.workload("other").has(map[string]string{"other/k": "v"})
	w.workload("db").has(map[string]string{})
	st, body, err := w.status()
	if err != nil || len(st.Unreadable) != 1 || !strings.Contains(st.Unreadable[0], "objects/shop/db.yaml") {
		t.Errorf("status %s, %v", body, err)
	}
	w.must(os.Rename(w.repo.Dir+".away", w.repo.Dir))
	w.workload("db").wants(one)
	if st, body, err = w.status(); err != nil || len(st.Unreadable) != 0 {
		t.Errorf("status %s, %v", body, err)
	}
}

func TestASecondSignalEndsSafeAtOnce(t *testing.T) {
	w := local(t)
	w.start()
	w.must(w.process.cmd.Process.Signal(syscall.SIGINT))
	w.must(ignoreGone(w.process.cmd.Process.Signal(syscall.SIGINT)))
	w.process.wait(t)
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

func TestBadConfigurationIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name, config string
		says         string
	}{
		{"no such file", "", "no such file"},
		{"an unknown field", "dataDir: data\nprune: true\n", "line 2: field prune not found"},
		{"an address that is taken", "", "address already in use"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := local(t)
			switch tt.name {
			case "no such file":
				w.must(os.Remove(w.config))
			case "an address that is taken":
				other := local(t)
				other.start()
				w.write(w.config, fmt.Sprintf("dataDir: data\nlisten: {api: %q, liveness: \"-\", readiness: \"-\", metrics: \"-\", operator: \"-\"}\nspiffe: {socket: \"unix:///s\"}\n", other.at.API))
			default:
				w.write(w.config, tt.config)
			}
			w.launch()
			if code := w.process.wait(t); code != 1 {
				t.Errorf("exit code %d", code)
			}
			if out := w.process.stderr.String(); !strings.Contains(out, "error: ") || !strings.Contains(out, tt.says) {
				t.Errorf("it does not say %q:\n%s", tt.says, out)
			}
		})
	}
}
