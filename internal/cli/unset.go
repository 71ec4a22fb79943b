package cli

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type unsetOptions struct {
	streams genericiooptions.IOStreams

	file     string
	keys     []string
	manifest manifestFlags
}

func newUnset(streams genericiooptions.IOStreams) *cobra.Command {
	o := unsetOptions{streams: streams}
	cmd := &cobra.Command{
		Use:   "unset FILE KEY… [--name NAME] [-n NAMESPACE]",
		Short: "Remove values from a manifest in a file, without any private key",
		Long: `Remove keys with their values from an EncryptedSecret in a file. Nothing else in
the file changes, comments above the values included, and no key is needed.

The last value of a manifest is not removed: delete the manifest instead.

A value that is removed here stays in git's history, for whoever has the root
key. Where it was a password, change it where it opens something, too.

Exit codes: 0 done, 1 error. After an error the file is as it was.`,
		Example: `  kubectl vsecm unset secrets/db.yaml old-password

  # In a file of several manifests
  kubectl vsecm unset secrets/all.yaml user password --name db -n shop`,
		Args: minArgs(2, "a FILE and a KEY"),
		RunE: func(_ *cobra.Command, args []string) error {
			o.file, o.keys = args[0], args[1:]
			return o.run()
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			keys, directive := completeFileAndKeys(args, 0, &o.manifest)
			return slices.DeleteFunc(keys, func(key string) bool { return slices.Contains(args, key) }), directive
		},
	}
	o.manifest.addTo(cmd, nil)
	return cmd
}

func (o unsetOptions) run() error {
	for i, key := range o.keys {
		if encrypt.ValidateKey(key) != nil {
			return errNoKey("KEY")
		}
		if slices.Contains(o.keys[:i], key) {
			return fmt.Errorf("%s is named twice", key)
		}
	}
	if err := o.manifest.check(); err != nil {
		return err
	}
	p, err := findProject()
	if err != nil {
		return err
	}
	t, m, err := o.manifest.oneIn(o.file, p)
	if err != nil {
		return err
	}
	at := place{m.Object.Namespace, m.Object.Name}
	for _, key := range o.keys {
		if _, has := m.Object.Spec.EncryptedData[key]; !has {
			return withHint(fmt.Errorf("%s:%d: %s %w %s", m.File, m.Line, at, errNoSuchKey, key), "it has %s", keysOf(m.Object))
		}
	}
	t.data, err = encrypt.RemoveValues(o.file, t.data, at.namespace, at.name, o.keys, t.defaultNamespace)
	if errors.Is(err, encrypt.ErrLastValue) {
		if len(t.existing) == 1 {
			return withHint(err, "to remove it all, delete the file")
		}
		return withHint(err, "to remove all of %s, delete its document from the file", at)
	}
	if err != nil {
		return err
	}
	t.did = []string{fmt.Sprintf("%s, without %s", at, someOf(o.keys))}
	return t.save(o.streams)
}
