package lead

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/lead/leaderelection/resourcelock"
)

// A fence is the Lease as the elector sees it. It ends the term as soon as something that
// passes through it says that the Lease may be another's.
type fence struct {
	*Lead
	resourcelock.LeaseLock
	lose context.CancelCauseFunc

	mu    sync.Mutex
	tried bool        // the Lease may say that it is ours
	free  []byte      // see term
	timer *time.Timer // ends the term; nil until the Lease is ours
	// What the Lease said when it became ours. It stays the same until it is another's, or deleted.
	acquired    int64 // microseconds, which is what the API server keeps
	transitions int
}

func newFence(l *Lead, free []byte, lose context.CancelCauseFunc) *fence {
	return &fence{Lead: l, LeaseLock: l.lock(), lose: lose, free: free}
}

// lock returns the Lease.
func (l *Lead) lock() resourcelock.LeaseLock {
	return resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: l.namespace, Name: Name},
		Client:     l.leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: l.identity},
	}
}

// call returns a context for one call: one that hangs must not cost the Lease.
func (l *Lead) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, l.RenewDeadline/2)
}

// Get implements [resourcelock.Interface].
func (f *fence) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	call, cancel := f.call(ctx)
	defer cancel()
	record, raw, err := f.LeaseLock.Get(call)
	f.saw(ctx, record, err)
	if err != nil {
		return nil, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	other := record.HolderIdentity != f.identity
	switch {
	case f.timer != nil && other:
		f.lose(fmt.Errorf("the Lease is held by %q", record.HolderIdentity))
	case f.timer == nil && f.free != nil && other && record.HolderIdentity != "" && !bytes.Equal(raw, f.free):
		f.lose(errBehind)
	}
	return record, raw, nil
}

// Create implements [resourcelock.Interface].
func (f *fence) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return f.take(ctx, record, f.LeaseLock.Create)
}

// Update implements [resourcelock.Interface].
func (f *fence) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return f.take(ctx, record, f.LeaseLock.Update)
}

// take takes or renews the Lease.
func (f *fence) take(ctx context.Context, record resourcelock.LeaderElectionRecord, write func(context.Context, resourcelock.LeaderElectionRecord) error) error {
	f.mu.Lock()
	f.tried = true
	f.mu.Unlock()
	call, cancel := f.call(ctx)
	defer cancel()
	sent := time.Now()
	err := write(call, record)
	f.saw(ctx, &record, err)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	left := f.RenewDeadline - time.Since(sent)
	if f.timer == nil {
		f.acquired, f.transitions = record.AcquireTime.UnixMicro(), record.LeaderTransitions
		f.timer = time.AfterFunc(left, func() { f.lose(errLost) })
	} else {
		f.timer.Reset(left)
	}
	return nil
}

// held is [Lead.Held].
func (f *fence) held(ctx context.Context) error {
	call, cancel := f.call(ctx)
	defer cancel()
	lock := f.lock() // the elector uses the other
	record, _, err := lock.Get(call)
	f.saw(ctx, record, err)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("reading the Lease: %w", kube.Plain(err))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err != nil:
		err = fmt.Errorf("%w: there is none", ErrNotHeld)
	case record.HolderIdentity != f.identity:
		err = fmt.Errorf("%w: it is held by %q", ErrNotHeld, record.HolderIdentity)
	case record.AcquireTime.UnixMicro() != f.acquired || record.LeaderTransitions != f.transitions:
		err = fmt.Errorf("%w: it was not in between", ErrNotHeld)
	default:
		return nil
	}
	f.lose(err)
	return err
}

// admit lets a replica that was sealed contend as any other.
func (f *fence) admit() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = nil
}

// release makes the Lease free, if it is ours, once the elector and the work have ended.
func (f *fence) release(ctx context.Context) {
	if f.timer != nil {
		f.timer.Stop()
	}
	if !f.tried {
		return
	}
	ctx, cancel := f.call(context.WithoutCancel(ctx))
	defer cancel()
	for {
		// A renewal that was under way when the elector ended may come in between.
		if err := f.giveUp(ctx); !apierrors.IsConflict(err) {
			return
		}
	}
}

// giveUp makes the Lease free, if it is ours and nobody writes it at the same time.
func (f *fence) giveUp(ctx context.Context) error {
	record, _, err := f.LeaseLock.Get(ctx)
	if err != nil || record.HolderIdentity != f.identity {
		f.saw(ctx, record, err)
		return err
	}
	// As the elector writes it. Whoever does not read it waits until it has run out.
	now := metav1.Now()
	free := resourcelock.LeaderElectionRecord{
		LeaderTransitions:    record.LeaderTransitions,
		LeaseDurationSeconds: 1,
		RenewTime:            now,
		AcquireTime:          now,
	}
	err = f.LeaseLock.Update(ctx, free)
	f.saw(ctx, &free, err)
	return err
}

// saw notes who leads, and tells once when the API server does not let us know.
func (l *Lead) saw(ctx context.Context, record *resourcelock.LeaderElectionRecord, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.holder = record.HolderIdentity
		if l.failing {
			l.log.Info("the Lease can be read and written again")
		}
		l.failing = false
	case apierrors.IsNotFound(err):
		l.holder = ""
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), ctx.Err() != nil:
		// Another was quicker, or nobody wants to know any more.
	case !l.failing:
		l.failing = true
		l.log.Warn("the Lease that says which replica leads cannot be read or written; trying again",
			"namespace", l.namespace, "lease", Name, "error", kube.Plain(err))
	}
}
