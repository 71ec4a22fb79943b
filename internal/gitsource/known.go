package gitsource

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"k8s.io/client-go/tools/cache"

	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// known is the side of a Controller that the watch of GitSources writes to.
type known Controller

var _ cache.ReflectorStore = (*known)(nil)

// Add implements [cache.ReflectorStore].
func (k *known) Add(o any) error { return k.Update(o) }

// Update implements [cache.ReflectorStore].
func (k *known) Update(o any) error {
	r, ok := o.(*received)
	if !ok {
		return fmt.Errorf("the watch told of a %T", o)
	}
	c := (*Controller)(k)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.learn(r) {
		c.followSecrets()
	}
	return nil
}

// Delete implements [cache.ReflectorStore].
func (k *known) Delete(o any) error {
	r, ok := o.(*received)
	if !ok {
		return fmt.Errorf("the watch told of a %T", o)
	}
	c := (*Controller)(k)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unlearn(r.key())
	c.followSecrets()
	return nil
}

// Replace implements [cache.ReflectorStore].
func (k *known) Replace(list []any, _ string) error {
	c := (*Controller)(k)
	c.mu.Lock()
	defer c.mu.Unlock()
	listed := make(map[store.Key]bool, len(list))
	for _, o := range list {
		r, ok := o.(*received)
		if !ok {
			return fmt.Errorf("the list has a %T", o)
		}
		listed[r.key()] = true
		c.learn(r)
	}
	for key := range c.known {
		if !listed[key] {
			c.unlearn(key)
		}
	}
	c.followSecrets()
	select {
	case <-c.listed:
	default:
		close(c.listed)
	}
	return nil
}

// Resync implements [cache.ReflectorStore].
func (k *known) Resync() error { return nil }

// learn takes in a GitSource, and reports whether somebody else than a status's writer changed it. c.mu is held.
func (c *Controller) learn(r *received) bool {
	key := r.key()
	before := c.known[key]
	c.known[key] = r
	if before != nil && before.UID == r.UID && before.Generation == r.Generation && before.requested() == r.requested() {
		return false
	}
	if before == nil || before.UID != r.UID || before.Generation != r.Generation {
		delete(c.hooks, key)
	}
	c.start(key)
	return true
}

// unlearn forgets a GitSource. c.mu is held.
func (c *Controller) unlearn(key store.Key) {
	delete(c.known, key)
	delete(c.hooks, key)
	if c.term != nil && c.term.runners[key] != nil {
		c.term.runners[key].hint()
	}
}

func (c *Controller) lookup(key store.Key) *received {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[key]
}

func (c *Controller) keys() []store.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(maps.Keys(c.known), compareKeys)
}

func compareKeys(a, b store.Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// followSecrets has the Secrets watched of those namespaces alone that have a source which names one. c.mu
// is held.
func (c *Controller) followSecrets() {
	wanted := make(map[string]bool)
	for key, r := range c.known {
		if s := &r.spec; s.SecretRef != nil || s.Webhook != nil || s.Verify != nil && s.Verify.SecretRef != nil {
			wanted[key.Namespace] = true
		}
	}
	for namespace, w := range c.watches {
		if !wanted[namespace] {
			w.stop()
			delete(c.watches, namespace)
		}
	}
	for namespace := range wanted {
		if c.watches[namespace] != nil || c.watch == nil {
			continue
		}
		w := &secretWatch{namespace: namespace, changed: func() { c.secretsChanged(namespace) }}
		c.watches[namespace] = w
		c.watch(w)
	}
}

// secretsChanged has the sources of a namespace look whether it concerns them.
func (c *Controller) secretsChanged(namespace string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.hooks, func(key store.Key, _ *hook) bool { return key.Namespace == namespace })
	if c.term == nil {
		return
	}
	for key, r := range c.term.runners {
		if key.Namespace == namespace {
			r.hint()
		}
	}
}

// outdated tells whether one of the Secrets that were read, by their names, is another by now.
func (c *Controller) outdated(namespace string, read map[string]secret) bool {
	c.mu.Lock()
	w := c.watches[namespace]
	c.mu.Unlock()
	if w == nil {
		return false
	}
	for name, s := range read {
		if w.outdated(name, s) {
			return true
		}
	}
	return false
}
