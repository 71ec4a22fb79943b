package deliver

import (
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/render"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// errPanic is the fault of a value that broke the code that opens it.
var errPanic = errors.New("opening it panicked")

// An opened is what came of opening the values of one version of an object.
type opened struct {
	values values   // if they were to be kept: the caller's to wipe
	keyIDs []string // the root keys that the values are sealed to and that are held
	fault  *condition.Verdict
	// retry is when the fault may be gone by itself; zero: when the object or the keys change.
	retry time.Time
}

// openAll opens every value of o, or, at the first one that does not open, says so; and makes of them what o's template
// does. It keeps what is delivered if asked to.
func (c *Controller) openAll(o *v1alpha1.EncryptedSecret, keep bool) opened {
	all := c.openSealed(o, keep || o.Spec.Template != nil)
	if o.Spec.Template == nil || all.fault != nil {
		return all
	}
	made, err := render.Values(o, all.values, c.config.Log)
	all.values.wipe()
	if err != nil {
		return opened{fault: &condition.Verdict{State: condition.Failed, Reason: ReasonTemplateFailed, Message: "spec.template: " + err.Error()}}
	}
	if all.values = made; !keep {
		all.values.wipe()
	}
	return all
}

// openSealed opens every value of o, or, at the first one that does not open, says so. It keeps them if asked to.
func (c *Controller) openSealed(o *v1alpha1.EncryptedSecret, keep bool) opened {
	all := opened{values: make(values)}
	ids := make(map[string]struct{}, 1)
	binding := encrypt.BindingOf(o, "") // once: a template takes time
	for _, key := range slices.Sorted(maps.Keys(o.Spec.EncryptedData)) {
		binding.Key = key
		value, err := c.openOne(o, binding)
		var info encrypt.Info
		if err == nil {
			info, err = encrypt.Inspect(o.Spec.EncryptedData[key])
		}
		if keep && err == nil {
			all.values[key] = value
		} else {
			clear(value)
		}
		if err != nil {
			all.values.wipe()
			return unreadable(o, key, err)
		}
		for _, id := range info.KeyIDs {
			if c.holds(string(id)) {
				ids[string(id)] = struct{}{}
			}
		}
	}
	all.keyIDs = slices.Sorted(maps.Keys(ids))
	return all
}

// openOne opens the value under the key of its binding. It parses what anyone may have written who can push: should that break it,
// it is a fault of that value, and not the end of Safe.
func (c *Controller) openOne(o *v1alpha1.EncryptedSecret, b encrypt.Binding) (value []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			// What was recovered might quote the value.
			value, err = nil, fmt.Errorf("%w: %T", errPanic, r)
			c.config.Log.Error("opening a value broke off", "object", store.KeyOf(o).String(), "key", b.Key, "stack", string(debug.Stack()))
		}
	}()
	value, err = encrypt.Open(o.Spec.EncryptedData[b.Key], b, c.config.Keys, c.config.Now())
	if err == nil {
		c.metrics.opened.Inc()
	}
	return value, err
}

func unreadable(o *v1alpha1.EncryptedSecret, key string, err error) opened {
	v := &condition.Verdict{State: condition.Failed, Reason: ReasonUnreadable, Message: fmt.Sprintf("key %s does not open: %v", key, err)}
	var retry time.Time
	switch {
	case errors.Is(err, encrypt.ErrKeyNotHeld):
		v.Reason = ReasonKeyNotHeld
	case errors.Is(err, encrypt.ErrFuture):
		v.State = condition.Progressing
		if info, err := encrypt.Inspect(o.Spec.EncryptedData[key]); err == nil {
			retry = info.SealedAt.Add(-encrypt.MaxClockSkew)
		}
	}
	return opened{fault: v, retry: retry}
}

func (c *Controller) holds(id string) bool {
	_, held := c.config.Keys.Identity(encrypt.KeyID(id))
	return held
}

// openedBefore returns the root keys of the values, if it is known that they open, as they do still; else nil.
func (r *round) openedBefore() []string {
	ids := r.before.keyIDs
	if r.before.generation != r.object.Generation || len(ids) == 0 ||
		slices.ContainsFunc(ids, func(id string) bool { return !r.l.c.holds(id) }) {
		return nil
	}
	return ids
}
