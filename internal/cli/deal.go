package cli

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// dealOptions are those of splitting a root key among holders.
type dealOptions struct {
	streams   genericiooptions.IOStreams
	shares    int
	threshold int
	holders   []string
	dir       string
	rootKey   string
}

func (o *dealOptions) addTo(cmd *cobra.Command) {
	cmd.Flags().IntVar(&o.shares, "shares", 0, "Split the key into `N` shares")
	cmd.Flags().IntVar(&o.threshold, "threshold", 0, "Any `T` of the shares open the key")
	cmd.Flags().StringArrayVar(&o.holders, "share-to", nil, "Encrypt a share to this holder, `NAME=RECIPIENT`. Repeated for each of the N")
	cmd.Flags().StringVar(&o.dir, "out-dir", "", "The `DIR` for what is made with --shares; made if it is not there")
	cmd.Flags().StringVar(&o.rootKey, "root-key", "", "Split the root key in this `FILE`, or - for standard input, instead of a new one")
	_ = cmd.MarkFlagDirname("out-dir")
	for _, flag := range []string{"shares", "threshold", "share-to"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
}

func (o dealOptions) run(classic bool) error {
	holders, err := o.check()
	if err != nil {
		return err
	}
	names := make([]string, 0, len(holders)+1)
	for _, h := range holders {
		names = append(names, h.file())
	}
	files := &shareFiles{dir: o.dir, names: append(names, unseal.ShareSetFile)}
	if err := files.check(); err != nil {
		return err
	}
	var screen *shareScreen
	if len(holders) == 0 {
		if screen, err = openShareScreen(o.streams); err != nil {
			return err
		}
		defer screen.close()
	}

	set, shares, err := o.split(classic)
	if err != nil {
		return err
	}
	defer func() {
		for _, s := range shares {
			s.Wipe()
		}
	}()
	for _, h := range holders {
		if h.to.String() == set.Recipient().String() {
			return withHint(fmt.Errorf("--share-to: %s: this is the root key's own recipient: the share could be opened with the root key alone", h.name), "name a recipient of the holder's own")
		}
	}
	sealed := make([][]byte, len(holders))
	for i, h := range holders {
		if sealed[i], err = h.seal(shares[i]); err != nil {
			return err
		}
	}
	interrupted := onInterruption(files.drop)
	defer interrupted.end(files.drop)
	if err := files.stage(append(sealed, set.Text())); err != nil {
		return err
	}
	if screen != nil {
		if err := screen.show(set, shares, interrupted); err != nil {
			return err
		}
	}
	if err := files.publish(); err != nil {
		return err
	}
	if screen == nil { // where it would fill the screen, and the file has it
		if _, err := fmt.Fprintln(o.streams.Out, set.Recipient()); err != nil {
			return err
		}
	}
	o.tell(set, holders)
	interrupted.end(files.keep)
	return nil
}

// check looks at everything that was given, before anything is made.
func (o dealOptions) check() ([]holder, error) {
	switch {
	case o.dir == "":
		return nil, withHint(errors.New("no folder given for the shares"), "name one with --out-dir; --out-dir . is this one")
	case o.threshold == 0:
		return nil, withHint(errors.New("how many of the shares open the key?"), "say it with --threshold, from %d to the number of shares", unseal.MinThreshold)
	case o.shares > unseal.MaxShares || o.threshold < unseal.MinThreshold || o.threshold > o.shares:
		// As Split would, but before it looks for people and terminals.
		return nil, withHint(fmt.Errorf("%w: %d, of which %d open the key", unseal.ErrCounts, o.shares, o.threshold),
			"at most --shares %d, and a --threshold from %d to their number", unseal.MaxShares, unseal.MinThreshold)
	}
	holders, err := o.parseHolders()
	if err != nil {
		return nil, err
	}
	if len(holders) > 0 && len(holders) != o.shares {
		return nil, withHint(fmt.Errorf("%d shares, and %d holders with --share-to", o.shares, len(holders)), "name every holder, or none: then each share is shown on this terminal")
	}
	return holders, nil
}

// split makes the shares. The key is gone when it returns.
func (o dealOptions) split(classic bool) (*unseal.ShareSet, []unseal.Share, error) {
	var key *unseal.RootKey
	var err error
	if o.rootKey != "" {
		key, err = readRootKey(o.streams, o.rootKey)
	} else {
		key, err = unseal.Generate(classic)
	}
	if err != nil {
		return nil, nil, err
	}
	defer key.Wipe()
	return unseal.Split(key, o.shares, o.threshold)
}

func (o dealOptions) tell(set *unseal.ShareSet, holders []holder) {
	note := func(format string, args ...any) {
		prose(o.streams.ErrOut, "note: "+format, args...)
	}
	note("%s", set)
	for i, h := range holders {
		note("share %d is for %s: %s", i+1, h.name, filepath.Join(o.dir, h.file()))
	}
	note("keep copies of %s: without it no share opens anything", filepath.Join(o.dir, unseal.ShareSetFile))
	if set.Threshold() == set.Size() {
		note("every share is needed: with the first one that is lost, so is the key")
	}
}
