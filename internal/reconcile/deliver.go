package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

var (
	// ErrNamespace says that a source may not deliver into a namespace.
	ErrNamespace = errors.New("source may not deliver into this namespace")
	// ErrRollback says that a value was sealed before the one that it
	// replaced. It is a warning: an old version may be what is wanted.
	ErrRollback = errors.New("value is older than the one it replaced")
)

// A refusal is why a declared object is not what the store holds. Either it is
// at fault itself, or writing it failed.
type refusal struct {
	faults []*encrypt.Fault
	failed error
}

// passes reports whether trying again is worthwhile without anything in git
// having changed.
func (r *refusal) passes(all bool) bool {
	if all || r.failed != nil {
		return true
	}
	return slices.ContainsFunc(r.faults, func(f *encrypt.Fault) bool {
		return errors.Is(f, encrypt.ErrFuture) || errors.Is(f, store.ErrNotOwned)
	})
}

// writers is how many manifests are checked and written at a time. A write
// waits for the disk most of the time, and a disk does many at once.
const writers = 16

// deliver checks manifests, each of another object, and writes them to the
// store, or notes why not. Its error is ctx's: then some were not tried.
func (s *Source) deliver(ctx context.Context, manifests ...encrypt.Manifest) error {
	outcomes := make([]outcome, len(manifests))
	var group errgroup.Group
	group.SetLimit(writers)
	for i, m := range manifests {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			outcomes[i] = s.write(ctx, m)
			return nil
		})
	}
	_ = group.Wait() // what failed is in the outcomes
	for i, m := range manifests {
		if outcomes[i].tried {
			s.note(m, outcomes[i])
		}
	}
	return ctx.Err()
}

// An outcome is what became of one manifest.
type outcome struct {
	tried    bool
	changed  bool
	refusal  *refusal         // why it is not in the store; nil if it is
	warnings []*encrypt.Fault // about what was written
}

func (s *Source) note(m encrypt.Manifest, o outcome) {
	key := store.KeyOf(m.Object)
	if o.refusal != nil {
		s.refused[key] = o.refusal
		return
	}
	delete(s.refused, key)
	delete(s.doomed, key)
	s.owned[key] = struct{}{}
	if !o.changed {
		return
	}
	delete(s.warned, key)
	if len(o.warnings) > 0 {
		s.warned[key] = o.warnings
	}
	s.log.Info("delivered", "object", key.String(), "file", m.File)
}

// write changes nothing but the store: it runs beside others.
func (s *Source) write(ctx context.Context, m encrypt.Manifest) outcome {
	refused := func(faults []*encrypt.Fault, err error) outcome {
		return outcome{tried: true, refusal: &refusal{faults, err}}
	}
	key := store.KeyOf(m.Object)
	if ns := s.config.Namespaces; len(ns) > 0 && !slices.Contains(ns, key.Namespace) {
		return refused([]*encrypt.Fault{m.Fault("metadata.namespace", fmt.Errorf("%w: %s", ErrNamespace, key.Namespace))}, nil)
	}
	old, err := s.deps.Store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		old = nil
	} else if err != nil {
		return refused(nil, err)
	}
	if old != nil && !s.owns(old) {
		return refused([]*encrypt.Fault{s.conflict(m, old)}, nil)
	}
	if faults := s.open(m, old); len(faults) > 0 {
		return refused(faults, nil)
	}
	o := *m.Object
	o.Annotations = maps.Clone(o.Annotations)
	if o.Annotations == nil {
		o.Annotations = make(map[string]string, 1)
	}
	o.Annotations[v1alpha1.AnnotationPath] = m.File
	changed, err := s.deps.Store.Apply(ctx, s.config.Name, &o)
	if errors.Is(err, store.ErrNotOwned) { // since we looked
		return refused([]*encrypt.Fault{s.conflict(m, nil)}, nil)
	} else if err != nil {
		return refused(nil, err)
	}
	written := outcome{tried: true, changed: changed}
	if changed && old != nil {
		written.warnings = rollbacks(m, old)
	}
	return written
}

