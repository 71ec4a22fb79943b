package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/kubectlcomplete"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type completionInstallOptions struct {
	streams genericiooptions.IOStreams
	dir     string
}

func newCompletionInstall(streams genericiooptions.IOStreams) *cobra.Command {
	o := completionInstallOptions{streams: streams}
	cmd := &cobra.Command{
		Use:   "install [--dir DIR]",
		Short: "Have kubectl complete the plugin's arguments",
		Long: `Have kubectl complete what follows 'kubectl vsecm': verbs, flags, files, and the
names of namespaces, objects and keys.

kubectl asks a program kubectl_complete-vsecm in the PATH. This puts a script of
that name beside the plugin, or, where that folder cannot be written to, into
the first folder of the PATH in your home that can. The script runs the plugin
that is found in the PATH then, so an upgrade needs nothing. A file that is not
ours is never replaced; to take the script away, delete it.

kubectl's own completion has to be on in your shell ('kubectl completion
--help'), and kubectl be 1.26 or newer.

Exit codes: 0 it is there, 1 error.`,
		Example: `  kubectl vsecm completion install

  # For everybody on this machine
  sudo kubectl vsecm completion install --dir /usr/local/bin`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().StringVar(&o.dir, "dir", "", "Put it into this `DIR`, which should be in the PATH")
	_ = cmd.MarkFlagDirname("dir")
	return cmd
}

func (o completionInstallOptions) run(ctx context.Context) error {
	name, script := kubectlcomplete.Script(runtime.GOOS)
	dirs := []string{o.dir}
	if o.dir == "" {
		// What kubectl finds first counts.
		if found, err := exec.LookPath(name); err == nil {
			dirs = []string{filepath.Dir(found)}
		} else if dirs = foldersForPrograms(); len(dirs) == 0 {
			return withHint(errors.New("neither the plugin nor your home has a folder in the PATH"),
				"make one, put it into the PATH, and name it with --dir")
		}
	}
	file, made, err := placeScript(dirs, name, script)
	if err != nil {
		return err
	}
	if made {
		prose(o.streams.ErrOut, "completion set up: %s", file)
	} else {
		prose(o.streams.ErrOut, "completion is set up already: %s", file)
	}
	for _, note := range o.obstacles(ctx, name, file) {
		prose(o.streams.ErrOut, "note: %s", note)
	}
	return nil
}

// placeScript makes sure of the script in the first of dirs that can be written to.
func placeScript(dirs []string, name string, script []byte) (file string, made bool, err error) {
	var denied []error
	for _, dir := range dirs {
		file := filepath.Join(dir, name)
		err := encrypt.CreateFile(file, script, 0o755)
		switch {
		case err == nil:
			return file, true, nil
		case errors.Is(err, fs.ErrExist):
			if !isCompletionScript(file) {
				return "", false, withHint(fmt.Errorf("%s is there, and not made by this plugin", file),
					"move it out of the way, or name another folder with --dir")
			}
			return file, false, nil
		}
		denied = append(denied, err)
	}
	if len(dirs) == 1 {
		return "", false, withHint(denied[0], "name a folder of the PATH that you may write to with --dir")
	}
	return "", false, withHint(errors.Join(denied...), "name another folder of the PATH with --dir")
}

// isCompletionScript reports whether a file is a script that asks the plugin, be it
// of this release or another.
func isCompletionScript(file string) bool {
	text, err := readFile(file, 4<<10)
	return err == nil && (bytes.Contains(text, []byte("kubectl-vsecm __complete ")) || bytes.Contains(text, []byte("kubectl-vsecm.exe __complete ")))
}

// foldersForPrograms returns the folder of the plugin, if kubectl finds it there, and
// those in the PATH that are below the person's home.
func foldersForPrograms() []string {
	var dirs []string
	add := func(dir string) {
		if filepath.IsAbs(dir) && !slices.Contains(dirs, filepath.Clean(dir)) {
			dirs = append(dirs, filepath.Clean(dir))
		}
	}
	if plugin, err := exec.LookPath("kubectl-vsecm"); err == nil {
		add(filepath.Dir(plugin))
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return dirs
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if below, err := filepath.Rel(home, dir); err == nil && filepath.IsLocal(below) {
			add(dir)
		}
	}
	return dirs
}

// obstacles says what keeps kubectl from asking the script.
func (o completionInstallOptions) obstacles(ctx context.Context, name, file string) (notes []string) {
	if found, err := exec.LookPath(name); err != nil {
		notes = append(notes, fmt.Sprintf("kubectl will not find it: %s is not in the PATH, or no program may run from there", filepath.Dir(file)))
	} else if !sameFile(found, file) {
		notes = append(notes, fmt.Sprintf("kubectl finds %s before it", found))
	}
	if _, err := exec.LookPath("kubectl-vsecm"); err != nil {
		notes = append(notes, "neither kubectl nor the script will find kubectl-vsecm: it is not in the PATH")
	}
	if v, old := oldKubectl(ctx); old {
		notes = append(notes, fmt.Sprintf("kubectl is %s, and asks plugins from v1.26 on: upgrade it, or complete kubectl-vsecm itself ('kubectl vsecm completion --help')", v))
	}
	return notes
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}

// oldKubectl reports whether the kubectl in the PATH is older than those that ask plugins,
// where it says which one it is.
func oldKubectl(ctx context.Context) (version string, old bool) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	kubectl := exec.CommandContext(ctx, "kubectl", "version", "--client", "--output=json")
	kubectl.WaitDelay = time.Second
	kubectl.Env = append(os.Environ(), "KUBECONFIG="+os.DevNull) // it reads one for nothing
	out, err := kubectl.Output()
	if err != nil {
		return "", false
	}
	var answer struct {
		ClientVersion struct {
			GitVersion string `json:"gitVersion"`
		} `json:"clientVersion"`
	}
	if json.Unmarshal(out, &answer) != nil {
		return "", false
	}
	var major, minor int
	version = answer.ClientVersion.GitVersion
	if _, err := fmt.Sscanf(strings.TrimPrefix(version, "v"), "%d.%d", &major, &minor); err != nil {
		return "", false
	}
	return version, major == 1 && minor < 26
}
