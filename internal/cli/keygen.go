package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

type keygenOptions struct {
	streams genericiooptions.IOStreams
	file    string
	classic bool
}

func newKeygen(streams genericiooptions.IOStreams) *cobra.Command {
	o := keygenOptions{streams: streams}
	cmd := &cobra.Command{
		Use:   "keygen [-o FILE] [--classic]",
		Short: "Generate a root key",
		Long: `Generate a root key: three lines of text, an age identity, its recipient (the
public key to encrypt to), and 64 hex digits. Whoever has it can open everything
that is sealed to it.

The key is hybrid (ML-KEM-768 with X25519), since ciphertext in git can be
collected now and broken by a quantum computer later. --classic makes an X25519
key, which age before 1.3 and VMware Secrets Manager can read.

With -o the key goes to a new file of mode 0600, and its recipient to standard
output. An existing file is never overwritten.

Exit codes: 0 done, 1 error.`,
		Example: `  # A root key in a file; prints the recipient
  kubectl vsecm keygen -o root-key.txt

  # A root key straight into a password manager
  kubectl vsecm keygen | pass insert -m vsecm/root-key`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return o.run() },
	}
	cmd.Flags().StringVarP(&o.file, "output", "o", "", "Write the key to this new `FILE`, of mode 0600")
	cmd.Flags().BoolVar(&o.classic, "classic", false, "Make a classic X25519 key instead of a hybrid one")
	return cmd
}

func (o keygenOptions) run() error {
	if o.file != "" {
		if _, err := os.Stat(o.file); errors.Is(err, fs.ErrNotExist) {
			if err := creatable(o.file); err != nil {
				return err
			}
		}
	}
	key, err := unseal.Generate(o.classic)
	if err != nil {
		return err
	}
	text := key.Text()
	defer clear(text)
	if o.file == "" {
		_, err = o.streams.Out.Write(text)
		return err
	}
	if err := encrypt.CreateFile(o.file, text, 0o600); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return withHint(fmt.Errorf("%s exists already, and is left as it is", o.file), "name another file, or move that one away")
		}
		return err
	}
	_, err = fmt.Fprintln(o.streams.Out, key.Recipient())
	return err
}
