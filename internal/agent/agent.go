// Package agent brings a workload's secrets to a program that knows nothing of
// Safe: as files, or in the environment of a program that it runs. It watches
// Safe, writes each new version whole, and tells the program of it.
//
// What was delivered stays until there is something newer: while Safe is sealed
// or away, when it refuses this workload or has nothing for it, and when the
// new version cannot be written. Everything that fails is tried again.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/vsecm/kubectl-vsecm/internal/fetch"
	"github.com/vsecm/kubectl-vsecm/pkg/workload"
)

var (
	// ErrNothing says that Safe has no secret for this workload.
	ErrNothing = errors.New("safe has no secret for this workload")
	// ErrTimeout says that there was nothing to deliver in time. It comes with
	// the error of the last try.
	ErrTimeout = errors.New("nothing was delivered in time")
)

// checkEvery is how often the target is looked at: what was written may be
// removed by somebody, or hidden by a mount.
const checkEvery = 5 * time.Second

// A Client watches the secrets of this workload, as [workload.Client] does.
type Client interface {
	Watch(ctx context.Context, fn func(*workload.Secrets)) error
	Close() error
}

// A Config says what to deliver to, and whom to tell.
type Config struct {
	// Dial makes the client, which is to tell observe how its watch goes.
	Dial func(ctx context.Context, observe func(error)) (Client, error)
	// Target is where files are written; nil: nowhere.
	Target *fetch.Target
	// Once ends Run as soon as there is a version in place, or after Timeout,
	// if that is set.
	Once    bool
	Timeout time.Duration
	// Hooks are run when there is a new version in Target.
	Hooks []Hook
	// Program is run with the secrets in its environment; nil: none.
	Program *Program
	// Listener, if any, serves /healthz, /readyz and /metrics. Run closes it.
	Listener net.Listener
	Log      *slog.Logger
}

// An agent is one run.
type agent struct {
	Config
	status  *status
	metrics *metrics
	inbox   chan *workload.Secrets // holds the latest alone
	dir     *fetch.Directory
	hooks   *hooks
	program *supervisor
}

// Run delivers until ctx ends, the program does, or, with Once, there is
// something delivered. It returns the exit code of the program, 0 where there
// is none. When ctx ends, the program is ended before Run returns.
//
// Errors: with Once those of the last try, and [ErrTimeout]; those of Dial but
// [workload.ErrNoIdentity]; that the program cannot be started. Everything else
// is tried again.
func Run(ctx context.Context, c Config) (code int, err error) {
	a := &agent{Config: c, status: newStatus(time.Now), inbox: make(chan *workload.Secrets, 1)}
	a.metrics = newMetrics(a.status)
	family := newFamily()
	if len(c.Hooks) > 0 {
		a.hooks = newHooks(c.Hooks, family, a)
	}
	if c.Program != nil {
		a.program = newSupervisor(*c.Program, family, a)
	}
	a.status.expect(c.Target != nil, c.Program != nil)
	if c.Once && c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	defer func() {
		if a.dir != nil {
			a.dir.Close()
		}
	}()
	a.adopt()

	// The first to end, the program or a delivery that was to be the only one,
	// ends the rest.
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return a.watch(inner) })
	group.Go(func() error { return a.deliverAll(inner) })
	group.Go(func() error { return a.serve(inner) })
	if a.hooks != nil {
		group.Go(func() error { return a.hooks.run(inner) })
	}
	if a.program != nil {
		group.Go(func() (err error) {
			if code, err = a.program.run(inner); err == nil {
				err = errDone
			}
			return err
		})
	}
	if a.program != nil || a.hooks != nil { // a command may leave processes behind as well
		group.Go(func() error { return family.reapOrphans(inner) })
	}
	err = group.Wait()
	switch {
	case errors.Is(err, errDone):
		return code, nil
	case err != nil || !c.Once:
		return code, err
	}
	// With Once, only the end of ctx ends the group without a word.
	last := a.status.lastFailure()
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return 0, ctx.Err()
	}
	if last == nil {
		return 0, ErrTimeout
	}
	return 0, fmt.Errorf("%w: %w", ErrTimeout, last)
}

// errDone ends the group when all is done.
var errDone = errors.New("done")

// adopt takes over what an agent before this one has written.
func (a *agent) adopt() {
	if a.Target == nil || a.Once {
		return
	}
	warnOfDisk(a.Log, a.Target.Dir)
	if err := a.open(); err != nil {
		// It may be another agent's until that has ended.
		a.failed(err)
		return
	}
	since, found := a.dir.Current()
	if !found {
		return
	}
	a.Log.Info("found a version in place", "dir", a.Target.Dir, "written", since)
	a.status.inPlace(since)
	a.tell()
}

