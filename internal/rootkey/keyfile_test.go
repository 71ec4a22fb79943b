package rootkey

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// writeKey writes a root key, with a mode that no umask narrows.
func writeKey(t *testing.T, mode fs.FileMode) (file string, key *unseal.RootKey) {
	t.Helper()
	key, err := unseal.Generate(true)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "root.key")
	if err := errors.Join(os.WriteFile(file, key.Text(), 0o600), os.Chmod(file, mode)); err != nil {
		t.Fatal(err)
	}
	return file, key
}

func readKey(file string) (*unseal.RootKey, error) {
	text, err := readKeyFile(file)
	if err != nil {
		return nil, err
	}
	return unseal.Parse(text)
}

func TestARootKeyThatOthersReachIsRefused(t *testing.T) {
	for mode, ok := range map[fs.FileMode]bool{
		0o600: true, 0o400: true, 0o440: true, 0o640: true,
		0o660: false, 0o620: false, 0o604: false, 0o602: false, 0o601: false, 0o777: false,
	} {
		file, want := writeKey(t, mode)
		key, err := readKey(file)
		switch {
		case ok && (err != nil || key.KeyID() != want.KeyID()):
			t.Errorf("mode %04o: %v", mode, err)
		case !ok && !errors.Is(err, ErrExposed):
			t.Errorf("mode %04o: got %v", mode, err)
		}
	}
}

func TestARootKeyOfAnotherUserIsRefused(t *testing.T) {
	file, _ := writeKey(t, 0o600)
	link := filepath.Join(filepath.Dir(file), "link")
	if err := os.Symlink("root.key", link); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	own := os.Geteuid()
	if err := errors.Join(checkKeyFile(f, own), checkLink(link, own), checkLink(file, own)); err != nil {
		t.Error(err)
	}
	if own == 0 {
		// What is root's is trusted by everybody: give it away.
		if err := errors.Join(os.Chown(file, 12345, -1), os.Lchown(link, 12345, -1)); err != nil {
			t.Fatal(err)
		}
	} else {
		own++
	}
	if err := checkKeyFile(f, own); !errors.Is(err, ErrExposed) {
		t.Errorf("the file: %v", err)
	}
	if err := checkLink(link, own); !errors.Is(err, ErrExposed) {
		t.Errorf("the link: %v", err)
	}
}

// A Secret of Kubernetes is mounted as a link to a link.
func TestARootKeyMayBeALinkOfOurs(t *testing.T) {
	file, want := writeKey(t, 0o440)
	dir := t.TempDir()
	if err := errors.Join(os.Symlink(filepath.Dir(file), filepath.Join(dir, "..data")),
		os.Symlink(filepath.Join("..data", "root.key"), filepath.Join(dir, "KEY_TXT"))); err != nil {
		t.Fatal(err)
	}
	if key, err := readKey(filepath.Join(dir, "KEY_TXT")); err != nil || key.KeyID() != want.KeyID() {
		t.Errorf("got %v", err)
	}
}

// None of these may hold Safe up, be read, or have a key made in its place.
func TestARootKeyIsARegularFile(t *testing.T) {
	dir := t.TempDir()
	pipe, folder, dangling := filepath.Join(dir, "pipe"), filepath.Join(dir, "folder"), filepath.Join(dir, "dangling")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.Mkdir(folder, 0o700), os.Symlink("nothing", dangling)); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{pipe, folder, dangling, "/dev/zero"} {
		r := newRig(t, NewDirPlace(file, t.TempDir()))
		r.run()
		if st := r.settled(); st.State != Sealed {
			t.Errorf("%s: %+v", file, st)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key was written through a link: %v", err)
	}
}
