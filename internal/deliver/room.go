package deliver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// How long to wait for an API server that is away, from the first to the longest.
const shortWait, longWait = 200 * time.Millisecond, 5 * time.Second

// A room is one namespace that Secrets are delivered in, and what is known of them. It is there
// while an object asks for delivery there, and while one of Safe's Secrets is left.
type room struct {
	namespace string
	retry     time.Duration // after it was forbidden to look
	source    *secretSource
	look      func(name string) // asks for another look at an object
	end       context.CancelFunc

	mu      sync.Mutex
	state   roomState
	wants   map[string]struct{} // the names of the objects that ask for delivery
	secrets map[string]secretMeta
	listed  string // the resource version of the last list
}

// A roomState is what may be said of a namespace's Secrets.
type roomState int

const (
	unknown   roomState = iota // not seen yet
	known                      // all that bear the label were seen
	forbidden                  // Safe may not see them
)

// run follows the namespace's Secrets until ctx ends.
func (r *room) run(ctx context.Context, logger logr.Logger) {
	reflector := cache.NewReflectorWithOptions(r.source, nil, (*mirror)(r), cache.ReflectorOptions{
		Name: "secrets/" + r.namespace, TypeDescription: "Secret", Logger: &logger,
	})
	ctx = klog.NewContext(ctx, logger)
	for delay := shortWait; ctx.Err() == nil; {
		began := time.Now()
		err := reflector.ListAndWatchWithContext(ctx)
		pause := delay
		switch {
		case apierrors.IsForbidden(err):
			r.setForbidden()
			pause, delay = r.retry, shortWait
		case err == nil && time.Since(began) > longWait:
			pause, delay = shortWait, shortWait // a watch that came to its end
		default:
			delay = min(2*delay, longWait)
		}
		pauseFor(ctx, jittered(pause))
	}
}

// jittered returns d, or up to a quarter less.
func jittered(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}

func pauseFor(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (r *room) setForbidden() {
	r.mu.Lock()
	changed := r.state != forbidden
	r.state = forbidden
	r.mu.Unlock()
	if changed {
		r.lookAtAll()
	}
}

// lookAtAll asks for a look at all objects that ask for delivery here, and at all Secrets that were delivered.
func (r *room) lookAtAll() {
	r.mu.Lock()
	names := make(map[string]struct{}, len(r.wants))
	for name := range r.wants {
		names[name] = struct{}{}
	}
	for name := range r.secrets {
		names[name] = struct{}{}
	}
	r.mu.Unlock()
	for name := range names {
		r.look(name)
	}
}

// secret returns what is known of the Secret of that name; nil if it is not there, or bears
// no label.
func (r *room) secret(name string) (*secretMeta, roomState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m, ok := r.secrets[name]; ok && r.state == known {
		return &m, known
	}
	return nil, r.state
}

// want notes whether the object of that name asks for delivery.
func (r *room) want(name string, wanted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if wanted {
		r.wants[name] = struct{}{}
	} else {
		delete(r.wants, name)
	}
}

// idle tells whether there is nothing left to do here.
func (r *room) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.wants) > 0 {
		return false
	}
	for _, m := range r.secrets {
		if m.owner != "" && r.state == known {
			return false
		}
	}
	return true
}

// wrote takes in what the API server answered to a write.
func (r *room) wrote(name string, m secretMeta) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.take(name, m)
}

// deleted takes in that the Secret of that name and uid is gone.
func (r *room) deleted(name string, m secretMeta) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.secrets[name].uid == m.uid {
		delete(r.secrets, name)
	}
}

// take makes m what is known of a Secret, unless something newer is, and reports whether it was news. A write
// is known when it was answered; what the watch tells of the time before it comes later. r.mu is held.
func (r *room) take(name string, m secretMeta) bool {
	before, ok := r.secrets[name]
	if ok && (before == m || older(m.version, before.version)) {
		return false
	}
	r.secrets[name] = m
	return true
}

// mirror is the side of a room that the reflector writes to.
type mirror room

var _ cache.ReflectorStore = (*mirror)(nil)

// Add implements [cache.ReflectorStore].
func (m *mirror) Add(o any) error { return m.Update(o) }

// Update implements [cache.ReflectorStore].
func (m *mirror) Update(o any) error {
	secret, err := asReceived(o)
	if err != nil {
		return err
	}
	r := (*room)(m)
	r.mu.Lock()
	news := r.take(secret.Name, secret.meta())
	r.mu.Unlock()
	if news {
		r.look(secret.Name)
	}
	return nil
}

// Delete implements [cache.ReflectorStore]: the Secret is gone, or bears the label no more.
func (m *mirror) Delete(o any) error {
	secret, err := asReceived(o)
	if err != nil {
		return err
	}
	r := (*room)(m)
	r.mu.Lock()
	before, ok := r.secrets[secret.Name]
	news := ok && !older(secret.ResourceVersion, before.version)
	if news {
		delete(r.secrets, secret.Name)
	}
	r.mu.Unlock()
	if news {
		r.look(secret.Name)
	}
	return nil
}

// Replace implements [cache.ReflectorStore]: what list does not hold is gone.
func (m *mirror) Replace(list []any, version string) error {
	r := (*room)(m)
	r.mu.Lock()
	if older(version, r.listed) {
		clear(r.secrets) // the cluster was set back to a backup: its versions count from there
	}
	r.listed = version
	listed := make(map[string]struct{}, len(list))
	for _, o := range list {
		secret, err := asReceived(o)
		if err != nil {
			r.mu.Unlock()
			return err
		}
		listed[secret.Name] = struct{}{}
		r.take(secret.Name, secret.meta())
	}
	var gone []string
	for name, before := range r.secrets {
		if _, ok := listed[name]; !ok && !older(version, before.version) {
			gone = append(gone, name)
			delete(r.secrets, name)
		}
	}
	r.state = known
	r.mu.Unlock()
	r.lookAtAll()
	for _, name := range gone {
		r.look(name)
	}
	return nil
}

// Resync implements [cache.ReflectorStore].
func (m *mirror) Resync() error { return nil }

func asReceived(o any) (*received, error) {
	r, ok := o.(*received)
	if !ok {
		return nil, fmt.Errorf("the watch told of a %T", o)
	}
	return r, nil
}
