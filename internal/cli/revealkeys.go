package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// keyFlags name what opens sealed values without Safe: a root key, shares of one, or the
// identities of other recipients.
type keyFlags struct {
	rootKey    string
	shares     string
	share      []string
	identities []string
}

func (f *keyFlags) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.rootKey, "root-key", "", "The `FILE` of the root key, or of several; or - for standard input")
	f.addSharesTo(cmd)
	cmd.Flags().StringArrayVarP(&f.identities, "identity", "i", nil, "Open with the age identities in this `FILE`; with --root-key or --share, those that are age files. May be repeated")
}

func (f *keyFlags) addSharesTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.shares, "shares", "", "The shares' public `FILE` (default vsecm-shares.yaml in this folder, if it is there)")
	cmd.Flags().StringArrayVar(&f.share, "share", nil, "The `FILE` of one share, or - for standard input. Repeat it for each holder")
}

func (f keyFlags) ofShares() bool { return f.shares != "" || len(f.share) > 0 }

func (f keyFlags) given() bool { return f.rootKey != "" || f.ofShares() || len(f.identities) > 0 }

// files returns every file that a key comes from.
func (f keyFlags) files() []string {
	return append(slices.Concat(f.share, f.identities), f.rootKey)
}

func (f keyFlags) check() error {
	n := 0
	for _, file := range f.files() {
		if file == "-" {
			n++
		}
	}
	switch {
	case f.rootKey != "" && f.ofShares():
		return errors.New("--root-key and shares of it exclude each other")
	case f.shares != "" && len(f.share) == 0:
		return withHint(errors.New("--shares names the public file of the shares, and no share is given"), "name each holder's file with --share")
	case slices.Contains(f.identities, "-"):
		return errors.New("--identity: want the name of a file")
	case n > 1:
		return errors.New("standard input can be one key, not several")
	}
	return nil
}

// heldKeys are private keys by their key ids.
type heldKeys struct {
	byID map[encrypt.KeyID]age.Identity
	own  []*unseal.RootKey // to wipe
}

// Identity implements [encrypt.Keys].
func (k *heldKeys) Identity(id encrypt.KeyID) (age.Identity, bool) {
	identity, held := k.byID[id]
	return identity, held
}

// String names the keys, for people who gave others than they meant to.
func (k *heldKeys) String() string {
	ids := slices.Sorted(maps.Keys(k.byID))
	said := make([]string, len(ids))
	for i, id := range ids {
		said[i] = string(id)
	}
	if len(k.own) == 1 {
		return "the root key given is " + said[0]
	}
	if len(said) == 1 {
		return "the key given is " + said[0]
	}
	return "the keys given are " + strings.Join(said, ", ")
}

func (k *heldKeys) wipe() {
	for _, key := range k.own {
		key.Wipe()
	}
}

// open reads the keys. They are the caller's to wipe.
func (f keyFlags) open(streams genericiooptions.IOStreams) (*heldKeys, error) {
	switch {
	case f.rootKey != "":
		return f.openRootKeys(streams)
	case f.ofShares():
		key, err := f.combine(streams)
		if err != nil {
			return nil, err
		}
		return holding(key)
	}
	return f.openIdentities(streams)
}

// holding returns root keys as keys to open with.
func holding(keys ...*unseal.RootKey) (*heldKeys, error) {
	held := &heldKeys{byID: make(map[encrypt.KeyID]age.Identity), own: keys}
	ring, err := unseal.NewKeyring(keys[0], keys[1:]...)
	if err != nil {
		held.wipe()
		return nil, err
	}
	for _, key := range keys {
		held.byID[key.KeyID()], _ = ring.Identity(key.KeyID())
	}
	return held, nil
}

func (f keyFlags) openRootKeys(streams genericiooptions.IOStreams) (*heldKeys, error) {
	text, name, err := rootKeyText(streams, f.rootKey)
	if err != nil {
		return nil, err
	}
	defer func() { clear(text) }()
	switch {
	case isAgeFile(text):
		if text, err = (ageOpener{streams, f.identities}).open(name, text, unseal.MaxTextSize); err != nil {
			return nil, err
		}
	case len(f.identities) > 0:
		return nil, fmt.Errorf("-i is for an age file, and %s is none", name)
	default:
		defer noteReadable(streams, f.rootKey)
	}
	// The archive of an old key may hold several.
	keys, err := unseal.ParseAll(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return holding(keys...)
}

// combine opens the root key with shares of it, which is the caller's to wipe.
func (f keyFlags) combine(streams genericiooptions.IOStreams) (*unseal.RootKey, error) {
	public, err := readShareSet(f.shares)
	if err != nil {
		return nil, err
	}
	if public.set == nil {
		return nil, withHint(errors.New("nothing tells what the shares open"), "name their public file, %s, with --shares", unseal.ShareSetFile)
	}
	var shares []unseal.Share
	defer func() {
		for _, s := range shares {
			s.Wipe()
		}
	}()
	from := make(map[int]string)
	for _, file := range f.share {
		share, err := f.readShare(streams, file)
		if err != nil {
			return nil, err
		}
		shares = append(shares, share)
		if err := public.set.Check(share); err != nil {
			return nil, fmt.Errorf("%s: share %d: %s: %w", inputName(file), share.Index(), public.path, err)
		}
		if other, twice := from[share.Index()]; twice {
			return nil, fmt.Errorf("%s and %s are the same share, %d", other, inputName(file), share.Index())
		}
		from[share.Index()] = inputName(file)
	}
	key, err := public.set.Combine(shares...)
	if errors.Is(err, unseal.ErrTooFew) {
		return nil, withHint(err, "%d of the %d shares are needed, and %d are given", public.set.Threshold(), public.set.Size(), len(shares))
	}
	return key, err
}

func (f keyFlags) readShare(streams genericiooptions.IOStreams, file string) (unseal.Share, error) {
	text, err := readBounded(streams, file, unseal.MaxTextSize)
	if err != nil {
		return unseal.Share{}, err
	}
	defer func() { clear(text) }()
	name := inputName(file)
	if isAgeFile(text) {
		opened, err := ageOpener{streams, f.identities}.open(name, text, unseal.MaxTextSize)
		if err != nil {
			return unseal.Share{}, err
		}
		text = opened
	} else {
		noteReadable(streams, file)
	}
	share, err := unseal.ParseShare(text)
	if err != nil {
		return unseal.Share{}, fmt.Errorf("%s: %w", name, err)
	}
	return share, nil
}

// openIdentities reads age identities, which are known by the recipients that belong to them.
func (f keyFlags) openIdentities(streams genericiooptions.IOStreams) (*heldKeys, error) {
	held := &heldKeys{byID: make(map[encrypt.KeyID]age.Identity)}
	for _, file := range f.identities {
		identities, err := ageOpener{streams: streams}.readIdentities(file)
		if err != nil {
			return nil, fmt.Errorf("--identity: %w", err)
		}
		for _, identity := range identities {
			recipient, native := recipientOf(identity)
			if !native {
				return nil, withHint(fmt.Errorf("--identity: %s: the identity of an age plugin opens no sealed value", file),
					"values are sealed to native recipients, age1… and age1pq1…, alone")
			}
			held.byID[encrypt.KeyIDOf(recipient)] = identity
		}
	}
	return held, nil
}

// recipientOf returns the recipient of an identity that is age's own.
func recipientOf(identity age.Identity) (string, bool) {
	switch i := identity.(type) {
	case *age.X25519Identity:
		return i.Recipient().String(), true
	case *age.HybridIdentity:
		return i.Recipient().String(), true
	}
	return "", false
}
