// Package events tells of what happens to an object where people look for it: in the
// Events that `kubectl describe` and `kubectl events` show.
//
// Events are a courtesy. Nothing waits for them, nothing depends on them, and whatever would
// need them to grow (an API server that is away, a repository with a thousand faults, an
// object that is edited again and again) costs events, never memory or time of others.
//
// Kubernetes' own recorder (client-go's tools/record) does the same, but knows every kind
// of Kubernetes (docs/decisions/007).
package events

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"k8s.io/utils/lru"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
)

const (
	// queueLength is how many events wait to be written; more are dropped.
	queueLength = 256
	// sameWithin is for how long the same event is counted, and not told anew.
	sameWithin = 10 * time.Minute
	// An object's burst is what a first look at it may bring; what follows is slower than
	// anybody reads.
	objectBurst = 10
	objectEvery = time.Minute
	// All objects together: what an API server does not notice.
	totalBurst = 100
	totalEvery = 50 * time.Millisecond
	// remembered is how many recent events and objects are known: to count the same, and to
	// hold an object to its rate.
	remembered = 512
)

// A Recorder writes events. A nil Recorder may be used: it drops all. It is safe for
// concurrent use.
type Recorder struct {
	client    *kube.Client
	component string
	instance  string
	log       *slog.Logger
	dropped   prometheus.Counter

	// Tests replace these before Run.
	now        func() time.Time
	timing     timing
	totalLimit *rate.Limiter

	queue chan *series

	mu      sync.Mutex
	ended   bool
	recent  *lru.Cache // of seriesKey to *series
	limits  *lru.Cache // of objectKey to *rate.Limiter
	failing *lru.Cache // of namespace to nothing: where the last write failed, and that was said
}

// An objectKey tells one object from another, and from one of the same name that came after it.
type objectKey struct {
	kind, namespace, name, uid string
}

func keyOf(about kube.ObjectReference) objectKey {
	return objectKey{about.Kind, about.Namespace, about.Name, string(about.UID)}
}

// A seriesKey tells one event from another.
type seriesKey struct {
	object          objectKey
	warning         bool
	reason, message string
}

// A series is an event, and the same again. [Recorder].mu guards what changes.
type series struct {
	seriesKey
	about kube.ObjectReference

	first, last time.Time
	count       int32
	queued      bool
	name        string // of the Event, "" until the API server has it
}

// New returns a recorder whose events say that they come from a component
// ("vsecm-safe") and an instance of it (a pod's name). It registers
// vsecm_events_dropped_total. Events wait until [Recorder.Run] is called, as
// many as it holds.
func New(client *kube.Client, component, instance string, log *slog.Logger, reg prometheus.Registerer) *Recorder {
	dropped := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "vsecm_events_dropped_total",
		Help: "Kubernetes Events that were not written: too many at a time, or the API server did not take them.",
	})
	reg.MustRegister(dropped)
	return &Recorder{
		client: client, component: component, instance: instance, log: log, dropped: dropped,
		now: time.Now, timing: defaultTiming,
		totalLimit: rate.NewLimiter(rate.Every(totalEvery), totalBurst),
		queue:      make(chan *series, queueLength),
		recent:     lru.New(remembered), limits: lru.New(remembered), failing: lru.New(remembered),
	}
}

// Event tells of an event about an object. It never waits.
//
// The reason is one word in CamelCase. The message is for people: it is made one line
// without control characters, of at most 1024 bytes, so it may quote files that others wrote.
// It must not hold a secret value. The same event again within 10 minutes counts up
// the one that is there. An object has 10 events, and then one a minute; others, and
// all while too many wait, are dropped and counted.
func (r *Recorder) Event(about kube.ObjectReference, warning bool, reason, message string) {
	if r == nil {
		return
	}
	key := seriesKey{keyOf(about), warning, line(reason, maxReason), line(message, maxMessage)}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if r.ended {
		r.dropped.Inc()
		return
	}
	s, again := r.same(key, now)
	if !again {
		s = &series{seriesKey: key, about: about, first: now}
	}
	s.count++
	s.last = now
	// What is queued already is written with its count.
	if s.queued {
		return
	}
	switch {
	case !r.allowed(key.object, now):
		// The same again: it is told with the next one that is written.
		if !again {
			r.dropped.Inc()
		}
		return
	case !r.enqueue(s):
		if !again {
			r.dropped.Inc()
		}
		return
	}
	r.recent.Add(key, s)
}

// same returns the series that an event continues.
func (r *Recorder) same(key seriesKey, now time.Time) (*series, bool) {
	value, ok := r.recent.Get(key)
	if !ok {
		return nil, false
	}
	s := value.(*series)
	return s, now.Sub(s.last) < sameWithin
}

// allowed says whether an object may have another event now.
func (r *Recorder) allowed(object objectKey, now time.Time) bool {
	value, ok := r.limits.Get(object)
	if !ok {
		value = rate.NewLimiter(rate.Every(objectEvery), objectBurst)
		r.limits.Add(object, value)
	}
	return value.(*rate.Limiter).AllowN(now, 1)
}

// enqueue says whether there was room.
func (r *Recorder) enqueue(s *series) bool {
	select {
	case r.queue <- s:
		s.queued = true
		return true
	default:
		return false
	}
}

// Run writes events until ctx ends. What waits then is dropped, as is every later
// event. It is called once.
func (r *Recorder) Run(ctx context.Context) {
	defer r.end()
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-r.queue:
			if r.totalLimit.Wait(ctx) != nil {
				r.drop(s)
				return
			}
			r.write(ctx, s)
		}
	}
}

// end drops what waits.
func (r *Recorder) end() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	for {
		select {
		case s := <-r.queue:
			r.drop(s)
		default:
			return
		}
	}
}

// drop forgets a series that was not written, so that the same event later is told anew.
func (r *Recorder) drop(s *series) {
	r.dropped.Inc()
	r.mu.Lock()
	defer r.mu.Unlock()
	s.queued = false
	if value, ok := r.recent.Get(s.seriesKey); ok && value.(*series) == s {
		r.recent.Remove(s.seriesKey)
	}
}
