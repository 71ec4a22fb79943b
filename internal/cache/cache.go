// Package cache holds what Safe serves workloads from: every EncryptedSecret,
// indexed by who may read it, and the values that somebody has asked for.
//
// [Cache.Run] fills it from a store and follows the store's changes. Objects
// are shared with the store and stay sealed. A value is decrypted when it is
// first used, then kept encrypted under a key that only this process has, and
// that [Cache.Seal] destroys; its plaintext lives as long as the request that
// asked for it.
//
// # Versions
//
// Who may read an object, what its values must be bound to, and the values
// themselves are always those of one and the same version of it. A version is
// believed good until one of its values fails to open. When an object changes
// that is being served, its new version must open first: if it does not, the
// one before it goes on being served, and readers notice nothing. An object
// that has no good version is left out. Either way nothing else is harmed; the
// fault is logged once and counted.
//
// # Templates
//
// What workloads get of an object with a template is what the template makes. It is executed when a version is first
// used, and its output kept as values are. One that fails is a fault of its version. A version that has to be tried first
// is tried apart from all others: who writes slow templates keeps nobody's changes waiting but those of templates.
//
// # Validity
//
// Outside the window of its newest version an object is as if it were not there, also one that had a good version
// before. The clock is looked at with each call, and whoever waits is woken at the very time.
//
// # Size
//
// An answer has [answer.MaxSize] bytes at most, counting values as they are
// sealed. What a workload may read beyond that is left out, is logged once, and
// is counted by vsecm_left_out_objects.
package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vsecm/kubectl-vsecm/internal/answer"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// ErrSealed says that the cache was sealed: it holds no value, and opens none.
var ErrSealed = errors.New("sealed")

// errPanic is the fault of a value that broke the code that opens it.
var errPanic = errors.New("opening it panicked")

// A Secret is an object as a workload gets it.
type Secret struct {
	// Name is the object's name. Its namespace is the workload's.
	Name string
	// Version changes when, and only when, anything changes of what the
	// workload gets or what it is bound to: 16 hex digits, the same on every
	// replica.
	Version string
	// Updated is when the newest of the values was sealed, by the clock of
	// whoever sealed it; UTC, in whole seconds. Zero if there are no values.
	Updated time.Time
	// Data holds the values in plaintext. They are the caller's: [Wipe] them.
	Data map[string][]byte
}

// Wipe overwrites the values of secrets. Call it as soon as they were used.
func Wipe(secrets []Secret) {
	for _, s := range secrets {
		wipe(s.Data)
	}
}

func wipe(values map[string][]byte) {
	for _, value := range values {
		clear(value)
	}
}

// A Cache serves secrets to workloads. It is safe for concurrent use.
type Cache struct {
	keys    encrypt.Keys
	log     *slog.Logger
	metrics metrics
	vault   *vault
	now     func() time.Time
	synced  atomic.Bool

	// anew holds a token when there may be other times at which to try again.
	anew chan struct{}

	mu        sync.RWMutex
	objects   map[store.Key]*object
	names     map[string]map[string]struct{} // of the objects of each namespace
	audiences map[identity.Workload]*audience
	windows   windows
	pending   map[store.Key]struct{} // the objects of which something is to be tried later
	sealed    bool
}

// New returns an empty cache that opens values with keys, and registers its
// metrics with reg.
func New(keys encrypt.Keys, reg prometheus.Registerer, log *slog.Logger) *Cache {
	c := &Cache{
		keys:      keys,
		log:       log,
		vault:     newVault(),
		now:       time.Now,
		windows:   newWindows(),
		pending:   make(map[store.Key]struct{}),
		anew:      make(chan struct{}, 1),
		objects:   make(map[store.Key]*object),
		names:     make(map[string]map[string]struct{}),
		audiences: make(map[identity.Workload]*audience),
	}
	c.metrics = c.register(reg)
	return c
}

// Synced tells whether every object that existed when Run began is in.
func (c *Cache) Synced() bool { return c.synced.Load() }

