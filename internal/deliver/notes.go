package deliver

import (
	"context"
	"errors"
	"fmt"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

var _ reconcile.Observer = (*Controller)(nil)

// A note is what sources told of an object that is not in its status yet, or that
// goes on being so.
type note struct {
	revision sync.Revision // with which it was applied; empty once that is in the status
	refused  *condition.Verdict
	by       string // the source that refuses it
	fine     bool   // it is not refused any more, though its status says so
}

// Applied implements [reconcile.Observer].
func (c *Controller) Applied(_ string, key store.Key, revision sync.Revision) {
	c.mu.Lock()
	n := c.notes[key]
	n.revision = revision
	c.notes[key] = n
	l := c.lead
	c.mu.Unlock()
	l.look(key)
}

// Stands implements [reconcile.Observer]. Where the status says with which revision the object became what it is, nothing
// is new; else whoever was told of that led no more when it was to be written.
func (c *Controller) Stands(source string, key store.Key, revision sync.Revision) {
	standing, ok := c.config.Store.Standing(key)
	if s := standing.Status; !ok || s != nil && s.ObservedGeneration == standing.Generation && s.Revision != "" {
		return
	}
	c.Applied(source, key, revision)
}

// Refused implements [reconcile.Observer].
func (c *Controller) Refused(source string, key store.Key, faults []*encrypt.Fault) {
	if len(faults) > 0 && !c.owns(source, key) {
		// Whoever's it is has nothing to repair.
		c.event(key, true, ReasonConflict, fmt.Sprintf("source %s declares this object, too, which is not its: %s", source, faults[0].Error()))
		return
	}
	standing, _ := c.config.Store.Standing(key)
	_, before := refusedBefore(standing.Status)
	c.mu.Lock()
	was := c.notes[key]
	now := note{revision: was.revision, refused: refusal(faults), fine: len(faults) == 0 && (before || was.refused != nil)}
	if now.refused != nil {
		now.by = source
	}
	c.note(key, now)
	l := c.lead
	c.mu.Unlock()
	if now != was { // of all that is well, too, sources tell when they begin
		l.look(key)
	}
}

// note sets what was told of the object of key. c.mu is held.
func (c *Controller) note(key store.Key, n note) {
	if n == (note{}) {
		delete(c.notes, key)
	} else {
		c.notes[key] = n
	}
}

// SourceRemoved takes in that a source is gone, and with it whatever it refused: its objects stay as they are.
func (c *Controller) SourceRemoved(source string) {
	if c.leading() == nil {
		return
	}
	objects, err := c.config.Store.List(context.Background())
	if err != nil {
		return // the store was closed
	}
	for _, o := range objects {
		if store.OwnerOf(o) == source {
			c.Refused(source, store.KeyOf(o), nil)
		}
	}
}

// Forget drops all that sources told: call it when a term has ended, and the sources of that term have, too. Those of
// the next one tell anew, and some of these may not be among them.
func (c *Controller) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.notes)
}

// Restored implements [reconcile.Observer].
func (c *Controller) Restored(source string, key store.Key, how string) {
	c.event(key, true, EventRestored, fmt.Sprintf("somebody else had %s this object, and source %s put it back", how, source))
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

// forget drops what of n is in the status now, or of an object that is gone.
func (c *Controller) forget(key store.Key, n note) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, ok := c.notes[key]
	if !ok || now != n {
		return // it was told more
	}
	c.note(key, note{refused: now.refused, by: now.by})
}

// refusedPrefix begins what the status says of a manifest that was refused.
const refusedPrefix = "what its source declares is refused, and this object stays as it was: "

// refusal returns what the status says of faults.
func refusal(faults []*encrypt.Fault) *condition.Verdict {
	if len(faults) == 0 {
		return nil
	}
	v := &condition.Verdict{State: condition.Failed, Reason: ReasonRefused}
	for _, f := range faults {
		if errors.Is(f.Err, reconcile.ErrContested) || errors.Is(f.Err, store.ErrNotOwned) {
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
