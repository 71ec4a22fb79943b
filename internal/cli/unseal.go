package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

const unsealTimeout = time.Minute

// errMoreShares says that a share was taken, and that there are not enough yet.
var errMoreShares = errors.New("more shares are needed")

// errMoreKeys says that a root key was taken, or the last share of one, and that another key is needed besides.
var errMoreKeys = errors.New("one more key is needed")

type unsealOptions struct {
	streams    genericiooptions.IOStreams
	safe       safeFlag
	file       string
	identities []string
	accept     string
	shares     string
	reset      bool
}

func newUnseal(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := unsealOptions{streams: streams, safe: safeFlag{conn: conn}}
	cmd := &cobra.Command{
		Use:   "unseal [--file FILE] [-i IDENTITY] [--shares FILE] [flags]",
		Short: "Give a sealed Safe its root key, or a share of it",
		Long: `Give every sealed replica of Safe its root key, or a share of it, in one go.

It is asked for at a hidden prompt: paste the key's three lines, or the one line
with \n in it that VMware Secrets Manager shows; or paste or type the share,
blanks and all. Or it comes from standard input, or from --file, which may be an
age file: then its passphrase is asked for, or it is opened with an identity
from -i, age's plugins included. It is never part of the command line.

Shares are given one at a time, by different people, from wherever they are,
until there are enough. The first of them needs the set's public file: --shares,
or vsecm-shares.yaml in the working directory. A share with a typo, of another
set, or forged is named at once, is not sent, and costs nobody their progress.
Shares lapse 15 minutes after the last good one; --reset drops them at once,
with --shares those of that set only.

In the middle of a re-key, a replica that keeps its keys in memory alone needs
the old key and the new one, whole or in shares, in any order. What is given
first is kept for 15 minutes. An unsealed replica that was not there when the
re-key began takes the new key.

Each replica must first show, in TLS, a key that this cluster's Safe has
published. A root key that it has no use for is not sent to it.

Exit codes: 0 all replicas that were asked are unsealed, or have dropped the
shares; 1 one is not, or another error; 2 what was given is taken, and more
shares, or one more key, are needed; 130 interrupted.`,
		Example: `  # Paste the key, or type a share, at the prompt
  kubectl vsecm unseal

  # From a password manager
  pass show vsecm/root-key | kubectl vsecm unseal

  # A key that is kept as an age file, opened with a hardware token
  kubectl vsecm unseal --file root-key.age -i yubikey-identity.txt

  # The first of several holders, and those who follow
  kubectl vsecm unseal --shares vsecm-shares.yaml \
    --file alice.share.age -i alice.txt
  kubectl vsecm unseal --file bob.share.age -i bob.txt`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				// It may be the key.
				return withHint(errors.New("unseal takes no arguments"), "the root key, or a share, comes from the prompt, standard input or --file, never from the command line")
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().StringVarP(&o.file, "file", "f", "", "Take the root key, or a share, from this `FILE`, or - for standard input")
	cmd.Flags().StringArrayVarP(&o.identities, "identity", "i", nil, "Open an age file with the identities in this `FILE`. May be repeated")
	cmd.Flags().StringVar(&o.accept, "accept-key-id", "", "Give no other key than the one with this key `ID`; Safe takes it where it has no record of its own")
	cmd.Flags().StringVar(&o.shares, "shares", "", "The shares' public `FILE` (default vsecm-shares.yaml in this folder, if it is there)")
	cmd.Flags().BoolVar(&o.reset, "reset", false, "Drop the shares that were given so far")
	_ = cmd.RegisterFlagCompletionFunc("accept-key-id", cobra.NoFileCompletions)
	o.safe.addTo(cmd)
	return cmd
}

func (o unsealOptions) run(ctx context.Context) error {
	if o.reset && (o.file != "" || len(o.identities) > 0 || o.accept != "") {
		return errors.New("--reset drops what was given, and takes nothing: it excludes --file, -i and --accept-key-id")
	}
	var public *shareSetFile
	var publicErr error
	if public, publicErr = readShareSet(o.shares); publicErr != nil && public.named {
		return publicErr
	}
	finding, cancel, err := o.safe.conn.within(ctx, unsealTimeout)
	if err != nil {
		return err
	}
	defer cancel()
	quiet, err := o.hush()
	if err != nil {
		return err
	}
	defer quiet.end()
	all, err := o.safe.open(finding, operatorAccount)
	if err != nil {
		return err
	}
	defer all.close()
	if o.reset {
		err := o.drop(finding, all, public)
		o.safe.tellMissed(o.streams.ErrOut, all, all.shown())
		return err
	}

	// First who needs which key: nobody is to look for one that is of no use.
	states := make([]sealStatus, len(all.replicas))
	errs := all.each(func(i int, r *replica) (err error) {
		states[i], err = r.sealStatus(finding)
		return err
	})
	if !slices.Contains(errs, nil) {
		return errors.Join(errs...)
	}
	given, err := o.take(all, states, errs, quiet)
	quiet.end()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	defer given.wipe()
	if given.share != nil {
		if publicErr != nil {
			return errors.Join(append(errs, publicErr)...)
		}
		if err := public.check(*given.share, states); err != nil {
			return errors.Join(append(errs, err)...)
		}
		given.set = public.set
	}
	if err := o.accepts(given, public, states); err != nil {
		return errors.Join(append(errs, err)...)
	}

	sending, cancel, err := o.safe.conn.within(ctx, unsealTimeout)
	if err != nil {
		return err
	}
	defer cancel()
	err = o.give(sending, all, states, errs, given)
	o.safe.tellMissed(o.streams.ErrOut, all, all.shown())
	return err
}

// A gift is what somebody gives to unseal with: a root key, a share, or, where none is needed,
// nothing.
type gift struct {
	key   *unseal.RootKey
	share *unseal.Share
	set   *unseal.ShareSet // of the share, where it is at hand
}

func (g gift) wipe() {
	if g.key != nil {
		g.key.Wipe()
	}
	if g.share != nil {
		g.share.Wipe()
	}
}

// take reads what is given. Nobody is asked for what no replica needs; what is given unasked is
// read all the same, and put to use.
func (o unsealOptions) take(all *safes, states []sealStatus, errs []error, quiet *hush) (gift, error) {
	var needed []encrypt.KeyID
	waiting := false
	for i, st := range states {
		if errs[i] == nil && st.State != unsealed {
			waiting = true
			needed = st.needs()
		}
	}
	if !waiting && o.file == "" && quiet != nil {
		return gift{}, nil
	}
	if quiet != nil {
		o.tellProgress(all, states)
	}
	text, name, err := o.text(needed, quiet)
	if err != nil {
		return gift{}, err
	}
	defer func() { clear(text) }()
	if !waiting && o.file == "" && len(bytes.TrimSpace(text)) == 0 {
		return gift{}, nil
	}
	plain := !isAgeFile(text)
	if !plain {
		opened, err := ageOpener{o.streams, o.identities}.open(name, text, unseal.MaxTextSize)
		if err != nil {
			return gift{}, err
		}
		text = opened
	} else if len(o.identities) > 0 {
		return gift{}, fmt.Errorf("-i is for an age file, and %s is none", name)
	}
	given, err := parseGift(text, name)
	if err == nil && plain && o.file != "" {
		noteReadable(o.streams, o.file)
	}
	return given, err
}

// hush keeps a key that is pasted before it is asked for off the screen; nil where none is asked
// for.
func (o unsealOptions) hush() (*hush, error) {
	t := terminalOf(o.streams)
	if t == nil || o.reset || o.file != "" && o.file != "-" {
		return nil, nil
	}
	quiet, err := t.hush()
	if err == nil {
		prose(o.streams.ErrOut, "note: looking for Safe…")
	}
	return quiet, err
}

func (o unsealOptions) text(needed []encrypt.KeyID, quiet *hush) (text []byte, name string, err error) {
	if o.file == "" || o.file == "-" {
		if quiet != nil {
			which := "root key"
			if len(needed) > 0 {
				which += " " + alternatives(needed)
			}
			text, err = quiet.ask(which + ", or a share of it (hidden; paste it, then Enter): ")
			return text, "what was typed", err
		}
		text, err = readBounded(o.streams, "-", unseal.MaxTextSize)
		return text, "standard input", err
	}
	text, err = readFile(o.file, unseal.MaxTextSize)
	return text, o.file, err
}

func parseGift(text []byte, name string) (gift, error) {
	share, err := unseal.ParseShare(text)
	switch {
	case err == nil:
		return gift{share: &share}, nil
	case !errors.Is(err, unseal.ErrNotShare) && !errors.Is(err, unseal.ErrWholeKey):
		return gift{}, withHint(fmt.Errorf("%s: %w", name, err), "nothing was sent, and the shares of others still count: try again")
	}
	if _, err := unseal.ParseShareSet(text); err == nil {
		return gift{}, withHint(fmt.Errorf("%s: this is the public file of the shares, and not a share", name), "name it with --shares, and give the share at the prompt or with --file")
	}
	key, err := unseal.Parse(text)
	if err != nil {
		return gift{}, withHint(fmt.Errorf("%s: %w", name, err), "a root key is three lines: AGE-SECRET-KEY-…, age1…, 64 hex digits; a share is one: vsecm-share1…")
	}
	return gift{key: key}, nil
}

// accepts tells whether what was given agrees with --accept-key-id, and a whole key with the shares'
// public file: what a holder is sent as their share may be somebody's own key, which a Safe without a
// record would make its own.
func (o unsealOptions) accepts(given gift, public *shareSetFile, states []sealStatus) error {
	id := given.keyID()
	switch {
	case o.accept != "" && id != "" && string(id) != o.accept:
		return fmt.Errorf("--accept-key-id: the key given is %s", id)
	case o.accept != "" || given.key == nil || public.set == nil:
		return nil
	}
	if slices.ContainsFunc(states, func(st sealStatus) bool { return slices.Contains(st.Missing, id) }) {
		return nil // it is one of two that Safe asks for by name
	}
	if own := public.set.Recipient().KeyID(); own != id {
		return withHint(fmt.Errorf("nothing was sent: this is no share but a whole root key, %s, and %s is of root key %s", id, public.path, own),
			"ask whoever made it where it comes from; if that key is really meant, say --accept-key-id %s", id)
	}
	return nil
}

// keyID returns that of the key that was given, or that the shares open; "" where it is not known.
func (g gift) keyID() encrypt.KeyID {
	switch {
	case g.key != nil:
		return g.key.KeyID()
	case g.set != nil:
		return g.set.Recipient().KeyID()
	}
	return ""
}

// tellProgress says what others have given already.
func (o unsealOptions) tellProgress(all *safes, states []sealStatus) {
	for i, st := range states {
		for _, p := range ceremonies(st.Progress, st.Ceremonies) {
			if p.Given+len(p.Lapsed) > 0 {
				prose(o.streams.ErrOut, "note: %s has %s", all.replicas[i].name, p)
			}
		}
		if st.Progress.Set == "" && st.Progress.Given > 0 && len(st.Missing) > 0 {
			prose(o.streams.ErrOut, "note: %s has %d of %d keys", all.replicas[i].name, st.Progress.Given, st.Progress.Needed)
		}
	}
}

func decode(r *replica, text []byte, into any) error {
	if err := json.Unmarshal(text, into); err != nil {
		return withHint(fmt.Errorf("%s: its answer is not Safe's", r.name), "does --safe, or $%s, lead to something else?", safeVariable)
	}
	if answer, ok := into.(interface{ misshapen() bool }); ok && answer.misshapen() {
		return fmt.Errorf("%s: its answer is not Safe's: what it calls its key is no key id", r.name)
	}
	return nil
}
