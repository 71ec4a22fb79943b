package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// timePrecision is that of times in the Kubernetes API.
const timePrecision = time.Second

// settle writes the status that follows from a round, if it is another, and tells of what
// happened. It returns when to look again, as [lead.reconcile] does.
func (r *round) settle(ctx context.Context) (time.Duration, error) {
	c := r.l.c
	for _, h := range r.events {
		c.event(r.key, h.warning, h.reason, h.message)
	}
	if r.quiet {
		r.keep()
		return r.then()
	}
	noted := r.noted
	verdict := r.overruled(noted)
	was := r.standing.Status
	next := r.status(noted)
	generation := r.standing.Generation
	changed := condition.Set(&next.Conditions, verdict, generation, c.config.Now())
	if r.setExpiresSoon(&next.Conditions) || changed || !sameStatus(was, next) {
		if err := c.config.Store.WriteStatus(ctx, r.key, r.standing, next); err != nil {
			r.keep()
			return r.unwritten(ctx, err)
		}
		r.announce(was, verdict)
		for _, h := range r.afterwards {
			c.event(r.key, h.warning, h.reason, h.message)
		}
	}
	r.l.saved(r.key)
	c.forget(r.key, noted)
	r.l.leave(r.key.Namespace)
	return r.then()
}

func (r *round) then() (time.Duration, error) {
	if r.again {
		return 0, errRetry
	}
	return r.after, nil
}

// overruled returns the verdict of the round, or, where all is well with the object, what its source has
// to say of the manifest that it should be: Refused, Conflict.
func (r *round) overruled(noted note) condition.Verdict {
	switch {
	case r.verdict.State != condition.Current:
	case store.OwnerOf(r.object) == "":
		// No source's word counts, whatever one told while it had it.
	case noted.refused != nil && noted.by == store.OwnerOf(r.object):
		return *noted.refused
	case !noted.fine:
		// Another replica was told of it. A source tells the next one, if it still is so.
		left := r.l.began.Add(settling).Sub(r.l.c.config.Now())
		if v, ok := refusedBefore(r.standing.Status); ok && left > 0 {
			if r.after == 0 || left < r.after {
				r.after = left
			}
			return v
		}
	}
	return r.verdict
}

func refusedBefore(status *v1alpha1.EncryptedSecretStatus) (condition.Verdict, bool) {
	if status == nil {
		return condition.Verdict{}, false
	}
	ready := meta.FindStatusCondition(status.Conditions, condition.Ready)
	if ready == nil || !strings.HasPrefix(ready.Message, refusedPrefix) {
		return condition.Verdict{}, false
	}
	return condition.Verdict{State: condition.Failed, Reason: ready.Reason, Message: ready.Message}, true
}

// status returns what the status is to be, but for its conditions.
func (r *round) status(noted note) *v1alpha1.EncryptedSecretStatus {
	next := &v1alpha1.EncryptedSecretStatus{}
	if r.standing.Status != nil {
		next = r.standing.Status.DeepCopy()
	}
	next.ObservedGeneration = r.standing.Generation
	next.Secret = r.secret
	if r.object == nil {
		return next // it cannot be decoded: what is known is about another version
	}
	next.KeyIDs = r.keyIDs
	switch {
	case store.OwnerOf(r.object) == "":
		next.Revision = ""
	case noted.revision != "":
		next.Revision = string(noted.revision)
	case r.standing.Status == nil || r.standing.Status.ObservedGeneration != r.standing.Generation:
		// Its source is yet to tell. If this replica does not lead for so long, it tells the next one: see [Controller.Stands].
		next.Revision = ""
	}
	return next
}

// sameStatus tells whether two are the same, but for their conditions.
func sameStatus(a, b *v1alpha1.EncryptedSecretStatus) bool {
	if a == nil {
		return false
	}
	return a.ObservedGeneration == b.ObservedGeneration && slices.Equal(a.KeyIDs, b.KeyIDs) && a.Revision == b.Revision &&
		sameSecret(a.Secret, b.Secret)
}

func sameSecret(a, b *v1alpha1.DeliveredSecret) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.UID == b.UID && a.ResourceVersion == b.ResourceVersion && a.Generation == b.Generation &&
		a.Adopted == b.Adopted && a.DeliveredAt.Equal(&b.DeliveredAt)
}

// unwritten says what to do when the status could not be written.
func (r *round) unwritten(ctx context.Context, err error) (time.Duration, error) {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return 0, nil // the watch will tell
	case ctx.Err() != nil:
		return 0, ctx.Err()
	}
	if r.l.queue.NumRequeues(r.key) == 0 {
		r.l.c.config.Log.Warn("the status of an object cannot be written: it is tried again", slog.String("object", r.key.String()), slog.Any("reason", err))
	}
	return 0, fmt.Errorf("%w: %w", errRetry, err)
}

// announce tells of a change for the worse, and of the end of one.
func (r *round) announce(was *v1alpha1.EncryptedSecretStatus, now condition.Verdict) {
	before := readyReason(was)
	if before == now.Reason || now.Reason == ReasonUndecodable { // told already
		return
	}
	switch now.State {
	case condition.Failed:
		r.l.c.event(r.key, true, now.Reason, now.Message)
		r.l.c.config.Log.Warn("an object is not delivered as it asks", slog.String("object", r.key.String()),
			slog.String("reason", now.Reason), slog.String("message", now.Message))
	case condition.Current:
		if was != nil && meta.IsStatusConditionFalse(was.Conditions, condition.Ready) {
			r.l.c.event(r.key, false, now.Reason, now.Message)
		}
	case condition.Progressing:
	}
}

// readyReason returns the reason of condition Ready, or "".
func readyReason(status *v1alpha1.EncryptedSecretStatus) string {
	if status == nil {
		return ""
	}
	if ready := meta.FindStatusCondition(status.Conditions, condition.Ready); ready != nil {
		return ready.Reason
	}
	return ""
}
