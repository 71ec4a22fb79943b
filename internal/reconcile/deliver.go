package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	gosync "sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

var (
	// ErrNamespace says that a source may not deliver into a namespace.
	ErrNamespace = errors.New("source may not deliver into this namespace")
	// ErrRefusedByAPI says that the Kubernetes API does not take an object: there is no such namespace, Safe
	// may not write there, or something about the object is not allowed.
	ErrRefusedByAPI = errors.New("the Kubernetes API refuses it")
	// ErrRollback says that a value was sealed before the one that it
	// replaced. It is a warning: an old version may be what is wanted.
	ErrRollback = errors.New("value is older than the one it replaced")
)

// maxObjectFaults bounds what is told of one object.
const maxObjectFaults = 20

const (
	// firstPause and longestPause bound how long what may pass by itself is
	// left alone before it is tried again; it doubles in between.
	firstPause   = 10 * time.Second
	longestPause = 10 * time.Minute
)

// A refusal is why a declared object is not what the store holds. Either it is
// at fault itself, or writing it failed.
type refusal struct {
	faults []*encrypt.Fault
	failed error
	pause  time.Duration // after this try
	next   time.Time     // of the next one; zero if it would be in vain
	// restores says what had become of the object that was to be put back; empty if it was not.
	restores string
}

// passes reports whether trying again may help without anything in git or in
// the keys having changed.
func (r *refusal) passes() bool {
	return slices.ContainsFunc(r.faults, func(f *encrypt.Fault) bool {
		return errors.Is(f, encrypt.ErrFuture) || errors.Is(f, store.ErrNotOwned) || errors.Is(f, ErrRefusedByAPI)
	})
}

// waits reports whether it may be over as soon as others do something to the object.
func (r *refusal) waits() bool { return r.failed != nil || r.notOwned() }

func (r *refusal) notOwned() bool {
	return slices.ContainsFunc(r.faults, func(f *encrypt.Fault) bool { return errors.Is(f, store.ErrNotOwned) })
}

// due reports whether it is time to try again. What failed is tried in every
// round, for the rounds themselves come slower then.
func (r *refusal) due(now time.Time, round bool) bool {
	return round && r.failed != nil || !r.next.IsZero() && !now.Before(r.next)
}

// writers is how many manifests are checked and written at a time. A write
// waits for the disk most of the time, and a disk does many at once.
const writers = 16

// deliver checks manifests, each of another object, and writes them to the
// store, or notes why not. Its error is why some were not tried.
func (s *Source) deliver(ctx context.Context, manifests iter.Seq2[encrypt.Manifest, error]) error {
	var group errgroup.Group
	group.SetLimit(writers)
	defer group.Wait() // also when the sequence panics
	var noting gosync.Mutex
	for m, err := range manifests {
		if err != nil {
			return err
		}
		if s.sealed() {
			return ErrSealed
		}
		group.Go(func() error {
			o := s.write(ctx, m)
			if o.sealed {
				return ErrSealed
			}
			noting.Lock()
			defer noting.Unlock()
			s.note(ctx, m, o)
			return nil
		})
	}
	// What failed is noted.
	return cmp.Or(group.Wait(), ctx.Err())
}

// An outcome is what became of one manifest.
type outcome struct {
	changed  bool
	sealed   bool                      // it was not judged
	old      *v1alpha1.EncryptedSecret // what stood there before
	refusal  *refusal                  // why it is not in the store; nil if it is
	warnings []*encrypt.Fault          // about what was written
}

func (s *Source) note(ctx context.Context, m encrypt.Manifest, o outcome) {
	key := store.KeyOf(m.Object)
	s.changed = true
	before, how := s.refused[key], s.restoring[key]
	if before != nil {
		how = cmp.Or(how, before.restores)
	}
	if r := o.refusal; r != nil {
		if r.passes() {
			r.pause = firstPause
			if before != nil && before.pause > 0 {
				r.pause = min(2*before.pause, longestPause)
			}
			r.next = s.deps.Now().Add(r.pause)
		}
		r.restores = how
		s.refused[key] = r
		if r.notOwned() {
			s.disown(key)
		}
		s.sight.await(key, r.waits())
		return
	}
	delete(s.refused, key)
	s.sight.await(key, false)
	s.spare(key)
	s.owned[key] = struct{}{}
	if !o.changed {
		if how != "" {
			s.alike(ctx, key, o.old)
		}
		s.stands(key)
		return
	}
	if how != "" {
		s.putBack(m, how)
	}
	if s.deps.Observer != nil {
		s.deps.Observer.Applied(s.config.Name, key, s.index.Revision())
	}
	delete(s.warned, key)
	if len(o.warnings) > 0 {
		s.warned[key] = o.warnings
	}
	s.log.Info("delivered", "object", key.String(), "file", m.File)
}