// ETag returns a strong entity tag, in quotes, of what w may read. It is made
// from versions alone, so nothing is decrypted, and replicas that hold the
// same objects and found the same ones unreadable agree on it.
func (c *Cache) ETag(w identity.Workload) string {
	return c.look(w).tag
}

// Size returns how many bytes the answer to w has at most. Nothing is
// decrypted for it.
func (c *Cache) Size(w identity.Workload) int { return c.look(w).size }

// Sealed tells whether the cache is sealed.
func (c *Cache) Sealed() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.sealed
}

// look returns what w is served.
func (c *Cache) look(w identity.Workload) *view {
	c.mu.RLock()
	a := c.audiences[w]
	if (a == nil || a.view != nil) && c.windows.same(c.now()) {
		defer c.mu.RUnlock()
		v, _ := a.look(w)
		return v
	}
	c.mu.RUnlock()

	c.mu.Lock()
	turned := c.turn()
	v, leftOut := c.audiences[w].look(w)
	c.mu.Unlock()
	c.reportTurned(turned)
	c.reportLeftOut(w, leftOut)
	return v
}

// Secrets returns what w may read, sorted by name, and its entity tag. The
// caller must [Wipe] it. What cannot be read is left out, without an error;
// errors are ctx's, and [ErrSealed].
func (c *Cache) Secrets(ctx context.Context, w identity.Workload) ([]Secret, string, error) {
	if c.Sealed() {
		return nil, "", ErrSealed
	}
	served := c.look(w)
	secrets := make([]Secret, 0, len(served.versions))
	read := make([]*version, 0, len(served.versions))
	size := served.size
	for _, v := range served.versions {
		for v != nil {
			s, fault, err := c.read(ctx, v)
			if err != nil {
				Wipe(secrets)
				return nil, "", err
			}
			c.judge(v, fault)
			if fault == nil {
				secrets, read = append(secrets, s), append(read, v)
				break
			}
			size -= v.size
			if v = c.instead(w, v); v != nil {
				if size += v.size; size > answer.MaxSize {
					size, v = size-v.size, nil
				}
			}
		}
	}
	tag := served.tag
	if !slices.Equal(read, served.versions) {
		tag = tagOf(read)
	}
	return secrets, tag, nil
}

// instead returns the version that w is served of the object of v, which was
// found unreadable; nil if there is none.
func (c *Cache) instead(w identity.Workload, v *version) *version {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if a := c.audiences[w]; a != nil {
		if i, ok := a.find(v); ok && a.versions[i] != v {
			return a.versions[i]
		}
	}
	return nil
}

// read returns the secret of v. What is wrong with v itself is a fault; an
// error says that it could not be tried.
func (c *Cache) read(ctx context.Context, v *version) (Secret, *fault, error) {
	switch {
	case v.hopeless() != nil:
		return Secret{}, &fault{err: v.hopeless()}, nil
	case v.output == nil:
		return c.readSealed(ctx, v)
	}
	if err := ctx.Err(); err != nil {
		return Secret{}, nil, err
	}
	joined, sealedAt, err := c.vault.open(v.output.id, func() ([]byte, time.Time, error) { return c.render(v) })
	if errors.Is(err, ErrSealed) {
		return Secret{}, nil, err
	} else if err != nil {
		return Secret{}, newFault(v, "", err), nil
	}
	data, err := v.output.split(joined)
	if err != nil {
		clear(joined)
		return Secret{}, newFault(v, "", err), nil
	}
	return Secret{Name: v.key.Name, Version: v.id(), Updated: sealedAt, Data: data}, nil, nil
}

// readSealed returns the values of v as they were sealed. What is wrong with them is a fault; an error says that it
// could not be tried.
func (c *Cache) readSealed(ctx context.Context, v *version) (Secret, *fault, error) {
	s := Secret{Name: v.key.Name, Version: v.id(), Data: make(map[string][]byte, len(v.sealed))}
	for _, value := range v.sealed {
		if err := ctx.Err(); err != nil {
			Wipe([]Secret{s})
			return Secret{}, nil, err
		}
		plaintext, sealedAt, err := c.vault.open(value.id, func() ([]byte, time.Time, error) { return c.unseal(v, value.key) })
		if err != nil {
			Wipe([]Secret{s})
			if errors.Is(err, ErrSealed) {
				return Secret{}, nil, err
			}
			return Secret{}, newFault(v, value.key, err), nil
		}
		s.Data[value.key] = plaintext
		if sealedAt.After(s.Updated) {
			s.Updated = sealedAt
		}
	}
	return s, nil, nil
}

