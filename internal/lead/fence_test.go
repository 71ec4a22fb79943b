package lead

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/vsecm/kubectl-vsecm/internal/lead/leaderelection/resourcelock"
	"github.com/vsecm/kubectl-vsecm/internal/lead/leases"
)

// A lease is a Lease whose answers a test times.
type lease struct {
	spec   coordinationv1.LeaseSpec
	before func() error // a write
	gone   bool
}

var _ leases.LeasesGetter = &lease{}

func (l *lease) Leases(string) leases.LeaseInterface { return l }

func (l *lease) Get(context.Context, string, metav1.GetOptions) (*coordinationv1.Lease, error) {
	if l.gone {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "leases"}, Name)
	}
	return &coordinationv1.Lease{Spec: l.spec}, nil
}

func (l *lease) Create(_ context.Context, written *coordinationv1.Lease, _ metav1.CreateOptions) (*coordinationv1.Lease, error) {
	if l.before != nil {
		if err := l.before(); err != nil {
			return nil, err
		}
	}
	l.spec = written.Spec
	return written.DeepCopy(), nil
}

func (l *lease) Update(ctx context.Context, written *coordinationv1.Lease, _ metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	return l.Create(ctx, written, metav1.CreateOptions{})
}

func (l *lease) setHolder(name string) { l.spec.HolderIdentity = &name }

// fenced returns a fence before a Lease, and the context that ends with the term.
func fenced(t *testing.T, l *lease, free []byte) (*fence, context.Context) {
	t.Helper()
	ctx, lose := context.WithCancelCause(t.Context())
	replica := &Lead{
		RenewDeadline: time.Hour,
		leases:        l, namespace: "vsecm-system", identity: "me", log: slog.New(slog.DiscardHandler),
	}
	f := newFence(replica, free, lose)
	t.Cleanup(func() {
		if f.timer != nil {
			f.timer.Stop()
		}
	})
	return f, ctx
}

var mine = resourcelock.LeaderElectionRecord{HolderIdentity: "me", LeaseDurationSeconds: 15}

// Others count from when the API server took the renewal, which may be long before its
// answer is here.
func TestTheTimeToLeadCountsFromBeforeTheRenewalWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const deadline, answer = 10 * time.Second, 3 * time.Second
		l := &lease{before: func() error {
			time.Sleep(answer)
			return nil
		}}
		f, term := fenced(t, l, nil)
		f.RenewDeadline = deadline
		if err := f.Create(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		renewed := time.Now()
		if err := f.Update(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
		<-term.Done()
		if err := context.Cause(term); !errors.Is(err, errLost) {
			t.Errorf("the term ended: %v", err)
		}
		if after := time.Since(renewed); after != deadline {
			t.Errorf("it ended %v after the renewal was sent, want %v", after, deadline)
		}
	})
}

func TestASealedReplicaGivesWayToWhoeverTakesTheLease(t *testing.T) {
	l := &lease{}
	l.setHolder("gone")
	found, _ := fenced(t, l, nil)
	_, free, err := found.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		holder string
		free   []byte
		admit  bool
		want   error
	}{
		{"the leader that is gone holds it still", "gone", free, false, nil},
		{"it was released", "", free, false, nil},
		{"it is its own, from before a restart", "me", free, false, nil},
		{"another took it", "other", free, false, errBehind},
		{"another took it, and this one was unsealed meanwhile", "other", free, true, nil},
		{"another took it, and this one never was sealed", "other", nil, false, nil},
		{"another took what was not there", "other", []byte{}, false, errBehind},
	} {
		l.setHolder(c.holder)
		f, term := fenced(t, l, c.free)
		if c.admit {
			f.admit()
		}
		if _, _, err := f.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := context.Cause(term); !errors.Is(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestReadingAnothersNameEndsTheTermOfALeaderAlone(t *testing.T) {
	l := &lease{}
	f, term := fenced(t, l, nil)
	l.setHolder("other")
	if _, _, err := f.Get(t.Context()); err != nil || term.Err() != nil {
		t.Fatalf("before it leads: %v, %v", err, context.Cause(term))
	}
	if err := f.Update(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Get(t.Context()); err != nil || term.Err() != nil {
		t.Fatalf("with its own name: %v, %v", err, context.Cause(term))
	}
	l.setHolder("other")
	if _, _, err := f.Get(t.Context()); err != nil || term.Err() == nil {
		t.Errorf("with another's name: %v, %v", err, context.Cause(term))
	}
	if got := f.Leader(); got != "other" {
		t.Errorf("%q leads", got)
	}
}

// A renewal that was under way when the elector ended.
func TestReleasingIsTriedAgainWhenSomethingComesInBetween(t *testing.T) {
	l := &lease{}
	f, _ := fenced(t, l, nil)
	if err := f.Create(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	tries := 0
	l.before = func() error {
		if tries++; tries < 3 {
			return apierrors.NewConflict(schema.GroupResource{Resource: "leases"}, Name, errors.New("changed"))
		}
		return nil
	}
	f.release(t.Context())
	if *l.spec.HolderIdentity != "" || f.Leader() != "" {
		t.Errorf("held by %q after %d tries", *l.spec.HolderIdentity, tries)
	}
}

func TestWhatIsAnothersIsNotReleased(t *testing.T) {
	l := &lease{}
	f, _ := fenced(t, l, nil)
	if err := f.Create(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	l.setHolder("other")
	f.release(t.Context())
	if got := *l.spec.HolderIdentity; got != "other" {
		t.Errorf("held by %q", got)
	}
}

// Whoever leads may ask whether it does, and then the API server's word counts.
func TestALeaderIsToldByTheAPIServerWhetherItLeads(t *testing.T) {
	acquired := mine
	acquired.AcquireTime = metav1.NewTime(time.Unix(1e9, 123456789)) // of which the API server keeps less
	for _, c := range []struct {
		name  string
		then  func(*lease)
		holds bool
	}{
		{"nothing has happened", func(*lease) {}, true},
		{"another holds it", func(l *lease) { l.setHolder("other") }, false},
		{"nobody holds it", func(l *lease) { l.setHolder("") }, false},
		{"it is gone", func(l *lease) { l.gone = true }, false},
		{"another had it in between", func(l *lease) { l.spec.LeaseTransitions = new(int32(2)) }, false},
		{"it was gone in between", func(l *lease) { l.spec.AcquireTime = new(metav1.NewMicroTime(time.Unix(1e9+1, 0))) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &lease{}
			f, term := fenced(t, l, nil)
			if err := f.Create(t.Context(), acquired); err != nil {
				t.Fatal(err)
			}
			if err := f.Update(t.Context(), acquired); err != nil {
				t.Fatal(err)
			}
			l.spec.AcquireTime = new(metav1.NewMicroTime(acquired.AcquireTime.Truncate(time.Microsecond)))
			c.then(l)
			err := f.held(t.Context())
			if (err == nil) != c.holds || err != nil && !errors.Is(err, ErrNotHeld) {
				t.Errorf("%v", err)
			}
			if (term.Err() == nil) != c.holds {
				t.Errorf("the term: %v", context.Cause(term))
			}
		})
	}
}
