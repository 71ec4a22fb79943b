package sync_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func TestPromise08_EveryNewCommitIsVerified(t *testing.T) {
	ann, bob := gitserver.NewSSHKey(t, "ann"), gitserver.NewSSHKey(t, "bob")
	tr := trust(t, ann)
	repo := gitserver.NewRepo(t)
	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
	n := 0
	file := func() map[string]string {
		n++
		return map[string]string{"a.yaml": fmt.Sprint(n)}
	}
	tree := func(commit string) string { return repo.Git("", "rev-parse", commit+"^{tree}") }
	verify := func(from, to string) (sync.Signature, int, error) {
		t.Helper()
		repo.SetHead(to)
		fetch(t, m, to)
		return m.VerifyNew(context.Background(), tr, sync.Revision(from), sync.Revision(to))
	}
	verified := func(from, to string, want int) {
		t.Helper()
		sig, got, err := verify(from, to)
		if err != nil || got != want || want > 0 && string(sig.Revision) != to {
			t.Errorf("%d verified, want %d; %+v, %v", got, want, sig, err)
		}
	}

	// What lies below the first is nobody's business any more.
	old := repo.Commit(file())
	base := repo.CommitSigned(ann, file())
	verified(old, base, 1)
	verified(base, base, 0)
	_, _, err := verify("", base)
	unverified(t, err, old, "not signed")

	a := repo.CommitSigned(ann, file())
	b := repo.CommitSigned(ann, file())
	verified(base, b, 2)
	verified(b, a, 0) // what is older than that is not new

	repo.SetHead(b)
	hidden := repo.Commit(file())
	over := repo.CommitSigned(ann, file())
	_, _, err = verify(b, over)
	unverified(t, err, hidden, "not signed")
	_, _, err = verify(b, over) // remembered
	unverified(t, err, hidden, "not signed")
	verified(hidden, over, 1)

	repo.SetHead(b)
	foreign := repo.CommitSigned(bob, file())
	repo.CommitSigned(ann, file())
	top := repo.CommitSigned(ann, file())
	_, _, err = verify(b, top)
	unverified(t, err, foreign, "not trusted")
	if _, got, err := m.VerifyNew(context.Background(), trust(t, ann, bob), sync.Revision(b), sync.Revision(top)); err != nil || got != 3 {
		t.Errorf("with bob's key too: %d, %v", got, err)
	}

	// Merges: what comes by any parent is new.
	repo.SetHead(base)
	side := repo.CommitSigned(ann, file())
	merge := repo.CommitTreeSigned(ann, tree(side), b, side)
	verified(b, merge, 2)
	verified(base, merge, 4)
	repo.SetHead(base)
	stray := repo.Commit(file()) // with a time long before base's
	second := repo.CommitSigned(ann, file())
	merge = repo.CommitTreeSigned(ann, tree(second), b, second)
	_, _, err = verify(b, merge)
	unverified(t, err, stray, "not signed")

	// An unsigned branch from long ago, of which from has all: it is old,
	// whatever the times of commits say.
	repo.SetHead(old)
	ancient := repo.Commit(file())
	from := repo.CommitTreeSigned(ann, tree(ancient), b, ancient)
	again := repo.CommitTreeSigned(ann, tree(ancient), from, ancient, old)
	verified(from, again, 1)

	// A merge of an unrelated history.
	root := repo.Git("", "commit-tree", "-m", "root", tree(b))
	merge = repo.CommitTreeSigned(ann, tree(b), b, root)
	_, _, err = verify(b, merge)
	unverified(t, err, root, "not signed")

	if _, _, err := m.VerifyNew(context.Background(), tr, "0123456789012345678901234567890123456789", sync.Revision(merge)); !errors.Is(err, sync.ErrNoCommit) {
		t.Errorf("since a commit that is not there: %v", err)
	}
	fetch(t, m, merge) // that was no damage
}

