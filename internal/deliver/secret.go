package deliver

import (
	"context"
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// deliver is for an object that asks for a Kubernetes Secret: Ready, Delivered, or what the steps say.
func (r *round) deliver(ctx context.Context) {
	room := r.l.want(r.key, true) // as it is, unless it was left in this very moment
	now, state := room.secret(r.key.Name)
	switch {
	case state == unknown:
		r.quiet = true // the room asks for another look
	case r.refused(), state == forbidden:
		// Whether it opens is worth knowing all the same, and comes first.
		verdict := r.verdict
		if _, ok := r.judge(false); !ok {
			return
		}
		if r.verdict = verdict; verdict.Reason == "" {
			r.forbidden()
			r.after = 0 // the room asks for another look
		}
	case r.upToDate(now):
		if _, ok := r.judge(false); ok {
			r.delivered()
		}
	case r.paused(), r.stillTheirs(ctx, now):
		r.keyIDs = r.openedBefore()
	default:
		r.write(ctx, room, now)
	}
}

func (r *round) delivered() {
	r.fail(condition.Current, ReasonDelivered, "delivered as Secret %s", r.key)
}

// upToDate tells whether the Secret is as the object's generation was delivered, and nobody has touched it
// since.
func (r *round) upToDate(now *secretMeta) bool {
	return now != nil && r.secret != nil && string(now.uid) == r.secret.UID &&
		now.version == r.secret.ResourceVersion && r.secret.Generation == r.object.Generation
}

// edited tells whether what is not up to date is so because somebody changed or deleted the Secret.
func (r *round) edited() bool {
	return r.secret != nil && r.secret.Generation == r.object.Generation
}

// paused leaves a Secret that others keep changing for a while: Reconciling, Conflict. Where all that they changed is
// theirs, labels of their own for example, nothing is said of it.
func (r *round) paused() bool {
	if !r.edited() {
		return false
	}
	if r.after = r.l.touches.pause(r.key); r.after > 0 {
		r.quiet = true
		return true
	}
	if r.after = r.l.edits.pause(r.key); r.after == 0 {
		return false
	}
	r.fail(condition.Progressing, ReasonConflict,
		"somebody else keeps changing or deleting Secret %s: it is put back, at ever longer intervals, until they stop", r.key)
	return true
}

// stillTheirs sees whether somebody else's Secret still stands in the way: SecretExists. Nothing is
// decrypted to find out.
func (r *round) stillTheirs(ctx context.Context, now *secretMeta) bool {
	if now != nil || r.secret != nil || readyReason(r.standing.Status) != ReasonSecretExists {
		return false
	}
	m, err := r.l.secrets.look(ctx, r.key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return false
	case err != nil:
		r.cannot(err, "reading what Secret "+r.key.String()+" is")
		return true
	case r.ours(m) || m.adopt:
		return false
	}
	r.exists()
	return true
}

// exists: SecretExists.
func (r *round) exists() {
	r.after = r.l.c.config.RetryPeriod
	r.fail(condition.Failed, ReasonSecretExists,
		"there is a Secret %s that is not Safe's, and it is left alone; delete it, or let this object take it over: kubectl annotate secret -n %s %s %s=true",
		r.key, r.key.Namespace, r.key.Name, v1alpha1.AnnotationAdopt)
}

// ours tells whether a Secret is one that Safe delivered.
func (r *round) ours(m secretMeta) bool {
	return m.labeled || r.secret != nil && r.secret.UID == string(m.uid)
}

// targetOf returns the Secret that is to be written.
func (r *round) targetOf(m secretMeta) target {
	adopted := m.adopt && m.owner == ""
	if r.secret != nil && r.secret.UID == string(m.uid) {
		adopted = r.secret.Adopted
	}
	return target{uid: m.uid, version: m.version, adopted: adopted}
}

// write delivers all values of this version, or nothing: Unreadable, KeyNotHeld, and what
// [round.cannot] says.
func (r *round) write(ctx context.Context, room *room, now *secretMeta) {
	result := resultFailed
	defer func() { r.l.c.metrics.deliveries.WithLabelValues(result).Inc() }()
	data, ok := r.judge(true)
	if !ok {
		return
	}
	defer data.wipe()
	if r.l.c.config.Era() != r.era {
		return
	}
	w := &writing{round: r, room: room}
	if now != nil {
		w.at = r.targetOf(*now)
	}
	m, err := w.apply(ctx, data)
	switch {
	case errors.Is(err, errTheirs):
		r.secret = nil // the one that was delivered is gone
		r.exists()
		return
	case errors.Is(err, errImmutable):
		r.after = invalidRetry
		r.fail(condition.Failed, ReasonDeliveryFailed,
			"Secret %s was not made by Safe, and is immutable or of another type: delete it, and Safe makes it anew", r.key)
		return
	case err != nil:
		r.cannot(err, "writing Secret "+r.key.String())
		return
	}
	room.wrote(r.key.Name, m)
	result = w.wrote(m)
}

// errTheirs: there is a Secret that is not Safe's.
var errTheirs = errors.New("it is somebody else's")

// writing is the course of one delivery.
type writing struct {
	*round
	room *room
	at   target

	replaced, adopting bool
}

// apply writes data over what there is, as often as others change it meanwhile.
func (w *writing) apply(ctx context.Context, data values) (m secretMeta, err error) {
	for range tries {
		if !w.asLeft() {
			if err := w.l.newest(ctx, w.key, w.object); err != nil {
				return m, err
			}
		}
		if m, err = w.l.secrets.apply(ctx, w.object, data, w.at); err == nil {
			return m, nil
		}
		switch {
		case errors.Is(err, errChanged):
			err = w.lookAgain(ctx, err)
		case errors.Is(err, errImmutable) && !w.at.adopted:
			err = w.makeRoom(ctx)
		}
		if err != nil && !errors.Is(err, errChanged) {
			return m, err
		}
	}
	return m, errChanged
}

// asLeft tells whether what is replaced is, as far as is known, just as the status has it. Then nobody can have delivered
// anything since: the write is held against the resource version.
func (w *writing) asLeft() bool {
	if w.secret == nil {
		return w.at.uid == ""
	}
	return w.secret.UID == string(w.at.uid) && w.secret.ResourceVersion == w.at.version
}

// lookAgain reads what stands there now.
func (w *writing) lookAgain(ctx context.Context, changed error) error {
	m, err := w.l.secrets.look(ctx, w.key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		w.at = target{}
	case err != nil:
		return err
	case w.ours(m):
		w.at = w.targetOf(m)
	case m.adopt:
		w.at, w.adopting = target{uid: m.uid, version: m.version, adopted: true}, true
	default:
		return errTheirs
	}
	return changed
}

// makeRoom deletes a Secret that cannot be changed in place. Should Safe end before the next one is
// made, whoever looks next finds none, and makes it.
func (w *writing) makeRoom(ctx context.Context) error {
	was := secretMeta{uid: w.at.uid, version: w.at.version}
	if err := w.l.secrets.remove(ctx, w.key, was); errors.Is(err, errChanged) {
		return w.lookAgain(ctx, err)
	} else if err != nil {
		return err
	}
	w.room.deleted(w.key.Name, was)
	w.at, w.replaced = target{}, true
	return errChanged
}

// wrote notes that the Secret is as m now, and returns what that comes to.
func (w *writing) wrote(m secretMeta) string {
	was, changed := w.secret, w.at.uid != m.uid || w.at.version != m.version
	next := &v1alpha1.DeliveredSecret{
		UID: string(m.uid), ResourceVersion: m.version, Generation: w.object.Generation,
		DeliveredAt: metav1.NewTime(w.l.c.config.Now().UTC().Truncate(timePrecision)), Adopted: w.at.adopted,
	}
	edited := w.edited()
	if was != nil && !changed {
		next.DeliveredAt = was.DeliveredAt
	}
	switch {
	case edited && changed:
		w.l.edits.put(w.key)
	case edited:
		w.l.touches.put(w.key)
	}
	w.secret = next
	w.delivered()
	switch {
	case w.replaced:
		w.tell(true, EventReplaced, "Secret %s was immutable or of another type: it was deleted and made anew", w.key)
	case w.adopting:
		w.tell(false, EventAdopted, "Secret %s, which was not Safe's, is now", w.key)
	case edited && changed && w.at.uid == "":
		w.revert("Secret %s was deleted by somebody else, and made anew")
	case edited && changed:
		w.revert("Secret %s was changed by somebody else, and put back")
	}
	if !changed {
		return resultUnchanged
	}
	return resultDelivered
}

func (w *writing) revert(format string) {
	w.l.c.metrics.reverted.Inc()
	w.tell(true, EventReverted, format, w.key)
}
