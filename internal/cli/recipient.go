package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type recipientOptions struct {
	streams genericiooptions.IOStreams
	safe    safeFlag
	rootKey string
	output  outputFlag
}

// A publicKey is a root key's public half.
type publicKey struct {
	Recipient string `json:"recipient"`
	KeyID     string `json:"keyID"`
}

func newRecipient(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := recipientOptions{streams: streams, safe: safeFlag{conn: conn}, output: outputFlag{forms: []string{"json", "yaml", formJSONPath}}}
	cmd := &cobra.Command{
		Use:   "recipient [--root-key FILE] [flags]",
		Short: "Print the public key to encrypt to",
		Long: `Print the recipient, the public key to encrypt to: the one that Safe publishes
in the cluster, whether it runs or not, sealed or not; that of a root key with
--root-key; or what Safe itself answers with --safe or $VSECM_SAFE.

Exit codes: 0 done, 1 error.`,
		Example: `  # The cluster's, for .vsecm.yaml
  kubectl vsecm recipient --context prod

  # That of a root key
  kubectl vsecm recipient --root-key root-key.txt`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().StringVar(&o.rootKey, "root-key", "", "The `FILE` of the root key, or - for standard input")
	o.safe.addAddressTo(cmd)
	o.safe.namespace.addTo(cmd)
	o.output.addTo(cmd, "Print an object with the key id too")
	return cmd
}

func (o recipientOptions) run(ctx context.Context) error {
	key, err := o.find(ctx)
	if err != nil {
		return err
	}
	if o.output.value != "" {
		return printObject(o.streams.Out, o.output.value, key)
	}
	_, err = fmt.Fprintln(o.streams.Out, key.Recipient)
	return err
}

func (o recipientOptions) find(ctx context.Context) (publicKey, error) {
	if o.rootKey != "" {
		key, err := readRootKey(o.streams, o.rootKey)
		if err != nil {
			return publicKey{}, err
		}
		defer key.Wipe()
		return publicKey{key.Recipient().String(), string(key.KeyID())}, nil
	}
	ctx, cancel, err := o.safe.conn.within(ctx, statusTimeout)
	if err != nil {
		return publicKey{}, err
	}
	defer cancel()
	if o.safe.given() != "" {
		return o.ask(ctx)
	}
	r, _, err := o.safe.conn.published(ctx, string(o.safe.namespace))
	if errors.Is(err, errNoCluster) {
		return publicKey{}, withHint(errors.New("no root key given, and no cluster to ask"), "name the file of a root key with --root-key, or a kubeconfig with --kubeconfig")
	}
	if err != nil {
		return publicKey{}, err
	}
	return publicKey{r.String(), string(r.KeyID())}, nil
}

// ask has the replicas answer, which must agree.
func (o recipientOptions) ask(ctx context.Context) (publicKey, error) {
	all, err := o.safe.open(ctx, viewerAccount)
	if err != nil {
		return publicKey{}, err
	}
	defer all.close()
	keys := make([]publicKey, len(all.replicas))
	errs := all.each(func(i int, r *replica) error {
		text, err := r.ask(ctx, http.MethodGet, "/v1/recipient")
		if err != nil {
			return err
		}
		if err := decode(r, text, &keys[i]); err != nil {
			return err
		}
		recipient, err := encrypt.ParseRecipient(keys[i].Recipient)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		keys[i].KeyID = string(recipient.KeyID())
		return nil
	})
	if err := errors.Join(errs...); err != nil {
		return publicKey{}, err
	}
	for i, k := range keys {
		if k != keys[0] {
			return publicKey{}, withHint(fmt.Errorf("%s and %s have different keys", all.replicas[0].name, all.replicas[i].name),
				"are they replicas of one Safe? In the middle of a re-key, 'kubectl vsecm rekey status' shows who has not followed")
		}
	}
	return keys[0], nil
}

// errNoKeyYet says that there is nothing to encrypt to.
var errNoKeyYet = errors.New("there is no root key yet: Safe has none")

// published returns the recipient that Safe publishes in the cluster, and where that was. The
// error is [errNoCluster] where no kubeconfig leads to one.
func (c *connection) published(ctx context.Context, namespace string) (r encrypt.Recipient, where string, err error) {
	cluster, err := c.cluster()
	if err != nil {
		return r, "", err
	}
	defer cluster.close()
	p, err := cluster.publication(ctx, namespace)
	if err != nil {
		return r, "", err
	}
	if p.Recipient == "" {
		return r, "", withHint(fmt.Errorf("%w (in %s)", errNoKeyYet, cluster), "make one with 'kubectl vsecm keygen', and give it to Safe with 'kubectl vsecm unseal'")
	}
	if r, err = encrypt.ParseRecipient(p.Recipient); err != nil {
		return r, "", fmt.Errorf("what Safe publishes in %s: %w", cluster, err)
	}
	return r, cluster.String(), nil
}

// publishedOnce asks the cluster for Safe's recipient, once, and says which it was: whoever has
// another cluster in mind is to see it.
func (c *connection) publishedOnce(ctx context.Context, streams genericiooptions.IOStreams) func(namespace string) (encrypt.Recipient, error) {
	var (
		once sync.Once
		r    encrypt.Recipient
		fail error
	)
	return func(namespace string) (encrypt.Recipient, error) {
		once.Do(func() {
			asking, cancel, err := c.within(ctx, statusTimeout)
			if err != nil {
				fail = err
				return
			}
			defer cancel()
			var where string
			if r, where, fail = c.published(asking, namespace); fail == nil {
				prose(streams.ErrOut, "note: sealing to key %s, which Safe publishes in %s", r.KeyID(), where)
			}
		})
		return r, fail
	}
}