func (a *agent) open() (err error) {
	if a.dir == nil {
		a.dir, err = fetch.Open(*a.Target)
	}
	return err
}

// watch keeps a client watching.
func (a *agent) watch(ctx context.Context) error {
	pause := newBackoff(time.Second, 30*time.Second)
	for {
		client, err := a.Dial(ctx, a.observe)
		switch {
		case err == nil:
			err = client.Watch(ctx, a.receive)
			err = errors.Join(err, client.Close())
		case !errors.Is(err, workload.ErrNoIdentity) && ctx.Err() == nil:
			return err // how it was told to reach Safe makes no sense
		}
		if ctx.Err() != nil {
			return nil
		}
		a.observe(err)
		if !sleep(ctx, pause.Step()) {
			return nil
		}
	}
}

// receive puts the secrets into the inbox, in the place of older ones.
func (a *agent) receive(s *workload.Secrets) {
	select {
	case old := <-a.inbox:
		old.Wipe()
	default:
	}
	a.inbox <- s
}

// observe is told how the watch goes.
func (a *agent) observe(err error) {
	if err == nil {
		if a.status.safeAnswers() {
			a.Log.Info("watching Safe")
		}
		return
	}
	kind := kindOf(err)
	a.metrics.failures.WithLabelValues(kind).Inc()
	if a.status.safeFails(kind, err) {
		a.Log.Warn("cannot get the secrets; trying again, and keeping what was delivered", "kind", kind, "error", err)
	}
}

// failed notes that what Safe has could not be delivered.
func (a *agent) failed(err error) {
	kind := kindOf(err)
	a.metrics.failures.WithLabelValues(kind).Inc()
	if a.status.deliveryFails(kind, err) {
		a.Log.Error("cannot deliver; trying again, and keeping what was delivered", "kind", kind, "error", err)
	}
}

// deliverAll delivers what comes, and again where that failed or where it is
// not in its place any more.
func (a *agent) deliverAll(ctx context.Context) error {
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	retry := time.NewTimer(time.Hour)
	retry.Stop()
	defer retry.Stop()
	pause := newBackoff(time.Second, 30*time.Second)
	var latest *workload.Secrets
	defer func() {
		if latest != nil {
			latest.Wipe()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-a.inbox:
			if keys(s) == 0 {
				a.failed(ErrNothing)
				continue
			}
			if latest != nil {
				latest.Wipe()
			}
			latest = s
			pause = newBackoff(time.Second, 30*time.Second)
		case <-retry.C:
		case <-check.C:
			if a.dir == nil || !a.status.isInPlace() {
				continue
			}
			err := a.dir.InPlace()
			if err == nil {
				continue
			}
			a.status.lost()
			a.failed(err)
			if latest == nil {
				continue // what an agent before this one wrote
			}
		}
		if err := a.deliver(latest); err != nil {
			if ctx.Err() == nil {
				a.failed(err)
			}
			retry.Reset(pause.Step())
			continue
		}
		retry.Stop()
		pause = newBackoff(time.Second, 30*time.Second)
		if a.Once {
			return errDone
		}
	}
}

func keys(s *workload.Secrets) int {
	n := 0
	for _, secret := range s.Secrets {
		n += len(secret.Data)
	}
	return n
}

// deliver delivers one version: to all, or, where it cannot be given to the
// program, to none.
func (a *agent) deliver(s *workload.Secrets) error {
	var environ []string
	if a.program != nil {
		var err error
		if environ, err = environment(os.Environ(), s); err != nil {
			return err
		}
	}
	if a.Target != nil {
		if err := a.open(); err != nil {
			return err
		}
		changed, err := a.dir.Write((*fetch.Secrets)(s))
		if changed {
			a.metrics.writes.Inc()
			a.Log.Info("wrote a new version", "dir", a.Target.Dir)
		}
		if since, found := a.dir.Current(); found && (changed || err == nil) {
			a.status.inPlace(since)
			a.tell()
		}
		if err != nil {
			return err
		}
	}
	if a.program != nil {
		a.program.offer(environ)
		if a.Target == nil {
			a.status.inPlace(time.Now())
		}
	}
	a.status.delivered()
	return nil
}

// tell has the hooks run, if they have not been for the version in place.
func (a *agent) tell() {
	if a.hooks == nil {
		return
	}
	if _, untold := a.dir.Untold(); untold {
		a.hooks.notify()
	}
}

// newBackoff returns pauses that double from first to last, and differ from
// process to process.
func newBackoff(first, last time.Duration) *wait.Backoff {
	return &wait.Backoff{Duration: first, Factor: 2, Jitter: 0.5, Steps: 64, Cap: last}
}

// sleep reports whether d passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
