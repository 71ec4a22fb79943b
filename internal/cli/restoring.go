package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/backup"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// What became of a secret.
const (
	resultRestored   = "restored"
	resultUnchanged  = "unchanged"
	resultLeft       = "left"
	resultUnreadable = "unreadable" // in the backup
	resultFailed     = "failed"
)

// An outcome says what became of one secret.
type outcome struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Result    string `json:"result"`
	Why       string `json:"why,omitempty"`
	File      string `json:"file,omitempty"`
	hint      string
	source    string // whose it was when the backup was made
}

// A restoring is one run over an archive that was verified.
type restoring struct {
	o      *restoreOptions
	to     destination
	placed map[place]int

	mu       sync.Mutex
	outcomes []outcome // of every place; without a result where it has not come to that
}

// restore restores everything that was asked for. The error is what stands against going on.
func (r *restoring) restore(ctx context.Context, a *archive, n int) error {
	shown := newBar(r.o.streams, "restoring", n)
	defer shown.end()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(r.to.width())
	_, err := a.read(func(object *backup.Object) error {
		i, wanted := r.placed[place{object.Namespace, object.Name}]
		if !wanted || ctx.Err() != nil {
			object.Wipe()
			return ctx.Err()
		}
		group.Go(func() error {
			defer object.Wipe()
			said, err := r.one(ctx, object)
			if err != nil {
				return err
			}
			shown.add(1)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.outcomes[i] = said
			return nil
		})
		return nil
	})
	// The first error of the group ended the reading.
	if failed := group.Wait(); failed != nil {
		return failed
	}
	return err
}

// one restores one secret. The error stands against the others, too.
func (r *restoring) one(ctx context.Context, object *backup.Object) (outcome, error) {
	at := place{object.Namespace, object.Name}
	said := outcome{Namespace: at.namespace, Name: at.name}
	if object.Manifest != nil {
		said.source = sourceName(object.Manifest.Labels)
	}
	if !object.Whole() {
		said.Result, said.Why = resultUnreadable, lackOf(object)
		return said, nil
	}
	is, left, err := r.to.standing(ctx, at)
	if err != nil {
		return r.failed(said, at, err)
	}
	said.File = is.file
	if left != "" {
		said.Result, said.Why = resultLeft, left
		return said, nil
	}
	recipients, err := r.to.recipients(at)
	if err != nil {
		return said, err
	}
	d := &draft{object: plainObject(object.Manifest), values: object.Data, recipients: recipients}
	if err := d.check(); err != nil {
		said.Result, said.Why = resultFailed, err.Error()
		return said, nil
	}
	if is.object != nil {
		switch verdict, why := compare(is.object, object, recipients); {
		case verdict == same:
			said.Result = resultUnchanged
			return said, nil
		case verdict == newer && !r.o.overwrite:
			said.Result, said.Why, said.hint = resultLeft, why, "--overwrite replaces what is newer, too"
			return said, nil
		}
	}
	if err := sealAsBefore(d, object.Manifest, r.o.now()); err != nil {
		said.Result, said.Why = resultFailed, err.Error()
		return said, nil
	}
	if left, err = r.to.put(ctx, is, d); err != nil {
		return r.failed(said, at, err)
	}
	said.Result = resultRestored
	if is.object != nil && !sameSpec(is.object, object.Manifest) {
		said.Why = "its readers or its delivery are those of the backup, and were others"
	}
	if left != "" {
		said.Result, said.Why = resultLeft, left
	}
	return said, nil
}

// A failedError is a failure of one secret, which says nothing of the others.
type failedError struct{ error }

func (e failedError) Unwrap() error { return e.error }

// failed tells a failure of one secret from what stands against all of them.
func (*restoring) failed(said outcome, at place, err error) (outcome, error) {
	var alone failedError
	if !errors.As(err, &alone) {
		return said, fmt.Errorf("restoring %s: %w", at, err)
	}
	said.Result, said.Why = resultFailed, err.Error()
	if hints := hintsOf(err); len(hints) > 0 {
		said.hint = hints[0]
	}
	return said, nil
}

// lackOf says what of an archived object cannot be read.
func lackOf(object *backup.Object) string {
	if object.Manifest == nil {
		return fmt.Sprintf("its manifest was not valid when the backup was made: %v", object.Fault)
	}
	lacks := slices.DeleteFunc(sortedKeys(object.Manifest.Spec.EncryptedData), func(key string) bool {
		_, has := object.Data[key]
		return has
	})
	if len(lacks) == 0 {
		return "the backup has other values than its manifest"
	}
	return "did not open when the backup was made: " + someOf(lacks)
}

// plainObject returns an archived object as somebody would write it who applies it by hand: without its values, and
// without what Safe, a source or kubectl noted on it.
func plainObject(was *v1alpha1.EncryptedSecret) *v1alpha1.EncryptedSecret {
	o := &v1alpha1.EncryptedSecret{Spec: *was.Spec.DeepCopy()}
	o.APIVersion, o.Kind = v1alpha1.APIVersion, v1alpha1.KindEncryptedSecret
	o.Namespace, o.Name = was.Namespace, was.Name
	o.Labels, o.Annotations = theirs(was.Labels), theirs(was.Annotations)
	o.Spec.EncryptedData = nil
	return o
}

// theirs returns the labels, or annotations, that are neither ours nor kubectl's.
func theirs(all map[string]string) map[string]string {
	kept := maps.Clone(all)
	maps.DeleteFunc(kept, func(key, _ string) bool {
		domain, _, _ := strings.Cut(key, "/")
		return domain == v1alpha1.Group || strings.HasSuffix(domain, "."+v1alpha1.Group) || domain == "kubectl.kubernetes.io"
	})
	return kept
}

// sealAsBefore seals a draft's values with the times that they had in the backup. What Safe opened when it made the
// backup fits its place, and was not sealed in the future: what does not fit never came from there, and Safe would
// refuse it in place of what it serves.
func sealAsBefore(d *draft, was *v1alpha1.EncryptedSecret, now time.Time) error {
	d.sealed = make(map[string]string, len(d.values))
	for _, key := range slices.Sorted(maps.Keys(d.values)) {
		info, err := encrypt.Inspect(was.Spec.EncryptedData[key])
		if err == nil {
			err = info.Check(encrypt.BindingOf(d.object, key), now)
		}
		if err != nil {
			return fmt.Errorf("key %s: in the backup: %w", key, err)
		}
		sealed, err := encrypt.Seal(d.values[key], encrypt.BindingOf(d.object, key), d.recipients, info.SealedAt)
		if err != nil {
			return fmt.Errorf("key %s: %w", key, err)
		}
		d.sealed[key] = sealed
	}
	return nil
}
