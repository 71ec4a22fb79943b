package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A shareSetFile is the public part of the root key's shares, as far as it is at hand.
type shareSetFile struct {
	path  string
	named bool // by --shares; if not, it is the one in the working directory
	set   *unseal.ShareSet
}

// readShareSet reads the file that is named, or the one in the working directory. There may be
// none, and where nobody named it, what is wrong with it is only of interest to those who
// need it.
func readShareSet(named string) (*shareSetFile, error) {
	f := &shareSetFile{path: named, named: named != ""}
	if !f.named {
		f.path = unseal.ShareSetFile
	}
	text, err := readFile(f.path, unseal.MaxShareSetSize)
	if errors.Is(err, fs.ErrNotExist) && !f.named {
		return f, nil
	}
	if err == nil {
		f.set, err = unseal.ParseShareSet(text)
		if err != nil {
			err = withHint(fmt.Errorf("%s: %w", f.path, err), "it is to be byte for byte as keygen wrote it: take another copy")
		}
	}
	return f, err
}

// check tells what is wrong with a share, before anybody is sent it. Where Safe gathers shares of its
// set, it does not matter that the working directory has the file of another.
func (f *shareSetFile) check(share unseal.Share, states []sealStatus) error {
	waiting, underWay, other := false, false, ""
	for _, st := range states {
		waiting = waiting || st.State != "" && st.State != unsealed
		for _, p := range ceremonies(st.Progress, st.Ceremonies) {
			if p.Set == share.Set().String() {
				underWay = true
			} else if p.Given > 0 {
				other = "; it is gathering those of set " + p.Set
			}
		}
	}
	if !waiting {
		return nil // it is not sent
	}
	if f.set != nil && !f.named && f.set.ID() != share.Set() && underWay {
		f.set = nil
	}
	if f.set == nil {
		if !underWay {
			return withHint(fmt.Errorf("share %d is of set %s, of which Safe has no shares yet%s", share.Index(), share.Set(), other),
				"whoever gives the first share of a set names its public file, %s, with --shares", unseal.ShareSetFile)
		}
		return nil
	}
	err := f.set.Check(share)
	switch {
	case errors.Is(err, unseal.ErrOtherSet):
		return withHint(fmt.Errorf("share %d was not sent: %s: %w", share.Index(), f.path, err), "name the public file that belongs to this share with --shares")
	case err != nil:
		return withHint(fmt.Errorf("share %d was not sent: %w", share.Index(), err), "it is none that keygen made; ask its holder where it comes from. The shares of others still count")
	}
	return nil
}

// shareBody is how a share is sent. It is the caller's to wipe.
func shareBody(share unseal.Share, set *unseal.ShareSet) ([]byte, error) {
	var public []byte
	if set != nil {
		var err error
		if public, err = json.Marshal(string(set.Text())); err != nil {
			return nil, err
		}
	}
	text := share.Text()
	defer clear(text)
	const before, between, after = `{"share":"`, `","set":`, `}`
	// Of the size that it has: nothing of it is left behind where it grows.
	body := make([]byte, 0, len(before)+len(text)+len(between)+len(public)+len(after))
	body = append(body, before...)
	body = append(body, text...) // letters, digits and a hyphen
	if set == nil {
		return append(body, `"}`...), nil
	}
	body = append(body, between...)
	body = append(body, public...)
	return append(body, after...), nil
}
