package fetch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/pkg/workload"
)

// contents returns path → value below dir as a reader finds them, through the
// links.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	objects, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if strings.HasPrefix(o.Name(), "..") {
			continue
		}
		keys, err := os.ReadDir(filepath.Join(dir, o.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			p := filepath.Join(dir, o.Name(), k.Name())
			value, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			got[o.Name()+"/"+k.Name()] = string(value)
			if info, err := os.Stat(p); err != nil || info.Mode() != 0o400 {
				t.Errorf("%s has mode %v (%v)", p, info.Mode(), err)
			}
		}
	}
	return got
}

func same(a, b map[string]string) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

func mustWrite(t *testing.T, s *Secrets, dir string) {
	t.Helper()
	if err := s.WriteFiles(dir); err != nil {
		t.Fatal(err)
	}
}

func versions(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, versionPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestFilesAreExactlyTheSecrets(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	s := secretsOf("db", map[string]string{"user": "u", "password": "p\x00\xff\n", "empty": ""})
	s.Secrets = append(s.Secrets, secretsOf("api", map[string]string{"token": "t"}).Secrets...)
	mustWrite(t, s, dir)
	if got, want := contents(t, dir), map[string]string{"db/user": "u", "db/password": "p\x00\xff\n", "db/empty": "", "api/token": "t"}; !same(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %v (%v)", info.Mode(), err)
	}

	// A key changes, one goes, one comes, and so with objects.
	next := secretsOf("db", map[string]string{"password": "p2", "host": "h"})
	next.Secrets = append(next.Secrets, secretsOf("cache", map[string]string{"k": "v"}).Secrets...)
	if err := os.WriteFile(filepath.Join(dir, "README"), []byte("not ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, next, dir)
	if err := os.Remove(filepath.Join(dir, "README")); err != nil {
		t.Errorf("a file that is not ours is gone: %v", err)
	}
	if got, want := contents(t, dir), map[string]string{"db/password": "p2", "db/host": "h", "cache/k": "v"}; !same(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if v := versions(t, dir); len(v) != 1 {
		t.Errorf("old versions are left: %v", v)
	}

	mustWrite(t, &Secrets{}, dir)
	if got := contents(t, dir); len(got) != 0 {
		t.Errorf("left of nothing: %q", got)
	}
}

// Readers look all the while; whoever opens ..data sees one version whole.
func TestReadersNeverSeeHalfAVersion(t *testing.T) {
	dir := t.TempDir()
	generation := func(i int) *Secrets {
		return secretsOf("db", map[string]string{"user": fmt.Sprint(i), "password": fmt.Sprint(i)})
	}
	mustWrite(t, generation(0), dir)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				version, err := os.OpenRoot(filepath.Join(dir, dataLink))
				if err != nil {
					t.Errorf("there was a moment without a version: %v", err)
					return
				}
				user, err1 := version.ReadFile("db/user")
				password, err2 := version.ReadFile("db/password")
				// A version that was replaced twice is removed while it is
				// read: gone, never mixed.
				if err := errors.Join(err1, err2); err != nil {
					if !errors.Is(err, fs.ErrNotExist) {
						t.Error(err)
					}
				} else if string(user) != string(password) {
					t.Errorf("read user %s and password %s", user, password)
				}
				_ = version.Close()
			}
		})
	}
	for i := 1; i <= 50; i++ {
		mustWrite(t, generation(i), dir)
	}
	close(stop)
	readers.Wait()
}

func TestTargetsThatAreNotOursAreRefused(t *testing.T) {
	outside := t.TempDir()
	for name, prepare := range map[string]func(dir string) error{
		"the directory is a link": func(dir string) error { return os.Symlink(outside, dir) },
		"the directory is a file": func(dir string) error { return os.WriteFile(dir, []byte("x"), 0o600) },
		"its parent is missing":   func(dir string) error { return os.RemoveAll(filepath.Dir(dir)) },
		"the object is a link elsewhere": func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.Symlink(outside, filepath.Join(dir, "db")))
		},
		"the object is a relative link elsewhere": func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.Symlink("../../x", filepath.Join(dir, "db")))
		},
		"the object is a link to another object": func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.Symlink("..data/api", filepath.Join(dir, "db")))
		},
		"the object is a directory": func(dir string) error { return os.MkdirAll(filepath.Join(dir, "db"), 0o700) },
		"the object is a file": func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "db"), nil, 0o600))
		},
		"..data leads elsewhere": func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.Symlink(outside, filepath.Join(dir, dataLink)))
		},
		"..data is a directory": func(dir string) error { return os.MkdirAll(filepath.Join(dir, dataLink), 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "parent", "secrets")
			if err := os.Mkdir(filepath.Dir(dir), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := prepare(dir); err != nil {
				t.Fatal(err)
			}
			before := listing(t, filepath.Dir(filepath.Dir(dir)))
			if err := secretsOf("db", map[string]string{"k": "v"}).WriteFiles(dir); err == nil {
				t.Error("it was written to")
			} else if !errors.Is(err, ErrTarget) && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("got %v", err)
			}
			if after := listing(t, filepath.Dir(filepath.Dir(dir))); after != before {
				t.Errorf("changed from\n%s\nto\n%s", before, after)
			}
			if left := listing(t, outside); strings.Count(left, "\n") != 1 {
				t.Errorf("written outside: %s", left)
			}
		})
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		fmt.Fprintln(&b, p, d.Type())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The version before stays, whole, and nothing is left of the one that failed.
func TestAWriteThatFailsChangesNothing(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, secretsOf("db", map[string]string{"k": "old"}), dir)
	// A directory where the new link has to be made, which only a hand can
	// have put there.
	if err := os.MkdirAll(filepath.Join(dir, newDataLink, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := secretsOf("db", map[string]string{"k": "new"}).WriteFiles(dir); err == nil {
		t.Fatal("no error")
	}
	if got := contents(t, dir); !same(got, map[string]string{"db/k": "old"}) {
		t.Errorf("got %q", got)
	}
	if v := versions(t, dir); len(v) != 1 {
		t.Errorf("left behind: %v", v)
	}
}

// It may have taken the room that the next one needs.
func TestAHalfVersionGoesBeforeANewOneIsWritten(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, secretsOf("db", map[string]string{"k": "old"}), dir)
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, versionPrefix+"half", "db"), 0o700),
		os.WriteFile(filepath.Join(dir, versionPrefix+"half", "db", "k"), []byte("ne"), 0o400),
		os.MkdirAll(filepath.Join(dir, newDataLink, "x"), 0o700), // so that no version can be put in place
	); err != nil {
		t.Fatal(err)
	}
	if err := secretsOf("db", map[string]string{"k": "new"}).WriteFiles(dir); err == nil {
		t.Fatal("no error")
	}
	if v := versions(t, dir); len(v) != 1 || v[0] == versionPrefix+"half" {
		t.Errorf("there are %v", v)
	}
	if got := contents(t, dir); !same(got, map[string]string{"db/k": "old"}) {
		t.Errorf("got %q", got)
	}
}

