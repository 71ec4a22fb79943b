package sync

import (
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// SetReader puts a reader in the place of [encrypt.ReadManifests].
func (x *Index) SetReader(read func(file string, data []byte, defaultNamespace string) encrypt.Manifests) {
	x.readManifests = read
}

// SetNow sets the clock that the times of commits and signatures are held
// against.
func (m *Mirror) SetNow(now func() time.Time) { m.now = now }
