package reconcile

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// maxListed bounds each list of a status; its total says how many there are.
const maxListed = 100

// A Status tells how a source fares.
type Status struct {
	Source string `json:"source"`
	URL    string `json:"url"`
	Branch string `json:"branch"`

	// Revision was applied, at AppliedAt; Seen is where the branch is.
	Revision  string    `json:"revision,omitempty"`
	AppliedAt time.Time `json:"appliedAt,omitzero"`
	Seen      string    `json:"seen,omitempty"`

	LastAttempt time.Time `json:"lastAttempt,omitzero"`
	LastSuccess time.Time `json:"lastSuccess,omitzero"`
	// Error is why the last round failed; empty if it did not.
	Error string `json:"error,omitempty"`

	// Objects is how many objects the source owns.
	Objects int `json:"objects"`
	// SkippedDocuments is how many documents are none of ours.
	SkippedDocuments int `json:"skippedDocuments"`

	// Faults are what keeps declared objects from being delivered.
	Faults List[Fault] `json:"faults"`
	// Warnings are about objects that were delivered.
	Warnings List[Fault] `json:"warnings"`
	// Skips are the paths that are not read.
	Skips List[sync.Skip] `json:"skips"`
	// PendingDeletions are the objects, NAMESPACE/NAME, that git no longer
	// declares and that still stand: because the source does not prune, or,
	// where Braked says so, because they are too many to be deleted unasked.
	PendingDeletions List[string] `json:"pendingDeletions"`
	Braked           bool         `json:"braked,omitempty"`
}

// A List is the beginning of a list and how long all of it is.
type List[T any] struct {
	Total int `json:"total"`
	Items []T `json:"items,omitempty"`
}

func listOf[T any](all []T) List[T] {
	return List[T]{len(all), slices.Clone(all[:min(len(all), maxListed)])}
}

// A Fault is an [encrypt.Fault] as JSON.
type Fault struct {
	File      string `json:"file,omitempty"`
	Line      int    `json:"line,omitempty"`
	Field     string `json:"field,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Message   string `json:"message"`
}

func faultsOf(all []*encrypt.Fault) List[Fault] {
	l := List[Fault]{Total: len(all)}
	for _, f := range all[:min(len(all), maxListed)] {
		l.Items = append(l.Items, Fault{f.File, f.Line, f.Field, f.Namespace, f.Name, f.Err.Error()})
	}
	return l
}

// Status returns how the source fares. It may be called at any time; what it
// returns is the caller's to read, and never changes.
func (s *Source) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// report turns the result of a round into status, log and metrics: here and
// nowhere else.
func (s *Source) report(start time.Time, seen sync.Revision, err error) {
	now := s.deps.Now()
	faults := s.index.Faults()
	for _, key := range keysOf(s.refused) {
		faults = append(faults, s.refused[key].faults...)
	}
	sync.SortFaults(faults)
	var warnings []*encrypt.Fault
	for _, key := range keysOf(s.warned) {
		warnings = append(warnings, s.warned[key]...)
	}
	var pending []string
	for _, key := range keysOf(s.doomed) {
		pending = append(pending, key.String())
	}

	s.mu.Lock()
	st := s.status
	s.mu.Unlock()
	before := st.Error
	st.Revision, st.AppliedAt = s.applied.Revision, s.applied.AppliedAt
	if seen != "" {
		st.Seen = string(seen)
	}
	st.LastAttempt = start
	st.Objects, st.SkippedDocuments = len(s.owned), s.index.Skipped()
	st.Faults, st.Warnings = faultsOf(faults), faultsOf(warnings)
	skips := s.index.Skips()
	st.Skips, st.PendingDeletions = listOf(skips), listOf(pending)
	st.Braked = s.window.Waiting
	switch {
	case err == nil:
		st.LastSuccess, st.Error = now, ""
	case !errors.Is(err, context.Canceled): // we are being stopped
		st.Error = err.Error()
	}
	s.mu.Lock()
	s.status = st
	s.mu.Unlock()

	if st.Error != before {
		if st.Error == "" {
			s.log.Info("sync works again")
		} else {
			s.log.Error("sync failed", "error", st.Error, "seen", st.Seen, "applied", st.Revision)
		}
	}
	s.tell(slices.Concat(faults, warnings))
	s.tellSkips(skips)
	s.deps.Metrics.observe(st, now.Sub(start), err)
}

// tell logs every fault once when it appears and once when it is gone.
func (s *Source) tell(faults []*encrypt.Fault) {
	now := make(map[string]*encrypt.Fault, len(faults))
	for _, f := range faults {
		text := f.Error()
		if _, told := s.told[text]; !told && now[text] == nil {
			s.log.Warn("fault", "file", f.File, "line", f.Line, "field", f.Field, "namespace", f.Namespace, "name", f.Name, "error", f.Err)
		}
		now[text] = f
	}
	for text, f := range s.told {
		if now[text] == nil {
			s.log.Info("fault is gone", "file", f.File, "line", f.Line, "field", f.Field, "namespace", f.Namespace, "name", f.Name)
		}
	}
	s.told = now
}

// tellSkips logs every path that is not read, once, and when it is again.
func (s *Source) tellSkips(skips []sync.Skip) {
	now := make(map[sync.Skip]bool, len(skips))
	for _, skip := range skips {
		now[skip] = true
		if !s.skipped[skip] {
			s.log.Warn("path is not read", "file", skip.Path, "reason", skip.Reason)
		}
	}
	for skip := range s.skipped {
		if !now[skip] {
			s.log.Info("path is read again, or gone", "file", skip.Path)
		}
	}
	s.skipped = now
}
