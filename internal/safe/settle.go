package safe

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
)

// settlePoll is how often settle looks whether Safe has started.
const settlePoll = 100 * time.Millisecond

// settle gives memory back to the system once the stored objects are read and
// every source has had its first round, which takes an unsealed Safe. That work leaves three times as much
// garbage as Safe then holds, and Go would keep the room for it for good.
func settle(ctx context.Context, keeper *rootkey.Keeper, secrets *cache.Cache, sources []*reconcile.Source) {
	if !untilUnsealed(ctx, keeper) {
		return
	}
	ticker := time.NewTicker(settlePoll)
	defer ticker.Stop()
	for !started(secrets, sources) {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
	debug.FreeOSMemory()
}

func started(secrets *cache.Cache, sources []*reconcile.Source) bool {
	for _, s := range sources {
		if s.Status().LastAttempt.IsZero() {
			return false
		}
	}
	return secrets.Synced()
}
