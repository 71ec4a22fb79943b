// Package publication is what Safe publishes in its cluster for everybody who is logged
// in: ConfigMap vsecm-safe in Safe's namespace. With it the plugin encrypts without
// a running Safe, and recognises a Safe that it connects to.
//
//	data:
//	  recipient: age1pq1…           # the root key's public half
//	  keyID: 5e3f…                  # its key id
//	  replica.POD: |                # one for each replica
//	    {"state":"sealed","certificateSHA256":"…","spiffeID":"spiffe://…","seen":"2026-01-02T03:04:05Z", …}
//	  bundle: |                     # the SPIFFE trust bundle, PEM; only with SPIFFE
//	    -----BEGIN CERTIFICATE-----
//
// recipient is also Safe's own record of the root key that it belongs to: the one that unseal
// demands. It is written once, and afterwards only by a re-key.
package publication

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// Name is the ConfigMap's name.
	Name = "vsecm-safe"
	// DefaultNamespace is where Safe is installed.
	DefaultNamespace = "vsecm-system"

	// KeyRecipient, KeyID and KeyBundle are keys of the ConfigMap's data.
	KeyRecipient = "recipient"
	KeyID        = "keyID"
	KeyBundle    = "bundle"
	// ReplicaPrefix comes before a replica's name in a key of the data.
	ReplicaPrefix = "replica."

	// AudiencePrefix comes before the fingerprint, 64 hex digits, of the public key
	// (SHA-256 of its SubjectPublicKeyInfo) in the audience of an operator's token:
	// the one that Safe showed on the connection the token is sent over.
	AudiencePrefix = "vsecm-safe/"

	// Stale is how long after Seen a replica is taken for gone.
	Stale = 30 * time.Minute
)

// ErrMalformed says that what stands in the ConfigMap was not written by Safe.
var ErrMalformed = errors.New("malformed publication")

// A Replica is one Safe.
type Replica struct {
	// State is uninitialised, sealed or unsealed.
	State string `json:"state"`
	// CertificateSHA256 is the SHA-256 (hex) of the self-signed certificate, in DER, that
	// the replica shows while it has no SVID.
	CertificateSHA256 string `json:"certificateSHA256"`
	// SPIFFEID is who its SVID says it is; empty without SPIFFE. The SVID verifies with
	// the bundle.
	SPIFFEID string `json:"spiffeID,omitempty"`
	// Version of Safe.
	Version string `json:"version"`
	// Seen is when the replica last wrote this.
	Seen time.Time `json:"seen"`
}

// A Publication is the whole ConfigMap.
type Publication struct {
	Recipient string // empty: there is no root key yet
	KeyID     string
	Bundle    string // PEM
	Replicas  map[string]Replica
}

// Parse reads the ConfigMap's data. What it does not know is left out. So is a replica's entry that
// Safe did not write: the others are returned all the same, together with an error
// that is [ErrMalformed].
func Parse(data map[string]string) (*Publication, error) {
	p := &Publication{
		Recipient: data[KeyRecipient], KeyID: data[KeyID], Bundle: data[KeyBundle],
		Replicas: make(map[string]Replica),
	}
	var malformed []error
	for _, key := range slices.Sorted(maps.Keys(data)) {
		name, ok := strings.CutPrefix(key, ReplicaPrefix)
		if !ok {
			continue
		}
		var r Replica
		if err := json.Unmarshal([]byte(data[key]), &r); err != nil {
			malformed = append(malformed, fmt.Errorf("%w: %s: %w", ErrMalformed, key, err))
			continue
		}
		p.Replicas[name] = r
	}
	return p, errors.Join(malformed...)
}

// IsReplica tells whether a key of the data is that of a replica.
func IsReplica(key string) bool { return strings.HasPrefix(key, ReplicaPrefix) }

// Text returns r as it stands in the ConfigMap.
func (r Replica) Text() (string, error) {
	text, err := json.Marshal(r)
	return string(text), err
}
