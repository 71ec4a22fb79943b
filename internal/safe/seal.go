package safe

import (
	"context"
	"fmt"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// storedIn returns what a root key may be needed for. Objects that cannot be read may need one,
// too: then it is not known whole.
func storedIn[F any](objects interface {
	List(context.Context) ([]*v1alpha1.EncryptedSecret, error)
	Faults() []F
}) func(context.Context) ([]*v1alpha1.EncryptedSecret, error) {
	return func(ctx context.Context) ([]*v1alpha1.EncryptedSecret, error) {
		all, err := objects.List(ctx)
		if n := len(objects.Faults()); err == nil && n > 0 {
			err = fmt.Errorf("%d stored objects cannot be read", n)
		}
		return all, err
	}
}

// retryAfterUnseal has every source go round, and try what it refused, as soon as Safe is
// unsealed, or holds other keys since, until ctx ends.
func retryAfterUnseal(ctx context.Context, gate *unseal.Gate, keeper *rootkey.Keeper, sources []*reconcile.Source) {
	var before uint64
	for {
		changed := keeper.Changed()
		now := gate.Turn()
		if now != 0 && before != now {
			for _, s := range sources {
				s.Retry()
			}
		}
		before = now
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// untilUnsealed waits for Safe to be unsealed, and reports whether it was before ctx
// ended.
func untilUnsealed(ctx context.Context, keeper *rootkey.Keeper) bool {
	for {
		changed := keeper.Changed()
		if keeper.Status().State == rootkey.Unsealed {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
}
