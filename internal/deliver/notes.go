package deliver

import (
	"context"
	"errors"
	"fmt"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// A note is what sources told of an object that is not in its status yet, or that
// goes on being so.
type note struct {
	revision sync.Revision // with which it was applied; empty once that is in the status
	refused  *condition.Verdict
}

// Applied implements reconcile.Observer: the object stands as the revision has it.
func (c *Controller) Applied(_ string, key store.Key, revision sync.Revision) {
	c.mu.Lock()
	c.notes[key] = note{revision: revision}
	l := c.lead
	c.mu.Unlock()
	l.look(key)
}

// Refused implements reconcile.Observer: what the source declares is not applied, for
// those faults. nil: nothing is wrong any more.
func (c *Controller) Refused(source string, key store.Key, faults []*encrypt.Fault) {
	if len(faults) > 0 && !c.owns(source, key) {
		// Whoever's it is has nothing to repair.
		c.event(key, true, ReasonConflict, fmt.Sprintf("source %s declares this object, too, which is not its: %s", source, faults[0].Error()))
		return
	}
	c.mu.Lock()
	n := c.notes[key]
	n.refused = refusal(faults)
	if n == (note{}) {
		delete(c.notes, key)
	} else {
		c.notes[key] = n
	}
	l := c.lead
	c.mu.Unlock()
	l.look(key)
}

// Restored implements reconcile.Observer: somebody had changed or deleted the object.
func (c *Controller) Restored(_ string, key store.Key, how string) {
	c.event(key, true, EventRestored, how)
}

// owns tells whether the object of key is source's, or is not there.
func (c *Controller) owns(source string, key store.Key) bool {
	owner, exists := c.ownerOf(key)
	return !exists || owner == source
}

// ownerOf returns the owner of the object of key, and whether there is one.
func (c *Controller) ownerOf(key store.Key) (owner string, exists bool) {
	o, err := c.config.Store.Get(context.Background(), key)
	if err != nil {
		return "", false
	}
	return store.OwnerOf(o), true
}

// noted returns what sources told of the object of key.
func (c *Controller) noted(key store.Key) note {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.notes[key]
}

// forget drops the revision of a note, which is in the status or of an object that is gone.
func (c *Controller) forget(key store.Key, revision sync.Revision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.notes[key]
	if !ok || n.revision != revision {
		return
	}
	if n.revision = ""; n.refused == nil {
		delete(c.notes, key)
	} else {
		c.notes[key] = n
	}
}

// refusedPrefix begins what the status says of a manifest that was refused.
const refusedPrefix = "its source has another manifest, which is refused; this object stays: "

// refusal returns what the status says of faults.
func refusal(faults []*encrypt.Fault) *condition.Verdict {
	if len(faults) == 0 {
		return nil
	}
	v := &condition.Verdict{State: condition.Failed, Reason: ReasonRefused}
	for _, f := range faults {
		if errors.Is(f.Err, store.ErrNotOwned) {
			v.Reason = ReasonConflict
		}
	}
	v.Message = refusedPrefix + faults[0].Error()
	if n := len(faults) - 1; n > 0 {
		v.Message += fmt.Sprintf(" (and %d more)", n)
	}
	return v
}

// event tells of something that happened to the object of key, if there is one.
func (c *Controller) event(key store.Key, warning bool, reason, message string) {
	standing, ok := c.config.Store.Standing(key)
	if !ok || c.config.Events == nil {
		return
	}
	c.config.Events.Event(kube.ObjectReference{
		APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret, Namespace: key.Namespace, Name: key.Name, UID: standing.UID,
	}, warning, reason, message)
}
