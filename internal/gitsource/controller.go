// Package gitsource runs what the GitSources of a cluster say.
package gitsource

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	gosync "sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

var (
	// ErrNoSource says that there is no such GitSource.
	ErrNoSource = errors.New("no such GitSource")
	// ErrNotLeading says that another replica fetches, applies and writes.
	ErrNotLeading = errors.New("another replica leads")
	// ErrNotRunning says that a GitSource cannot be followed as it is: it is suspended, or at fault.
	ErrNotRunning = errors.New("the GitSource is not followed")
)

// An EventRecorder tells of what happens to an object where people look for it: an [events.Recorder]. It
// does not block.
type EventRecorder interface {
	Event(about kube.ObjectReference, warning bool, reason, message string)
}

// A Config says what a [Controller] works with.
type Config struct {
	Client *kube.Client
	// Namespace is Safe's own, whose sources may deliver into others.
	Namespace string
	// MirrorDir is where the repositories' mirrors are kept. Nothing else is in it.
	MirrorDir string
	Store     store.Store
	Keys      encrypt.Keys
	// Era returns 0 while Safe is sealed, and otherwise a number that changes with every seal. nil: never sealed.
	Era func() uint64
	// Held asks the API server whether this replica leads still, and returns nil if so ([lead.Lead.Held]); nil: it does.
	Held func(context.Context) error
	// Metrics are those of all sources.
	Metrics *reconcile.Metrics
	// Observer is told what sources do to objects; nil: nobody is.
	Observer reconcile.Observer
	// Removed is told that a source is gone, which tells the Observer nothing any more; nil: nobody is.
	Removed func(source string)
	// Events may be nil.
	Events EventRecorder
	// Refuse says why a repository may not be read from an address; nil: from any.
	Refuse func(netip.Addr) error
	// Limits of each repository.
	Limits sync.Limits
	// Interval between two looks at a repository whose source says none; zero for a minute.
	Interval time.Duration
	// MinInterval is the shortest that a source may say; zero for ten seconds.
	MinInterval time.Duration
	// Retry is after how long a source is looked at again that could not be started, or whose Secrets
	// may not be read; zero for a minute.
	Retry time.Duration
	Log   *slog.Logger
	// Now is the clock; nil for the machine's.
	Now func() time.Time
}

// A Controller knows the GitSources of a cluster, and follows their repositories while it leads. It is safe for
// concurrent use.
type Controller struct {
	config Config
	listed chan struct{} // closed when all GitSources are known
	hints  *hints
	// sources are those that run; whoever changes them holds living.
	sources atomic.Pointer[[]*reconcile.Source]
	living  gosync.Mutex

	mu      gosync.Mutex
	known   map[store.Key]*received
	watches map[string]*secretWatch // by namespace
	hooks   map[store.Key]*hook
	watch   func(*secretWatch) // starts it; nil before Run, and when that has ended
	term    *term              // nil: another replica leads
}

// A term is the time between getting the Lease and losing it.
type term struct {
	ctx     context.Context
	all     gosync.WaitGroup
	runners map[store.Key]*runner // guarded by Controller.mu
}

// New returns a controller. It does not connect.
func New(config Config) *Controller {
	if config.Now == nil {
		config.Now = time.Now
	}
	config.Retry = cmp.Or(config.Retry, time.Minute)
	config.MinInterval = cmp.Or(config.MinInterval, minInterval)
	return &Controller{
		config: config, listed: make(chan struct{}), hints: newHints(),
		known: make(map[store.Key]*received), watches: make(map[string]*secretWatch), hooks: make(map[store.Key]*hook),
	}
}

func (c *Controller) now() time.Time { return c.config.Now() }

func (c *Controller) sealed() bool { return c.config.Era != nil && c.config.Era() == 0 }

// Run follows the GitSources until ctx ends, whose error it returns. It is called once, by every replica.
func (c *Controller) Run(ctx context.Context) error {
	var all gosync.WaitGroup
	defer all.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	c.mu.Lock()
	c.watch = func(w *secretWatch) {
		var watching context.Context
		watching, w.stop = context.WithCancel(ctx)
		all.Go(func() { c.watchSecrets(watching, w) })
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.watch = nil
	}()
	all.Go(func() { c.sendHints(ctx) })
	l := &lister[*received]{
		request:  func() *rest.Request { return c.config.Client.VSecM.Get().Resource(v1alpha1.ResourceGitSources) },
		resource: v1alpha1.GroupVersion.WithResource(v1alpha1.ResourceGitSources).GroupResource(),
		empty:    func() *received { return &received{} },
		answered: func(context.Context, error) {},
	}
	l.follow(ctx, (*known)(c), c.config.Log)
	return ctx.Err()
}