func (s *Source) conflict(m encrypt.Manifest, old *v1alpha1.EncryptedSecret) *encrypt.Fault {
	owner := "nobody's source"
	if old != nil {
		owner = cmp.Or(old.Labels[v1alpha1.LabelSource], owner)
	}
	return m.Fault("metadata.name", fmt.Errorf("%w: %s", store.ErrNotOwned, owner))
}

// open opens every value that is not, bound to the same place, in the store
// already. What it opens is wiped at once: all it has to tell is that it opens.
func (s *Source) open(m encrypt.Manifest, old *v1alpha1.EncryptedSecret) []*encrypt.Fault {
	var faults []*encrypt.Fault
	now := s.deps.Now()
	for _, key := range slices.Sorted(maps.Keys(m.Object.Spec.EncryptedData)) {
		sealed := m.Object.Spec.EncryptedData[key]
		binding := encrypt.BindingOf(m.Object, key)
		if old != nil && old.Spec.EncryptedData[key] == sealed && reflect.DeepEqual(encrypt.BindingOf(old, key), binding) {
			continue
		}
		value, err := encrypt.Open(sealed, binding, s.deps.Keys, now)
		clear(value)
		if err != nil {
			faults = append(faults, m.Fault(encrypt.DataField(key), err))
		}
	}
	return faults
}

// rollbacks returns the values that are older than those they replaced.
func rollbacks(m encrypt.Manifest, old *v1alpha1.EncryptedSecret) []*encrypt.Fault {
	var warnings []*encrypt.Fault
	for _, name := range slices.Sorted(maps.Keys(m.Object.Spec.EncryptedData)) {
		before, err := encrypt.Inspect(old.Spec.EncryptedData[name])
		if err != nil {
			continue // a new key
		}
		after, err := encrypt.Inspect(m.Object.Spec.EncryptedData[name])
		if err == nil && after.SealedAt.Before(before.SealedAt) {
			warnings = append(warnings, m.Fault(encrypt.DataField(name), fmt.Errorf("%w: sealed at %s, after %s",
				ErrRollback, after.SealedAt.Format(time.RFC3339), before.SealedAt.Format(time.RFC3339))))
		}
	}
	return warnings
}

// again tries what was refused once more, where that can help. Its error is
// the store's.
func (s *Source) again(ctx context.Context) error {
	if s.index.Revision() == "" {
		return nil // what git declares is not known
	}
	all := s.retry.Swap(false)
	var failed []error
	for _, key := range keysOf(s.refused) {
		ref := sync.ObjectRef(key)
		if !s.index.Declares(ref) {
			delete(s.refused, key)
			continue
		}
		if s.refused[key].passes(all) {
			m, ok, err := s.index.Manifest(ctx, s.mirror, ref)
			if err != nil {
				return err
			}
			if ok {
				if err := s.deliver(ctx, m); err != nil {
					return err
				}
			}
		}
		if r := s.refused[key]; r != nil && r.failed != nil {
			failed = append(failed, fmt.Errorf("%s: %w", key, r.failed))
		}
	}
	for _, key := range keysOf(s.warned) {
		if !s.index.Declares(sync.ObjectRef(key)) {
			delete(s.warned, key)
		}
	}
	return several(failed)
}

// several returns the first of many errors, which are most often one and the
// same, and how many there are.
func several(errs []error) error {
	if len(errs) > 1 {
		return fmt.Errorf("%w (and %d more)", errs[0], len(errs)-1)
	}
	return errors.Join(errs...)
}

// keysOf returns the keys of a map in order.
func keysOf[V any](m map[store.Key]V) []store.Key {
	return slices.SortedFunc(maps.Keys(m), func(a, b store.Key) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}
