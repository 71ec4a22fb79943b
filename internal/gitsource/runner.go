package gitsource

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	gosync "sync"
	"sync/atomic"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

const (
	// quick is how long a round may take before the status says that it goes on.
	quick = 2 * time.Second
	// The API server is asked again after firstPause, and then less and less often.
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// A runner follows one GitSource while this replica leads, and whichever objects come to bear its name.
type runner struct {
	c    *Controller
	key  store.Key
	log  *slog.Logger
	wake chan struct{}

	// retry has everything tried again at once: the keys are others.
	retry atomic.Bool

	// Only run uses these.
	record  *record
	pause   time.Duration // the last one after the API server failed
	attempt attempt

	mu      gosync.Mutex
	running *running
	seen    *received // what the status is about
	verdict *condition.Verdict
	// What somebody asked for a round with, and when that was seen; empty once it was followed.
	request     string
	requestedAt time.Time
	// slow is when the status is to say that a round goes on; zero: there is none, or it says so.
	slow time.Time
}

// A running is a source that goes round.
type running struct {
	source   *reconcile.Source
	settings *settings
	read     map[string]secret
	ctx      context.Context
	cancel   context.CancelFunc
	uses     gosync.WaitGroup // Run, and whoever else uses source
	// busy says that the round that goes on has applied something.
	busy atomic.Bool
}

// An attempt is one to build a source that failed.
type attempt struct {
	settings *settings // nil: there was none
	read     map[string]secret
	next     time.Time
}

func newRunner(c *Controller, key store.Key) *runner {
	return &runner{c: c, key: key, log: c.config.Log.With("source", ownerOf(key)), wake: make(chan struct{}, 1)}
}

// hint wakes run. It does not block.
func (r *runner) hint() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run follows the GitSource until ctx ends, or there is none of its name any more.
func (r *runner) run(ctx context.Context) {
	defer r.halt()
	for ctx.Err() == nil {
		now := r.c.lookup(r.key)
		if now == nil {
			r.forget()
			if r.c.retire(r) {
				return
			}
			continue
		}
		wait := r.follow(ctx, now)
		timer := time.NewTimer(wait)
		if wait == 0 {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// follow brings what runs up to date with the GitSource, and returns when to look again, whatever
// happens until then; zero for never.
func (r *runner) follow(ctx context.Context, now *received) time.Duration {
	if r.record != nil && r.record.uid != now.UID {
		r.forget() // it is another by the same name
	}
	if r.record == nil {
		record, err := openRecord(ctx, r.c.config.Client, r.key)
		if err == nil && record.uid != now.UID {
			err = errReplaced // the watch will tell
		}
		if err != nil {
			return r.failed(ctx, "the state of the source cannot be read", err)
		}
		record.lease, record.held = ctx, r.c.config.Held
		r.record = record
	}
	handled := r.record.handled()
	r.mu.Lock()
	r.seen = now
	if asked := now.requested(); asked != "" && asked != handled && asked != r.request {
		r.request, r.requestedAt = asked, r.c.now()
		r.attempt.next = time.Time{}
		if r.running != nil {
			r.running.source.Hint()
		}
	}
	r.mu.Unlock()

	next := r.steer(ctx, now)
	if err := r.write(ctx, nil); err != nil {
		return r.failed(ctx, "the state of the source cannot be written", err)
	}
	r.pause = 0
	return next
}

// failed returns when to try again what the API server did not do.
func (r *runner) failed(ctx context.Context, what string, err error) time.Duration {
	if ctx.Err() == nil && r.pause == 0 && !errors.Is(err, errReplaced) {
		r.log.Warn(what, "error", err)
	}
	r.pause = min(max(2*r.pause, firstPause), longestPause)
	return r.pause
}

// steer starts, stops and replaces what runs.
func (r *runner) steer(ctx context.Context, now *received) time.Duration {
	retry := r.retry.Swap(false)
	wanted, err := settingsOf(now, r.c.config.Namespace, r.c.config.MinInterval)
	switch {
	case err != nil:
		r.halt()
		r.say(condition.Verdict{State: condition.Failed, Reason: reasonInvalid, Message: err.Error()})
		r.followed()
		return 0
	case wanted.suspend:
		r.halt() // and what was said before still is
		return 0
	case r.c.sealed():
		// What runs does nothing until Retry.
		if r.running != nil && !r.running.settings.equal(wanted) {
			r.halt()
		}
		r.say(sealedVerdict)
		return 0
	}
	if r.running != nil && r.running.settings.equal(wanted) && !r.c.outdated(r.key.Namespace, r.running.read) {
		if retry {
			r.running.source.Retry()
		}
		return r.tellSlow()
	}
	return r.build(ctx, wanted, retry)
}

// build starts a source, in the place of what runs.
func (r *runner) build(ctx context.Context, wanted *settings, retry bool) time.Duration {
	if a := &r.attempt; a.settings != nil && a.settings.equal(wanted) && !retry && !r.c.outdated(r.key.Namespace, a.read) {
		if left := a.next.Sub(r.c.now()); left > 0 {
			return left
		}
	}
	config, read, err := r.c.configOf(ctx, r.key, wanted)
	var unusable *secretError
	if errors.As(err, &unusable) && unusable.passes() && r.running != nil && r.running.settings.equal(wanted) {
		// What runs has credentials that may be good still.
		return firstPause
	}
	r.halt()
	var started *running
	if err == nil {
		started, err = r.start(ctx, config, wanted, read)
	}
	if ctx.Err() != nil {
		return 0
	}
	if err != nil {
		wait := r.c.config.Retry
		if unusable != nil && unusable.passes() {
			wait = min(wait, unreadPause)
		}
		r.attempt = attempt{settings: wanted, read: read, next: r.c.now().Add(wait)}
		r.say(verdictOfBuild(err, wanted))
		r.followed()
		return wait
	}
	r.attempt = attempt{}
	r.mu.Lock()
	r.running, r.verdict = started, nil
	r.slow = time.Now().Add(quick)
	r.mu.Unlock()
	r.c.live()
	started.uses.Go(func() { started.source.Run(started.ctx) })
	return quick
}

// start opens a source and has it go round.
func (r *runner) start(ctx context.Context, config reconcile.Config, wanted *settings, read map[string]secret) (*running, error) {
	run := &running{settings: wanted, read: read}
	run.ctx, run.cancel = context.WithCancel(ctx)
	for name, s := range read {
		s.data = nil // it is in config, and not needed here
		read[name] = s
	}
	var err error
	run.source, err = reconcile.New(config, r.c.mirror(r.key), r.deps(run))
	if err != nil {
		run.cancel()
		return nil, err
	}
	return run, nil
}

// halt stops what runs, and returns when it has.
func (r *runner) halt() {
	r.mu.Lock()
	run := r.running
	r.running, r.verdict, r.slow = nil, nil, time.Time{}
	r.mu.Unlock()
	if run == nil {
		return
	}
	run.cancel()
	r.c.live()
	run.uses.Wait()
	if err := run.source.Close(); err != nil {
		r.log.Warn("a source's mirror could not be closed", "error", err)
	}
}

// forget removes what is kept of a GitSource that is gone.
func (r *runner) forget() {
	r.halt()
	r.record, r.attempt = nil, attempt{}
	r.mu.Lock()
	r.seen, r.request = nil, ""
	r.mu.Unlock()
	r.c.removeMirror(ownerOf(r.key))
	if r.c.config.Removed != nil {
		r.c.config.Removed(ownerOf(r.key))
	}
}

// use has do use the source that runs.
func (r *runner) use(ctx context.Context, do func(context.Context, *reconcile.Source) error) error {
	r.mu.Lock()
	run := r.running
	if run == nil {
		defer r.mu.Unlock()
		return r.idle()
	}
	run.uses.Add(1)
	r.mu.Unlock()
	defer run.uses.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(run.ctx, cancel)()
	return do(ctx, run.source)
}

// suspended tells whether nobody wants the source to be followed.
func (r *runner) suspended() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen != nil && r.seen.spec.Suspend
}

// idle says why nothing runs. r.mu is held.
func (r *runner) idle() error {
	switch {
	case r.seen != nil && r.seen.spec.Suspend:
		return &notRunningError{"it is suspended (spec.suspend)"}
	case r.verdict != nil:
		return &notRunningError{r.verdict.Message}
	}
	return &notRunningError{"it is just being started: try again"}
}

// A notRunningError is an [ErrNotRunning] with the reason.
type notRunningError struct{ reason string }

func (e *notRunningError) Error() string        { return ErrNotRunning.Error() + ": " + e.reason }
func (e *notRunningError) Is(target error) bool { return target == ErrNotRunning }

// mirror returns where the mirror of a source is.
func (c *Controller) mirror(key store.Key) string {
	return filepath.Join(c.config.MirrorDir, ownerOf(key))
}

func (c *Controller) removeMirror(name string) {
	if err := os.RemoveAll(filepath.Join(c.config.MirrorDir, name)); err != nil {
		c.config.Log.Warn("the mirror of a source that is gone could not be removed", "source", name, "error", err)
	}
}

// removeMirrors removes those of sources that are gone since this replica led last.
func (c *Controller) removeMirrors() error {
	if err := os.MkdirAll(c.config.MirrorDir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.config.MirrorDir)
	if err != nil {
		return err
	}
	wanted := make(map[string]bool)
	for _, key := range c.keys() {
		wanted[ownerOf(key)] = true
	}
	for _, e := range entries {
		if !wanted[e.Name()] {
			c.removeMirror(e.Name())
		}
	}
	return nil
}

// event tells of something about the GitSource.
func (r *runner) event(warning bool, reason, message string) {
	r.mu.Lock()
	seen := r.seen
	r.mu.Unlock()
	if r.c.config.Events == nil || seen == nil {
		return
	}
	r.c.config.Events.Event(seen.reference(), warning, reason, message)
}
