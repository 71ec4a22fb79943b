package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

const unsealTimeout = time.Minute

// unsealed is the state in which Safe serves.
const unsealed = "unsealed"

// A sealStatus is what Safe tells anyone.
type sealStatus struct {
	State    string        `json:"state"`
	KeyID    encrypt.KeyID `json:"keyID"`
	Reason   string        `json:"reason"`
	Progress progress      `json:"progress"`
}

type progress struct {
	Given  int `json:"given"`
	Needed int `json:"needed"`
}

type unsealOptions struct {
	streams    genericiooptions.IOStreams
	safe       safeFlag
	file       string
	identities []string
	accept     string
}

func newUnseal(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := unsealOptions{streams: streams, safe: safeFlag{conn: conn}}
	cmd := &cobra.Command{
		Use:   "unseal [--file FILE] [-i IDENTITY] [flags]",
		Short: "Give a sealed Safe its root key",
		Long: `Give every sealed replica of Safe its root key, in one go.

The key is asked for at a hidden prompt: paste its three lines, or the one line
with \n in it that VMware Secrets Manager shows. Or it comes from standard
input, or from --file, which may be an age file: then its passphrase is asked
for, or it is opened with an identity from -i, age's plugins included. It is
never part of the command line.

Each replica must first show, in TLS, a key that this cluster's Safe has
published. A root key that it has no use for is not sent to it.

Exit codes: 0 all replicas are unsealed, 1 one is not, or another error,
130 interrupted.`,
		Example: `  # Paste the key at the prompt
  kubectl vsecm unseal

  # From a password manager
  pass show vsecm/root-key | kubectl vsecm unseal

  # A key that is kept as an age file, opened with a hardware token
  kubectl vsecm unseal --file root-key.age -i yubikey-identity.txt`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				// It may be the key.
				return withHint(errors.New("unseal takes no arguments"), "the root key comes from the prompt, standard input or --file, never from the command line")
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().StringVarP(&o.file, "file", "f", "", "Take the root key from this `FILE`, or - for standard input")
	cmd.Flags().StringArrayVarP(&o.identities, "identity", "i", nil, "Open an age file with the identities in this `FILE`. May be repeated")
	cmd.Flags().StringVar(&o.accept, "accept-key-id", "", "Where Safe has lost the record of its key, take the one with this key `ID`")
	_ = cmd.RegisterFlagCompletionFunc("accept-key-id", cobra.NoFileCompletions)
	o.safe.addTo(cmd)
	return cmd
}

func (o unsealOptions) run(ctx context.Context) error {
	finding, cancel, err := o.safe.conn.within(ctx, unsealTimeout)
	if err != nil {
		return err
	}
	defer cancel()
	all, err := o.safe.open(finding, operatorAccount)
	if err != nil {
		return err
	}
	defer all.close()

	// First who needs which key: nobody is to look for one that is of no use.
	states := make([]sealStatus, len(all.replicas))
	errs := all.each(func(i int, r *replica) error {
		text, err := r.ask(finding, http.MethodGet, "/v1/seal-status")
		if err != nil {
			return err
		}
		return decode(r, text, &states[i])
	})
	var needed encrypt.KeyID
	waiting := 0
	for i := range states {
		if errs[i] == nil && states[i].State != unsealed {
			waiting++
			needed = states[i].KeyID
		}
	}
	var key *unseal.RootKey
	if waiting > 0 {
		if key, err = o.key(needed); err != nil {
			return errors.Join(append(errs, err)...)
		}
		defer key.Wipe()
	}

	sending, cancel, err := o.safe.conn.within(ctx, unsealTimeout)
	if err != nil {
		return err
	}
	defer cancel()
	results := make([]string, len(all.replicas))
	more := all.each(func(i int, r *replica) (err error) {
		switch {
		case errs[i] != nil:
		case states[i].State == unsealed:
			results[i] = "unsealed already"
		default:
			results[i], err = o.give(sending, r, states[i], key)
		}
		return err
	})
	for i, r := range all.replicas {
		if results[i] != "" {
			fmt.Fprintf(o.streams.Out, "%s: %s\n", visible(r.name), visible(results[i]))
		}
	}
	return errors.Join(append(errs, more...)...)
}

// key reads the root key.
func (o unsealOptions) key(needed encrypt.KeyID) (*unseal.RootKey, error) {
	text, name, err := o.keyText(needed)
	if err != nil {
		return nil, err
	}
	defer func() { clear(text) }()
	if isAgeFile(text) {
		plain, err := ageOpener{o.streams, o.identities}.open(name, text, unseal.MaxTextSize)
		if err != nil {
			return nil, err
		}
		text = plain
	} else if len(o.identities) > 0 {
		return nil, fmt.Errorf("-i is for an age file, and %s is none", name)
	}
	key, err := unseal.Parse(text)
	if err != nil {
		return nil, withHint(fmt.Errorf("%s: %w", name, err), "a root key is three lines: AGE-SECRET-KEY-…, age1…, 64 hex digits")
	}
	if o.accept != "" && o.accept != string(key.KeyID()) {
		key.Wipe()
		return nil, fmt.Errorf("--accept-key-id: the key given is %s", key.KeyID())
	}
	return key, nil
}

func (o unsealOptions) keyText(needed encrypt.KeyID) (text []byte, name string, err error) {
	if o.file == "" || o.file == "-" {
		if t := terminalOf(o.streams); t != nil {
			which := "root key"
			if needed != "" {
				which += " " + string(needed)
			}
			text, err = t.askRootKey(which + " (hidden; paste it, then Enter): ")
			return text, "what was typed", err
		}
		text, err = readBounded(o.streams, "-", unseal.MaxTextSize)
		return text, "standard input", err
	}
	text, err = readFile(o.file, unseal.MaxTextSize)
	return text, o.file, err
}

// give hands the key to one replica.
func (o unsealOptions) give(ctx context.Context, r *replica, st sealStatus, key *unseal.RootKey) (string, error) {
	if st.KeyID != "" && st.KeyID != key.KeyID() {
		// It may be the key of another cluster, which this one is not to see.
		return "", withHint(fmt.Errorf("%s: it needs root key %s; the one given is %s, and was not sent", r.name, st.KeyID, key.KeyID()),
			"is this the right cluster? See --context")
	}
	target := "/v1/unseal"
	if o.accept != "" {
		target += "?" + url.Values{"accept-key-id": {o.accept}}.Encode()
	}
	body := key.Text()
	defer clear(body)
	text, err := r.act(ctx, http.MethodPost, target, body, "text/plain; charset=utf-8")
	if refusedAs(err) == problem.KeyIDNeeded {
		return "", withHint(err, "if it is the right one, say --accept-key-id %s", key.KeyID())
	}
	if err != nil {
		return "", err
	}
	var now sealStatus
	if err := decode(r, text, &now); err != nil {
		return "", err
	}
	if now.State != unsealed {
		return "", fmt.Errorf("%s: it is %s still: %s", r.name, now.State, now.Reason)
	}
	return fmt.Sprintf("unsealed with key %s", key.KeyID()), nil
}

func decode(r *replica, text []byte, into any) error {
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: its answer is not Safe's", r.name)
	}
	return nil
}
