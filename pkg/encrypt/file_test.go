//go:build unix

package encrypt

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// onlyFiles tells whether dir holds nothing but the files of names.
func onlyFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, e := range entries {
		have = append(have, e.Name())
	}
	if strings.Join(have, " ") != strings.Join(names, " ") {
		t.Errorf("%s holds %q, want %q", dir, have, names)
	}
}

func wantFile(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || string(data) != text {
		t.Errorf("%s holds %q, want %q: %v", path, data, text, err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode() != mode {
		t.Errorf("%s has mode %v, want %v: %v", path, info.Mode(), mode, err)
	}
}

// withUmask sets the umask of the whole process: such tests are not parallel.
func withUmask(t *testing.T, umask int) {
	t.Helper()
	old := syscall.Umask(umask)
	t.Cleanup(func() { syscall.Umask(old) })
}

func TestReplaceFileKeepsTheMode(t *testing.T) {
	withUmask(t, 0o077)
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	for _, mode := range []fs.FileMode{0o644, 0o600, 0o664, 0o400} {
		os.Remove(path)
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := ReplaceFile(path, []byte("new"), 0o777); err != nil {
			t.Fatal(err)
		}
		wantFile(t, path, "new", mode)
	}
	onlyFiles(t, dir, "a.yaml")
}

func TestNewFilesObeyTheUmask(t *testing.T) {
	withUmask(t, 0o027)
	dir := t.TempDir()
	long := strings.Repeat("x", 250) // a name with no room for a suffix
	for _, test := range []struct {
		name  string
		write func(path string, data []byte, perm fs.FileMode) error
		perm  fs.FileMode
		want  fs.FileMode
	}{{"a", ReplaceFile, 0o666, 0o640}, {"b", CreateFile, 0o666, 0o640}, {"c", CreateFile, 0o600, 0o600}, {long, ReplaceFile, 0o600, 0o600}} {
		path := filepath.Join(dir, test.name)
		if err := test.write(path, []byte("new"), test.perm); err != nil {
			t.Fatal(err)
		}
		wantFile(t, path, "new", test.want)
	}
	onlyFiles(t, dir, "a", "b", "c", long)
}

func TestReplaceFileFollowsSymbolicLinks(t *testing.T) {
	dir := t.TempDir()
	target, link, second := filepath.Join(dir, "sub", "target"), filepath.Join(dir, "link"), filepath.Join(dir, "second")
	if err := errors.Join(os.Mkdir(filepath.Dir(target), 0o755), os.WriteFile(target, []byte("old"), 0o640), os.Symlink("sub/target", link), os.Symlink("link", second)); err != nil {
		t.Fatal(err)
	}
	if err := ReplaceFile(second, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantFile(t, target, "new", 0o640)
	onlyFiles(t, dir, "link", "second", "sub")
	onlyFiles(t, filepath.Dir(target), "target")
	for path, want := range map[string]string{link: "sub/target", second: "link"} {
		if got, err := os.Readlink(path); err != nil || got != want {
			t.Errorf("%s points to %q: %v", path, got, err)
		}
	}
}

func TestReplaceFileLeavesAloneWhatItCannotReplace(t *testing.T) {
	dir := t.TempDir()
	dangling, loop := filepath.Join(dir, "dangling"), filepath.Join(dir, "loop")
	fifo, folder := filepath.Join(dir, "fifo"), filepath.Join(dir, "folder")
	if err := errors.Join(os.Symlink("nothing", dangling), os.Symlink("loop", loop), syscall.Mkfifo(fifo, 0o600), os.Mkdir(folder, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dangling, loop, fifo, folder, filepath.Join(dir, "missing", "a"), filepath.Join(fifo, "a")} {
		if err := ReplaceFile(path, []byte("new"), 0o600); err == nil {
			t.Errorf("%s was replaced", path)
		}
	}
	onlyFiles(t, dir, "dangling", "fifo", "folder", "loop")
	if got, err := os.Readlink(dangling); err != nil || got != "nothing" {
		t.Errorf("the link points to %q: %v", got, err)
	}
}

func TestCreateFileNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, []byte("old"), 0o644), os.Symlink("nothing", link)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, dir} {
		if err := CreateFile(path, []byte("new"), 0o600); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	wantFile(t, file, "old", 0o644)
	onlyFiles(t, dir, "file", "link")
}

func TestCreateFileOneOfManyWins(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key.txt")
	results := make(chan error)
	for i := range 8 {
		go func() { results <- CreateFile(path, bytes.Repeat([]byte{'a' + byte(i)}, 1000), 0o600) }()
	}
	won := 0
	for range 8 {
		if err := <-results; err == nil {
			won++
		} else if !errors.Is(err, fs.ErrExist) {
			t.Error(err)
		}
	}
	data, err := os.ReadFile(path)
	if won != 1 || err != nil || len(data) != 1000 || len(bytes.Trim(data, string(data[:1]))) != 0 {
		t.Errorf("%d won; the file has %d bytes: %v", won, len(data), err)
	}
	onlyFiles(t, dir, "key.txt")
}

// The failure is a limit on the size of files, since no mode of a folder stops the
// tests where they run as root.
func TestNothingIsLeftAfterAFailure(t *testing.T) {
	if dir := os.Getenv("VSECM_TEST_FULL"); dir != "" {
		limit := syscall.Rlimit{Cur: 10, Max: 10}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
		data := []byte("more than ten bytes")
		if err := ReplaceFile(filepath.Join(dir, "old"), data, 0o600); err == nil {
			t.Fatal("ReplaceFile wrote beyond the limit")
		}
		if err := CreateFile(filepath.Join(dir, "new"), data, 0o600); err == nil {
			t.Fatal("CreateFile wrote beyond the limit")
		}
		if err := createNamed(filepath.Join(dir, "new"), data, 0o600); err == nil {
			t.Fatal("createNamed wrote beyond the limit")
		}
		return
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "old"), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := helper(t, "TestNothingIsLeftAfterAFailure", "VSECM_TEST_FULL="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wantFile(t, filepath.Join(dir, "old"), "old", 0o644)
	onlyFiles(t, dir, "old")
}

func helper(t *testing.T, test string, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

func TestCreateFileWithoutNamelessFiles(t *testing.T) {
	withUmask(t, 0o027)
	dir := t.TempDir()
	path := filepath.Join(dir, "key.txt")
	if err := createNamed(path, []byte("new"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := createNamed(path, []byte("newer"), 0o666); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	wantFile(t, path, "new", 0o640)
	onlyFiles(t, dir, "key.txt")
}

// TestCreateFileSurvivesSIGKILL kills, at forty moments, a process that does nothing
// but create files: each that has a name is one that was asked for, and on
// Linux it is whole.
func TestCreateFileSurvivesSIGKILL(t *testing.T) {
	text := bytes.Repeat([]byte("k"), 300_000)
	if dir := os.Getenv("VSECM_TEST_CREATE"); dir != "" {
		os.Stdout.WriteString("ready\n")
		for i := 0; ; i++ {
			if err := CreateFile(filepath.Join(dir, strconv.Itoa(i)), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range 40 {
		dir := t.TempDir()
		killAtSomeMoment(t, random, "TestCreateFileSurvivesSIGKILL", "VSECM_TEST_CREATE="+dir)
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if n, err := strconv.Atoi(e.Name()); err != nil || n >= len(entries) {
				t.Errorf("among %d files there is %s", len(entries), e.Name())
			}
			data, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil || runtime.GOOS == "linux" && !bytes.Equal(data, text) {
				t.Errorf("%s has %d bytes: %v", e.Name(), len(data), err)
			}
		}
	}
}

func killAtSomeMoment(t *testing.T, random *rand.Rand, test string, env ...string) {
	t.Helper()
	cmd := helper(t, test, env...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Duration(random.IntN(20_000)) * time.Microsecond)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("it ended by itself")
	}
}

// TestReplaceFileSurvivesSIGKILL kills, at twenty moments, a process that does
// nothing but replace a file: it is always one of the two texts, whole.
func TestReplaceFileSurvivesSIGKILL(t *testing.T) {
	texts := [2][]byte{bytes.Repeat([]byte("a"), 200_000), bytes.Repeat([]byte("b"), 100_000)}
	if path := os.Getenv("VSECM_TEST_REPLACE"); path != "" {
		os.Stdout.WriteString("ready\n")
		for i := 0; ; i++ {
			if err := ReplaceFile(path, texts[i%2], 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	path := filepath.Join(t.TempDir(), "a.yaml")
	if err := os.WriteFile(path, texts[0], 0o600); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		killAtSomeMoment(t, random, "TestReplaceFileSurvivesSIGKILL", "VSECM_TEST_REPLACE="+path)
		data, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(data, texts[0]) && !bytes.Equal(data, texts[1]) {
			t.Fatalf("the file has %d bytes: %v", len(data), err)
		}
	}
}

func TestTemporariesOfKilledWritesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key.txt")
	random := strings.Repeat("A", 26)
	left := []string{".key.txt." + random + ".tmp"}
	stay := []string{"key.txt", ".key.txt.old.tmp", ".key.txt.retired." + random + ".tmp", "key.txt." + random + ".tmp", ".other." + random + ".tmp", ".key.txt." + random}
	for _, name := range append(left, stay...) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := ReplaceFile(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := RemoveTemporaries(path); err != nil {
		t.Fatal(err)
	}
	for _, name := range left {
		if _, err := os.Lstat(filepath.Join(dir, name)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range stay {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
