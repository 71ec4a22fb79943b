package gitsource

import (
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// maxFaultEvents bounds how many faults that are new, and that are gone, one round tells of.
const maxFaultEvents = 10

// say makes v what there is to say while nothing runs, or while what runs is not the matter. The next write
// brings it out.
func (r *runner) say(v condition.Verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verdict = &v
	r.slow = time.Time{}
}

// followed notes that what somebody asked for was tried, by having said why there was no round.
func (r *runner) followed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requestedAt = time.Time{}
}

// reported takes in the result of a round, or of what was done between two.
func (r *runner) reported(run *running) {
	st := run.source.Status()
	if r.c.sealed() || run.ctx.Err() != nil || st.Error == "" && st.LastSuccess.IsZero() {
		return // nothing was judged
	}
	if st.Applying != "" {
		return // it goes on
	}
	v := verdictOf(r.key, run.settings, &st)
	run.busy.Store(false)
	r.mu.Lock()
	r.verdict, r.slow = &v, time.Time{}
	if r.request != "" && !st.LastAttempt.Before(r.requestedAt) {
		r.requestedAt = time.Time{}
	}
	r.mu.Unlock()
	if err := r.write(run.ctx, func(s *v1alpha1.GitSourceStatus) { r.tellFaults(s, &st); fill(s, &st) }); err != nil {
		r.hint() // to write it later
	}
}

// write brings the status up to date, after edit where there is one. It tells of every other reason to be ready, or not to be.
func (r *runner) write(ctx context.Context, edit func(*v1alpha1.GitSourceStatus)) error {
	return r.record.change(ctx, func(s *v1alpha1.GitSourceStatus) {
		r.mu.Lock()
		verdict, seen := r.verdict, r.seen
		if r.request != "" && r.requestedAt.IsZero() {
			s.LastHandledSyncRequest, r.request = r.request, ""
		}
		r.mu.Unlock()
		if edit != nil {
			edit(s)
		}
		switch {
		case seen.spec.Suspend:
			s.ObservedGeneration = seen.Generation
		case verdict != nil:
			before := ready(s)
			condition.Set(&s.Conditions, *verdict, seen.Generation, r.c.now())
			s.ObservedGeneration = seen.Generation
			if after := ready(s); after.Reason != before.Reason || after.Reason == reasonApplied && after.Message != before.Message {
				r.event(verdict.State == condition.Failed, after.Reason, after.Message)
			}
		}
	})
}

// ready returns the condition Ready; the zero one if there is none.
func ready(s *v1alpha1.GitSourceStatus) metav1.Condition {
	if c := meta.FindStatusCondition(s.Conditions, condition.Ready); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// tellFaults tells of the faults that are new since s was written, and of those that are gone. Where not all of them
// are listed, some come and go in the list alone: then only new ones are told of.
func (r *runner) tellFaults(s *v1alpha1.GitSourceStatus, st *reconcile.Status) {
	before, after := s.Faults, faultsOf(st.Faults.Items)
	whole := int(s.FaultCount) == len(before) && st.Faults.Total == len(after)
	tell := func(in, notIn []v1alpha1.GitFault, warning bool, reason string) {
		told := 0
		for _, f := range in {
			if slices.Contains(notIn, f) {
				continue
			}
			if told++; told <= maxFaultEvents {
				r.event(warning, reason, describe(f))
			}
		}
	}
	tell(after, before, true, "Fault")
	if whole {
		tell(before, after, false, "FaultGone")
	}
}

// tellSlow notes in the status that a round goes on for long, and returns when to look again.
func (r *runner) tellSlow() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running == nil || r.slow.IsZero() {
		return 0
	}
	if left := time.Until(r.slow); left > 0 {
		return left
	}
	r.slow = time.Time{}
	st := r.running.source.Status()
	message := "Applying revision " + revisionOf(r.running.settings, st.Applying)
	if st.Applying == "" {
		if r.seen.status.ObservedGeneration == r.seen.Generation {
			return 0 // a new leader looks at what stands
		}
		message = "Reading the repository"
	}
	r.verdict = &condition.Verdict{State: condition.Progressing, Reason: reasonProgressing, Message: message}
	return 0
}

// began notes that a round applies something, so that the status says so if that takes long.
func (r *runner) began() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.slow.IsZero() {
		r.slow = time.Now().Add(quick)
		r.hint()
	}
}

// A listener is the observer of one source.
type listener struct {
	r    *runner
	run  *running
	next reconcile.Observer // may be nil
}

// Applied implements [reconcile.Observer].
func (l *listener) Applied(source string, key store.Key, revision sync.Revision) {
	if l.run.busy.CompareAndSwap(false, true) {
		l.r.began()
	}
	if l.next != nil {
		l.next.Applied(source, key, revision)
	}
}

// Stands implements [reconcile.Observer].
func (l *listener) Stands(source string, key store.Key, revision sync.Revision) {
	if l.next != nil {
		l.next.Stands(source, key, revision)
	}
}

// Refused implements [reconcile.Observer].
func (l *listener) Refused(source string, key store.Key, faults []*encrypt.Fault) {
	if l.next != nil {
		l.next.Refused(source, key, faults)
	}
}

// Restored implements [reconcile.Observer].
func (l *listener) Restored(source string, key store.Key, how string) {
	l.r.event(true, "Restored", fmt.Sprintf("%s was %s by somebody else, and put back", key, how))
	if l.next != nil {
		l.next.Restored(source, key, how)
	}
}

// deps are what a source works with.
func (r *runner) deps(run *running) reconcile.Deps {
	c := &r.c.config
	return reconcile.Deps{
		Store: c.Store, Journal: r.record, Keys: c.Keys, Era: c.Era, Metrics: c.Metrics,
		Observer: &listener{r, run, c.Observer},
		Reported: func(*reconcile.Source) { r.reported(run) },
		Log:      c.Log, Now: c.Now,
	}
}
