package safe_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// TestPromise07_KilledRekeyLosesNothing replaces the root key again and again: backup, rekey
// start, reencrypt, rekey finish, restore, and on the way at times one that is aborted. Safe or the plugin is killed with
// SIGKILL at random in each of these commands, which is repeated then. All the while a workload reads, and gets what was
// sealed; every value opens with the keys that are kept; the old key is kept, or archived; and a backup or an
// archive that has its name is whole. In the end nothing that Safe has needs the old key, or holds it.
func TestPromise07_KilledRekeyLosesNothing(t *testing.T) {
	kills, seed := number(t, "VSECM_SOAK_KILLS", normalKills/2), uint64(number(t, "VSECM_SOAK_SEED", killSeed))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d; the moments of the kills differ from run to run all the same", seed)
		}
	}()
	r := newRekeyTrial(t, rand.New(rand.NewPCG(seed, 5)), kills)

	ctx, stop := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	reading.Go(func() { r.reads(ctx) })
	defer func() { stop(); reading.Wait() }()

	rounds := 0
	for ; r.killed() < kills; rounds++ { // nobody is killed in the first
		r.round(rounds)
	}
	stop()
	reading.Wait()
	t.Logf("%d re-keys; %d kills of Safe and %d of the plugin; a workload read %d times", rounds, r.kills["safe"], r.kills["plugin"], r.read.Load())
	if r.read.Load() < int64(kills) {
		t.Errorf("the test saw too little to tell anything")
	}
}

// round is one re-key. Every third begins with one that is aborted.
func (r *rekeyTrial) round(n int) {
	file := func(format string) string { return filepath.Join(r.out, fmt.Sprintf(format, n)) }
	// It need not wait long for a Safe that was killed.
	at := []string{"--safe", "unix://" + r.at.Operator, "--request-timeout", "20s"}
	with := func(args ...string) []string { return append(args, at...) }
	to := r.operator.Recipient().String()
	before := r.kept()
	if len(before) != 1 {
		r.t.Fatalf("%d keys are kept before a re-key", len(before))
	}
	old := before[0]
	clear(r.old)
	r.old[old.KeyID()] = old
	stays := func() {
		r.t.Helper()
		if !r.keeps(old.KeyID()) {
			r.t.Errorf("root key %s is gone, which is needed", old.KeyID())
		}
	}

	r.completes("backup", 0, stays, with("backup", "-o", file("%d.backup"), "--to", to, "--overwrite")...)
	if n%3 == 2 {
		r.completes("start alone", 0, stays, with("rekey", "start", "--no-backup")...)
		never := r.kept()[0]
		r.completes("abort", 0, stays, with("rekey", "abort")...)
		r.active(old.KeyID())
		r.old[never.KeyID()] = never
		r.completes("finish", 0, stays, with("rekey", "finish", "--archive", file("never-%d.age"), "--archive-to", to)...)
		r.only(old.KeyID())
		r.destroyed(map[encrypt.KeyID]*unseal.RootKey{never.KeyID(): never})
	}

	r.completes("start", 0, stays, with("rekey", "start", "--backup", file("start-%d.backup"), "--to", to)...)
	now := r.kept()[0]
	if now.KeyID() == old.KeyID() {
		r.t.Fatalf("the key has not changed")
	}
	if _, err := os.Stat(file("start-%d.backup")); err != nil {
		r.t.Errorf("the re-key began without its backup: %v", err)
	}
	finish := with("rekey", "finish", "--archive", file("old-%d.age"), "--archive-to", to)
	r.completes("early finish", 2, stays, finish...)

	r.completes("reencrypt", 0, stays, with("reencrypt", r.clone, "-r", r.breakGlass.Recipient().String())...)
	r.git("commit", "-q", "-a", "-m", "Seal to the new root key")
	r.git("push", "-q", "origin", "HEAD:main")
	r.applied(0)
	r.completes("finish", 0, func() { r.active(now.KeyID()) }, finish...)
	r.only(now.KeyID())
	r.destroyed(r.old)
	if !r.archived()[old.KeyID()] {
		r.t.Errorf("root key %s is not archived", old.KeyID())
	}

	for _, name := range []string{"%d.backup", "start-%d.backup"} {
		into := file("restored-%d-from-" + fmt.Sprint(len(name)))
		sum := r.sum(file(name))
		some := func() {
			if _, err := os.Stat(into); err == nil {
				r.opens("what is restored so far", r.manifests(into), nil, []*unseal.RootKey{now})
			}
		}
		r.completes("restore", 0, some, "restore", file(name), "-i", r.identity(), "--to-dir", into, "--recipient", now.Recipient().String())
		r.opens("what was restored", r.manifests(into), r.values, []*unseal.RootKey{now})
		if r.sum(file(name)) != sum {
			r.t.Errorf("the backup was changed")
		}
		r.must(os.RemoveAll(into))
		r.must(os.Remove(file(name)))
	}
	if r.t.Failed() {
		r.t.FailNow()
	}
}

// active fails unless this is the key that Safe seals to.
func (r *rekeyTrial) active(id encrypt.KeyID) {
	r.t.Helper()
	if now := r.kept()[0].KeyID(); now != id {
		r.t.Errorf("the active key is %s, want %s", now, id)
	}
}

// only fails unless this key is the only one that Safe keeps, knows and needs.
func (r *rekeyTrial) only(id encrypt.KeyID) {
	r.t.Helper()
	if keys := r.kept(); len(keys) != 1 || keys[0].KeyID() != id {
		r.t.Errorf("%d keys are kept, the first is %s; want %s alone", len(keys), keys[0].KeyID(), id)
	}
	for _, gone := range []string{filepath.Join(r.dir, "root-key.txt.retired"), filepath.Join(r.data, "rekey.json")} {
		if _, err := os.Lstat(gone); !errors.Is(err, fs.ErrNotExist) {
			r.t.Errorf("%s is left: %v", filepath.Base(gone), err)
		}
	}
	for _, folder := range []string{r.clone, filepath.Join(r.data, "objects")} {
		for _, m := range r.manifests(folder) {
			for key, sealed := range m.Object.Spec.EncryptedData {
				info, err := encrypt.Inspect(sealed)
				ids := slices.DeleteFunc(slices.Clone(info.KeyIDs), func(id encrypt.KeyID) bool { return id == r.breakGlass.KeyID() })
				if err != nil || !slices.Equal(ids, []encrypt.KeyID{id}) {
					r.t.Errorf("%s: %s/%s is sealed to %v, want %s: %v", folder, m.Object.Name, key, info.KeyIDs, id, err)
				}
			}
		}
	}
	sealed := r.opens("what Safe stores", r.manifests(filepath.Join(r.data, "objects")), r.values, r.kept())
	if !maps.Equal(sealed, r.values) {
		r.t.Errorf("the active key does not open everything")
	}
}
