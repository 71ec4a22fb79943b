package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/validity"
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
	found, err := c.standings(w)
	if err != nil {
		return nil, err
	}
	all := make([]Standing, len(found))
	for i, f := range found {
		all[i] = f.Standing
		// Not while c.mu is held: there may be many values.
		all[i].Updated = f.version.updated()
	}
	slices.SortFunc(all, func(a, b Standing) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// tryUnread opens what w is served and nobody has read yet, and what is served to it instead where that fails.
func (c *Cache) tryUnread(ctx context.Context, w identity.Workload) error {
	for {
		unread, err := c.unread(w)
		if err != nil || len(unread) == 0 {
			return err
		}
		for _, v := range unread {
			f, err := c.try(ctx, v)
			if err != nil {
				return err
			}
			c.judge(v, f)
		}
	}
}

func (c *Cache) unread(w identity.Workload) (all []*version, err error) {
	served := c.look(w)
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.sealed {
		return nil, ErrSealed
	}
	for _, v := range served.versions {
		// One that was overtaken meanwhile stays as it is.
		if o := c.objects[v.key]; !v.good && o != nil && o.served() == v {
			all = append(all, v)
		}
	}
	return all, nil
}

// A found is a standing, but for Updated, and the version that it is about.
type found struct {
	Standing
	version *version
}

func (c *Cache) standings(w identity.Workload) ([]found, error) {
	for {
		all, known, err := c.standingsOf(w, c.look(w))
		if known || err != nil {
			return all, err
		}
	}
}

// standingsOf returns how each object fares that names w, unless w is served something else than that by now. All others
// are served meanwhile.
func (c *Cache) standingsOf(w identity.Workload, that *view) (all []found, known bool, err error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	switch a := c.audiences[w]; {
	case c.sealed:
		return nil, false, ErrSealed
	case a == nil && that != emptyView, a != nil && a.view != that:
		return nil, false, nil
	}
	for name := range c.names[w.Namespace] {
		if o := c.objects[store.Key{Namespace: w.Namespace, Name: name}]; o.names(w) {
			all = append(all, o.standing(w, that))
		}
	}
	return all, true, nil
}

// names tells whether w is to read o, or does still.
func (o *object) names(w identity.Workload) bool {
	if v := o.served(); v != nil && slices.Contains(v.readers, w) {
		return true
	}
	return slices.Contains(encrypt.Readers(o.newest.object), w.Name)
}

// standing returns how o fares with w, which is served that.
func (o *object) standing(w identity.Workload, that *view) found {
	v, window := o.newest, o.newest.window
	s := Standing{State: Served, NotBefore: window.NotBefore, ExpiresAt: window.ExpiresAt}
	switch served := o.served(); {
	case o.phase == validity.NotYet:
		s.State, s.Reason = NotYetValid, "it is not valid before "+window.NotBefore.Format(time.RFC3339)
	case o.phase == validity.Expired:
		s.State, s.Reason = Expired, "it expired at "+window.ExpiresAt.Format(time.RFC3339)
	case served == nil:
		s.State, s.Reason = Unreadable, o.newest.why()
	case !slices.Contains(served.readers, w):
		s.State, s.Reason = Unreadable, "the version that names this workload cannot be read: "+o.newest.why()
	default:
		v = served
		if !slices.Contains(that.versions, served) {
			s.State, s.Reason = LeftOut, "the workload has more secrets than an answer has room for"
		} else if served != o.newest {
			s.Reason = "an older version is served: the newest cannot be read: " + o.newest.why()
		}
	}
	s.Name, s.Version = v.key.Name, v.id()
	return found{s, v}
}

// why says why v is not served, of which an older version is.
func (v *version) why() string {
	if v.fault == nil {
		return "it has yet to be tried"
	}
	if errors.Is(v.fault.err, encrypt.ErrElsewhere) {
		// The whole error says for which object it was sealed, and for whom: that may be another tenant's.
		return fmt.Sprintf("key %q: %v", v.fault.key, encrypt.ErrElsewhere)
	}
	return v.fault.Error()
}

// updated returns when the newest of v's values was sealed, by their headers. They are read once: a workload may ask as
// often as it likes.
func (v *version) updated() time.Time {
	v.headers.Do(func() {
		for _, sealed := range v.object.Spec.EncryptedData {
			if info, err := encrypt.Inspect(sealed); err == nil && info.SealedAt.After(v.sealedAt) {
				v.sealedAt = info.SealedAt
			}
		}
	})
	return v.sealedAt
}
