package unseal

import (
	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// RootKey is soon.
type RootKey struct{}

// Generate makes a new root key; classic: X25519.
func Generate(classic bool) (*RootKey, error) { panic("soon") }

// Parse reads the three-line text.
func Parse(text []byte) (*RootKey, error) { panic("soon") }

// Recipient returns the public key.
func (k *RootKey) Recipient() encrypt.Recipient { panic("soon") }

// Text returns the three lines.
func (k *RootKey) Text() []byte { panic("soon") }

// A Keyring is one active key and any number of retired ones.
type Keyring struct{}

// NewKeyring returns a keyring.
func NewKeyring(active *RootKey, retired ...*RootKey) (*Keyring, error) { panic("soon") }

// Active returns the active key
func (r *Keyring) Active() *RootKey { panic("soon") }

// Identity implements encrypt.Keys.
func (r *Keyring) Identity(id encrypt.KeyID) (age.Identity, bool) { panic("soon") }
