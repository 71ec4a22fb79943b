package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/kubectlcomplete"
)

// A machine is folders in the PATH, and nothing else there.
type machine struct {
	t    *testing.T
	root string
}

// newMachine makes folders and has them be the PATH, in this order. The home is "home".
func newMachine(t *testing.T, path ...string) machine {
	t.Helper()
	m := machine{t, t.TempDir()}
	var dirs []string
	for _, dir := range path {
		dirs = append(dirs, m.path(dir))
		check(t, os.MkdirAll(m.path(dir), 0o755))
	}
	check(t, os.MkdirAll(m.path("home"), 0o755))
	t.Setenv("HOME", m.path("home"))
	t.Setenv("PATH", strings.Join(dirs, string(os.PathListSeparator)))
	return m
}

func (m machine) path(name string) string { return filepath.Join(m.root, name) }

// program puts one that prints text.
func (m machine) program(name, text string) {
	m.t.Helper()
	check(m.t, os.WriteFile(m.path(name), []byte("#!/bin/sh\nprintf '%s' '"+text+"'\n"), 0o755))
}

// all returns the folders that have a script for kubectl.
func (m machine) all() string {
	m.t.Helper()
	var found []string
	check(m.t, filepath.Walk(m.root, func(path string, info os.FileInfo, err error) error {
		if info != nil && strings.HasPrefix(info.Name(), "kubectl_complete-vsecm") {
			dir, _ := filepath.Rel(m.root, filepath.Dir(path))
			found = append(found, dir)
		}
		return err
	}))
	return strings.Join(found, " ")
}

const foreignScript = "#!/bin/sh\necho mine\n"

func TestCompletionInstall(t *testing.T) {
	const script = "kubectl_complete-vsecm"
	for _, tc := range []struct {
		name  string
		path  []string
		given func(m machine)
		args  []string
		code  int
		where string // the folders that have a script then
		says  string
	}{
		{
			name: "beside the plugin, where that may be written to",
			path: []string{"usr/bin", "krew/bin", "home/bin"},
			given: func(m machine) {
				m.program("krew/bin/kubectl-vsecm", "")
			},
			where: "krew/bin", says: "completion set up: ",
		},
		{
			name: "nowhere, if the PATH leads to no plugin and no home",
			path: []string{"opt"},
			code: exitError, says: "neither the plugin nor your home has a folder in the PATH",
		},
		{
			name: "where --dir says",
			path: []string{"bin", "home/bin"},
			given: func(m machine) {
				m.program("home/bin/kubectl-vsecm", "")
			},
			args: []string{"--dir", "bin"}, where: "bin", says: "completion set up: ",
		},
		{
			name: "where --dir says, and that kubectl does not look there",
			path: []string{"home/bin"},
			given: func(m machine) {
				check(m.t, os.Mkdir(m.path("elsewhere"), 0o755))
				m.program("home/bin/kubectl-vsecm", "")
			},
			args: []string{"--dir", "elsewhere"}, where: "elsewhere", says: "elsewhere is not in the PATH",
		},
		{
			name:  "that the plugin itself is not in the PATH",
			path:  []string{"home/bin"},
			where: "home/bin", says: "kubectl-vsecm: it is not in the PATH",
		},
		{
			name: "not over a file of somebody else's",
			path: []string{"home/bin", "home/more"},
			given: func(m machine) {
				check(m.t, os.WriteFile(m.path("home/bin/"+script), []byte(foreignScript), 0o644))
			},
			code: exitError, where: "home/bin", says: "not made by this plugin",
		},
		{
			name: "not where kubectl would find somebody else's before it",
			path: []string{"bin", "home/bin"},
			given: func(m machine) {
				check(m.t, os.WriteFile(m.path("bin/"+script), []byte(foreignScript), 0o755))
			},
			code: exitError, where: "bin", says: "not made by this plugin",
		},
		{
			name: "not again, where one of another release is",
			path: []string{"bin", "home/bin"},
			given: func(m machine) {
				m.program("bin/kubectl-vsecm", "")
				check(m.t, os.WriteFile(m.path("home/bin/"+script), []byte("#!/bin/sh\nexec kubectl-vsecm __complete \"$@\"\n"), 0o755))
			},
			where: "home/bin", says: "completion is set up already: ",
		},
		{
			name: "that kubectl is too old to ask",
			path: []string{"home/bin"},
			given: func(m machine) {
				m.program("home/bin/kubectl-vsecm", "")
				m.program("home/bin/kubectl", `{"clientVersion":{"gitVersion":"v1.25.16"}}`)
			},
			where: "home/bin", says: "kubectl is v1.25.16, and asks plugins from v1.26 on",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t, tc.path...)
			if tc.given != nil {
				tc.given(m)
			}
			t.Chdir(m.root)
			code, stdout, stderr := run(t, "", append([]string{"completion", "install"}, tc.args...)...)
			if code != tc.code || stdout != "" || !strings.Contains(stderr, tc.says) {
				t.Errorf("exit code %d: %s%s", code, stdout, stderr)
			}
			if got := m.all(); got != tc.where {
				t.Errorf("there is a script in %q, want %q", got, tc.where)
			}
			if code != exitOK {
				return
			}
			_, again, stderr := run(t, "", append([]string{"completion", "install"}, tc.args...)...)
			if !strings.Contains(stderr, "is set up already: ") || m.all() != tc.where {
				t.Errorf("the second time: %s%s, and in %q", again, stderr, m.all())
			}
		})
	}
}

func TestCompletionInstallNotesNothingOfAKubectlThatAsks(t *testing.T) {
	m := newMachine(t, "home/bin")
	m.program("home/bin/kubectl-vsecm", "")
	for _, version := range []string{
		`{"clientVersion":{"gitVersion":"v1.26.0"}}`, `{"clientVersion":{"gitVersion":"v1.36.3-gke.1"}}`, `{"clientVersion":{"gitVersion":"v2.0.0"}}`,
		`{}`, `no kubectl of this world`,
	} {
		m.program("home/bin/kubectl", version)
		code, stdout, stderr := run(t, "", "completion", "install")
		if code != exitOK || strings.Contains(stdout+stderr, "note:") {
			t.Errorf("%s: exit code %d: %s%s", version, code, stdout, stderr)
		}
	}
}

// What was installed answers kubectl, by way of the plugin.
func TestCompletionInstalledAsksThePlugin(t *testing.T) {
	path := os.Getenv("PATH")
	newMachine(t, "home/bin")
	t.Setenv("PATH", os.Getenv("PATH")+string(os.PathListSeparator)+path)
	code, stdout, stderr := run(t, "", "completion", "install", "--dir", filepath.SplitList(os.Getenv("PATH"))[0])
	if code != exitOK {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	name, _ := kubectlcomplete.Script("linux")
	out, err := exec.Command(name, "encrypt", "--from-l").Output()
	if err != nil || !strings.HasPrefix(string(out), "--from-literal\t") {
		t.Errorf("%v: %s", err, out)
	}
}
