package vsecm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// An Algorithm is how VSecM encrypted, in the words of its export (core/constants/crypto).
type Algorithm string

const (
	// Age is a binary age file for an X25519 recipient (core/crypto/encrypt.go, EncryptToWriterAge).
	Age Algorithm = "age"
	// AES is AES-256 in CFB mode: an IV of 16 bytes, then the ciphertext, and nothing that would show a change of
	// either (core/crypto/encrypt.go, EncryptToWriterAes).
	AES Algorithm = "aes"
)

// maxPlaintext bounds what a ciphertext opens to, in bytes: a record holds its value, of at most 1 MiB here, twice, with
// escapes.
const maxPlaintext = 8 << 20

const ageMagic = "age-encryption.org/"

// Why a ciphertext is refused. No error quotes any of what it holds.
var (
	// ErrMalformed: it is nothing that VSecM wrote, or it was damaged.
	ErrMalformed = errors.New("malformed")
	// ErrWrongKey: it is encrypted to another key.
	ErrWrongKey = errors.New("encrypted to another key")
	// ErrImplausible: it was encrypted with AES, which opens with any key, to something that VSecM cannot have stored: it is
	// encrypted to another key, or was damaged.
	ErrImplausible = errors.New("opens to what VSecM cannot have stored: encrypted to another key, or damaged")
	// ErrBound: it carries a stanza of vsecm.com, so it is no value of VSecM's, but one that is bound to a place.
	ErrBound = errors.New("bound to a place, and not VSecM's")
	// ErrTooLarge: it is beyond what is read.
	ErrTooLarge = errors.New("too large")
)

// OpenText opens a ciphertext in base64, as 'safe -s … -e' prints it (core/crypto/encrypt.go, EncryptValue). The
// plaintext is the caller's to wipe.
func (k *Key) OpenText(text string, want Algorithm) ([]byte, Algorithm, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, "", fmt.Errorf("%w: not standard base64", ErrMalformed)
	}
	return k.Open(raw, want)
}

// Open opens a ciphertext. What it is shows in its first bytes; want is what it is said to be, or empty.
func (k *Key) Open(raw []byte, want Algorithm) ([]byte, Algorithm, error) {
	switch {
	case bytes.HasPrefix(raw, []byte(ageMagic)):
		value, err := k.openAge(raw)
		return value, Age, err
	case want == Age:
		return nil, Age, fmt.Errorf("%w: not an age file", ErrMalformed)
	}
	value, err := k.openAES(raw)
	return value, AES, err
}

func (k *Key) openAge(raw []byte) ([]byte, error) {
	identity := &unboundIdentity{key: k.identity}
	r, err := age.Decrypt(bytes.NewReader(raw), identity)
	var none *age.NoIdentityMatchError
	switch {
	case identity.bound:
		return nil, ErrBound
	case errors.As(err, &none):
		return nil, ErrWrongKey
	case err != nil: // age quotes lines of the header
		return nil, fmt.Errorf("%w: a damaged age file", ErrMalformed)
	}
	value, err := io.ReadAll(io.LimitReader(r, maxPlaintext+1))
	if err == nil && len(value) > maxPlaintext {
		err = fmt.Errorf("%w: more than %d bytes", ErrTooLarge, maxPlaintext)
	} else if err != nil {
		err = fmt.Errorf("%w: a damaged age file", ErrMalformed)
	}
	if err != nil {
		clear(value)
		return nil, err
	}
	return value, nil
}

// unboundIdentity sees every stanza before the private key does. age is given nothing else: it tries its own
// identities first.
type unboundIdentity struct {
	key   age.Identity
	bound bool
}

func (i *unboundIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, s := range stanzas {
		if strings.HasPrefix(s.Type, "vsecm.com/") {
			i.bound = true
			return nil, ErrBound
		}
	}
	return i.key.Unwrap(stanzas)
}

// openAES gives back something for any input. Whether it is what was encrypted is for the caller to judge.
func (k *Key) openAES(raw []byte) ([]byte, error) {
	if len(raw) < aes.BlockSize {
		return nil, fmt.Errorf("%w: neither an age file nor AES: %d bytes", ErrMalformed, len(raw))
	}
	if len(raw) > maxPlaintext {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, maxPlaintext)
	}
	value := bytes.Clone(raw[aes.BlockSize:])
	//lint:ignore SA1019 there is no other way to read what VSecM wrote in this mode
	cipher.NewCFBDecrypter(k.block, raw[:aes.BlockSize]).XORKeyStream(value, value)
	return value, nil
}
