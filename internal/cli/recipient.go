package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

type recipientOptions struct {
	streams genericiooptions.IOStreams
	rootKey string
	output  outputFlag
}

func newRecipient(streams genericiooptions.IOStreams) *cobra.Command {
	o := recipientOptions{streams: streams, output: outputFlag{forms: []string{"json", "yaml"}}}
	cmd := &cobra.Command{
		Use:   "recipient --root-key FILE",
		Short: "Print the public key to encrypt to",
		Long: `Print the recipient, the public key to encrypt to, of a root key.

Exit codes: 0 done, 1 error.`,
		Example: `  # For --recipient, $VSECM_RECIPIENTS or .vsecm.yaml
  kubectl vsecm recipient --root-key root-key.txt`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return o.run() },
	}
	cmd.Flags().StringVar(&o.rootKey, "root-key", "", "The `FILE` of the root key, or - for standard input")
	o.output.addTo(cmd, "Print an object with the key id too")
	return cmd
}

func (o recipientOptions) run() error {
	if o.rootKey == "" {
		return withHint(errors.New("no root key given"), "name its file with --root-key")
	}
	key, err := readRootKey(o.streams, o.rootKey)
	if err != nil {
		return err
	}
	if o.output.value != "" {
		return printObject(o.streams.Out, o.output.value, struct {
			Recipient string `json:"recipient"`
			KeyID     string `json:"keyID"`
		}{key.Recipient().String(), string(key.KeyID())})
	}
	_, err = fmt.Fprintln(o.streams.Out, key.Recipient())
	return err
}
