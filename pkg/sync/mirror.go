package sync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	gosync "sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

const (
	repositoryDir = "repository.git"
	rebuildDir    = "rebuild.git"
	tmpDir        = "tmp"
	// stagingRef is where the branch was seen last. Nothing but this file
	// says that the mirror holds a commit with everything below it.
	stagingRef = "refs/vsecm/seen"
	// haveCommits is how many of the last commits a server is told of. One
	// would do for a branch that only grows.
	haveCommits = 16
)

// A Mirror is a bare copy of one branch or tag on disk, complete with its
// history. It may be opened with another remote than it was fetched from: what
// that has not changed is not fetched again. It is used by one goroutine at a
// time; calls wait for each other.
type Mirror struct {
	dir    string
	source source
	limits Limits

	mu      gosync.Mutex
	store   *objectStore
	seen    plumbing.Hash
	damaged error // why the copy has to be built again

	// refused is the last tip that was over a limit. Fetching it again would
	// end the same way and cost as much.
	refused    plumbing.Hash
	refusedErr error
	// rewound remembers a verdict that took a walk through the history.
	rewound *RewoundError
	// unverified is the last verdict of VerifyNew that was against a commit,
	// and what it was about.
	unverified   *UnverifiedError
	unverifiedOf verdict

	// built is what the mirror took on disk when it was opened or built.
	// rejected says that it has since taken in history that was refused, shed
	// that the branch is back and there is enough of that to be rid of it.
	built          int64
	rejected, shed bool

	// pin is the commit that [Remote.Commit] names. pinned is the verdict on
	// whether the branch's history has it, at pinnedAt.
	pin      Revision
	pinned   error
	pinnedAt plumbing.Hash

	now func() time.Time
}

// OpenMirror opens the mirror of remote in dir, which is made if it is not
// there. It does not touch the network. One process at a time may have it open.
func OpenMirror(dir string, remote Remote, limits Limits) (*Mirror, error) {
	limits = limits.withDefaults()
	tmp := filepath.Join(dir, tmpDir)
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	src, err := remote.source(tmp, limits)
	if err != nil {
		return nil, err
	}
	m := &Mirror{dir: dir, source: src, limits: limits, now: time.Now, pin: Revision(strings.ToLower(remote.Commit))}
	if err := m.open(); err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	return m, nil
}

// open clears away what a crash has left and opens the repository, if there
// is one that can be.
func (m *Mirror) open() error {
	tmp := filepath.Join(m.dir, tmpDir)
	for _, left := range []string{tmp, filepath.Join(m.dir, rebuildDir)} {
		if err := os.RemoveAll(left); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return err
	}
	dir := filepath.Join(m.dir, repositoryDir)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	store, seen, err := openRepository(dir, tmp, m.limits)
	if err != nil {
		m.damaged = err
		return nil
	}
	m.store, m.seen, m.built = store, seen, store.bytes
	return nil
}

func openRepository(dir, tmp string, limits Limits) (*objectStore, plumbing.Hash, error) {
	store, err := openObjectStore(dir, tmp, limits)
	if err != nil {
		return nil, plumbing.ZeroHash, err
	}
	b, err := os.ReadFile(filepath.Join(dir, stagingRef))
	text := strings.TrimSpace(string(b))
	if err == nil && !plumbing.IsHash(text) {
		err = fmt.Errorf("%w: %s", ErrMalformed, stagingRef)
	}
	if err == nil {
		_, err = store.commit(plumbing.NewHash(text))
	}
	if err != nil {
		store.close()
		return nil, plumbing.ZeroHash, err
	}
	return store, plumbing.NewHash(text), nil
}

// Close frees what the mirror holds open.
func (m *Mirror) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.source.close()
	if m.store == nil {
		return nil
	}
	err := m.store.close()
	m.store = nil
	return err
}

// Fetch brings the new commits of the branch or tag and returns the commit that
// it is at, or that [Remote.Commit] names. An error leaves the mirror as it
// was, or to be built again by the next Fetch. Errors that a caller may want to
// tell apart are [ErrNoBranch], [ErrNoCommit], [ErrNoRepository],
// [ErrAuthentication], [ErrHostKey], [ErrCertificate], [ErrAddress],
// [ErrRedirect], [ErrLimit], [ErrStalled], [ErrUnsupported] and [ErrMissing].
func (m *Mirror) Fetch(ctx context.Context) (_ Revision, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer contain(&err)
	ctx, cancel := context.WithTimeoutCause(ctx, m.limits.Timeout, fmt.Errorf("%w: it may take %v", errOvertime, m.limits.Timeout))
	defer cancel()

	s, err := m.source.open(ctx)
	if err != nil {
		return "", fmt.Errorf("fetch: %w", err)
	}
	defer s.close()
	if s.tip() == m.refused {
		return "", m.refusedErr
	}
	if m.store == nil || m.damaged != nil || m.full() {
		return m.result(ctx, s, m.rebuild(ctx, s))
	}
	if m.shed {
		m.shed = false // tried once: the mirror will do as it is
		if m.rebuild(ctx, s) == nil {
			return m.result(ctx, s, nil)
		}
	}
	err = m.check(m.update(ctx, s))
	if m.damaged != nil || err == nil && m.full() {
		err = m.rebuild(ctx, s)
	}
	return m.result(ctx, s, err)
}

// full reports whether the mirror takes more on disk than it may.
func (m *Mirror) full() bool { return m.store.bytes > m.limits.MirrorBytes }

