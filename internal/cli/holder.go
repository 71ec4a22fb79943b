package cli

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"filippo.io/age"
	"filippo.io/age/armor"
	"filippo.io/age/plugin"
	"filippo.io/age/tag"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A holder is somebody who gets a share of the root key, encrypted.
type holder struct {
	name string
	to   holderRecipient
}

type holderRecipient struct {
	age.Recipient
	text string
}

func (r holderRecipient) String() string { return r.text }

// holderName is what a holder's file can be called everywhere.
var holderName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`) })

// parseHolders reads NAME=RECIPIENT, once for each holder.
func (o dealOptions) parseHolders() ([]holder, error) {
	var holders []holder
	for i, text := range o.holders {
		name, recipient, found := strings.Cut(text, "=")
		if !found {
			return nil, fmt.Errorf("--share-to, number %d: want NAME=RECIPIENT", i+1)
		}
		if !holderName().MatchString(name) {
			return nil, fmt.Errorf("--share-to, number %d: a holder's name, which becomes that of a file, has letters, digits, and . _ - after the first; at most 63", i+1)
		}
		to, err := o.parseHolderRecipient(recipient)
		if err != nil {
			return nil, fmt.Errorf("--share-to: %s: %w", name, err)
		}
		for _, other := range holders {
			switch {
			case strings.EqualFold(other.name, name): // as some file systems compare
				return nil, fmt.Errorf("--share-to: %s is named twice", name)
			case other.to.text == to.text:
				return nil, withHint(fmt.Errorf("--share-to: %s and %s have the same recipient: whoever can open one share could open both", other.name, name), "name a recipient of each holder's own")
			}
		}
		holders = append(holders, holder{name, to})
	}
	return holders, nil
}

// parseHolderRecipient reads age1…, that of an age plugin too: a holder may keep their key on
// a token.
func (o dealOptions) parseHolderRecipient(text string) (holderRecipient, error) {
	var to age.Recipient
	_, err := encrypt.ParseRecipient(text)
	_, _, unlike := plugin.ParseRecipient(text)
	switch {
	case err == nil && strings.HasPrefix(text, "age1pq1"):
		to, err = age.ParseHybridRecipient(text)
	case err == nil:
		to, err = age.ParseX25519Recipient(text)
	case strings.HasPrefix(text, "age1tag1"), strings.HasPrefix(text, "age1tagpq1"):
		to, err = tag.ParseRecipient(text)
	case unlike == nil:
		say := ageOpener{streams: o.streams}.say
		to, err = plugin.NewRecipient(text, plugin.NewTerminalUI(say, say))
	}
	return holderRecipient{to, text}, err
}

// file is what the holder's share is called.
func (h holder) file() string { return h.name + ".share.age" }

// seal encrypts a share to the holder, as an armored age file that holds it as one line.
func (h holder) seal(share unseal.Share) ([]byte, error) {
	text := append(share.Text(), '\n')
	defer clear(text)
	var out bytes.Buffer
	armored := armor.NewWriter(&out)
	w, err := age.Encrypt(armored, h.to.Recipient)
	if err == nil {
		_, err = w.Write(text)
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = armored.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("encrypting the share of %s: %w", h.name, err)
	}
	return out.Bytes(), nil
}
