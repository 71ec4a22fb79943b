package cache

import (
	"context"
	"errors"
	"fmt"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// ErrUnreadable says that there is an object, and no version of it that opens.
var ErrUnreadable = errors.New("the object cannot be read")

// A Revealed is one object's values, for an operator.
type Revealed struct {
	// Secret has the values as they were sealed, also where a template makes others of them.
	Secret
	// Type of the Kubernetes Secret that the object asks to be delivered as; empty if
	// it asks for none.
	Type string
	// Sealed are the sealed values that were opened, by key. They are shared with the store: not to be changed.
	Sealed map[string]string
}

// Reveal returns what is sealed in the newest version of an object of which all values open: to whomever it is
// served, and also where it is not valid now, or its template fails. The caller must [Wipe] its values. Errors:
// [store.ErrNotFound], [ErrUnreadable] (which says why, and quotes nothing secret), [ErrSealed], and ctx's.
func (c *Cache) Reveal(ctx context.Context, key store.Key) (Revealed, error) {
	versions, err := c.versionsOf(key)
	if err != nil {
		return Revealed{}, err
	}
	var first *fault // that of the newest version
	for _, v := range versions {
		f := &fault{err: v.invalid}
		if v.invalid == nil {
			var s Secret
			if s, f, err = c.readSealed(ctx, v); err != nil {
				return Revealed{}, err
			}
			if f == nil {
				if v.hopeless() == nil && v.output == nil {
					c.judge(v, nil)
				}
				return Revealed{Secret: s, Type: typeOf(v.object), Sealed: v.object.Spec.EncryptedData}, nil
			}
			c.judge(v, f)
		}
		if first == nil {
			first = f
		}
	}
	return Revealed{}, fmt.Errorf("%s: %w: %w", key, ErrUnreadable, first)
}

// typeOf returns the type of the Kubernetes Secret that o asks for, or "".
func typeOf(o *v1alpha1.EncryptedSecret) string {
	switch d := o.Spec.Secret; {
	case d == nil:
		return ""
	case d.Type == "":
		return encrypt.DefaultSecretType
	default:
		return d.Type
	}
}

// SizeOf returns how many bytes the sealed values of an object take in an answer, at most; 0
// if there is none. Nothing is decrypted for it.
func (c *Cache) SizeOf(key store.Key) (size int) {
	versions, _ := c.versionsOf(key)
	for _, v := range versions {
		size = max(size, v.revealed)
	}
	return size
}

// Objects returns how many objects there are, readable or not.
func (c *Cache) Objects() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.objects)
}

// ObjectsIn returns how many of them are in a namespace.
func (c *Cache) ObjectsIn(namespace string) int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.names[namespace])
}

// versionsOf returns the versions of an object that are kept, the newest first.
func (c *Cache) versionsOf(key store.Key) ([]*version, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.sealed {
		return nil, ErrSealed
	}
	o := c.objects[key]
	switch {
	case o == nil:
		return nil, fmt.Errorf("%s: %w", key, store.ErrNotFound)
	case o.last == nil:
		return []*version{o.newest}, nil
	}
	return []*version{o.newest, o.last}, nil
}
