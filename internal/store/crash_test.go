package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/store/storetest"
)

const (
	crashWriters = 2
	crashOwner   = "shop.main"
)

// A step is one write of a stream: of an object, or of the journal.
type step struct {
	key   store.Key // an object's; zero for the journal
	value string    // empty: delete
}

// stream yields the writes of one writer, always the same for one seed. The
// writers of one seed share no key.
func stream(seed uint64, writer int) func() step {
	r := rand.New(rand.NewPCG(seed, uint64(writer)))
	n := 0
	return func() step {
		n++
		tag := fmt.Sprintf("%d-%d-%d", seed, writer, n)
		k := r.IntN(10)
		key := store.Key{Namespace: fmt.Sprintf("ns-%d", k%3), Name: fmt.Sprintf("w%d-%d", writer, k)}
		switch p := r.IntN(10); {
		case p < 2:
			return step{key: key}
		case p < 3:
			return step{value: tag}
		default:
			// Sizes on both sides of a page and of a write's buffer.
			return step{key: key, value: tag + strings.Repeat("-", r.IntN(40_000))}
		}
	}
}

func sourceOf(writer int) string { return fmt.Sprintf("shop.w%d", writer) }

// writeStream writes the streams of a seed until it is killed, and prints the
// number of a writer after each of its writes that was acknowledged.
func writeStream(dir, role string) error {
	var seed uint64
	if _, err := fmt.Sscanf(role, "write %d", &seed); err != nil {
		return err
	}
	d, err := store.OpenDir(dir)
	if err != nil {
		return err
	}
	j, err := store.OpenJournal(dir)
	if err != nil {
		return err
	}
	var group errgroup.Group
	for writer := range crashWriters {
		next := stream(seed, writer)
		group.Go(func() error {
			for {
				s := next()
				switch {
				case s.key == store.Key{}:
					err = j.Save(context.Background(), sourceOf(writer), store.SourceState{Revision: s.value})
				case s.value == "":
					err = d.Delete(context.Background(), crashOwner, s.key)
				default:
					_, err = d.Apply(context.Background(), crashOwner, storetest.Object(s.key.Namespace, s.key.Name, s.value))
				}
				if err != nil {
					return err
				}
				if _, err := os.Stdout.WriteString(strconv.Itoa(writer) + "\n"); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

// A crashState is what one writer's part of the data directory holds. The
// journal is under the zero key.
type crashState map[store.Key]string

func (c crashState) after(s step) crashState {
	next := maps.Clone(c)
	if s.value == "" {
		delete(next, s.key)
	} else {
		next[s.key] = s.value
	}
	return next
}

// readBack opens the directory anew and returns what each writer's part holds.
func readBack(t *testing.T, dir string) [crashWriters]crashState {
	t.Helper()
	d, err := store.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	j, err := store.OpenJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, f := range d.Faults() {
		t.Errorf("%s is not whole: %v", f.Path, f.Err)
	}
	for _, folder := range []string{"objects", "sources"} {
		if left, err := filepath.Glob(filepath.Join(dir, folder, ".*")); err != nil || len(left) > 0 {
			t.Errorf("temporary files were left: %v, %v", left, err)
		}
	}
	var states [crashWriters]crashState
	for writer := range states {
		states[writer] = make(crashState)
		s, err := j.Load(t.Context(), sourceOf(writer))
		if err != nil {
			t.Errorf("the journal is not whole: %v", err)
		}
		if s.Revision != "" {
			states[writer][store.Key{}] = s.Revision
		}
	}
	all, err := d.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range all {
		var writer int
		if _, err := fmt.Sscanf(o.Name, "w%d-", &writer); err != nil {
			t.Fatal(err)
		}
		states[writer][store.KeyOf(o)] = o.Spec.EncryptedData["password"]
	}
	return states
}

// TestPromise07_AcknowledgedWritesSurviveSIGKILL kills a process that writes,
// again and again at other points. What is found afterwards must be exactly
// what was acknowledged, with or without the one write that was under way.
// VSECM_SOAK_KILLS sets how often.
func TestPromise07_AcknowledgedWritesSurviveSIGKILL(t *testing.T) {
	kills := 30
	if s := os.Getenv("VSECM_SOAK_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("VSECM_SOAK_KILLS=%q: want a number of kills", s)
		}
		kills = n
	}
	dir := t.TempDir()
	states := readBack(t, dir)
	points := rand.New(rand.NewPCG(7, 7))
	var acknowledged, unacknowledged int
	for seed := range uint64(kills) {
		acks := killWriter(t, seed, dir, points.IntN(60), time.Duration(points.IntN(3000))*time.Microsecond)
		found := readBack(t, dir)
		for writer := range crashWriters {
			want := states[writer]
			next := stream(seed, writer)
			for range acks[writer] {
				want = want.after(next())
			}
			acknowledged += acks[writer]
			switch {
			case maps.Equal(found[writer], want):
			case maps.Equal(found[writer], want.after(next())):
				unacknowledged++
			default:
				t.Fatalf("kill %d: after %d acknowledged writes, writer %d's part is not what was acknowledged:\n%s", seed, acks[writer], writer, differing(found[writer], want))
			}
		}
		states = found
	}
	t.Logf("%d kills, %d acknowledged writes, %d more found done", kills, acknowledged, unacknowledged)
	if acknowledged < kills {
		t.Errorf("only %d writes were acknowledged: the test killed too early to tell anything", acknowledged)
	}
}

// killWriter starts a writer, kills it a while after its nth acknowledgement,
// and returns how many writes of each stream it acknowledged.
func killWriter(t *testing.T, seed uint64, dir string, n int, after time.Duration) (acks [crashWriters]int) {
	t.Helper()
	child, lines := startChild(t, fmt.Sprintf("write %d", seed), dir)
	count := 0
	kill := func() {
		if err := child.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
	}
	if n == 0 {
		// The kill may also hit the opening of the directory.
		time.AfterFunc(after*10, kill)
	}
	for lines.Scan() {
		writer, err := strconv.Atoi(lines.Text())
		if err != nil || writer < 0 || writer >= crashWriters {
			t.Errorf("the child said: %s", lines.Text())
			continue
		}
		acks[writer]++
		if count++; count == n {
			time.AfterFunc(after, kill)
		}
	}
	if err := lines.Err(); err != nil {
		t.Error(err)
	}
	if err := child.Wait(); err == nil || child.ProcessState.Success() {
		t.Error("the child ended by itself")
	}
	return acks
}

func differing(found, want crashState) string {
	var b strings.Builder
	for key, v := range want {
		if found[key] != v {
			fmt.Fprintf(&b, "%s: found %.20q, want %.20q\n", key, found[key], v)
		}
	}
	for key, v := range found {
		if _, ok := want[key]; !ok {
			fmt.Fprintf(&b, "%s: found %.20q, want none\n", key, v)
		}
	}
	return b.String()
}
