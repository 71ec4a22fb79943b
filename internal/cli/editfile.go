package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// manifestFlags choose among the manifests of a file that is edited.
type manifestFlags struct {
	name      string
	namespace string
}

// addTo adds the flags. Their values are completed out of the file that is the first argument; where that is none,
// namespaces by otherwise, which may be nil.
func (f *manifestFlags) addTo(cmd *cobra.Command, otherwise cobra.CompletionFunc) {
	cmd.Flags().StringVar(&f.name, "name", "", "The `NAME` of the manifest that is meant, where the file has several")
	cmd.Flags().StringVarP(&f.namespace, "namespace", "n", "", "The `NAMESPACE` of the manifest that is meant, where the file has several")
	of := func(part func(encrypt.Manifest) string) cobra.CompletionFunc {
		return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var parts []string
			if len(args) > 0 {
				for _, m := range manifestsIn(args[0]) {
					parts = append(parts, part(m))
				}
			}
			slices.Sort(parts)
			return slices.Compact(parts), cobra.ShellCompDirectiveNoFileComp
		}
	}
	_ = cmd.RegisterFlagCompletionFunc("name", of(func(m encrypt.Manifest) string { return m.Object.Name }))
	namespaces := of(func(m encrypt.Manifest) string { return m.Object.Namespace })
	_ = cmd.RegisterFlagCompletionFunc("namespace", func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if found, directive := namespaces(cmd, args, start); len(found) > 0 || otherwise == nil {
			return found, directive
		}
		return otherwise(cmd, args, start)
	})
}

func (f manifestFlags) check() error {
	if f.name != "" {
		if err := encrypt.ValidateName(f.name); err != nil {
			return fmt.Errorf("--name: %w", err)
		}
	}
	if f.namespace != "" {
		if err := encrypt.ValidateNamespace(f.namespace); err != nil {
			return fmt.Errorf("--namespace: %w", err)
		}
	}
	return nil
}

// all returns those that are meant of the manifests of a file: one at least, and none twice.
func (f manifestFlags) all(t *target) ([]encrypt.Manifest, error) {
	var meant []encrypt.Manifest
	first := make(map[place]encrypt.Manifest)
	for _, m := range t.existing {
		at := place{m.Object.Namespace, m.Object.Name}
		if f.name != "" && f.name != at.name || f.namespace != "" && f.namespace != at.namespace {
			continue
		}
		if other, twice := first[at]; twice {
			return nil, withHint(fmt.Errorf("%s: %s stands in this file twice, on lines %d and %d", t.path, at, other.Line, m.Line), "delete one of them first")
		}
		first[at] = m
		meant = append(meant, m)
	}
	switch {
	case len(t.existing) == 0:
		return nil, withHint(fmt.Errorf("%s: no EncryptedSecret in it", t.path), "'kubectl vsecm encrypt NAME -w %s' adds one", t.path)
	case len(meant) == 0:
		return nil, withHint(fmt.Errorf("%s: no such manifest in it", t.path), "it has %s", placesIn(t.existing))
	}
	return meant, nil
}

// oneIn opens a file with [openExisting], and returns with it the single manifest that is meant.
func (f manifestFlags) oneIn(file string, p *project) (*target, encrypt.Manifest, error) {
	t, err := openExisting(file, p)
	if err != nil {
		return nil, encrypt.Manifest{}, err
	}
	meant, err := f.all(t)
	if err != nil {
		return nil, encrypt.Manifest{}, err
	}
	if len(meant) > 1 {
		return nil, encrypt.Manifest{}, withHint(fmt.Errorf("%s: %d manifests in it, and it is not said which", t.path, len(meant)),
			"choose one with --name and -n: %s", placesIn(meant))
	}
	return t, meant[0], nil
}

func placesIn(ms []encrypt.Manifest) string {
	places := make([]string, len(ms))
	for i, m := range ms {
		places[i] = m.Object.Namespace + "/" + m.Object.Name
	}
	return someOf(places)
}

// openExisting is [openTarget] for a file that has to be there, and that can be replaced: that is told before anybody
// types.
func openExisting(path string, p *project) (*target, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, withHint(fmt.Errorf("there is no file %s", path), "'kubectl vsecm encrypt NAME -w %s' makes one", path)
	}
	t, err := openTarget(path, "", p.rule(path).Namespace)
	if err != nil {
		return nil, err
	}
	return t, replaceable(path)
}

// replaceable tells whether another file can take a file's place. A folder that cannot be written to says so in many
// ways: trying tells them all.
func replaceable(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(real), ".vsecm-*.tmp")
	if err != nil {
		var failed *fs.PathError
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return withHint(fmt.Errorf("%s could not be written: nothing can be made in its folder: %w", path, err), "make a copy where you may write, or ask whoever owns the folder")
	}
	f.Close()
	return os.Remove(f.Name())
}
