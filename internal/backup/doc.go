// Package backup writes and reads Safe's archive of secrets: an age file around a tar, which age and tar alone
// open. docs/backup.md describes the format.
//
// Safe writes one ([Write]) as a stream, and the plugin reads it as one ([NewReader]). Neither has more than one
// object in memory, beside some hundred bytes for each that there is.
//
// # What may be believed
//
// Everything that a [Reader] hands out before its Next returned [io.EOF] is provisional. An archive that was cut off,
// or put together by somebody else, may look well for as long as it lasts: that all of it is there, and is what was
// written, shows at its end alone. Whoever acts on what is in it reads it twice, first to the end, and acts the second
// time.
//
// age shows that an archive is as it was written, not who wrote it: whoever has the recipient can write one.
package backup

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// Format is the format that this package writes, and reads.
const Format = "vsecm.com/backup/v1"

const formatPrefix = "vsecm.com/backup/"

// The names of entries, in their order. Those of objects are NAMESPACE/NAME/ and one of the last two.
const (
	formatEntry      = "FORMAT"
	rootKeyEntry     = "root-key.txt"
	retiredKeysEntry = "retired-keys.txt"
	indexEntry       = "backup.json"

	manifestEntry = "encryptedsecret.yaml"
	secretEntry   = "secret.yaml"
)

// entryMode is that of every entry: what tar makes of them is its owner's alone.
const entryMode = 0o600

// What a reader takes.
const (
	// MaxObjects bounds the objects of an archive.
	MaxObjects = 200_000
	maxEntries = 2*MaxObjects + 4
	maxEntry   = 4 << 20   // bytes of an object's entry
	maxKeyText = 1 << 20   // bytes of root-key.txt and of retired-keys.txt
	maxIndex   = 256 << 20 // bytes of backup.json

	// spareIndex and indexPerEntry are what backup.json may have beside as many bytes as there are in the archive
	// before it.
	spareIndex    = 1 << 20
	indexPerEntry = 1 << 10
	// spareItems and itemsPerEntry are how many fields and items of lists it may have, for each entry and each key: of
	// three bytes, {}, a hundred are made in memory.
	spareItems    = 1 << 18
	itemsPerEntry = 16
)

// Why an archive is refused, or ends. Every error names the entry.
var (
	// ErrFormat: it is no archive of this format.
	ErrFormat = errors.New("not a backup of this format")
	// ErrDamaged: it is not as it was written.
	ErrDamaged = errors.New("damaged backup")
	// ErrTooLarge: it is beyond the bounds of the format.
	ErrTooLarge = errors.New("backup too large")
	// ErrSealed: Safe was sealed while the archive was written.
	ErrSealed = errors.New("sealed while the backup was written")
	// ErrKeysChanged: a value did not open, and Safe's keys were replaced while the archive was written.
	ErrKeysChanged = errors.New("the root keys were replaced while the backup was written")
)

// A Summary is backup.json: what an archive holds.
type Summary struct {
	Format  string    `json:"format"`
	Created time.Time `json:"created"` // UTC, whole seconds
	Safe    Safe      `json:"safe"`
	// Namespaces that were asked for, sorted; null: all.
	Namespaces []string `json:"namespaces"`
	// Objects and Values count the entries encryptedsecret.yaml, and the values in all secret.yaml.
	Objects int `json:"objects"`
	Values  int `json:"values"`
	// RootKey says that root-key.txt is there.
	RootKey bool     `json:"rootKey"`
	Sources []Source `json:"sources"`
	// Secrets are the objects, in the order of their entries.
	Secrets []Secret `json:"secrets"`
	// Unreadable are the values that did not open. They are in encryptedsecret.yaml alone.
	Unreadable []Unreadable `json:"unreadable"`
	// Faults say which stored objects Safe itself could not read, or could not write as a manifest. They are not in the archive.
	Faults []string `json:"faults"`
	// SHA256 is, in hex, that of every entry but this one.
	SHA256 map[string]string `json:"sha256"`
}

// Safe says which Safe wrote an archive.
type Safe struct {
	Version   string        `json:"version"`
	KeyID     encrypt.KeyID `json:"keyID"`     // of its active root key
	Recipient string        `json:"recipient"` // likewise
	Namespace string        `json:"namespace,omitempty"`
	Replica   string        `json:"replica,omitempty"`
}

// A Source is a git source, as it stood when the objects were taken.
type Source struct {
	Name string `json:"name"` // NAMESPACE.NAME, as in the label vsecm.com/source
	URL  string `json:"url"`
	// Ref is refs/heads/BRANCH, refs/tags/TAG, or a commit.
	Ref       string    `json:"ref,omitempty"`
	Revision  string    `json:"revision,omitempty"` // that was applied whole
	AppliedAt time.Time `json:"appliedAt,omitzero"`
	// Applying is the revision of which a part may have been applied by then.
	Applying string `json:"applying,omitempty"`
}

// A Secret is one object of an archive.
type Secret struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Source    string `json:"source,omitempty"`   // whose it is
	Revision  string `json:"revision,omitempty"` // of its source
	Version   string `json:"version,omitempty"`  // as workloads are shown it
	// Keys are those of secret.yaml, sorted; null where there is none.
	Keys []string `json:"keys"`
	// Note says, for people, what is not as it should be: that this is the version before the newest, say.
	Note string `json:"note,omitempty"`
}

// An Unreadable value is one that did not open. Where Key is empty, it is the object that is not valid.
type Unreadable struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Key       string `json:"key,omitempty"`
	Why       string `json:"why"`
}

// entryOf returns the name of an object's entry.
func entryOf(namespace, name, kind string) string { return namespace + "/" + name + "/" + kind }

// parseEntry is the inverse of entryOf. It takes nothing that is not a name in its one spelling, so nothing that
// leads elsewhere.
func parseEntry(entry string) (namespace, name, kind string, err error) {
	parts := strings.Split(entry, "/")
	if len(parts) != 3 || parts[2] != manifestEntry && parts[2] != secretEntry {
		return "", "", "", errors.New("no entry of this format has this name")
	}
	if err := encrypt.ValidateNamespace(parts[0]); err != nil {
		return "", "", "", fmt.Errorf("namespace: %w", err)
	}
	if err := encrypt.ValidateName(parts[1]); err != nil {
		return "", "", "", fmt.Errorf("name: %w", err)
	}
	return parts[0], parts[1], parts[2], nil
}
