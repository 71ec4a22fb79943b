package cache

import (
	"context"
	"errors"
	"fmt"

	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// ErrUnreadable says that there is an object, and no version of it that opens.
var ErrUnreadable = errors.New("the object cannot be read")

// A Revealed is one object's values, for an operator.
type Revealed struct {
	// Secret is the object as its workloads get it.
	Secret
	// Type of the Kubernetes Secret that the object asks to be delivered as; empty if
	// it asks for none.
	Type string
}

// Reveal returns the version of an object that its workloads are served, whoever they
// are. The caller must [Wipe] its values. Errors: [store.ErrNotFound],
// [ErrUnreadable] (which says why, and quotes nothing secret), [ErrSealed], and
// ctx's.
func (c *Cache) Reveal(ctx context.Context, key store.Key) (Revealed, error) {
	for {
		v, err := c.servedOf(key)
		if err != nil {
			return Revealed{}, err
		}
		s, f, err := c.read(ctx, v)
		if err != nil {
			return Revealed{}, err
		}
		c.judge(v, f)
		if f == nil {
			r := Revealed{Secret: s}
			if d := v.object.Spec.Secret; d != nil {
				if r.Type = d.Type; r.Type == "" {
					r.Type = "Opaque"
				}
			}
			return r, nil
		}
		// It is not served any more; the one before it may be.
	}
}

// SizeOf returns how many bytes the values of an object take in an answer, at most; 0
// if there is none that can be read. Nothing is decrypted for it.
func (c *Cache) SizeOf(key store.Key) int {
	v, err := c.servedOf(key)
	if err != nil {
		return 0
	}
	return v.size
}

// Objects returns how many objects there are, readable or not.
func (c *Cache) Objects() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.objects)
}

func (c *Cache) servedOf(key store.Key) (*version, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.sealed {
		return nil, ErrSealed
	}
	o := c.objects[key]
	if o == nil {
		return nil, fmt.Errorf("%s: %w", key, store.ErrNotFound)
	}
	if v := o.served(); v != nil {
		return v, nil
	}
	f := o.newest.fault
	if f.key == "" {
		return nil, fmt.Errorf("%s: %w: %w", key, ErrUnreadable, f.err)
	}
	return nil, fmt.Errorf("%s: %w: key %q: %w", key, ErrUnreadable, f.key, f.err)
}
