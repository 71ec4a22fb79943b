package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

const (
	// driverSetting is what git runs over each side of a difference, in a shell, with the name of a file behind it.
	driverSetting = "diff.vsecm.textconv"

	// driverCommand starts the plugin for files that hold manifests alone, and shows what there is where the
	// plugin is gone: a git that cannot run its driver shows no difference at all.
	driverCommand = `f() { if grep -q -e vsecm.com/ -- "$1" && command -v kubectl-vsecm >/dev/null; then kubectl-vsecm git textconv -- "$1"; else cat -- "$1"; fi; }; f`

	attributesBegin = "# kubectl vsecm git setup: begin"
	attributesEnd   = "# kubectl vsecm git setup: end"
	attributes      = attributesBegin + "\n*.yaml diff=vsecm\n*.yml diff=vsecm\n*.json diff=vsecm\n" + attributesEnd + "\n"
)

// A diffDriver is what of ours is in a clone for differences.
type diffDriver struct {
	command    string // as it is set
	attributes string // file
	text       []byte // of it
	committed  bool   // the repository says itself for which files
	top        string // the work tree
}

// findDriver looks for what there is. top is the work tree, empty where there is none.
func findDriver(ctx context.Context, top string) (d diffDriver, err error) {
	d.top = top
	if d.command, err = gitSetting(ctx, "--local", driverSetting); err != nil {
		return d, err
	}
	file, err := gitPath(ctx, "rev-parse", "--git-path", "info/attributes")
	if err != nil {
		return d, err
	}
	d.attributes = filepath.FromSlash(file)
	d.text, err = readFile(d.attributes, encrypt.MaxFileSize)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return d, err
	}
	committed, err := readFile(filepath.Join(top, ".gitattributes"), encrypt.MaxFileSize)
	d.committed = top != "" && err == nil && mentionsDriver(committed)
	return d, nil
}

// mentionsDriver tells whether attributes have files differ by our driver.
func mentionsDriver(text []byte) bool {
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if slices.Contains(fields, "diff=vsecm") && !strings.HasPrefix(fields[0], "#") {
			return true
		}
	}
	return false
}

// ours tells whether the command that is set is ours, of this version or another.
func (d diffDriver) ours() bool { return strings.Contains(d.command, "kubectl-vsecm git textconv") }

func (d diffDriver) place() string {
	if d.committed {
		return "setting " + driverSetting + ", and .gitattributes"
	}
	return "setting " + driverSetting + ", and " + d.attributes
}

// check tells what stands in the way.
func (d diffDriver) check(ctx context.Context) error {
	if d.command != "" && !d.ours() {
		return withHint(fmt.Errorf("%s is set already, to a command that this plugin has not made", driverSetting), "if nobody needs it: git config --unset %s", driverSetting)
	}
	if d.committed || bytes.Contains(d.text, []byte(attributesBegin)) {
		return nil
	}
	// info/attributes counts before all else: a lock file that is not to be shown would be.
	files, err := runGit(ctx, "ls-files", "-z", "--full-name", ":/")
	if err != nil {
		return err
	}
	cmd := gitCommand(ctx, "check-attr", "--stdin", "-z", "diff")
	cmd.Dir = d.top // which the paths are below
	cmd.Stdin = bytes.NewReader(files)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return gitFailure(err, errOut.String())
	}
	fields := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") // file, attribute, value, …
	for i := 0; i+2 < len(fields); i += 3 {
		if isManifestName(filepath.Base(fields[i])) && fields[i+2] != "unspecified" && fields[i+2] != "vsecm" {
			return withHint(fmt.Errorf("%s has an attribute of its own for differences (diff: %s), which the driver would replace", fields[i], fields[i+2]),
				"say in .gitattributes which files are manifests, such as: secrets/** diff=vsecm")
		}
	}
	return nil
}

// install sets what is missing, and tells whether anything was.
func (d diffDriver) install(ctx context.Context) (changed bool, err error) {
	if d.command != driverCommand {
		if _, err := runGit(ctx, "config", "--local", driverSetting, driverCommand); err != nil {
			return false, err
		}
		changed = true
	}
	if d.committed {
		return changed, nil
	}
	text := append(withoutBlock(d.text), attributes...)
	if bytes.Equal(text, d.text) {
		return changed, nil
	}
	if err := os.MkdirAll(filepath.Dir(d.attributes), 0o755); err != nil {
		return changed, err
	}
	return true, encrypt.ReplaceFile(d.attributes, text, 0o644)
}

// remove removes what is ours, and tells whether there was anything.
func (d diffDriver) remove(ctx context.Context) (changed bool, err error) {
	if d.ours() {
		if _, err := runGit(ctx, "config", "--local", "--unset-all", driverSetting); err != nil {
			return false, err
		}
		changed = true
	}
	text := withoutBlock(d.text)
	switch {
	case bytes.Equal(text, d.text):
		return changed, nil
	case len(text) == 0:
		return true, os.Remove(d.attributes)
	}
	return true, encrypt.ReplaceFile(d.attributes, text, 0o644)
}

// withoutBlock returns attributes without our lines. They end in a line break, if there are any.
func withoutBlock(text []byte) []byte {
	var kept []byte
	inside := false
	for line := range bytes.Lines(text) {
		switch strings.TrimSpace(string(line)) {
		case attributesBegin:
			inside = true
			continue
		case attributesEnd:
			inside = false
			continue
		}
		if !inside {
			kept = append(kept, line...)
		}
	}
	if len(kept) > 0 && !bytes.HasSuffix(kept, []byte("\n")) {
		kept = append(kept, '\n')
	}
	return kept
}
