// Package deliver brings EncryptedSecrets to where their manifests ask for them in the cluster:
// as Kubernetes Secrets. It also writes the status of every EncryptedSecret.
//
// One replica does it, the one that leads ([Controller.Lead]). What was done stands in
// the status of the objects, so that whoever leads next decrypts and writes nothing that
// has not changed: a Kubernetes Secret is as it should be while it is the very one, at the very
// resource version, that the status names.
//
// # Kubernetes Secrets
//
// A Secret is written by server-side apply under the field manager vsecm-deliver, all its keys at once
// and all from one version of the object, on condition that it is still the one that was
// seen. A value that does not open delivers nothing of its version. The Secret's data is never read: its
// metadata is watched, in each namespace that an object asks delivery in.
//
// What a template makes is delivered as values are. Outside the window of an object ([validity.Window]) its Secret is
// withdrawn: deleted, or emptied of Safe's keys where it was adopted. Under deletion policy Retain it stays.
//
// The keys, labels and annotations that the object declares are Safe's: who changes them
// is overruled. Those that others add stay. A Secret without the label [v1alpha1.LabelDelivered] is somebody
// else's, and is left alone unless it bears [v1alpha1.AnnotationAdopt].
package deliver

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// FieldManager is the name under which Secrets are written.
const FieldManager = "vsecm-deliver"

// Reasons of the condition Ready.
const (
	ReasonServed    = "Served"    // its values open, and it asks for no Kubernetes Secret
	ReasonDelivered = "Delivered" // the Kubernetes Secret is as it asks

	ReasonUnreadable        = "Unreadable"        // a value does not open
	ReasonKeyNotHeld        = "KeyNotHeld"        // a value is sealed to a root key that Safe does not hold
	ReasonTemplateFailed    = "TemplateFailed"    // its template cannot be carried out
	ReasonNotYetValid       = "NotYetValid"       // spec.notBefore has yet to come
	ReasonExpired           = "Expired"           // spec.expiresAt has come
	ReasonUndecodable       = "Undecodable"       // the object is not as its type has it
	ReasonRefused           = "Refused"           // its source has a newer manifest, which is faulty
	ReasonConflict          = "Conflict"          // somebody else keeps changing it, or its Secret
	ReasonSecretExists      = "SecretExists"      // there is a Secret of its name that is not Safe's
	ReasonLabelsRefused     = "LabelsRefused"     // it asks for labels or annotations that are not its to set
	ReasonDeliveryRefused   = "DeliveryRefused"   // nothing is ever delivered there
	ReasonDeliveryForbidden = "DeliveryForbidden" // Safe may not write Secrets in the namespace
	ReasonDeliveryFailed    = "DeliveryFailed"    // the API server did not take the Secret
)

// ConditionExpiresSoon is a condition of an object that expires within a week, with one of two reasons. It is there while
// it is true.
const (
	ConditionExpiresSoon = "ExpiresSoon"

	ReasonWithinWeek = "WithinAWeek"
	ReasonWithinDay  = "WithinADay"
)

// Reasons of events that are no reason of a condition.
const (
	EventReverted    = "Reverted"    // somebody changed or deleted the Secret, and it was put back
	EventReplaced    = "Replaced"    // the Secret could not be changed: it was deleted and made anew
	EventAdopted     = "Adopted"     // the Secret was somebody else's until now
	EventDeleted     = "Deleted"     // the Secret was deleted, since the object asks for none any more
	EventWithdrawn   = "Withdrawn"   // the Secret was deleted or emptied, since the object is not valid now
	EventExpiresSoon = "ExpiresSoon" // less than a week, or a day, is left
	EventRestored    = "Restored"    // somebody changed or deleted the object, and its source put it back
)

// A Store holds the objects and their status: [kubestore.Store].
type Store interface {
	Get(ctx context.Context, key store.Key) (*v1alpha1.EncryptedSecret, error)
	List(ctx context.Context) ([]*v1alpha1.EncryptedSecret, error)
	Watch(ctx context.Context, handle func(store.Event)) error
	Standing(key store.Key) (kubestore.Standing, bool)
	Faults() []kubestore.Fault
	WriteStatus(ctx context.Context, key store.Key, before kubestore.Standing, status *v1alpha1.EncryptedSecretStatus) error
}

// Events takes what is told of an object. Its method never blocks.
type Events interface {
	Event(about kube.ObjectReference, warning bool, reason, message string)
}

// A Config says what a [Controller] works with.
type Config struct {
	Client *kube.Client
	// Namespace is Safe's own, into which nothing is delivered.
	Namespace string
	Store     Store
	// Keys open the values.
	Keys encrypt.Keys
	// Era returns 0 while Safe is sealed, and otherwise a number that changes with every seal. nil:
	// never sealed.
	Era func() uint64
	// Events are told of what happens to objects; nil: nobody is.
	Events  Events
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// Now is the clock; nil for the machine's.
	Now func() time.Time

	// RetryPeriod is how long after Safe was forbidden to write, or somebody else's Secret stood in the
	// way, it is tried again; zero for 30 seconds.
	RetryPeriod time.Duration
}

// A Controller delivers objects. It is safe for concurrent use.
//
// It is told by sources what becomes of their objects: it implements
// reconcile.Observer.
type Controller struct {
	config  Config
	metrics *metrics

	mu    sync.Mutex
	notes map[store.Key]note // what sources told
	lead  *lead              // nil while this replica does not lead
}

// New returns a controller, and registers its metrics.
func New(config Config) *Controller {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Era == nil {
		config.Era = func() uint64 { return 1 }
	}
	if config.RetryPeriod == 0 {
		config.RetryPeriod = retryPeriod
	}
	c := &Controller{config: config, notes: make(map[store.Key]note)}
	c.metrics = register(config.Metrics, c)
	return c
}

// Lead delivers, and writes the status of objects, until ctx ends, whose error it returns; an error
// before that is the store's. Nothing is written any more when it has returned. When the sources of the
// term have ended as well, call Forget.
func (c *Controller) Lead(ctx context.Context) error {
	l := newLead(c)
	c.mu.Lock()
	c.lead = l
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.lead = nil
	}()
	return l.run(ctx)
}

// Retry looks at every object again: call it when Safe was unsealed, or holds
// other keys than before.
func (c *Controller) Retry() {
	if l := c.leading(); l != nil {
		select {
		case l.retry <- struct{}{}:
		default: // it will
		}
	}
}

// Waiting returns how many objects wait to be looked at; 0 while this replica does not lead.
func (c *Controller) Waiting() int {
	if l := c.leading(); l != nil {
		return l.queue.Len()
	}
	return 0
}

func (c *Controller) leading() *lead {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lead
}
