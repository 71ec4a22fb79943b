// Package gitsource runs what the GitSources of a cluster say.
package gitsource

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/hooks"
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

// An Observer is a reconcile.Observer.
type Observer interface {
	Applied(source string, key store.Key, revision sync.Revision)
	Refused(source string, key store.Key, faults []*encrypt.Fault)
	Restored(source string, key store.Key, how string)
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
	// Metrics are those of all sources.
	Metrics *reconcile.Metrics
	// Observer is told what sources do to objects; nil: nobody is.
	Observer Observer
	// Events may be nil.
	Events EventRecorder
	// Refuse says why a repository may not be read from an address; nil: from any.
	Refuse func(netip.Addr) error
	// Limits of each repository.
	Limits sync.Limits
	// Interval between two looks at a repository whose source says none; zero for a minute.
	Interval time.Duration
	// Retry is after how long a source is looked at again that could not be started, or whose Secrets
	// may not be read; zero for a minute.
	Retry time.Duration
	Log   *slog.Logger
	// Now is the clock; nil for the machine's.
	Now func() time.Time
}

// A Controller knows the GitSources of a cluster, and follows their repositories while it leads.
type Controller struct {
	config Config
}

var _ hooks.Sources = (*Controller)(nil)

// New returns a controller. It does not connect.
func New(config Config) *Controller { return &Controller{config: config} }

// Run follows the GitSources until ctx ends, whose error it returns. It is called once, by every replica.
func (c *Controller) Run(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// Lead follows the repositories of the GitSources until ctx ends, and returns when all have stopped, with ctx's
// error. After ctx has ended nothing is written. It needs Run, and is called again whenever this
// replica leads again.
func (c *Controller) Lead(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// Retry is called when Safe was sealed or unsealed, or has other keys: everything that was refused is tried again.
func (c *Controller) Retry() {}

// Sync has the GitSource NAMESPACE/NAME do a round, or every one where name is empty, after an operator's word.
// Errors: [ErrNotLeading], [ErrNoSource], [ErrNotRunning], [reconcile.ErrNothingWaits], and those of the rounds.
func (c *Controller) Sync(ctx context.Context, name string, o reconcile.Override) error {
	return ErrNotLeading
}

// Statuses tells how every GitSource fares: those that run here, as they know; others, as their status says.
func (c *Controller) Statuses() []reconcile.Status { return nil }

// A Brief is how a GitSource fares as its status in the cluster says.
type Brief struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	URL       string `json:"url"`
	Suspended bool   `json:"suspended,omitempty"`
	// Ready is that condition's status, True, False or Unknown, with its reason and message.
	Ready   string `json:"ready"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// Revision was applied; Seen is where the ref is.
	Revision string `json:"revision,omitempty"`
	Seen     string `json:"seen,omitempty"`
	Objects  int64  `json:"objects"`
	Faults   int64  `json:"faults"`
}

// Sources returns all GitSources, by namespace and name.
func (c *Controller) Sources() []Brief { return nil }

// Hook implements [hooks.Sources].
func (c *Controller) Hook(ctx context.Context, namespace, name string) (hooks.Target, error) {
	return hooks.Target{}, hooks.ErrNoHook
}

// Hint implements [hooks.Sources]: the source looks at its repository soon, whichever replica leads.
func (c *Controller) Hint(ctx context.Context, namespace, name string) error { return ErrNoSource }
