package deliver

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

const (
	// workers is how many objects are looked at at a time. The API server is waited for, most of
	// the time.
	workers = 8
	// retryPeriod is the default of [Config.RetryPeriod].
	retryPeriod = 30 * time.Second
	// invalidRetry is how long after the API server did not take a Secret it is asked again: quotas
	// and webhooks change, too.
	invalidRetry = 5 * time.Minute
	// endingRetry is how long a namespace that is being deleted is left alone.
	endingRetry = 10 * time.Minute
	// settling is how long a source has, after a replica began to lead, to say that it still
	// refuses a manifest, or no longer does.
	settling = 10 * time.Minute
	// faultsEvery is how often the objects that cannot be decoded are looked for, of which no watch
	// tells.
	faultsEvery = time.Minute
)

// A lead is the time for which a replica leads.
type lead struct {
	c       *Controller
	began   time.Time
	secrets secrets
	queue   workqueue.TypedRateLimitingInterface[store.Key]
	retry   chan struct{} // a token when every object is to be looked at
	edits   *edits        // of what is Safe's
	touches *edits        // of Secrets in which nothing of that is another since

	ctx     context.Context // of the rooms
	running sync.WaitGroup  // the rooms

	undecodable sync.Map // of store.Key to what was told

	mu      sync.Mutex
	rooms   map[string]*room
	unsaved map[store.Key]unsaved
}

// unsaved is what is known of an object that is not in its status yet.
type unsaved struct {
	object     types.UID
	generation int64
	keyIDs     []string // that generation's, all of which opens; nil if that is not known
	secret     *v1alpha1.DeliveredSecret
}

func newLead(c *Controller) *lead {
	return &lead{
		c: c, began: c.config.Now(),
		secrets: secrets{c.config.Client.Core},
		queue:   workqueue.NewTypedRateLimitingQueue(newBackoff()),
		retry:   make(chan struct{}, 1),
		edits:   newEdits(c.config.Now, longestPause),
		touches: newEdits(c.config.Now, longestTouchPause),
		rooms:   make(map[string]*room),
		unsaved: make(map[store.Key]unsaved),
	}
}

// run does all that a leader does until ctx ends.
func (l *lead) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	l.ctx = ctx
	var all sync.WaitGroup
	for range workers {
		all.Go(func() { l.work(ctx) })
	}
	all.Go(func() { l.lookAgain(ctx) })
	err := l.c.config.Store.Watch(ctx, l.saw)
	cancel()
	l.queue.ShutDown()
	all.Wait()
	l.running.Wait() // workers began them
	return err
}

// look asks for a look at the object of key.
func (l *lead) look(key store.Key) {
	if l != nil {
		l.queue.Add(key)
	}
}

// saw takes in a change of an object.
func (l *lead) saw(e store.Event) {
	switch e.Type {
	case store.Applied:
		l.want(e.Key, l.asks(e.Object))
		l.look(e.Key)
	case store.Deleted:
		l.want(e.Key, false)
		l.look(e.Key)
	case store.Synced:
		l.lookAtFaults()
	}
}

// lookAtFaults looks at the objects that cannot be decoded.
func (l *lead) lookAtFaults() {
	for _, f := range l.c.config.Store.Faults() {
		l.look(f.Key)
	}
}

// asks tells whether o is one that a Secret is delivered for.
func (l *lead) asks(o *v1alpha1.EncryptedSecret) bool {
	return o.Spec.Secret != nil && o.Namespace != l.c.config.Namespace
}

// lookAgain looks at every object when it is asked to, and at those of which nobody tells from
// time to time.
func (l *lead) lookAgain(ctx context.Context) {
	ticker := time.NewTicker(faultsEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			l.lookAtFaults()
		case <-l.retry:
			objects, err := l.c.config.Store.List(ctx)
			if err != nil {
				return // ctx has ended, or the store was closed
			}
			for _, o := range objects {
				l.queue.Forget(store.KeyOf(o))
				l.look(store.KeyOf(o))
			}
		}
	}
}

// work looks at objects until ctx ends.
func (l *lead) work(ctx context.Context) {
	for {
		key, ended := l.queue.Get()
		if ended {
			return
		}
		if ctx.Err() == nil {
			after, err := l.reconcile(ctx, key)
			switch {
			case errors.Is(err, errRetry) && ctx.Err() == nil:
				l.queue.AddRateLimited(key)
			case after > 0:
				l.queue.Forget(key)
				l.queue.AddAfter(key, after)
			default:
				l.queue.Forget(key)
			}
		}
		l.queue.Done(key)
	}
}

// want notes whether an object asks for delivery, and follows the Secrets of its namespace if so. It returns
// the room of the namespace, which is not nil if it is wanted.
func (l *lead) want(key store.Key, wanted bool) *room {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.rooms[key.Namespace]
	if r == nil {
		if !wanted {
			return nil
		}
		r = l.open(key.Namespace)
	}
	r.want(key.Name, wanted)
	return r
}

// open begins to follow a namespace's Secrets. l.mu is held.
func (l *lead) open(namespace string) *room {
	ctx, cancel := context.WithCancel(l.ctx)
	r := &room{
		namespace: namespace, retry: l.c.config.RetryPeriod,
		source:  &secretSource{l.c.config.Client.Core, namespace},
		look:    func(name string) { l.look(store.Key{Namespace: namespace, Name: name}) },
		end:     cancel,
		wants:   make(map[string]struct{}),
		secrets: make(map[string]secretMeta),
	}
	l.rooms[namespace] = r
	logger := logr.FromSlogHandler(l.c.config.Log.With(slog.String("namespace", namespace)).Handler())
	l.running.Go(func() { r.run(ctx, logger) })
	return r
}

// room returns that of a namespace, or nil.
func (l *lead) room(namespace string) *room {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rooms[namespace]
}

// leave stops following the Secrets of a namespace in which nothing is left to do.
func (l *lead) leave(namespace string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.rooms[namespace]; r != nil && r.idle() {
		r.end()
		delete(l.rooms, namespace)
	}
}

// known returns what is known of the object of key, beyond its newest status.
func (l *lead) known(key store.Key, standing kubestore.Standing) unsaved {
	l.mu.Lock()
	defer l.mu.Unlock()
	if u, ok := l.unsaved[key]; ok && u.object == standing.UID {
		return u
	}
	u := unsaved{object: standing.UID}
	if s := standing.Status; s != nil {
		u.generation, u.keyIDs, u.secret = s.ObservedGeneration, s.KeyIDs, s.Secret
	}
	return u
}

// remember keeps what is known until it is in the status.
func (l *lead) remember(key store.Key, u unsaved) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsaved[key] = u
}

// saved forgets what is in the status of the object of key now.
func (l *lead) saved(key store.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.unsaved, key)
}
