package sync

import (
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// Bounds of a private key. The rounds of its key derivation are whoever's who
// wrote it; ssh-keygen takes 16 or 24, and a second passes with some hundreds.
const (
	maxIdentity     = 64 << 10
	maxBcryptRounds = 512
)

// parseIdentity reads a private key, which password decrypts if it has to be.
// Nothing of either gets into an error.
func parseIdentity(data []byte, password string) (ssh.Signer, error) {
	if len(data) > maxIdentity {
		return nil, fmt.Errorf("identity is more than %d bytes", maxIdentity)
	}
	signer, err := ssh.ParsePrivateKey(data)
	if missing := (*ssh.PassphraseMissingError)(nil); errors.As(err, &missing) {
		if password == "" {
			return nil, errors.New("identity is encrypted: its password is missing")
		}
		if bcryptRounds(data) > maxBcryptRounds {
			return nil, fmt.Errorf("identity is encrypted with more than %d rounds", maxBcryptRounds)
		}
		if signer, err = ssh.ParsePrivateKeyWithPassphrase(data, []byte(password)); err != nil {
			return nil, errors.New("identity cannot be decrypted with its password")
		}
		return signer, nil
	}
	if err != nil {
		return nil, errors.New("identity is no private key in PEM or OpenSSH's format that can be read")
	}
	return signer, nil
}

// bcryptRounds reads what a key in OpenSSH's format (PROTOCOL.key) says that
// its derivation takes; 0 for one that says nothing.
func bcryptRounds(data []byte) uint32 {
	const magic = "openssh-key-v1\x00"
	block, _ := pem.Decode(data)
	if block == nil || len(block.Bytes) < len(magic) || string(block.Bytes[:len(magic)]) != magic {
		return 0
	}
	var key struct {
		Cipher, KDF string
		Options     []byte
		Rest        []byte `ssh:"rest"`
	}
	var options struct {
		Salt   []byte
		Rounds uint32
	}
	if ssh.Unmarshal(block.Bytes[len(magic):], &key) != nil || ssh.Unmarshal(key.Options, &options) != nil {
		return 0
	}
	return options.Rounds
}
