package deliver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/validity"
)

const (
	day  = 24 * time.Hour
	week = 7 * day
	// longestSleep bounds the time until an object is looked at again that waits for a moment: the clock may be set.
	longestSleep = 10 * time.Minute
)

// outside is for an object outside its window: NotYetValid, Expired. A Secret that it was delivered as is withdrawn.
func (r *round) outside(ctx context.Context) {
	left, ok := r.takeBack(ctx)
	if !ok {
		r.keyIDs = r.openedBefore()
		return
	}
	after := r.after
	_, opens := r.judge(false)
	switch {
	case r.window.At(r.now) == validity.Expired:
		r.after = after // whether it opens one day makes no difference
		r.fail(condition.Failed, ReasonExpired, "it expired at %s, and is served to nobody%s: set a later spec.expiresAt, or delete it",
			stamp(r.window.ExpiresAt), left)
	case opens:
		r.fail(condition.Progressing, ReasonNotYetValid, "it is not valid before %s, and is served to nobody until then%s",
			stamp(r.window.NotBefore), left)
	}
}

func stamp(t time.Time) string { return t.Format(time.RFC3339) }

// takeBack withdraws the Secret of an object that is not valid now. It returns what to say of one that stays, and
// whether all is done.
func (r *round) takeBack(ctx context.Context) (left string, ok bool) {
	switch d := r.object.Spec.Secret; {
	case d == nil:
		// It asks for none, window or not.
		return "", r.remove(ctx)
	case d.DeletionPolicy == retain:
		if r.secret != nil {
			left = fmt.Sprintf("; Secret %s stays as it is, as its deletion policy says", r.key)
		}
		return left, true
	}
	room := r.l.want(r.key, r.l.asks(r.object))
	if r.secret == nil && !r.standsFor(room) || r.emptied(room) {
		return "", true
	}
	m, err := r.l.secrets.look(ctx, r.key)
	if err == nil {
		err = r.takeBackOf(ctx, room, m)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		r.cannot(err, "withdrawing Secret "+r.key.String())
		return "", false
	}
	if err != nil {
		r.secret = nil
	}
	return "", true
}

// standsFor tells whether a Secret is known that goes with the object.
func (r *round) standsFor(room *room) bool {
	if room == nil {
		return false
	}
	now, _ := room.secret(r.key.Name)
	return now != nil && now.owner == r.standing.UID
}

// emptied tells whether the object's Secret was emptied, and nobody has touched it since.
func (r *round) emptied(room *room) bool {
	if room == nil || r.secret == nil || r.secret.Generation != 0 {
		return false
	}
	now, _ := room.secret(r.key.Name)
	return now != nil && string(now.uid) == r.secret.UID && now.version == r.secret.ResourceVersion
}

// takeBackOf withdraws m, if it is what was delivered.
func (r *round) takeBackOf(ctx context.Context, room *room, m secretMeta) error {
	delivered := r.secret != nil && r.secret.UID == string(m.uid)
	if !delivered && m.owner != r.standing.UID {
		r.secret = nil // it is another one
		return nil
	}
	if delivered && r.secret.Adopted {
		return r.empty(ctx, room, m)
	}
	if err := r.l.newest(ctx, r.key, r.object); err != nil {
		return err
	}
	if err := r.l.secrets.remove(ctx, r.key, m); err != nil {
		return err
	}
	r.l.tookAway(r.key, m)
	r.secret = nil
	r.tell(false, EventWithdrawn, "deleted Secret %s, since the object is not valid now", r.key)
	return nil
}

// empty takes Safe's keys out of a Secret that was somebody else's, and that is never deleted therefore.
func (r *round) empty(ctx context.Context, room *room, m secretMeta) error {
	w := &writing{round: r, room: room, at: r.targetOf(m)}
	now, err := w.apply(ctx, nil)
	switch {
	case errors.Is(err, errTheirs):
		r.secret = nil // the one that was delivered is gone
		return nil
	case errors.Is(err, errImmutable):
		return fmt.Errorf("%w: %w", errInvalid, err)
	case err != nil:
		return err
	}
	if room != nil {
		room.wrote(r.key.Name, now)
	}
	was := r.secret
	next := *was
	next.ResourceVersion, next.Generation = now.version, 0
	r.secret = &next
	if was.Generation != 0 {
		r.tell(false, EventWithdrawn, "took the values out of Secret %s, which is not deleted as it was adopted, since the object is not valid now", r.key)
	}
	return nil
}

// lookWhenDue asks for another look when the phase of the object, or how soon it expires, becomes another.
func (r *round) lookWhenDue() {
	next := r.window.Next(r.now)
	if next.IsZero() {
		return
	}
	for _, left := range []time.Duration{week, day} {
		if at := r.window.ExpiresAt.Add(-left); !r.window.ExpiresAt.IsZero() && at.After(r.now) && at.Before(next) {
			next = at
		}
	}
	// At least a little: no look at all is asked for by zero.
	after := max(time.Millisecond, min(next.Sub(r.l.c.config.Now()), longestSleep))
	if r.after == 0 || after < r.after {
		r.after = after
	}
}

// expiresSoon returns the condition of an object that does; its Type is empty if it does not.
func (r *round) expiresSoon() metav1.Condition {
	left := r.window.ExpiresAt.Sub(r.now)
	if r.window.ExpiresAt.IsZero() || left <= 0 || left > week {
		return metav1.Condition{}
	}
	c := metav1.Condition{
		Type: ConditionExpiresSoon, Status: metav1.ConditionTrue, Reason: ReasonWithinWeek, ObservedGeneration: r.standing.Generation,
		Message:            fmt.Sprintf("it expires at %s, and is served to nobody then", stamp(r.window.ExpiresAt)),
		LastTransitionTime: metav1.NewTime(r.now.UTC().Truncate(timePrecision)),
	}
	if left <= day {
		c.Reason = ReasonWithinDay
	}
	return c
}

// setExpiresSoon brings conditions up to date, and reports whether that changed them. What is to be told of it is told
// when the status is written.
func (r *round) setExpiresSoon(conditions *[]metav1.Condition) (changed bool) {
	if r.object == nil {
		return false // it cannot be decoded
	}
	soon := r.expiresSoon()
	if soon.Type == "" {
		return meta.RemoveStatusCondition(conditions, ConditionExpiresSoon)
	}
	if was := meta.FindStatusCondition(*conditions, ConditionExpiresSoon); was == nil || was.Reason != soon.Reason || was.Message != soon.Message {
		r.afterwards = append(r.afterwards, happening{true, EventExpiresSoon, soon.Message + ": set a later spec.expiresAt, or seal other values"})
	}
	return meta.SetStatusCondition(conditions, soon)
}