// Files that may not grow are what a full disk is: a write of which a part
// succeeds. A process of its own has them.
func TestAFullDiskLeavesTheVersionBefore(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, secretsOf("db", map[string]string{"k": "old"}), dir)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), fullDiskDir+"="+dir)
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := contents(t, dir); !same(got, map[string]string{"db/k": "old"}) {
		t.Errorf("got %d files", len(got))
	}
	if v := versions(t, dir); len(v) != 1 {
		t.Errorf("left behind: %v", v)
	}
	mustWrite(t, tooBig, dir)
}

// fullDiskDir names, for that process, the directory to write to.
const fullDiskDir = "FETCH_TEST_FULL_DISK_DIR"

var tooBig = secretsOf("db", map[string]string{"k": strings.Repeat("x", 1<<20), "small": "s"})

// writeToFullDisk is that process. It succeeds when writing fails as it should.
func writeToFullDisk(dir string) error {
	// Without this, the kernel's signal would end the process.
	signal.Ignore(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 4096, Max: 4096}); err != nil {
		return err
	}
	if err := tooBig.WriteFiles(dir); !errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("writing to a full disk: %w", err)
	}
	return nil
}

// A process may be killed before the swap, or between it and the links.
func TestWhatAKilledProcessLeftIsCleanedUp(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, secretsOf("db", map[string]string{"k": "old"}), dir)
	half := filepath.Join(dir, versionPrefix+"half", "db")
	if err := errors.Join(
		os.MkdirAll(half, 0o700),
		os.WriteFile(filepath.Join(half, "k"), []byte("ne"), 0o400),
		os.Symlink(versionPrefix+"half", filepath.Join(dir, newDataLink)),
		os.Symlink("..data/gone", filepath.Join(dir, "gone")),
	); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, secretsOf("db", map[string]string{"k": "new"}), dir)
	if got := contents(t, dir); !same(got, map[string]string{"db/k": "new"}) {
		t.Errorf("got %q", got)
	}
	if v := versions(t, dir); len(v) != 1 {
		t.Errorf("left behind: %v", v)
	}
}

func TestTwoWritersDoNotMix(t *testing.T) {
	dir := t.TempDir()
	held, err := Open(Target{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	s := secretsOf("db", map[string]string{"k": "v"})
	if err := s.WriteFiles(dir); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	held.Close()
	mustWrite(t, s, dir)
}

// Secrets that did not come through parse are checked all the same.
func TestNamesAreCheckedBeforeTheyArePaths(t *testing.T) {
	for _, s := range []*Secrets{
		secretsOf("../db", map[string]string{"k": "v"}), secretsOf("..data", map[string]string{"k": "v"}),
		secretsOf("db", map[string]string{"../k": "v"}), secretsOf("db", map[string]string{"..": "v"}),
	} {
		dir := t.TempDir()
		if err := s.WriteFiles(dir); !errors.Is(err, workload.ErrBadAnswer) {
			t.Errorf("got %v", err)
		}
		if got := listing(t, dir); strings.Count(got, "\n") != 1 {
			t.Errorf("wrote %s", got)
		}
	}
}

func BenchmarkWriteFiles(b *testing.B) {
	dir := b.TempDir()
	s := &Secrets{}
	for i := range 10 {
		s.Secrets = append(s.Secrets, Secret{Name: fmt.Sprintf("s%d", i), Updated: time.Time{}, Data: map[string][]byte{"k": []byte("v")}})
	}
	for b.Loop() {
		if err := s.WriteFiles(dir); err != nil {
			b.Fatal(err)
		}
	}
}
