package rootkey

import (
	"context"
	"log/slog"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A Config is what a [Keeper] needs.
type Config struct {
	Place Place
	// Manual: no root key is made where there is none.
	Manual bool
	// Memory: the root key is never written anywhere. Implies Manual.
	Memory bool
	Gate   *unseal.Gate
	// Holder holds what was opened with the root key: the cache.
	Holder interface {
		Seal()
		Unseal()
	}
	// Objects returns what is stored. It may wait until that is known, and fail where it
	// cannot be known whole.
	Objects func(context.Context) ([]*v1alpha1.EncryptedSecret, error)
	Log     *slog.Logger
}

// A Keeper keeps the seal. It is safe for concurrent use.
type Keeper struct{}

// New returns a keeper of a Safe that is sealed until Run says otherwise.
func New(c Config) *Keeper { panic("soon") }

// Run unseals Safe, or makes its root key, where that may be, and obeys what other
// replicas do, until ctx ends, whose error it returns then.
func (k *Keeper) Run(ctx context.Context) error { panic("soon") }

// Status tells how things stand. It does not block.
func (k *Keeper) Status() Status { panic("soon") }

// Changed returns a channel that is closed when the status next changes.
func (k *Keeper) Changed() <-chan struct{} { panic("soon") }

// Recipient returns the public half of the root key, whether Safe is sealed or
// not; false if none is known.
func (k *Keeper) Recipient() (encrypt.Recipient, bool) { panic("soon") }

// Unseal opens Safe with the root key of this text, which stays the caller's to wipe.
// accept is the key id that an operator accepts where none is on record, or empty.
//
// Errors, after which nothing has changed: [unseal.ErrMalformed] and [unseal.ErrMismatch],
// which never quote the text, [ErrWrongKey], [ErrConfirm], [ErrUnavailable], and
// ctx's.
func (k *Keeper) Unseal(ctx context.Context, text []byte, accept encrypt.KeyID) error { panic("soon") }

// Seal drops every key and all that was opened with them, and then leaves a mark that
// every replica obeys. An error says that Safe is sealed here, but that the mark
// could not be left: [ErrUnavailable].
func (k *Keeper) Seal(ctx context.Context) error { panic("soon") }

// NewSecretPlace returns the place in a cluster: a Secret of this name, and ConfigMap
// vsecm-safe beside it. mountedFile is where the Secret may be mounted, too.
func NewSecretPlace(client *kube.Client, namespace, name, mountedFile string) Place { panic("soon") }

// NewDirPlace returns the place on one machine: the file of the root key, and a mark and a
// record in the data directory.
func NewDirPlace(rootKeyFile, dataDir string) Place { panic("soon") }
