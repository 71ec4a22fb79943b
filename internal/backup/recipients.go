package backup

import (
	"errors"
	"fmt"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// Recipients are who can open an archive: native age recipients, or who knows a passphrase. The zero value is nobody.
type Recipients struct{ to []age.Recipient }

// ParseRecipients reads the string forms of recipients. Hybrid and classic ones are not mixed:
// [encrypt.ErrMixedRecipients].
func ParseRecipients(texts []string) (Recipients, error) {
	var all []encrypt.Recipient
	for i, text := range texts {
		r, err := encrypt.ParseRecipient(text)
		if err != nil {
			return Recipients{}, fmt.Errorf("recipient %d: %w", i+1, err)
		}
		all = append(all, r)
	}
	all, err := encrypt.UniqueRecipients(all)
	if errors.Is(err, encrypt.ErrMixedRecipients) {
		// Not "in one value", as it says of what it is about.
		return Recipients{}, fmt.Errorf("a backup is for hybrid recipients (age1pq1…) or for classic ones (age1…): %w", encrypt.ErrMixedRecipients)
	}
	if err != nil {
		return Recipients{}, err
	}
	var rs Recipients
	for _, r := range all {
		var to age.Recipient
		if r.Hybrid() {
			to, err = age.ParseHybridRecipient(r.String())
		} else {
			to, err = age.ParseX25519Recipient(r.String())
		}
		if err != nil {
			return Recipients{}, fmt.Errorf("recipient %s: %w", r.KeyID(), err)
		}
		rs.to = append(rs.to, to)
	}
	return rs, nil
}

// Passphrase returns who knows a passphrase. Making the archive takes a second and 256 MiB for it.
func Passphrase(passphrase string) (Recipients, error) {
	to, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return Recipients{}, errors.New("the passphrase is empty")
	}
	return Recipients{[]age.Recipient{to}}, nil
}
