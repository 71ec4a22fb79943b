package encrypt

import (
	"time"

	"filippo.io/age"
	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// A KeyID identifies a recipient: the first 32 hex digits of SHA-256 over the
// recipient string.
type KeyID string

// Keys looks up private keys by key id, never by trial.
type Keys interface {
	// Identity returns the private key for id, and whether it is held.
	Identity(id KeyID) (age.Identity, bool)
}

// Binding says where a sealed value may be used.
type Binding struct {
	Scope          Scope
	Namespace      string
	Name           string
	Key            string
	Workloads      []string
	SecretType     string
	TemplateSHA256 string
}

// Scope is strict, namespace or cluster.
type Scope string

// BindingOf returns the binding that a value under key in o must have been sealed with.
func BindingOf(o *v1alpha1.EncryptedSecret, key string) Binding { panic("soon") }

// Open recovers the exact value.
func Open(sealed string, b Binding, keys Keys, now time.Time) ([]byte, error) { panic("soon") }

// Seal seals value for the place that b names.
func Seal(value []byte, b Binding, to []Recipient, now time.Time) (string, error) { panic("soon") }

// A Recipient is a public key that values are sealed to.
type Recipient struct{}

// ParseRecipient parses an age1pq1… or age1… recipient.
func ParseRecipient(s string) (Recipient, error) { panic("soon") }
