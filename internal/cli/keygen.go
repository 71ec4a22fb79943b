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
	deal    dealOptions
}

func newKeygen(streams genericiooptions.IOStreams) *cobra.Command {
	o := keygenOptions{streams: streams, deal: dealOptions{streams: streams}}
	cmd := &cobra.Command{
		Use:   "keygen [-o FILE | --shares N --threshold T --out-dir DIR]",
		Short: "Generate a root key, whole or in shares",
		Long: `Generate a root key: three lines of text, an age identity, its recipient (the
public key to encrypt to), and 64 hex digits. Whoever has it can open everything
that is sealed to it.

The key is hybrid (ML-KEM-768 with X25519), since ciphertext in git can be
collected now and broken by a quantum computer later. --classic makes an X25519
key, which age before 1.3 and VMware Secrets Manager can read.

With -o the key goes to a new file of mode 0600, and its recipient to standard
output. An existing file is never overwritten.

With --shares the key is written nowhere. It is split among N holders, of whom
any T together open it and fewer learn nothing. DIR/vsecm-shares.yaml is their
public part: keep copies, for without it no share opens anything. Each share is
encrypted to its holder, in DIR/NAME.share.age, if --share-to names all N of
them; if it names nobody, each is shown once, on this terminal only, on a screen
that is cleared before the next. --root-key splits a key that there is already;
shares that were made of it before stay valid.

Exit codes: 0 done, 1 error, 130 interrupted. After an error or an interruption
no file has been made, and no share that was shown is of any use.`,
		Example: `  # A root key in a file; prints the recipient
  kubectl vsecm keygen -o root-key.txt

  # A root key straight into a password manager
  kubectl vsecm keygen | pass insert -m vsecm/root-key

  # Two of three people, each with an age key of their own
  kubectl vsecm keygen --shares 3 --threshold 2 --out-dir shares \
    --share-to alice=age1… --share-to bob=age1… --share-to carol=age1…

  # Three of five, each of whom comes to this screen
  kubectl vsecm keygen --shares 5 --threshold 3 --out-dir shares`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Flags().Changed) },
	}
	cmd.Flags().StringVarP(&o.file, "output", "o", "", "Write the key to this new `FILE`, of mode 0600")
	cmd.Flags().BoolVar(&o.classic, "classic", false, "Make a classic X25519 key instead of a hybrid one")
	o.deal.addTo(cmd)
	return cmd
}

func (o keygenOptions) run(changed func(flag string) bool) error {
	if changed("shares") {
		switch {
		case o.file != "":
			return withHint(errors.New("-o writes the whole key, and --shares is there so that nobody has it"), "name a folder for the shares with --out-dir")
		case o.classic && o.deal.rootKey != "":
			return errors.New("--classic is for a new key, and --root-key names one that there is")
		}
		return o.deal.run(o.classic)
	}
	for _, flag := range []string{"threshold", "share-to", "out-dir", "root-key"} {
		if changed(flag) {
			return withHint(fmt.Errorf("--%s is for shares", flag), "say how many with --shares")
		}
	}
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
	defer key.Wipe()
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
	if _, err := fmt.Fprintln(o.streams.Out, key.Recipient()); err != nil {
		return err
	}
	// A hybrid recipient has 1,959 characters: nobody compares those.
	if screenOf(o.streams.ErrOut).columns > 0 {
		prose(o.streams.ErrOut, "wrote %s: key %s", o.file, key.KeyID())
	}
	return nil
}