// unseal decrypts the value under key of v, and tells when it was sealed.
func (c *Cache) unseal(v *version, key string) ([]byte, time.Time, error) {
	sealed := v.object.Spec.EncryptedData[key]
	plaintext, err := c.open(v, key)
	if err != nil {
		return nil, time.Time{}, err
	}
	c.metrics.opened.Inc()
	info, err := encrypt.Inspect(sealed)
	if err != nil {
		clear(plaintext)
		return nil, time.Time{}, err
	}
	return plaintext, info.SealedAt, nil
}

// open decrypts the value under key of v. It parses what anyone may have
// written who can push: should that break it, it is a fault of that value, and
// not the end of Safe.
func (c *Cache) open(v *version, key string) (plaintext []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			// What was recovered might quote the value.
			plaintext, err = nil, fmt.Errorf("%w: %T", errPanic, r)
			c.log.Error("opening a value broke off", "object", v.key.String(), "key", key, "stack", string(debug.Stack()))
		}
	}()
	return encrypt.Open(v.object.Spec.EncryptedData[key], v.binding(key), c.keys, c.now())
}

// Wait returns nil as soon as the entity tag of w is another than etag, ctx's
// error when ctx ends before that, and [ErrSealed] when the cache is sealed.
func (c *Cache) Wait(ctx context.Context, w identity.Workload, etag string) error {
	for {
		changed, err := c.subscribe(w, etag)
		if changed == nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
		c.unsubscribe(w)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// subscribe returns what is closed when the tag of w changes, or nil when the
// wait is over already.
func (c *Cache) subscribe(w identity.Workload, etag string) (<-chan struct{}, error) {
	c.mu.Lock()
	turned := c.turn()
	served, leftOut := c.audiences[w].look(w)
	// Logging waits for whoever reads the log: not while c.mu is held.
	defer c.reportLeftOut(w, leftOut)
	defer c.reportTurned(turned)
	defer c.mu.Unlock()
	if c.sealed {
		return nil, ErrSealed
	}
	if served.tag != etag {
		return nil, nil
	}
	a := c.audience(w)
	a.waiting++
	if a.changed == nil {
		a.changed = make(chan struct{})
	}
	return a.changed, nil
}

func (c *Cache) unsubscribe(w identity.Workload) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.audiences[w]
	a.waiting--
	c.forgetIfEmpty(w, a)
}

// Seal destroys every value and the key that they were kept under, and ends
// every Wait. The cache goes on following the store.
func (c *Cache) Seal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	// In one step with the vault, or a Seal and an Unseal that meet could
	// leave a key behind in a cache that says it is sealed.
	c.vault.seal()
	c.sealed = true
	for _, a := range c.audiences {
		a.wake()
	}
}

// Unseal makes a sealed cache serve again. What could not be read is tried
// again, since the keys may be others, and what came while it was sealed is
// tried before it is served: at once, but for templates.
func (c *Cache) Unseal() {
	for _, v := range c.untried() {
		if f, err := c.try(context.Background(), v); err == nil {
			c.judge(v, f)
		}
	}
	c.tryAnew()
}

// untried ends the seal, forgets every fault, and returns the versions without a template that
// wait behind another one to be tried.
func (c *Cache) untried() (versions []*version) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.vault.unseal()
	c.sealed = false
	for key, o := range c.objects {
		before := o.served()
		for _, v := range []*version{o.newest, o.last} {
			if v != nil && v.hopeless() == nil {
				v.fault = nil
			}
		}
		c.reindex(before, o.served())
		c.mark(key)
		if o.untried() && o.newest.output == nil {
			versions = append(versions, o.newest)
		}
	}
	return versions
}
