package fetch

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func mustOpen(t *testing.T, target Target) *Directory {
	t.Helper()
	d, err := Open(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func wrote(t *testing.T, d *Directory, s *Secrets, want bool) {
	t.Helper()
	if changed, err := d.Write(s); err != nil || changed != want {
		t.Fatalf("changed %v, %v; want %v", changed, err, want)
	}
}

func TestNamedKeysAloneAreWritten(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, Target{Dir: dir, Names: []Name{{"web", "tls.crt", "server.crt"}, {"web", "tls.key", "private/server.key"}}})
	wrote(t, d, secretsOf("web", map[string]string{"tls.crt": "c", "tls.key": "k", "other": "o"}), true)
	for file, want := range map[string]string{"server.crt": "c", "private/server.key": "k"} {
		if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", file, got, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "[a-z]*")); len(left) != 2 {
		t.Errorf("there are %v", left)
	}
	// A key that is gone takes nothing with it.
	if changed, err := d.Write(secretsOf("web", map[string]string{"tls.crt": "c2"})); changed || !errors.Is(err, ErrMissing) {
		t.Errorf("changed %v, %v", changed, err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "server.crt")); err != nil || string(got) != "c" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestOneFileHoldsAll(t *testing.T) {
	t.Run("json", func(t *testing.T) {
		dir := t.TempDir()
		d := mustOpen(t, Target{Dir: dir, Layout: LayoutJSON})
		values := map[string]string{"html": "<a&b>", "quotes": `"'\`, "lines": "a\r\n\u2028b", "unicode": "pä55 ✓", "nul": "a\x00b", "empty": ""}
		wrote(t, d, secretsOf("db", values), true)
		text, err := os.ReadFile(filepath.Join(dir, JSONFile))
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]map[string]string
		if err := json.Unmarshal(text, &got); err != nil || !same(got["db"], values) || len(got) != 1 {
			t.Errorf("got %q, %v", got, err)
		}
		if changed, err := d.Write(secretsOf("db", map[string]string{"k": "hunter2\xff"})); changed || !errors.Is(err, ErrNotText) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("no text: changed %v, %v", changed, err)
		}
	})
	t.Run("env", func(t *testing.T) {
		dir := t.TempDir()
		d := mustOpen(t, Target{Dir: dir, Layout: LayoutEnv})
		wrote(t, d, secretsOf("db", awkward), true)
		for key, want := range awkward {
			got, err := exec.Command("sh", "-c", `. "$1"; printf %s "$DB_`+strings.ToUpper(key)+`"`, "sh", filepath.Join(dir, EnvFile)).Output()
			if err != nil || string(got) != want {
				t.Errorf("%s: got %q, %v", key, got, err)
			}
		}
		if changed, err := d.Write(secretsOf("db", map[string]string{"a.b": "1", "a-b": "2"})); changed || !errors.Is(err, ErrNoVariable) {
			t.Errorf("a collision: changed %v, %v", changed, err)
		}
	})
}

func TestTargetsThatMakeNoSenseAreRefused(t *testing.T) {
	for name, target := range map[string]Target{
		"no directory":             {},
		"an odd layout":            {Dir: "x", Layout: "xml"},
		"others may write":         {Dir: "x", Mode: 0o422},
		"all may write":            {Dir: "x", Mode: 0o666},
		"the owner may not read":   {Dir: "x", Mode: 0o044},
		"set-user-ID":              {Dir: "x", Mode: 0o400 | fs.ModeSetuid},
		"names in JSON":            {Dir: "x", Layout: LayoutJSON, Names: []Name{{"db", "k", "n"}}},
		"a name that climbs":       {Dir: "x", Names: []Name{{"db", "k", "../n"}}},
		"a name that climbs later": {Dir: "x", Names: []Name{{"db", "k", "a/../../n"}}},
		"an absolute name":         {Dir: "x", Names: []Name{{"db", "k", "/etc/n"}}},
		"our own link":             {Dir: "x", Names: []Name{{"db", "k", "..data"}}},
		"no name":                  {Dir: "x", Names: []Name{{"db", "k", ""}}},
		"one name for two":         {Dir: "x", Names: []Name{{"db", "k", "n"}, {"db", "l", "n"}}},
		"a name within another":    {Dir: "x", Names: []Name{{"db", "k", "n/a"}, {"db", "l", "n"}}},
	} {
		if _, err := Open(target); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestModesAreThoseThatWereAskedFor(t *testing.T) {
	// Whatever the umask is; it is the process's, and no test runs beside this one.
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	for _, tt := range []struct{ mode, dir fs.FileMode }{{0, 0o700}, {0o400, 0o700}, {0o440, 0o750}, {0o444, 0o755}, {0o640, 0o750}} {
		dir := filepath.Join(t.TempDir(), "secrets")
		wrote(t, mustOpen(t, Target{Dir: dir, Mode: tt.mode}), secretsOf("db", map[string]string{"k": "v"}), true)
		for path, want := range map[string]fs.FileMode{"": tt.dir, "..data/": tt.dir, "db/": tt.dir, "db/k": max(tt.mode, 0o400)} {
			if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode().Perm() != want {
				t.Errorf("%#o: %q has mode %v, %v; want %v", tt.mode, path, info.Mode(), err, want)
			}
		}
	}
}

// What is in place already is not written again, by another process neither:
// nobody is woken for nothing.
func TestNothingIsWrittenWhereNothingChanged(t *testing.T) {
	dir := t.TempDir()
	s := secretsOf("db", map[string]string{"k": "v", "l": "w"})
	for _, changed := range []bool{true, false} {
		d := mustOpen(t, Target{Dir: dir})
		wrote(t, d, s, changed)
		wrote(t, d, s, false)
		d.Close()
	}
}

func TestADirectoryIsRepaired(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	d := mustOpen(t, Target{Dir: dir})
	s := secretsOf("db", map[string]string{"k": "v", "l": "w"})
	wrote(t, d, s, true)
	wrote(t, d, s, false)
	version := versions(t, dir)[0]
	for _, tt := range []struct {
		name    string
		change  func() error
		changed bool
		seen    bool // InPlace looks at names alone
	}{
		{"the object's link is gone", func() error { return os.Remove(filepath.Join(dir, "db")) }, false, true},
		{"the link is gone", func() error { return os.Remove(filepath.Join(dir, dataLink)) }, true, true},
		{"a key is gone", func() error { return os.Remove(filepath.Join(dir, "db", "k")) }, true, false},
		{"a key is another", func() error {
			return errors.Join(os.Remove(filepath.Join(dir, "db", "k")), os.WriteFile(filepath.Join(dir, "db", "k"), []byte("x"), 0o400))
		}, true, false},
		{"there is a key more", func() error { return os.WriteFile(filepath.Join(dir, "db", "m"), []byte("x"), 0o400) }, true, false},
		{"a mode is another", func() error { return os.Chmod(filepath.Join(dir, "db", "k"), 0o444) }, true, false},
		{"the version is gone", func() error { return os.RemoveAll(versions(t, dir)[0]) }, true, true},
		{"the directory is gone", func() error { return os.RemoveAll(dir) }, true, true},
		{"the directory is another", func() error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)) }, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := d.InPlace(); err != nil {
				t.Fatal(err)
			}
			if err := tt.change(); err != nil {
				t.Fatal(err)
			}
			if err := d.InPlace(); (err != nil) != tt.seen || err != nil && !errors.Is(err, ErrTarget) {
				t.Errorf("in place: %v", err)
			}
			wrote(t, d, s, tt.changed)
			if got := contents(t, dir); !same(got, map[string]string{"db/k": "v", "db/l": "w"}) {
				t.Errorf("got %q", got)
			}
			if v := versions(t, dir); len(v) != 1 || (v[0] == version) == tt.changed {
				t.Errorf("versions %v, before %s", v, version)
			} else {
				version = v[0]
			}
		})
	}
}

func TestTellingIsRemembered(t *testing.T) {
	dir := t.TempDir()
	write := func(value string) *Directory {
		t.Helper()
		d, err := Open(Target{Dir: dir, Tell: true})
		if err != nil {
			t.Fatal(err)
		}
		wrote(t, d, secretsOf("db", map[string]string{"k": value}), true)
		return d
	}
	untold := func(d *Directory, want bool) string {
		t.Helper()
		version, got := d.Untold()
		if got != want {
			t.Errorf("untold is %v", got)
		}
		return version
	}
	d := write("one")
	untold(d, false) // the first is no news
	d.Close()
	d = write("two")
	untold(d, true)
	d.Close() // and is not told of: the process ends
	d = write("three")
	version := untold(d, true)
	if err := d.Told(version); err != nil {
		t.Fatal(err)
	}
	untold(d, false)
	d.Close()

	// A mark that is missing was made by one who tells nobody.
	if err := os.Remove(filepath.Join(dir, toldLink)); err != nil {
		t.Fatal(err)
	}
	d = write("four")
	untold(d, true)
	d.Close()
}

// As root alone: nobody else can give a file away.
func TestFilesAreTheirOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		return
	}
	dir := filepath.Join(t.TempDir(), "secrets")
	target := Target{Dir: dir, Owner: &Owner{UID: 12345, GID: 23456}}
	d := mustOpen(t, target)
	s := secretsOf("db", map[string]string{"k": "v"})
	wrote(t, d, s, true)
	wrote(t, d, s, false)
	for _, path := range []string{"", "..data/", "db/", "db/k"} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if stat := info.Sys().(*syscall.Stat_t); stat.Uid != 12345 || stat.Gid != 23456 {
			t.Errorf("%q belongs to %d:%d", path, stat.Uid, stat.Gid)
		}
	}
	d.Close()

	// A third user's directory is no place for secrets.
	if _, err := Open(Target{Dir: dir}); !errors.Is(err, ErrTarget) || !strings.Contains(err.Error(), "user 12345") {
		t.Errorf("another's directory: %v", err)
	}
	if _, err := Open(Target{Dir: dir, Owner: &Owner{UID: 54321}}); !errors.Is(err, ErrTarget) {
		t.Errorf("a third user's directory: %v", err)
	}
}

// giver names, for a process of its own, the directory that it writes to without
// what makes root more than who may give files away.
const giver = "FETCH_TEST_GIVER_DIR"

// asGiver is that process: it may write, give, and change modes, and enter
// nothing that is not its own.
func asGiver(dir string) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: 1 << unix.CAP_CHOWN, Permitted: 1 << unix.CAP_CHOWN}}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return err
	}
	d, err := Open(Target{Dir: dir, Owner: &Owner{UID: 12345, GID: -1}})
	if err != nil {
		return err
	}
	defer d.Close()
	for _, value := range []string{"one", "two", "three"} {
		if _, err := d.Write(secretsOf("db", map[string]string{"k": value})); err != nil {
			return err
		}
		if err := d.InPlace(); err != nil {
			return err
		}
	}
	return nil
}

func TestCHOWNIsAllThatAnOwnerNeeds(t *testing.T) {
	if os.Geteuid() != 0 {
		return
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil { // as kubelet makes it
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), giver+"="+dir)
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := contents(t, dir); !same(got, map[string]string{"db/k": "three"}) {
		t.Errorf("got %q", got)
	}
	if v := versions(t, dir); len(v) != 1 {
		t.Errorf("old versions are left: %v", v)
	}
}

// A volume of a pod with fsGroup gives its group to what is made in it.
func TestTheVolumesGroupIsKept(t *testing.T) {
	if os.Geteuid() != 0 {
		return
	}
	dir := t.TempDir()
	if err := errors.Join(os.Chown(dir, 0, 23456), os.Chmod(dir, 0o777|fs.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	wrote(t, mustOpen(t, Target{Dir: dir, Mode: 0o440}), secretsOf("db", map[string]string{"k": "v"}), true)
	for path, want := range map[string]fs.FileMode{"..data/": 0o750, "db/": 0o750, "db/k": 0o440} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if stat := info.Sys().(*syscall.Stat_t); stat.Gid != 23456 || info.Mode().Perm() != want {
			t.Errorf("%q has group %d and mode %v", path, stat.Gid, info.Mode())
		}
	}
}
