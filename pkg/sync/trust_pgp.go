package sync

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// readPGP reads one or more armored blocks of public keys.
func (t *Trust) readPGP(file string, data []byte) error {
	lines := 1
	for {
		// The reader goes on after a block; where each begins is for people.
		start := bytes.Index(data, []byte("-----BEGIN PGP "))
		if start < 0 {
			return nil
		}
		lines += bytes.Count(data[:start], []byte("\n"))
		where := fmt.Sprintf("%s:%d", file, lines)
		data = data[start:]
		marker, _, _ := bytes.Cut(data, []byte("\n"))
		end := bytes.Index(data, []byte("-----END PGP "))
		if end < 0 {
			return fmt.Errorf("%s: armored block does not end", where)
		}
		end += len("-----END PGP ")
		if i := bytes.IndexByte(data[end:], '\n'); i >= 0 {
			end += i + 1
		} else {
			end = len(data)
		}
		if kind := strings.TrimRight(string(marker), "\r\t "); kind != "-----BEGIN "+openpgp.PublicKeyType+"-----" {
			return fmt.Errorf("%s: want a %s", where, openpgp.PublicKeyType)
		}
		if err := t.readPGPBlock(data[:end]); err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		lines += bytes.Count(data[:end], []byte("\n"))
		data = data[end:]
	}
}

func (t *Trust) readPGPBlock(data []byte) error {
	block, err := armor.Decode(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("armor cannot be read: %w", &remoteError{err})
	}
	binary, err := io.ReadAll(io.LimitReader(block.Body, maxTrustBytes))
	if err != nil {
		return fmt.Errorf("armor cannot be read: %w", &remoteError{err})
	}
	found := false
	packets := packet.NewReader(bytes.NewReader(binary))
	for {
		e, err := openpgp.ReadEntity(packets)
		if err == io.EOF {
			break
		} else if err != nil {
			return fmt.Errorf("PGP key cannot be read: %w", &remoteError{err})
		}
		if e.PrivateKey != nil {
			return errors.New("this is a private key: only public ones belong here")
		}
		if bits, err := e.PrimaryKey.BitLength(); err == nil && isRSA(e.PrimaryKey) && bits < minRSABits {
			return fmt.Errorf("RSA key of %d bits is too weak: want %d", bits, minRSABits)
		}
		if len(t.sums) >= maxTrustKeys {
			return fmt.Errorf("more than %d keys", maxTrustKeys)
		}
		t.pgp = append(t.pgp, e)
		t.noteKey([]byte("pgp"), e.PrimaryKey.Fingerprint, binary)
		found = true
	}
	if !found {
		return errors.New("there is no PGP key in it")
	}
	return nil
}

func isRSA(k *packet.PublicKey) bool {
	return k.PubKeyAlgo == packet.PubKeyAlgoRSA || k.PubKeyAlgo == packet.PubKeyAlgoRSASignOnly
}

// verifyPGP checks a signature of the kind that `git commit -S` makes with
// gpg, and returns the signer.
func (t *Trust) verifyPGP(c *signedCommit, now time.Time) (string, error) {
	block, err := armor.Decode(bytes.NewReader(c.signature))
	if err != nil {
		return "", errors.New("its PGP signature cannot be read")
	}
	if block.Type != openpgp.SignatureType {
		return "", errors.New("its PGP signature cannot be read: armor of another type")
	}
	binary, err := io.ReadAll(block.Body)
	if err != nil {
		return "", errors.New("its PGP signature cannot be read")
	}
	sig, err := onlySignature(binary)
	if err != nil {
		return "", err
	}
	id := issuer(sig)
	keys := t.pgp.KeysById(*sig.IssuerKeyId)
	if len(keys) == 0 {
		return "", fmt.Errorf("its PGP key %s is not trusted", id)
	}
	switch sig.Hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512:
	default:
		return "", fmt.Errorf("its PGP signature, by key %s, uses %v, which is too weak", id, sig.Hash)
	}
	if sig.CreationTime.After(now.Add(maxAhead)) {
		return "", fmt.Errorf("%w: its PGP signature, by key %s, was made at %s", errAhead, id, sig.CreationTime.UTC().Format(time.RFC3339))
	}
	if sig.SigExpired(latest(now, sig.CreationTime)) {
		return "", fmt.Errorf("its PGP signature, by key %s, has expired", id)
	}
	for _, k := range keys {
		// The library lets one pass that was made before the revocation. The
		// time is the signer's to choose.
		if len(k.Entity.Revocations) > 0 || len(k.Revocations) > 0 {
			return "", fmt.Errorf("its PGP key %s was revoked", id)
		}
	}
	config := &packet.Config{Time: func() time.Time { return now }}
	_, signer, err := openpgp.VerifyDetachedSignature(t.pgp, bytes.NewReader(c.payload), bytes.NewReader(binary), config)
	switch {
	case err == nil, errors.Is(err, pgperrors.ErrKeyExpired):
		// The signature is right. What counts is not whether the key is valid
		// now, but whether it was when it signed. That cannot be asked of the
		// library: to it a key whose life was prolonged since did not exist.
		if expiredAt(signer, keys, sig.CreationTime) {
			return "", fmt.Errorf("its PGP key %s had expired, or was not valid yet, when it signed", id)
		}
	case errors.Is(err, pgperrors.ErrSignatureExpired):
		return "", fmt.Errorf("its PGP key %s is not bound to its user id or its primary key any more", id)
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return "", fmt.Errorf("its PGP key %s was revoked", id)
	case errors.Is(err, pgperrors.ErrUnknownIssuer):
		return "", fmt.Errorf("its PGP key %s is not for signing", id)
	default:
		return "", fmt.Errorf("its PGP signature, by key %s, does not match what it says", id)
	}
	name := "(no user id)"
	if i := signer.PrimaryIdentity(); i != nil {
		name = printable(i.Name, 200)
	}
	return fmt.Sprintf("%s %X", name, signer.PrimaryKey.Fingerprint), nil
}

// expiredAt reports whether the signer's key, one of keys, or its primary key
// was not valid at that time.
func expiredAt(signer *openpgp.Entity, keys []openpgp.Key, when time.Time) bool {
	self, _ := signer.PrimarySelfSignature()
	if self == nil || signer.PrimaryKey.KeyExpired(self, when) {
		return true
	}
	for _, k := range keys {
		if k.Entity == signer && (k.SelfSignature == nil || k.PublicKey.KeyExpired(k.SelfSignature, when)) {
			return true
		}
	}
	return false
}

// onlySignature reads what has to be one signature over a file, and nothing
// else.
func onlySignature(binary []byte) (*packet.Signature, error) {
	packets := packet.NewReader(bytes.NewReader(binary))
	first, err := packets.Next()
	if err != nil {
		return nil, errors.New("its PGP signature cannot be read")
	}
	sig, ok := first.(*packet.Signature)
	if !ok || sig.IssuerKeyId == nil {
		return nil, errors.New("its PGP signature cannot be read: it names no key")
	}
	if sig.SigType != packet.SigTypeBinary && sig.SigType != packet.SigTypeText {
		return nil, errors.New("its PGP signature is not one over a file")
	}
	if _, err := packets.Next(); err != io.EOF {
		return nil, errManySignatures
	}
	return sig, nil
}

// issuer names the key of a signature, by its fingerprint if it says it.
func issuer(sig *packet.Signature) string {
	if len(sig.IssuerFingerprint) > 0 {
		return fmt.Sprintf("%X", sig.IssuerFingerprint)
	}
	return fmt.Sprintf("%016X", *sig.IssuerKeyId)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