// stands tells the observer that an object is as it has to be.
func (s *Source) stands(key store.Key) {
	if s.deps.Observer != nil {
		s.deps.Observer.Stands(s.config.Name, key, s.index.Revision())
	}
}

// alike takes note of an object which seemed to have been edited, and which the store says stands for
// what was declared: that is how the store writes it down. If it was another before or is another
// since, its event says so.
func (s *Source) alike(ctx context.Context, key store.Key, old *v1alpha1.EncryptedSecret) {
	now, err := s.deps.Store.Get(ctx, key)
	if st, ok := s.sight.stand(key); ok && err == nil && now == old {
		s.sight.correct(key, digestOf(now, st.declared))
	}
}

// write changes nothing but the store, and what is expected of it: it runs beside others.
func (s *Source) write(ctx context.Context, m encrypt.Manifest) (o outcome) {
	refused := func(faults []*encrypt.Fault, err error) outcome {
		return outcome{refusal: &refusal{faults: faults, failed: err}}
	}
	defer func() {
		if r := recover(); r != nil {
			o = refused(nil, s.panicked(r))
		}
	}()
	key := store.KeyOf(m.Object)
	if !s.mayDeliver(key.Namespace) {
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
	faults := s.open(m, old)
	if s.sealed() {
		return outcome{sealed: true}
	}
	if len(faults) > 0 {
		return refused(faults, nil)
	}
	declared := *m.Object
	declared.Annotations = maps.Clone(declared.Annotations)
	if declared.Annotations == nil {
		declared.Annotations = make(map[string]string, 1)
	}
	declared.Annotations[v1alpha1.AnnotationPath] = m.File
	names := declaredBy(&declared)
	undo := s.sight.expect(key, stand{digestOf(&declared, names), names})
	changed, err := s.deps.Store.Apply(ctx, s.config.Name, &declared)
	if err != nil {
		undo()
	}
	switch {
	case errors.Is(err, store.ErrNotOwned): // since we looked
		return refused([]*encrypt.Fault{s.conflict(m, nil)}, nil)
	case errors.Is(err, store.ErrInvalid), apierrors.IsForbidden(err), apierrors.IsNotFound(err):
		return refused([]*encrypt.Fault{m.Fault("", fmt.Errorf("%w: %w", ErrRefusedByAPI, err))}, nil)
	case err != nil:
		return refused(nil, err)
	}
	written := outcome{changed: changed, old: old}
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
func (s *Source) open(m encrypt.Manifest, old *v1alpha1.EncryptedSecret) (faults []*encrypt.Fault) {
	defer func() {
		if r := recover(); r != nil { // a value that breaks its reader is at fault
			faults = []*encrypt.Fault{m.Fault("", s.panicked(r))}
		}
	}()
	now := s.deps.Now()
	binding := encrypt.BindingOf(m.Object, "")
	sameBinding := old != nil && reflect.DeepEqual(encrypt.BindingOf(old, ""), binding)
	for _, key := range slices.Sorted(maps.Keys(m.Object.Spec.EncryptedData)) {
		sealed := m.Object.Spec.EncryptedData[key]
		binding.Key = key
		if sameBinding && old.Spec.EncryptedData[key] == sealed {
			continue
		}
		value, err := encrypt.Open(sealed, binding, s.deps.Keys, now)
		clear(value)
		if err != nil {
			faults = append(faults, m.Fault(encrypt.DataField(key), err))
			if len(faults) == maxObjectFaults {
				break
			}
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

// again tries what was refused once more, where that can help and it is time.
// Its error is the store's. Between rounds, what failed is left to the next one.
func (s *Source) again(ctx context.Context, round bool) error {
	if s.index.Revision() == "" {
		return nil // what git declares is not known
	}
	all, now := round && s.retry.Swap(false), s.deps.Now()
	var due []sync.ObjectRef
	for key, r := range s.refused {
		switch ref := sync.ObjectRef(key); {
		case !s.index.Declares(ref):
			delete(s.refused, key)
			s.sight.await(key, false)
			s.changed = true
		case all || r.due(now, round):
			due = append(due, ref)
		}
	}
	for key := range s.warned {
		if !s.index.Declares(sync.ObjectRef(key)) {
			delete(s.warned, key)
			s.changed = true
		}
	}
	if len(due) > 0 {
		if err := s.deliver(ctx, s.index.Manifests(ctx, s.mirror, due)); err != nil {
			if all {
				s.retry.Store(true)
			}
			return err
		}
	}
	var failed []error
	for _, key := range keysOf(s.failures()) {
		failed = append(failed, &stepError{"apply", fmt.Errorf("%s: %w", key, s.refused[key].failed)})
	}
	return several(failed)
}

// failures returns the refusals that are not the fault of what was refused.
func (s *Source) failures() map[store.Key]*refusal {
	failures := make(map[store.Key]*refusal)
	for key, r := range s.refused {
		if r.failed != nil {
			failures[key] = r
		}
	}
	return failures
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
