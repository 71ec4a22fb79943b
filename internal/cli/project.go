package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A project is the .vsecm.yaml above the working directory. Where there is
// none it is empty, and has no rules.
type project struct {
	root     string // absolute; empty where there is no project file
	realRoot string // the same, through no link
	rules    *encrypt.Project
	foreign  bool // the project file belongs to another user

	// inside reads a file inside the project, by its slash-separated path below the root, where that is not to
	// come from the file system.
	inside func(name string, most int) ([]byte, error)
}

func findProject() (*project, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	return findProjectFrom(dir)
}

// findProjectFrom finds the project file in a folder, or the next one above it.
func findProjectFrom(dir string) (*project, error) {
	for {
		file := filepath.Join(dir, encrypt.ProjectFile)
		data, err := readFile(file, encrypt.MaxProjectSize)
		switch {
		case err == nil:
			rules, faults := encrypt.ParseProject(file, data)
			if len(faults) > 0 {
				return nil, faultsError(faults)
			}
			real, err := filepath.EvalSymlinks(dir)
			if err != nil {
				return nil, err
			}
			info, err := os.Stat(file)
			if err != nil {
				return nil, err
			}
			return &project{root: dir, realRoot: real, rules: rules, foreign: isForeign(info)}, nil
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return &project{}, nil
		}
		dir = parent
	}
}

// rule returns what the project says about a file; none where the file lies
// outside.
func (p *project) rule(file string) encrypt.Rule {
	if p.root == "" {
		return encrypt.Rule{}
	}
	// Getwd may have shown a link where file's path does not, or the other way
	// round. The file itself, and its folder, may be yet to be made.
	for _, try := range []struct {
		root string
		real func(string) (string, error)
	}{{p.realRoot, realPath}, {p.root, filepath.Abs}} {
		dir, err := try.real(filepath.Dir(file))
		if err != nil {
			continue
		}
		relative, err := filepath.Rel(try.root, filepath.Join(dir, filepath.Base(file)))
		if err == nil {
			return p.ruleWithin(relative)
		}
	}
	return encrypt.Rule{}
}

func (p *project) ruleWithin(relative string) encrypt.Rule {
	relative = filepath.ToSlash(relative)
	if relative == ".." || strings.HasPrefix(relative, "../") {
		return encrypt.Rule{}
	}
	return p.rules.Rule(relative)
}

// recipients returns a rule's recipients, those of its file included. The file may
// lie nowhere but in the project, also by way of links: what is in it may appear in
// an error.
func (p *project) recipients(r encrypt.Rule) ([]encrypt.Recipient, error) {
	if r.RecipientsFile == "" {
		return r.Recipients, nil
	}
	read := p.inside
	if read == nil {
		read = p.readInside
	}
	data, err := read(r.RecipientsFile, encrypt.MaxRecipientsFileSize)
	if err != nil {
		return nil, fmt.Errorf("recipientsFile: %w", err)
	}
	more, err := encrypt.ParseRecipients(filepath.Join(p.root, filepath.FromSlash(r.RecipientsFile)), data)
	return append(more, r.Recipients...), err
}

func (p *project) readInside(name string, most int) ([]byte, error) {
	root, err := os.OpenRoot(p.root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, filepath.Join(p.root, filepath.FromSlash(name)), most)
}

// shownFile is the project file as faults name it: from the working directory, as other files are.
func (p *project) shownFile() string {
	file := filepath.Join(p.root, encrypt.ProjectFile)
	if dir, err := os.Getwd(); err == nil {
		if relative, err := filepath.Rel(dir, file); err == nil {
			return relative
		}
	}
	return file
}

func readRecipients(file string) ([]encrypt.Recipient, error) {
	data, err := readFile(file, encrypt.MaxRecipientsFileSize)
	if err != nil {
		return nil, err
	}
	return encrypt.ParseRecipients(file, data)
}

// ownProject returns the project whose rules say whom to seal to.
func ownProject(streams genericiooptions.IOStreams) (*project, error) {
	p, err := findProject()
	if err != nil {
		return nil, err
	}
	if p.foreign {
		// In a folder that others may write to, such as /tmp, it would have
		// secrets sealed to them.
		prose(streams.ErrOut, "note: %s belongs to another user, and is left out", filepath.Join(p.root, encrypt.ProjectFile))
		return &project{}, nil
	}
	return p, nil
}
