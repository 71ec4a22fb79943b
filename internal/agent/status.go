package agent

import (
	"errors"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/internal/fetch"
	"github.com/vsecm/kubectl-vsecm/pkg/workload"
)

// Kinds of failures, as metrics and readiness name them.
const (
	kindSealed       = "sealed"
	kindUnavailable  = "unavailable"
	kindUnauthorized = "unauthorized"
	kindNotFound     = "not-found"
	kindWrongSafe    = "wrong-safe"
	kindBadAnswer    = "bad-answer"
	kindNoIdentity   = "no-identity"
	kindNothing      = "nothing"     // there is no secret for this workload
	kindMissing      = "missing-key" // a key that was named is not there
	kindValue        = "value"       // a value cannot be what was asked for
	kindBusy         = "busy"        // another process writes there
	kindFull         = "full"        // no room where files are written
	kindTarget       = "target"      // anything else with the target
	kindOther        = "other"
)

// kinds maps errors to their kind; the first that matches counts.
var kinds = []struct {
	err  error
	kind string
}{
	{ErrNothing, kindNothing},
	{workload.ErrSealed, kindSealed},
	{workload.ErrNoIdentity, kindNoIdentity},
	{workload.ErrWrongSafe, kindWrongSafe},
	{workload.ErrUnauthorized, kindUnauthorized},
	{workload.ErrNotFound, kindNotFound},
	{workload.ErrBadAnswer, kindBadAnswer},
	{workload.ErrUnavailable, kindUnavailable},
	{fetch.ErrMissing, kindMissing},
	{fetch.ErrNotText, kindValue},
	{fetch.ErrNoVariable, kindValue},
	{fetch.ErrBusy, kindBusy},
	{unix.ENOSPC, kindFull},
	{unix.EDQUOT, kindFull},
	{fetch.ErrTarget, kindTarget},
}

func kindOf(err error) string {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return k.kind
		}
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return kindTarget
	}
	return kindOther
}

// A status is how the agent fares. It is safe for concurrent use.
type status struct {
	now func() time.Time

	mu          sync.Mutex
	hasTarget   bool
	hasProgram  bool
	placed      time.Time // when the version in place was written; zero: there is none
	running     bool      // the program
	safe        condition
	delivery    condition
	hooks       condition
	lastAnswer  time.Time // when Safe was last known to answer; zero: never
	lastFailErr error
}

// A condition is well, or has failed in some way since some time.
type condition struct {
	kind  string // empty: well, or not tried yet
	since time.Time
	tried bool
}

// set reports whether it changed.
func (c *condition) set(kind string, now time.Time) bool {
	if c.tried && c.kind == kind {
		return false
	}
	*c = condition{kind: kind, since: now, tried: true}
	return true
}

func newStatus(now func() time.Time) *status { return &status{now: now} }

func (s *status) expect(target, program bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hasTarget, s.hasProgram = target, program
}

func (s *status) safeAnswers() (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastAnswer = s.now()
	return s.safe.set("", s.now())
}

func (s *status) safeFails(kind string, err error) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.safe.tried && s.safe.kind == "" {
		s.lastAnswer = s.now()
	}
	s.lastFailErr = err
	return s.safe.set(kind, s.now())
}

func (s *status) deliveryFails(kind string, err error) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastFailErr = err
	return s.delivery.set(kind, s.now())
}

func (s *status) deliveryFailing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.delivery.kind != ""
}

func (s *status) delivered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delivery.set("", s.now())
}

func (s *status) hooksFail(failing bool) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if failing {
		return s.hooks.set("failing", s.now())
	}
	return s.hooks.set("", s.now())
}

func (s *status) inPlace(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.placed = since
}

func (s *status) lost() { s.inPlace(time.Time{}) }

func (s *status) isInPlace() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.placed.IsZero()
}

func (s *status) programRuns(running bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = running
}

func (s *status) lastFailure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastFailErr
}

// lastSuccess returns when Safe was last known to answer: now, while it does.
func (s *status) lastSuccess() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.safe.tried && s.safe.kind == "" {
		return s.now()
	}
	return s.lastAnswer
}

// versionTime returns when the version in place was written; zero: there is none.
func (s *status) versionTime() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.placed
}

// A report is the body of /readyz. It names kinds of failures, and neither
// secrets nor errors: those are in the log.
type report struct {
	Ready bool `json:"ready"`
	// Reason says why it is not ready.
	Reason string `json:"reason,omitempty"`
	// Written is when the version in place was written.
	Written *time.Time `json:"written,omitempty"`
	// Age is how old that version is, in seconds.
	Age      *int64 `json:"ageSeconds,omitempty"`
	Safe     health `json:"safe"`
	Delivery health `json:"delivery"`
	Hooks    health `json:"hooks"`
}

// A health is "ok", "unknown" where nothing was tried yet, or a kind of failure.
type health struct {
	State string     `json:"state"`
	Since *time.Time `json:"since,omitempty"`
}

func (c condition) health() health {
	switch {
	case !c.tried:
		return health{State: "unknown"}
	case c.kind == "":
		return health{State: "ok", Since: &c.since}
	}
	return health{State: c.kind, Since: &c.since}
}

// report tells how the agent fares. It is ready once there is a version in
// place and, where there is a program, that runs. A Safe that fails, or a new
// version that cannot be delivered, does not change that: a pod whose program
// has what it needs is not taken out of service for it.
func (s *status) report() report {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := report{Safe: s.safe.health(), Delivery: s.delivery.health(), Hooks: s.hooks.health()}
	if !s.placed.IsZero() {
		age := int64(s.now().Sub(s.placed) / time.Second)
		written := s.placed.UTC()
		r.Written, r.Age = &written, &age
	}
	switch {
	case s.placed.IsZero():
		r.Reason = "no version is in place"
	case s.hasProgram && !s.running:
		r.Reason = "the program does not run"
	default:
		r.Ready = true
	}
	return r
}
