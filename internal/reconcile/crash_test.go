package reconcile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// What was written of a commit stands, also if another of its objects could not be written, and a new leader
// knows nothing but the journal.
func TestPromise08_NoRewindBehindWhatWasOnlyBegun(t *testing.T) {
	e := newEnv(t)
	first := e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=one"), "b.yaml": e.seal("shop", "b", "k=one")})
	e.sync()
	e.spy.apply = func(key store.Key) error {
		if key.Name == "b" {
			return errors.New("webhook does not answer")
		}
		return nil
	}
	second := e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=two"), "b.yaml": e.seal("shop", "b", "k=two")})
	for range 2 {
		if err := e.source.Sync(context.Background()); err == nil {
			t.Fatal("it was applied")
		}
	}
	e.restart()
	e.repo.SetHead(first)
	if err := e.source.Sync(context.Background()); !errors.Is(err, sync.ErrRewound) {
		t.Errorf("gone back: %v", err)
	}
	e.wantStored("shop/a{k=two} shop/b{k=one}")

	e.spy.apply = nil
	e.repo.SetHead(second)
	e.sync()
	e.wantStored("shop/a{k=two} shop/b{k=two}")
	if s, err := e.journal.Load(context.Background(), e.config.Name); err != nil || s.Revision != second || s.Begun != "" {
		t.Errorf("journal: %+v, %v", s, err)
	}
}

// TestPromise07_SIGKILLNeitherLosesNorMixesAVersion kills a process that
// reconciles a stream of commits. Each commit writes the same number into both
// values of every object, so that a mix would show.
func TestPromise07_SIGKILLNeitherLosesNorMixesAVersion(t *testing.T) {
	if dir := os.Getenv("VSECM_TEST_RECONCILE"); dir != "" {
		reconcileUntilKilled(t, dir, os.Getenv("VSECM_TEST_REPO"), os.Getenv("VSECM_TEST_KEY"))
		return
	}
	e := newEnv(t)
	keyFile := filepath.Join(t.TempDir(), "key.txt")
	if err := os.WriteFile(keyFile, e.root.Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	number := make(map[string]int) // by revision
	version := 0
	push := func() {
		version++
		files := make(map[string]string)
		for _, name := range []string{"a", "b", "c"} {
			files[name+".yaml"] = e.seal("shop", name, fmt.Sprintf("k=%d", version), fmt.Sprintf("l=%d", version))
		}
		// One that comes and goes.
		if version%8 != 7 {
			files["z.yaml"] = e.seal("shop", "z", fmt.Sprintf("k=%d", version), fmt.Sprintf("l=%d", version))
			number[e.commit(files)] = version
		} else {
			number[e.commit(files, "z.yaml")] = version
		}
	}
	// z goes seldom enough that its deletions do not add up to the brake's.
	push()
	for round := range 10 {
		e.stop()
		cmd := exec.Command(os.Args[0], "-test.run=^TestPromise07_SIGKILLNeitherLosesNorMixesAVersion$")
		cmd.Env = append(os.Environ(), "VSECM_TEST_RECONCILE="+e.dir, "VSECM_TEST_REPO="+e.repo.Dir, "VSECM_TEST_KEY="+keyFile)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(rng.IntN(200))*time.Millisecond, func() { cmd.Process.Kill() })
		for range 3 {
			push()
		}
		if err := cmd.Wait(); err == nil || strings.Contains(out.String(), "FAIL") {
			t.Fatalf("round %d: %v\n%s", round, err, &out)
		}
		timer.Stop()
		e.start()
		state, err := e.journal.Load(context.Background(), "vsecm-system.main")
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range strings.Fields(strings.ReplaceAll(e.stored(), " l=", ",l=")) {
			_, values, _ := strings.Cut(strings.TrimSuffix(o, "}"), "{")
			k, l, _ := strings.Cut(values, ",")
			k, l = strings.TrimPrefix(k, "k="), strings.TrimPrefix(l, "l=")
			n, err := strconv.Atoi(k)
			if err != nil || k != l {
				t.Errorf("round %d: %s is a mix", round, o)
			}
			if n < number[state.Revision] && !strings.HasPrefix(o, "shop/z") {
				t.Errorf("round %d: %s, after version %d was applied", round, o, number[state.Revision])
			}
		}
	}
	e.sync()
	var want []string
	for _, name := range []string{"a", "b", "c", "z"} {
		if name != "z" || version%8 != 7 {
			want = append(want, fmt.Sprintf("shop/%s{k=%d l=%d}", name, version, version))
		}
	}
	e.wantStored(strings.Join(want, " "))
}

func reconcileUntilKilled(t *testing.T, dir, repo, keyFile string) {
	text, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	root, err := unseal.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := unseal.NewKeyring(root)
	if err != nil {
		t.Fatal(err)
	}
	data, err := store.OpenDir(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	journal, err := store.OpenJournal(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	source, err := reconcile.New(reconcile.Config{
		Name: "vsecm-system.main", Prune: true, Interval: time.Millisecond,
		Remote: sync.Remote{URL: repo, Branch: gitserver.Branch},
	}, filepath.Join(dir, "mirror"), reconcile.Deps{
		Store: data, Journal: journal, Keys: ring, Log: slog.New(slog.DiscardHandler), Metrics: reconcile.NewMetrics(prometheus.NewRegistry()),
	})
	if err != nil {
		t.Fatal(err)
	}
	source.Run(context.Background())
}
