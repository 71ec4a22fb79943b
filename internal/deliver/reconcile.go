package deliver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/validity"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// errRetry asks for another look soon, and later each time.
var errRetry = errors.New("try again")

// tries is how often a write is tried when others write at the same time.
const tries = 5

// patientTries is how often an API server may fail to serve before the status tells of it.
const patientTries = 3

// A round is one look at one object. Its steps leave in it what they found; [round.settle] makes a
// status and events of that, and nothing else does.
type round struct {
	l        *lead
	key      store.Key
	object   *v1alpha1.EncryptedSecret
	standing kubestore.Standing
	era      uint64
	noted    note    // what sources had told before that was read
	before   unsaved // what was known when the round began
	now      time.Time
	window   validity.Window

	verdict condition.Verdict
	keyIDs  []string // of what opens; nil if not all of it does
	secret  *v1alpha1.DeliveredSecret
	events  []happening
	// afterwards is told once the status is written, which says that it was.
	afterwards []happening
	quiet      bool          // nothing is to be told
	again      bool          // look again soon, and later each time
	after      time.Duration // look again then; zero: when something changes
}

// A happening is told as an event.
type happening struct {
	warning         bool
	reason, message string
}

// reconcile looks at the object of key: when to look again, zero if only when something changes, or
// errRetry.
func (l *lead) reconcile(ctx context.Context, key store.Key) (time.Duration, error) {
	noted := l.c.noted(key) // of what is told from now on, another round comes
	r, exists, err := l.begin(ctx, key, noted)
	switch {
	case err != nil:
		return 0, err
	case !exists:
		return l.gone(ctx, key, noted)
	case r.standing.Fault != nil:
		return 0, r.undecodable(ctx)
	case r.era == 0:
		return 0, nil // who unseals asks for a look at everything
	}
	l.undecodable.Delete(key)
	switch {
	case r.window.At(r.now) != validity.Valid:
		r.outside(ctx)
	case l.asks(r.object):
		r.deliver(ctx)
	default:
		r.withdraw(ctx)
	}
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if l.c.config.Era() != r.era {
		r.quiet = true // what was found while keys were taken away is no finding
	}
	r.lookWhenDue()
	return r.settle(ctx)
}

// begin reads the newest version of an object, and what is known of that very one.
func (l *lead) begin(ctx context.Context, key store.Key, noted note) (*round, bool, error) {
	for range tries {
		r := &round{l: l, key: key, noted: noted, era: l.c.config.Era()}
		var ok bool
		if r.standing, ok = l.c.config.Store.Standing(key); !ok {
			return nil, false, nil
		}
		r.before = l.known(key, r.standing)
		r.secret = r.before.secret
		if r.standing.Fault != nil {
			return r, true, nil
		}
		object, err := l.c.config.Store.Get(ctx, key)
		switch {
		case errors.Is(err, store.ErrNotFound):
			continue
		case err != nil:
			return nil, false, err
		}
		if object.UID == r.standing.UID && object.Generation == r.standing.Generation {
			r.object, r.now, r.window = object, l.c.config.Now(), validity.Of(object)
			return r, true, nil
		}
	}
	return nil, true, errRetry
}

// keep remembers what was found out, though it is not in the status.
func (r *round) keep() {
	if r.object == nil || r.keyIDs == nil && r.secret == r.before.secret {
		return
	}
	r.l.remember(r.key, unsaved{object: r.standing.UID, generation: r.object.Generation, keyIDs: r.keyIDs, secret: r.secret})
}

