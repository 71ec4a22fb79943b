// Package kubestore keeps EncryptedSecret objects in the Kubernetes API.
//
// [Store.Run] follows all of them and holds them in memory, as they are: sealed, in
// base64, without what Kubernetes adds for itself. Reads and watches are served from there, so
// they go on while the API server is away. Writes go to the API server, and are in
// memory when they were answered.
//
// # Owners
//
// A source's object is written by server-side apply under the field manager
// vsecm-sync, on condition that it has not changed since its label was looked at. Its spec is one
// field: others who change it are overruled as a whole. Labels and annotations that
// others add to it stay.
//
// # Leaders
//
// Of several replicas one writes, and another may come to lead before it knows. What a newer leader has written
// is not written over: see [Store.FenceBy].
//
// # Bad objects
//
// The CRD refuses what cannot be right, but an older CRD may have let things through. An object that
// cannot be decoded harms only itself: what was served of it before is served on, it is
// listed by [Store.Faults], and its owner may replace it.
package kubestore

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// A Store is a [store.Store] in the Kubernetes API. [Store.Run] has to run for it to
// answer.
type Store struct {
	source *source
	log    *slog.Logger

	writing *store.KeyLocks
	memory  *store.Memory
	filled  chan struct{} // closed when every object is in memory
	fence   fence

	mu     sync.Mutex
	known  map[store.Key]known
	now    moment                  // of what was learned last
	lost   moment                  // when an object was last found to be gone
	heard  string                  // the resource version up to which the watch has told everything
	writes map[store.Key]string    // the resource versions of writes that the watch has yet to tell
	gone   map[types.UID]store.Key // objects that are deleted, which the watch has yet to tell
}

var _ store.Store = (*Store)(nil)

// known is what the store remembers of an object beside the object.
type known struct {
	uid     types.UID
	version string // the resource version
	owner   string
	seen    moment // when that was so
	// others names the labels and annotations that are not the owner's to remove.
	others names
	fault  error // why the newest version of it is not served
	// What the status of it is about, and the status; nil if it has none.
	generation int64
	status     *v1alpha1.EncryptedSecretStatus
}

// New returns a store of the cluster that client reaches. It does not connect.
func New(client *kube.Client, log *slog.Logger) *Store {
	return &Store{
		source:  &source{client: client.VSecM, log: log},
		log:     log,
		writing: store.NewKeyLocks(),
		memory:  store.NewMemory(),
		filled:  make(chan struct{}),
		known:   make(map[store.Key]known),
		writes:  make(map[store.Key]string),
		gone:    make(map[types.UID]store.Key),
		now:     firstMoment,
		lost:    firstMoment,
	}
}

// backoff is how long to wait between tries to reach an API server that is away. It is
// short: nobody else is asked, and what changed meanwhile is not served until then.
func backoff() *wait.Backoff {
	return &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 8, Cap: 5 * time.Second}
}

// Run fills the store and follows the cluster until ctx ends, whose error it returns. Then the
// store is closed: its methods return [store.ErrClosed]. It may be called once.
func (s *Store) Run(ctx context.Context) error {
	defer s.memory.Close() // nobody else closes it
	// The reflector says what it meets through klog.
	logger := logr.FromSlogHandler(s.log.Handler())
	reflector := cache.NewReflectorWithOptions(s.source, nil, (*mirror)(s), cache.ReflectorOptions{
		Name: v1alpha1.ResourceEncryptedSecrets, TypeDescription: v1alpha1.KindEncryptedSecret,
		Logger: &logger, Backoff: backoff(),
	})
	reflector.RunWithContext(klog.NewContext(ctx, logger))
	return ctx.Err()
}

// wait waits until every object is in memory.
func (s *Store) wait(ctx context.Context) error {
	if err := s.memory.Usable(ctx); err != nil {
		return err
	}
	select {
	case <-s.filled:
		return nil
	case <-s.memory.Closed():
		return store.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Get implements [store.Store]. Like List and Watch, it waits until all objects were
// read once.
func (s *Store) Get(ctx context.Context, key store.Key) (*v1alpha1.EncryptedSecret, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.memory.Get(ctx, key)
}

// List implements [store.Store].
func (s *Store) List(ctx context.Context) ([]*v1alpha1.EncryptedSecret, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.memory.List(ctx)
}

// Watch implements [store.Store].
func (s *Store) Watch(ctx context.Context, handle func(store.Event)) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.memory.Watch(ctx, handle)
}

// A Fault is an object whose newest version is not served.
type Fault struct {
	Key store.Key
	Err error // quotes no value
}

// Faults returns the objects that cannot be decoded, ordered by namespace and name.
func (s *Store) Faults() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	var faults []Fault
	for _, key := range slices.SortedFunc(maps.Keys(s.known), func(a, b store.Key) int {
		return strings.Compare(a.String(), b.String())
	}) {
		if err := s.known[key].fault; err != nil {
			faults = append(faults, Fault{Key: key, Err: err})
		}
	}
	return faults
}
