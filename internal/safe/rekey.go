package safe

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/gitsource"
	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/rekey"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/internal/serve"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// rekeying is what replaces the root key: who keeps it, the gate that it is used through, and who finds out what
// still needs the old one.
type rekeying struct {
	*rootkey.Keeper
	gate    *unseal.Gate
	checker *rekey.Checker
}

var _ serve.Rekey = rekeying{}

// Held implements [serve.Rekey].
func (r rekeying) Held() (encrypt.KeyID, []encrypt.KeyID) { return r.gate.Held() }

// RetiredText implements [serve.Rekey].
func (r rekeying) RetiredText() []byte { return r.gate.RetiredText() }

// Check implements [serve.Rekey].
func (r rekeying) Check(ctx context.Context) (rekey.Report, error) {
	report, err := r.checker.Check(ctx)
	if errors.Is(err, gitsource.ErrNotLeading) {
		return report, fmt.Errorf("%w", serve.ErrNotLeading)
	}
	return report, err
}

// rekeyingInCluster looks through the objects and the GitSources of a cluster, where this replica leads.
func rekeyingInCluster(keeper *rootkey.Keeper, gate *unseal.Gate, objects *kubestore.Store, secrets *cache.Cache, sources *gitsource.Controller) rekeying {
	return rekeying{keeper, gate, rekey.New(rekey.Config{
		Keys: gate, Heads: sources.ReadHeads, Going: goingBy(keeper),
		Stored: func(ctx context.Context) ([]*v1alpha1.EncryptedSecret, []rekey.Need, error) {
			// What was applied a moment ago must not be missed.
			if err := objects.CatchUp(ctx); err != nil {
				return nil, nil, err
			}
			all, err := objects.List(ctx)
			var faults []rekey.Need
			for _, f := range objects.Faults() {
				faults = append(faults, rekey.Need{Namespace: f.Key.Namespace, Name: f.Key.Name, Why: cannotTell(f.Err)})
			}
			return all, append(faults, servedBefore(secrets, gate)...), err
		},
	})}
}

// rekeyingHere looks through the objects of a directory, and the sources that are configured.
func rekeyingHere(keeper *rootkey.Keeper, gate *unseal.Gate, objects *store.Dir, secrets *cache.Cache, sources []*reconcile.Source) rekeying {
	return rekeying{keeper, gate, rekey.New(rekey.Config{
		Keys: gate, Going: goingBy(keeper),
		Heads: func(ctx context.Context, visit func(string, encrypt.Manifest)) ([]reconcile.Head, error) {
			return readHeads(ctx, sources, visit)
		},
		Stored: func(ctx context.Context) ([]*v1alpha1.EncryptedSecret, []rekey.Need, error) {
			all, err := objects.List(ctx)
			var faults []rekey.Need
			for _, f := range objects.Faults() {
				faults = append(faults, rekey.Need{File: f.Path, Why: cannotTell(f.Err)})
			}
			return all, append(faults, servedBefore(secrets, gate)...), err
		},
	})}
}

// servedBefore returns the values that are served from the last good version of an object, whose newest one cannot be
// served, and that the active key does not open alone. Nothing else has them.
func servedBefore(secrets *cache.Cache, gate *unseal.Gate) []rekey.Need {
	active, _ := gate.Held()
	alone := gate.Alone(active)
	var needs []rekey.Need
	for _, i := range secrets.Snapshot() {
		before := i.Before.Object
		// One that opens, and has no template that could fail, has yet to be tried.
		if before == nil || i.Newest.Object.Spec.Template == nil && firstClosed(i.Newest.Object, gate) == "" {
			continue
		}
		if key := firstClosed(before, alone); key != "" {
			needs = append(needs, rekey.Need{
				Source: before.Labels[v1alpha1.LabelSource], Namespace: before.Namespace, Name: before.Name, Key: key,
				Why: "what stands there now does not open, or its template fails, and the version from before, which is still served, needs another key: repair the object, or delete it",
			})
		}
	}
	return needs
}

// firstClosed returns the first key of an object whose value does not open; empty if all do.
func firstClosed(o *v1alpha1.EncryptedSecret, keys encrypt.Keys) string {
	binding := encrypt.BindingOf(o, "") // once: a template takes time
	for _, key := range slices.Sorted(maps.Keys(o.Spec.EncryptedData)) {
		binding.Key = key
		value, err := encrypt.Open(o.Spec.EncryptedData[key], binding, keys, time.Now())
		clear(value)
		if err != nil {
			return key
		}
	}
	return ""
}

// goingBy tells which key a re-key that is under way is to destroy.
func goingBy(keeper *rootkey.Keeper) func() encrypt.KeyID {
	return func() encrypt.KeyID {
		r, _ := keeper.Rekeying()
		return r.From
	}
}

func cannotTell(err error) string {
	return fmt.Sprintf("it is stored and cannot be read, so whether it needs another key cannot be told: %v", err)
}

// headsAtOnce is how many repositories are read at a time.
const headsAtOnce = 4

func readHeads(ctx context.Context, sources []*reconcile.Source, visit func(string, encrypt.Manifest)) ([]reconcile.Head, error) {
	heads := make([]reconcile.Head, len(sources))
	var group errgroup.Group
	group.SetLimit(headsAtOnce)
	for i, s := range sources {
		group.Go(func() error {
			heads[i] = s.ReadHead(ctx, func(m encrypt.Manifest) { visit(s.Name(), m) })
			return nil
		})
	}
	_ = group.Wait() // every head has its own error
	return heads, ctx.Err()
}
