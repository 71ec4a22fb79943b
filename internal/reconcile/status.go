package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

const (
	// maxListed bounds each list of a status; its total says how many there
	// are.
	maxListed = 100
	// maxTold bounds the faults that are compared with those of the round
	// before, and maxLogged those of them, new or gone, that one round logs.
	maxTold   = 1000
	maxLogged = 100
)

// A Status tells how a source fares.
type Status struct {
	Source string `json:"source"`
	URL    string `json:"url"`
	Branch string `json:"branch,omitempty"`
	// Tag or Commit is what is followed instead of the branch's tip.
	Tag    string `json:"tag,omitempty"`
	Commit string `json:"commit,omitempty"`

	// Revision was applied, at AppliedAt; Seen is where the branch is. Both
	// of the former are empty until a first revision was applied whole.
	Revision  string    `json:"revision,omitempty"`
	AppliedAt time.Time `json:"appliedAt,omitzero"`
	Seen      string    `json:"seen,omitempty"`
	// Applying is the revision that is being applied at this moment.
	Applying string `json:"applying,omitempty"`
	// Verified is what was verified of Revision.
	Verified store.Verified `json:"verified,omitzero"`
	// Rewind is what [Override.AcceptRewrite] is waited for.
	Rewind Rewind `json:"rewind,omitzero"`

	LastAttempt time.Time `json:"lastAttempt,omitzero"`
	LastSuccess time.Time `json:"lastSuccess,omitzero"`
	// Error is why the last round failed; empty if it did not.
	Error string `json:"error,omitempty"`
	// ErrorReason names its kind, as metrics do: rewound, unverified, authentication, …; it is one of few.
	ErrorReason string `json:"errorReason,omitempty"`

	// Objects is how many objects the source owns.
	Objects int `json:"objects"`
	// SkippedDocuments is how many documents are none of ours.
	SkippedDocuments int `json:"skippedDocuments"`

	// Faults are what keeps declared objects from being delivered.
	Faults List[Fault] `json:"faults"`
	// Contested is how many objects others change again and again. Each is among the faults.
	Contested int `json:"contested,omitempty"`
	// Warnings are about objects that were delivered.
	Warnings List[Fault] `json:"warnings"`
	// Skips are the paths that are not read.
	Skips List[sync.Skip] `json:"skips"`
	// PendingDeletions are the objects, NAMESPACE/NAME, that git no longer
	// declares and that still stand: because the source does not prune, or
	// for the reason that DeletionsWait gives: [WaitsForBrake],
	// [WaitsForFaults] or [WaitsForConfiguration].
	PendingDeletions List[string] `json:"pendingDeletions"`
	DeletionsWait    string       `json:"deletionsWait,omitempty"`
	// Braked says that the brake on mass deletion is on: it stays on until
	// the files are back or somebody allows the deletions.
	Braked bool `json:"braked,omitempty"`
}