// Times that run backwards make old commits look new to a walk by time.
func TestTimesOfCommitsThatLie(t *testing.T) {
	ann := gitserver.NewSSHKey(t, "ann")
	tr := trust(t, ann)
	repo := gitserver.NewRepo(t)
	tree := repo.Git("", "rev-parse", repo.Commit(map[string]string{"a.yaml": "1"})+"^{tree}")
	at := func(time int64, parents ...string) string {
		raw := "tree " + tree + "\n"
		for _, p := range parents {
			raw += "parent " + p + "\n"
		}
		who := fmt.Sprintf("Test <test@example.com> %d +0000\n", time)
		return writeCommit(repo, raw+"author "+who+"committer "+who+"\nc\n")
	}
	// from is older, by its word, than all that it stands on.
	root := at(1_600_000_000)
	young := at(1_650_000_000, root)
	from := at(1_000, at(2_000, at(3_000, young)))
	to := repo.CommitTreeSigned(ann, tree, from, young)
	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
	fetch(t, m, to)
	if _, n, err := m.VerifyNew(context.Background(), tr, sync.Revision(from), sync.Revision(to)); err != nil || n != 1 {
		t.Errorf("%d verified, %v", n, err)
	}
	// And none is taken for old that is not, though its time is as old.
	hidden := at(500, young)
	to = repo.CommitTreeSigned(ann, tree, from, hidden)
	fetch(t, m, to)
	_, _, err := m.VerifyNew(context.Background(), tr, sync.Revision(from), sync.Revision(to))
	unverified(t, err, hidden, "not signed")

	// However many they are, the history is walked a few times and not once for each.
	const many = 100
	for i := range int64(many) {
		young = at(1_650_000_001+i, young)
	}
	from = at(1_000, young)
	to = repo.CommitTreeSigned(ann, tree, from, young)
	fetch(t, m, to)
	before := m.ObjectsRead()
	if _, n, err := m.VerifyNew(context.Background(), tr, sync.Revision(from), sync.Revision(to)); err != nil || n != 1 {
		t.Errorf("%d verified, %v", n, err)
	}
	if read := m.ObjectsRead() - before; read > 5*many {
		t.Errorf("%d objects were read of a history of %d", read, many)
	}
}

func TestVerifyNewIsBounded(t *testing.T) {
	ann := gitserver.NewSSHKey(t, "ann")
	server := gitserver.New(t, gitserver.Options{})
	repo := server.Repo("r.git")
	for i := range 5 {
		repo.Commit(map[string]string{"a.yaml": fmt.Sprint(i)})
	}
	m := open(t, t.TempDir(), sync.Remote{URL: server.URL + "/r.git"}, sync.Limits{Commits: 3})
	tip := fetch(t, m, repo.Head())
	if _, _, err := m.VerifyNew(context.Background(), trust(t, ann), "", tip); !errors.Is(err, sync.ErrLimit) {
		t.Errorf("verified: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	m = open(t, t.TempDir(), sync.Remote{URL: server.URL + "/r.git"}, sync.Limits{})
	fetch(t, m, string(tip))
	if _, _, err := m.VerifyNew(ctx, trust(t, ann), "", tip); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Cost follows the new commits, not the history.
func TestPromise09_VerifyingReadsWhatIsNew(t *testing.T) {
	ann := gitserver.NewSSHKey(t, "ann")
	repo := gitserver.NewRepo(t)
	for i := range 200 {
		repo.Commit(map[string]string{"a.yaml": fmt.Sprint(i)})
	}
	from := repo.Head()
	to := repo.CommitSigned(ann, map[string]string{"a.yaml": "new"})
	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
	fetch(t, m, to)
	before := m.ObjectsRead()
	if _, n, err := m.VerifyNew(context.Background(), trust(t, ann), sync.Revision(from), sync.Revision(to)); err != nil || n != 1 {
		t.Fatalf("%d verified, %v", n, err)
	}
	if read := m.ObjectsRead() - before; read > 5 {
		t.Errorf("%d objects were read", read)
	}
}
