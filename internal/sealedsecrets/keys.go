package sealedsecrets

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/bitnami-labs/sealed-secrets/pkg/crypto"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// MaxKeysSize bounds a file of private keys, in bytes.
const MaxKeysSize = encrypt.MaxFileSize

// keyEntry is where a controller's Secret holds its private key.
const keyEntry = "tls.key"

// ErrNoPrivateKey: a text holds no private key of a controller's.
var ErrNoPrivateKey = errors.New("no private key of a sealed-secrets controller: neither PEM, nor a v1/Secret or List with tls.key")

// ErrOtherKey: none of the keys opens a value at the place where it stands.
var ErrOtherKey = errors.New("none of the private keys opens it: it was sealed for another cluster, namespace or name, or with a key that is not among them")

// Keys are private keys of controllers. A ciphertext does not say to which of them it was sealed. They stay in memory
// until the process ends: Go's RSA keys cannot be wiped.
type Keys struct {
	byFingerprint map[string]*rsa.PrivateKey
}

// Len returns how many different keys there are.
func (k *Keys) Len() int { return len(k.byFingerprint) }

// Add adds the keys of a text that came from a file of that name: one or more in PEM (PKCS #1 or PKCS #8), or the Secrets that a
// controller keeps them in, as 'kubectl get secret -o yaml' or json prints them. The error is [ErrNoPrivateKey] where there are none.
func (k *Keys) Add(name string, text []byte) error {
	if bytes.Contains(text, []byte("-----BEGIN ")) && !bytes.Contains(text, []byte("kind")) {
		return k.addPEM(name, text)
	}
	secrets, _, faults := encrypt.ReadSecrets(name, text)
	defer func() {
		for _, s := range secrets {
			s.Wipe()
		}
	}()
	if len(faults) > 0 {
		return fmt.Errorf("%w: %w", ErrNoPrivateKey, faults[0])
	}
	found := false
	for _, s := range secrets {
		if len(s.Data[keyEntry]) == 0 {
			continue
		}
		if err := k.addPEM(fmt.Sprintf("%s: Secret %s", name, s.Name), s.Data[keyEntry]); err != nil {
			return err
		}
		found = true
	}
	if !found {
		return fmt.Errorf("%s: %w", name, ErrNoPrivateKey)
	}
	return nil
}

func (k *Keys) addPEM(name string, text []byte) error {
	found := false
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		key, err := parseKey(block)
		clear(block.Bytes)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if key != nil {
			k.add(key)
			found = true
		}
	}
	if !found {
		return fmt.Errorf("%s: %w", name, ErrNoPrivateKey)
	}
	return nil
}

// parseKey returns nothing for a block that is no private key, such as the certificate that stands beside it.
func parseKey(block *pem.Block) (*rsa.PrivateKey, error) {
	switch block.Type {
	case "RSA PRIVATE KEY":
		if block.Headers["DEK-Info"] != "" {
			return nil, errors.New("the private key is protected by a passphrase: take that off first, as with 'openssl rsa'")
		}
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("damaged RSA private key") // the library's words may quote it
		}
		return key, nil
	case "PRIVATE KEY":
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("damaged private key")
		}
		ofRSA, is := key.(*rsa.PrivateKey)
		if !is {
			return nil, errors.New("not an RSA private key, which is what sealed-secrets uses")
		}
		return ofRSA, nil
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("the private key is protected by a passphrase: take that off first, as with 'openssl pkey'")
	}
	return nil, nil
}

func (k *Keys) add(key *rsa.PrivateKey) {
	if k.byFingerprint == nil {
		k.byFingerprint = make(map[string]*rsa.PrivateKey)
	}
	sum := sha256.Sum256(x509.MarshalPKCS1PublicKey(&key.PublicKey))
	k.byFingerprint[hex.EncodeToString(sum[:])] = key
}

// open opens a ciphertext that was sealed with a label.
func (k *Keys) open(ciphertext []byte, label string) ([]byte, error) {
	value, err := crypto.HybridDecrypt(rand.Reader, k.byFingerprint, ciphertext, []byte(label))
	if err != nil {
		return nil, ErrOtherKey // whatever is wrong, the library tells no more
	}
	return value, nil
}