// A Rewind is what does not follow from what was applied.
type Rewind struct {
	// Applied was applied; empty where that is not known: [ErrUnrecorded].
	Applied string `json:"applied,omitempty"`
	// Seen does not descend from it.
	Seen string `json:"seen"`
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
func (s *Source) report(ctx context.Context, start time.Time, seen sync.Revision, err error) {
	now := s.deps.Now()
	st := s.describe(ctx, err)
	if seen != "" {
		st.Seen = string(seen)
	}
	st.LastAttempt = start
	if err == nil {
		st.LastSuccess = now
	}
	s.publish(st)
	s.deps.Metrics.round(s.config.Name, now.Sub(start), err)
}

// describe returns the status as it is now, with err as what is wrong.
func (s *Source) describe(ctx context.Context, err error) Status {
	st := s.Status()
	st.Applying = ""
	if !s.applied.AppliedAt.IsZero() { // otherwise it was only begun
		st.Revision, st.AppliedAt, st.Verified = s.applied.Revision, s.applied.AppliedAt, s.applied.Verified
	}
	st.Rewind = s.rewind
	st.Objects, st.SkippedDocuments, st.Contested = len(s.owned), s.index.Skipped(), s.contested()
	st.Braked, st.DeletionsWait = s.window.Waiting, s.waits
	if s.changed && s.index.Revision() != "" { // of an index without a revision nothing is known
		s.list(ctx, &st)
		s.changed = false
	}
	switch {
	case err == nil:
		st.Error, st.ErrorReason = "", ""
	case !errors.Is(err, context.Canceled): // we are being stopped
		st.Error, st.ErrorReason = err.Error(), reasonOf(err)
	}
	return st
}

// publish makes st the status, and logs how it fares now.
func (s *Source) publish(st Status) {
	s.mu.Lock()
	before := s.status.Error
	s.status = st
	s.mu.Unlock()
	if st.Error != before {
		if st.Error == "" {
			s.log.Info("sync works again")
		} else {
			s.log.Error("sync failed", "error", st.Error, "seen", st.Seen, "applied", st.Revision)
		}
	}
	s.deps.Metrics.show(st)
}

// applying shows in the status that a revision is being applied, which may take a while.
func (s *Source) applying(revision sync.Revision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Applying = string(revision)
}

// list brings the lists of a status up to date, and logs how they changed.
func (s *Source) list(ctx context.Context, st *Status) {
	skips := s.index.Skips()
	faults, total := s.index.Faults(), s.index.FaultCount()
	for _, key := range keysOf(s.refused) {
		r := s.refused[key]
		faults = append(faults, r.faults[:min(len(r.faults), max(0, maxTold-len(faults)))]...)
		total += len(r.faults)
	}
	for _, key := range keysOf(s.contests) {
		if fault := s.contests[key].fault; fault != nil {
			faults = append(faults, fault)
			total++
		}
	}
	sync.SortFaults(faults)
	s.blame(ctx, faults, skips)
	st.Faults = faultsOf(faults)
	st.Faults.Total = total

	var warnings []*encrypt.Fault
	for _, key := range keysOf(s.warned) {
		warnings = append(warnings, s.warned[key]...)
	}
	st.Warnings = faultsOf(warnings)

	var pending []string
	for _, key := range keysOf(s.doomed) {
		pending = append(pending, key.String())
	}
	st.PendingDeletions = listOf(pending)

	st.Skips = listOf(skips)
	s.tell(faults, warnings[:min(len(warnings), maxTold)])
	s.tellSkips(skips[:min(len(skips), maxTold)])
}

// A budget is what may still be logged of one kind.
type budget struct{ left, dropped int }

func (b *budget) take() bool {
	if b.left == 0 {
		b.dropped++
		return false
	}
	b.left--
	return true
}

// close logs how much was not.
func (b *budget) close(log *slog.Logger) {
	if b.dropped > 0 {
		log.Warn("more changes of faults and skips than are logged", "dropped", b.dropped)
	}
}

// tell logs faults once when they appear and once when they are gone.
func (s *Source) tell(faults, warnings []*encrypt.Fault) {
	b := budget{left: maxLogged}
	defer func() { b.close(s.log) }()
	now := make(map[string]*encrypt.Fault, len(faults)+len(warnings))
	for i, f := range slices.Concat(faults, warnings) {
		text := f.Error()
		_, told := s.told[text]
		if !told && now[text] == nil && i < len(faults) {
			s.deps.Metrics.refuse(s.config.Name, f)
		}
		if !told && now[text] == nil && b.take() {
			attrs := []any{"file", f.File, "line", f.Line, "field", f.Field, "namespace", f.Namespace, "name", f.Name, "error", f.Err}
			var panicked *sync.PanicError
			if errors.As(f, &panicked) {
				attrs = append(attrs, "stack", string(panicked.Stack))
			}
			s.log.Warn("fault", attrs...)
		}
		now[text] = f
	}
	for text, f := range s.told {
		if now[text] == nil && b.take() {
			s.log.Info("fault is gone", "file", f.File, "line", f.Line, "field", f.Field, "namespace", f.Namespace, "name", f.Name)
		}
	}
	s.told = now
}

// tellSkips logs paths that are not read, once, and when they are again.
func (s *Source) tellSkips(skips []sync.Skip) {
	b := budget{left: maxLogged}
	defer func() { b.close(s.log) }()
	now := make(map[sync.Skip]bool, len(skips))
	for _, skip := range skips {
		now[skip] = true
		if !s.skipped[skip] && b.take() {
			s.log.Warn("path is not read", "file", skip.Path, "reason", skip.Reason)
		}
	}
	for skip := range s.skipped {
		if !now[skip] && b.take() {
			s.log.Info("path is read again, or gone", "file", skip.Path)
		}
	}
	s.skipped = now
}