func (r *round) fail(state condition.State, reason, format string, args ...any) {
	r.verdict = condition.Verdict{State: state, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func (r *round) tell(warning bool, reason, format string, args ...any) {
	r.events = append(r.events, happening{warning, reason, fmt.Sprintf(format, args...)})
}

// undecodable: Ready=False, Stalled, Undecodable, if the API server writes a status to such an object. Whether or
// not, an event tells of it, and nothing more until the fault is another.
func (r *round) undecodable(ctx context.Context) error {
	r.fail(condition.Failed, ReasonUndecodable, "the object cannot be decoded, and what was known of it before stays: %v", r.standing.Fault)
	if told, ok := r.l.undecodable.Swap(r.key, r.verdict.Message); ok && told == r.verdict.Message {
		return nil
	}
	r.tell(true, r.verdict.Reason, "%s", r.verdict.Message)
	_, err := r.settle(ctx)
	switch {
	case errors.Is(err, kubestore.ErrUnavailable), errors.Is(err, kubestore.ErrBusy):
		r.l.undecodable.Delete(r.key) // the status still says what was true before
		return err
	case errors.Is(err, errRetry):
		return nil // the API server writes no status to such an object
	}
	return err
}

// judge sees that all values open and that the template makes something of them, unless that is known: Unreadable,
// KeyNotHeld or TemplateFailed if not. It returns them if they are
// to be kept, and whether they open.
func (r *round) judge(keep bool) (values, bool) {
	if r.keyIDs = r.openedBefore(); !keep && r.keyIDs != nil {
		return nil, true
	}
	all := r.l.c.openAll(r.object, keep)
	if all.fault != nil {
		r.keyIDs, r.verdict = nil, *all.fault
		if !all.retry.IsZero() {
			r.after = max(time.Second, all.retry.Sub(r.l.c.config.Now()))
		}
		return nil, false
	}
	r.keyIDs = all.keyIDs
	return all.values, true
}

// refused tells why nothing is delivered whatever stands there: DeliveryRefused, LabelsRefused.
func (r *round) refused() bool {
	d := r.object.Spec.Secret
	if r.key.Name == encrypt.RootKeySecret {
		r.fail(condition.Failed, ReasonDeliveryRefused, "a Secret of this name is never delivered")
		return true
	}
	if err := encrypt.ValidateSecretType(typeOf(d)); err != nil {
		r.fail(condition.Failed, ReasonDeliveryRefused, "spec.secret.type: %v", err)
		return true
	}
	for field, names := range map[string]map[string]string{"labels": d.Metadata.Labels, "annotations": d.Metadata.Annotations} {
		for name := range names {
			if encrypt.ReservedMetadata(name) {
				r.fail(condition.Failed, ReasonLabelsRefused,
					"spec.secret.metadata.%s: %s: what is of kubernetes.io or vsecm.com is not a manifest's to set: remove it from there", field, name)
				return true
			}
		}
	}
	return false
}

// withdraw is for an object that asks for no Kubernetes Secret, or may not: Ready, Served. One that it
// was delivered as before is deleted.
func (r *round) withdraw(ctx context.Context) {
	if _, ok := r.judge(false); !ok {
		return
	}
	if r.object.Spec.Secret != nil {
		r.fail(condition.Failed, ReasonDeliveryRefused, "nothing is ever delivered into namespace %s, which is Safe's own", r.key.Namespace)
		return
	}
	if !r.remove(ctx) {
		return
	}
	readers := "no workload"
	if names := encrypt.Readers(r.object); len(names) > 0 {
		readers = strings.Join(names, ", ")
	}
	r.fail(condition.Current, ReasonServed, "its values open, and are served to %s", readers)
}

// remove deletes the Secret that the object asks for no more, and reports whether it is done.
func (r *round) remove(ctx context.Context) bool {
	var now *secretMeta
	if room := r.l.room(r.key.Namespace); room != nil {
		now, _ = room.secret(r.key.Name)
	}
	if r.secret == nil && (now == nil || now.owner == "") {
		return true
	}
	m, err := r.l.secrets.look(ctx, r.key)
	switch {
	case err != nil || m.owner == "":
	case m.owner == r.standing.UID:
		if err = r.l.secrets.remove(ctx, r.key, m); err == nil {
			r.l.tookAway(r.key, m)
			r.tell(false, EventDeleted, "deleted Secret %s, which the object asks for no more", r.key)
		}
	case m.labeled:
		err = r.l.collect(ctx, r.key, m)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		r.cannot(err, "deleting Secret "+r.key.String())
		return false
	}
	r.secret = nil
	return true
}

// cannot says what err, of a request for a Secret, means: DeliveryForbidden, DeliveryFailed.
func (r *round) cannot(err error, doing string) {
	switch {
	case errors.Is(err, errBehind):
		r.quiet, r.again = true, true
	case errors.Is(err, errNamespaceEnding):
		r.quiet, r.after = true, endingRetry
	case errors.Is(err, errForbidden):
		r.forbidden()
	case errors.Is(err, errInvalid):
		r.after = invalidRetry
		r.fail(condition.Failed, ReasonDeliveryFailed, "%s: %v", doing, err)
	default:
		r.again = true
		r.quiet = r.l.queue.NumRequeues(r.key) < patientTries
		r.fail(condition.Progressing, ReasonDeliveryFailed, "%s: %v", doing, err)
	}
}

// forbidden: DeliveryForbidden.
func (r *round) forbidden() {
	r.after = r.l.c.config.RetryPeriod
	r.fail(condition.Failed, ReasonDeliveryForbidden,
		"Safe may not write Secrets in namespace %s; to let it: kubectl create rolebinding vsecm-deliver -n %s --clusterrole=vsecm-deliver --serviceaccount=%s:%s",
		r.key.Namespace, r.key.Namespace, r.l.c.config.Namespace, account)
}

// account is the ServiceAccount that Safe runs as.
const account = "vsecm-safe"

// tookAway notes that a Secret was deleted.
func (l *lead) tookAway(key store.Key, m secretMeta) {
	if room := l.room(key.Namespace); room != nil {
		room.deleted(key.Name, m)
	}
}

// gone deletes the Secret of an object that is gone, where Kubernetes has not yet.
func (l *lead) gone(ctx context.Context, key store.Key, noted note) (time.Duration, error) {
	l.saved(key)
	l.want(key, false) // a look at it may have asked for it after the watch told of its end
	l.undecodable.Delete(key)
	l.c.forget(key, noted)
	defer l.leave(key.Namespace)
	room := l.room(key.Namespace)
	if room == nil {
		return 0, nil
	}
	now, _ := room.secret(key.Name)
	if now == nil || now.owner == "" {
		return 0, nil
	}
	switch err := l.collect(ctx, key, *now); {
	case err == nil:
		return 0, nil
	case errors.Is(err, errForbidden):
		return l.c.config.RetryPeriod, nil
	case errors.Is(err, errNamespaceEnding):
		return endingRetry, nil
	}
	return 0, errRetry
}

// collect deletes a Secret unless the object that it goes with is there: then the watch of
// objects is yet to tell of that.
func (l *lead) collect(ctx context.Context, key store.Key, m secretMeta) error {
	exists, err := l.exists(ctx, key, m)
	if err != nil || exists {
		return err
	}
	if err := l.secrets.remove(ctx, key, m); err != nil {
		return err
	}
	l.tookAway(key, m)
	return nil
}

// exists asks the API server for the object that m goes with. What is in memory may be old, when a
// replica has just begun to lead.
func (l *lead) exists(ctx context.Context, key store.Key, m secretMeta) (bool, error) {
	now, err := l.lookAtObject(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil && now.uid == m.owner && (!now.ending || now.orphaning), err
}

// newest fails with errBehind unless o is the newest version of its object, by the API server's word. Else
// a replica that has just begun to lead could write over what the last leader delivered, and which it
// is yet to be told of.
func (l *lead) newest(ctx context.Context, key store.Key, o *v1alpha1.EncryptedSecret) error {
	now, err := l.lookAtObject(ctx, key)
	if errors.Is(err, store.ErrNotFound) || err == nil && (now.uid != o.UID || now.generation != o.Generation) {
		return errBehind
	}
	return err
}

// lookAtObject asks the API server for an object's metadata.
func (l *lead) lookAtObject(ctx context.Context, key store.Key) (secretMeta, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	result := l.c.config.Client.VSecM.Get().Namespace(key.Namespace).Resource(v1alpha1.ResourceEncryptedSecrets).Name(key.Name).
		SetHeader("Accept", metadataOnly).Do(ctx)
	err := result.Error()
	if status, ok := asStatus(err); ok && status.Reason == metav1.StatusReasonNotFound {
		return secretMeta{}, store.ErrNotFound
	} else if err != nil {
		return secretMeta{}, writeError(err, nil)
	}
	answer, err := result.Raw()
	if err != nil {
		return secretMeta{}, err
	}
	return decodeMeta(answer)
}