func (m *Mirror) result(ctx context.Context, s session, err error) (Revision, error) {
	if err != nil {
		err = fmt.Errorf("fetch: %w", err)
		if errors.Is(err, ErrLimit) {
			m.refused, m.refusedErr = s.tip(), err
		}
		return "", err
	}
	if m.pin == "" {
		return revisionOf(m.seen), nil
	}
	if err := m.checkPin(ctx); err != nil {
		return "", fmt.Errorf("fetch: %w", err)
	}
	return m.pin, nil
}

// checkPin demands that the branch's history has the commit that is asked for.
// That a repository has it says little: a forge may show those of forks.
func (m *Mirror) checkPin(ctx context.Context) error {
	if m.pin.hash() == m.seen {
		return nil
	}
	if m.pinnedAt == m.seen {
		return m.pinned
	}
	ok, err := descends(ctx, m.store, m.pin.hash(), m.seen, m.limits.Commits)
	if err != nil {
		if errors.Is(err, ErrMissing) || errors.Is(err, errUnreadable) {
			m.damaged = err
		}
		return err
	}
	m.pinned, m.pinnedAt = nil, m.seen
	if !ok {
		m.pinned = fmt.Errorf("%w: %s is not in that of the branch, whose tip is %s", ErrNoCommit, m.pin, revisionOf(m.seen))
	}
	return m.pinned
}

// check notes that the mirror is damaged, if that is what err says.
func (m *Mirror) check(err error) error {
	var damaged *damagedError
	if errors.As(err, &damaged) {
		m.damaged = err
	}
	return err
}

// update brings what is new into the repository that there is.
func (m *Mirror) update(ctx context.Context, s session) error {
	if s.tip() == m.seen {
		return nil
	}
	have, err := m.have()
	if err != nil {
		return &damagedError{err}
	}
	if err := s.bring(ctx, m.store, have); err != nil {
		return err
	}
	if err := m.land(filepath.Join(m.dir, repositoryDir), m.store, s.tip()); err != nil {
		return err
	}
	m.seen = s.tip()
	if err := m.store.tidy(ctx); err != nil && ctx.Err() == nil {
		// The fetch itself is done. A disk too full to tidy is not damage.
		if errors.Is(err, errUnreadable) {
			m.damaged = err
		}
	}
	return nil
}

// have returns some of the last commits, newest first.
func (m *Mirror) have() ([]plumbing.Hash, error) {
	var have []plumbing.Hash
	for h := m.seen; len(have) < haveCommits; {
		c, err := m.store.commit(h)
		if err != nil {
			return nil, err
		}
		have = append(have, h)
		if len(c.parents) == 0 {
			break
		}
		h = c.parents[0]
	}
	return have, nil
}

// land makes tip, which was brought, the commit that the repository is at.
func (m *Mirror) land(dir string, store *objectStore, tip plumbing.Hash) error {
	if _, err := store.commit(tip); err != nil {
		return fmt.Errorf("the server's pack lacks the branch's own commit: %w", err)
	}
	ref := filepath.Join(dir, stagingRef)
	if err := os.MkdirAll(filepath.Dir(ref), 0o700); err != nil {
		return err
	}
	return writeString(store.tmp, ref, tip.String()+"\n")
}

// rebuild fetches everything into a new repository and puts it in the place
// of the old one, which stays in use until then.
func (m *Mirror) rebuild(ctx context.Context, s session) error {
	fresh := filepath.Join(m.dir, rebuildDir)
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	store, err := openObjectStore(fresh, filepath.Join(m.dir, tmpDir), m.limits)
	if err != nil {
		return err
	}
	err = s.bring(ctx, store, nil)
	if err == nil && store.bytes > m.limits.MirrorBytes {
		err = fmt.Errorf("%w: the branch takes more than %d bytes on disk", ErrLimit, m.limits.MirrorBytes)
	}
	if err == nil {
		// The two files that make git's own tools accept the directory.
		err = errors.Join(
			writeString(store.tmp, filepath.Join(fresh, "HEAD"), "ref: "+stagingRef+"\n"),
			writeString(store.tmp, filepath.Join(fresh, "config"), "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"))
	}
	if err == nil {
		err = m.land(fresh, store, s.tip())
	}
	err = errors.Join(err, store.close())
	if err != nil {
		os.RemoveAll(fresh)
		return err
	}
	if m.store != nil {
		m.store.close()
		m.store = nil
	}
	// Killed between the two, there is no repository, and the next start
	// builds it: nothing but time is lost.
	dir := filepath.Join(m.dir, repositoryDir)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return err
	}
	if err := syncDir(m.dir); err != nil {
		return err
	}
	m.store, m.seen, err = openRepository(dir, filepath.Join(m.dir, tmpDir), m.limits)
	if err == nil {
		m.damaged, m.built, m.rejected, m.shed = nil, m.store.bytes, false, false
	}
	return err
}

// read runs a function that only reads the repository. An object that is
// missing or broken there means that the mirror is: the next Fetch builds it
// again.
func (m *Mirror) read(do func(*objectStore) error) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer contain(&err)
	if m.store == nil {
		return fmt.Errorf("mirror: %w: nothing was fetched yet", ErrMissing)
	}
	err = do(m.store)
	if errors.Is(err, ErrMissing) || errors.Is(err, errUnreadable) {
		m.damaged = err
	}
	return err
}

// ObjectsRead returns how many git objects have been read, for tests of what
// a change costs.
func (m *Mirror) ObjectsRead() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.store == nil {
		return 0
	}
	return m.store.reads
}