// Lead follows the repositories of the GitSources until ctx ends, and returns when all have stopped, with ctx's
// error. After ctx has ended nothing is written. It needs Run, and is called again whenever this
// replica leads again.
func (c *Controller) Lead(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.listed:
	}
	if err := c.removeMirrors(); err != nil {
		c.config.Log.Warn("the mirrors cannot be tidied up", "error", err)
	}
	t := &term{ctx: ctx, runners: make(map[store.Key]*runner)}
	c.mu.Lock()
	c.term = t
	for key := range c.known {
		c.start(key)
	}
	c.mu.Unlock()
	t.all.Go(func() {
		err := reconcile.Follow(ctx, c.config.Store, func() []*reconcile.Source {
			if s := c.sources.Load(); s != nil {
				return *s
			}
			return nil
		})
		if ctx.Err() == nil {
			c.config.Log.Error("what others do to objects is no longer seen", "error", err)
		}
	})
	<-ctx.Done()
	c.mu.Lock()
	c.term = nil
	c.mu.Unlock()
	t.all.Wait()
	return ctx.Err()
}

// start has a runner follow a GitSource, if this replica leads. c.mu is held.
func (c *Controller) start(key store.Key) {
	t := c.term
	if t == nil {
		return
	}
	if r := t.runners[key]; r != nil {
		r.hint()
		return
	}
	r := newRunner(c, key)
	t.runners[key] = r
	t.all.Go(func() { r.run(t.ctx) })
}

// retire ends a runner whose GitSource is gone, unless there is another by its name.
func (c *Controller) retire(r *runner) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[r.key] != nil {
		return false
	}
	if c.term != nil && c.term.runners[r.key] == r {
		delete(c.term.runners, r.key)
	}
	return true
}

// runners returns those of this term, by namespace and name; false if another replica leads.
func (c *Controller) runners() ([]*runner, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.term == nil {
		return nil, false
	}
	return slices.SortedFunc(maps.Values(c.term.runners), func(a, b *runner) int { return compareKeys(a.key, b.key) }), true
}

// live notes which sources run.
func (c *Controller) live() {
	c.living.Lock()
	defer c.living.Unlock()
	runners, _ := c.runners()
	var sources []*reconcile.Source
	for _, r := range runners {
		r.mu.Lock()
		if r.running != nil {
			sources = append(sources, r.running.source)
		}
		r.mu.Unlock()
	}
	c.sources.Store(&sources)
}

// Retry is called when Safe was sealed or unsealed, or has other keys: everything that was refused is tried again.
func (c *Controller) Retry() {
	runners, _ := c.runners()
	for _, r := range runners {
		r.retry.Store(true)
		r.hint()
	}
}

// Sync has the GitSource NAMESPACE/NAME do a round, or every one where name is empty, after an operator's word.
// Errors: [ErrNotLeading], [ErrNoSource], [ErrNotRunning], [reconcile.ErrNothingWaits], and those of the rounds.
func (c *Controller) Sync(ctx context.Context, name string, o reconcile.Override) error {
	runners, leads := c.runners()
	if !leads {
		return ErrNotLeading
	}
	if name != "" {
		runners = slices.DeleteFunc(runners, func(r *runner) bool { return r.key.String() != name })
		if len(runners) == 0 {
			return fmt.Errorf("%w: %.300q", ErrNoSource, name)
		}
	} else {
		runners = slices.DeleteFunc(runners, (*runner).suspended)
	}
	if o != (reconcile.Override{}) {
		waited := false
		for _, r := range runners {
			_ = r.use(ctx, func(_ context.Context, s *reconcile.Source) error { // what does not run says so below
				waited = s.Override(o) || waited
				return nil
			})
		}
		if !waited {
			return reconcile.ErrNothingWaits
		}
	}
	errs := make([]error, len(runners))
	var all gosync.WaitGroup
	for i, r := range runners {
		all.Go(func() {
			if err := r.use(ctx, func(ctx context.Context, s *reconcile.Source) error { return s.Sync(ctx) }); err != nil {
				errs[i] = fmt.Errorf("%s: %w", r.key, err)
			}
		})
	}
	all.Wait()
	if c.leads() {
		return errors.Join(errs...)
	}
	return ErrNotLeading
}

func (c *Controller) leads() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term != nil
}
