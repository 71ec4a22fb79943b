package encrypt

import "github.com/vsecm/kubectl-vsecm/api/v1alpha1"

// MaxFileSize bounds the size, in bytes, of a file of manifests.
const MaxFileSize = 2 << 20

// A Manifest is one valid EncryptedSecret document and where it stands.
type Manifest struct {
	File   string
	Line   int // of the document's first line, from 1
	Object *v1alpha1.EncryptedSecret
}

// Manifests is what a file holds.
type Manifests struct {
	// Objects are the valid EncryptedSecrets, in the order of the file.
	Objects []Manifest
	// Faults are all that is wrong with the documents that are ours.
	Faults []*Fault
	// Skipped counts the documents that are none of ours.
	Skipped int
}

// ReadManifests reads every document of a YAML or JSON file.
func ReadManifests(file string, data []byte, defaultNamespace string) Manifests {
	panic("soon")
}
