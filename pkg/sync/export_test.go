package sync

import "github.com/vsecm/kubectl-vsecm/pkg/encrypt"

// SetReader puts a reader in the place of [encrypt.ReadManifests].
func (x *Index) SetReader(read func(file string, data []byte, defaultNamespace string) encrypt.Manifests) {
	x.readManifests = read
}
