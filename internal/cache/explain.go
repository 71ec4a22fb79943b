package cache

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A State is why a workload gets an object, or does not.
type State string

// The states.
const (
	Served      State = "served"
	Unreadable  State = "unreadable"  // no version of it can be read
	NotYetValid State = "notYetValid" // spec.notBefore has yet to come
	Expired     State = "expired"     // spec.expiresAt has come
	LeftOut     State = "leftOut"     // the answer has no room for it
)

// A Standing is how an object fares that names a workload.
type Standing struct {
	// Name is the object's name. Its namespace is the workload's.
	Name string
	// Version is that of [Secret], of what is served; else that of the newest version.
	Version string
	// Updated is that of [Secret], as far as the values tell without being opened.
	Updated time.Time
	State   State
	// Reason says in a sentence why it is not served, or why an older version is; else it is empty. It names no other
	// object, and nothing secret.
	Reason string
	// NotBefore and ExpiresAt are the object's; zero where it has none.
	NotBefore, ExpiresAt time.Time
}

// Explain returns how each object fares that names w, sorted by name. What nobody has read yet is opened, so as to
// know whether it can be. Errors: [ErrSealed], and ctx's.
func (c *Cache) Explain(ctx context.Context, w identity.Workload) ([]Standing, error) {
	if err := c.tryUnread(ctx, w); err != nil {
		return nil, err
	}
	c.mu.Lock()
	served, news := c.audiences[w].look(w)
	// Logging waits for whoever reads the log: not while c.mu is held.
	defer c.reportLeftOut(w, news)
	defer c.mu.Unlock()
	if c.sealed {
		return nil, ErrSealed
	}
	var all []Standing
	for key, o := range c.objects {
		if key.Namespace == w.Namespace && o.names(w) {
			all = append(all, o.standing(served))
		}
	}
	slices.SortFunc(all, func(a, b Standing) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// tryUnread opens what w would be served, if nobody has yet.
func (c *Cache) tryUnread(ctx context.Context, w identity.Workload) error {
	secrets, _, err := c.Secrets(ctx, w)
	Wipe(secrets)
	return err
}

// names tells whether w is to read o, or does still.
func (o *object) names(w identity.Workload) bool {
	if served := o.served(); served != nil && slices.Contains(served.readers, w) {
		return true
	}
	return slices.Contains(encrypt.Readers(o.newest.object), w.Name)
}

// standing returns how o fares with one who is served that.
func (o *object) standing(that *view) Standing {
	v := o.served()
	if v == nil {
		return Standing{Name: o.newest.key.Name, Version: o.newest.id(), Updated: o.newest.updated(), State: Unreadable, Reason: o.newest.fault.sentence()}
	}
	s := Standing{Name: v.key.Name, Version: v.id(), Updated: v.updated(), State: Served}
	switch {
	case !slices.Contains(that.versions, v):
		s.State, s.Reason = LeftOut, "the workload has more secrets than an answer has room for"
	case v != o.newest && o.newest.fault != nil:
		s.Reason = "an older version is served, since the newest cannot be read: " + o.newest.fault.sentence()
	}
	return s
}

// updated returns when the newest of v's values was sealed, by their headers.
func (v *version) updated() (at time.Time) {
	for _, sealed := range v.object.Spec.EncryptedData {
		if info, err := encrypt.Inspect(sealed); err == nil && info.SealedAt.After(at) {
			at = info.SealedAt
		}
	}
	return at
}
