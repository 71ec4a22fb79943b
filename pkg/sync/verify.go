package sync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// A Signature says who signed a commit.
type Signature struct {
	Revision Revision
	// Signer is what the trusted keys call the signer: an SSH key's
	// principals, or a PGP key's user id; and the key's fingerprint.
	Signer string
	// Kind is KindSSH or KindPGP.
	Kind string
}

// Kinds of signatures.
const (
	KindSSH = "ssh"
	KindPGP = "pgp"
)

// maxAhead is how far a commit's time may be ahead of our clock. A time that
// has not come yet could make a key valid that is not.
const maxAhead = 5 * time.Minute

// VerifyCommit demands that a commit bears the signature of a key that t
// trusts: an [*UnverifiedError] if it does not.
//
// When a key is valid is judged at the time that the signature gives (PGP) or
// the commit gives (SSH), as gpg and git do; a thief of the key can choose
// either. So a key that is no longer trusted is to be revoked or removed, and
// not just left to expire.
func (m *Mirror) VerifyCommit(ctx context.Context, t *Trust, r Revision) (Signature, error) {
	var sig Signature
	err := m.read(func(s *objectStore) (err error) {
		sig, err = m.verify(s, t, r)
		return err
	})
	if err == nil {
		err = ctx.Err()
	}
	return sig, err
}

func (m *Mirror) verify(s *objectStore, t *Trust, r Revision) (Signature, error) {
	raw, err := m.rawCommit(s, r)
	if err != nil {
		return Signature{}, fmt.Errorf("verify %s: %w", r.Short(), err)
	}
	signer, kind, err := t.verify(raw, m.now())
	if err != nil {
		return Signature{}, &UnverifiedError{Revision: r, Reason: printable(err.Error(), maxRemoteText), passing: errors.Is(err, errAhead)}
	}
	return Signature{Revision: r, Signer: signer, Kind: kind}, nil
}

var errAhead = errors.New("it is from the future")

// Beginnings of armored signatures, by which git tells their kinds apart.
var (
	sshArmor = []byte("-----BEGIN SSH SIGNATURE-----")
	pgpArmor = []byte("-----BEGIN PGP SIGNATURE-----")
)

// verify checks the signature of a commit object. Errors are for people.
func (t *Trust) verify(raw []byte, now time.Time) (signer, kind string, err error) {
	c, err := splitCommit(raw)
	if err != nil {
		return "", "", err
	}
	if c.signature == nil {
		return "", "", errors.New("it is not signed")
	}
	if c.committed.After(now.Add(maxAhead)) {
		return "", "", fmt.Errorf("%w: its time is %s", errAhead, c.committed.Format(time.RFC3339))
	}
	switch {
	case bytes.HasPrefix(c.signature, sshArmor):
		signer, err = t.verifySSH(c)
		return signer, KindSSH, err
	case bytes.HasPrefix(c.signature, pgpArmor):
		signer, err = t.verifyPGP(c, now)
		return signer, KindPGP, err
	}
	return "", "", errors.New("its signature is neither of PGP nor of SSH")
}
