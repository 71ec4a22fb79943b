package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	gosync "sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

const (
	// DefaultInterval is how often a server is asked.
	DefaultInterval = time.Minute
	// DefaultLocalInterval is how often a repository on this machine is
	// looked at, which costs reading one file.
	DefaultLocalInterval = 250 * time.Millisecond
	// longestDelay is the longest delay after failures.
	longestDelay = 10 * time.Minute
	// longestLocalDelay is that for a repository on this machine.
	longestLocalDelay = 10 * time.Second
)

// A Config says what one source brings, and where it may.
type Config struct {
	// Name is NAMESPACE.NAME. Objects of the source bear it as a label.
	Name   string
	Remote sync.Remote
	// Path is the directory below the repository's root that is read.
	Path string
	// Interval between two looks; zero for the default.
	Interval time.Duration
	// Prune deletes the objects whose documents are gone.
	Prune bool
	// Namespaces are those that the source may deliver into; empty for any.
	Namespaces []string
	// Limits of the repository.
	Limits sync.Limits
	// Verify says which commits have to be signed.
	Verify Verify
}

// A Journal remembers how far each source was applied: [store.Journal], or in a cluster the
// status of a GitSource.
type Journal interface {
	// Load returns what was saved last; the zero state if nothing was.
	Load(ctx context.Context, source string) (store.SourceState, error)
	// Save is durable when it returns without an error.
	Save(ctx context.Context, source string, state store.SourceState) error
}

// Deps are what sources share.
type Deps struct {
	Store   store.Store
	Journal Journal
	// Keys open the values; what cannot be opened is not applied.
	Keys encrypt.Keys
	// Era returns 0 while Safe is sealed, and otherwise a number that changes with every seal
	// ([unseal.Gate.Era]). nil: never sealed.
	Era     func() uint64
	Metrics *Metrics
	// Observer is told what becomes of objects; nil: nobody is.
	Observer Observer
	// Reported is called whenever the source's status may be another, and at the end of every
	// [Source.Sync]. No lock is held then. nil: nobody asks.
	Reported func(*Source)
	Log      *slog.Logger
	// Now is the clock; nil for the machine's.
	Now func() time.Time
}

// A Source reconciles one git source.
type Source struct {
	config Config
	deps   Deps
	log    *slog.Logger
	poller *sync.Poller
	mirror *sync.Mirror
	retry  atomic.Bool // everything that was refused is tried again
	sight  *sight
	// woken asks for a mend, and scheduled says when the next one is due; see mendUntil.
	woken     chan struct{}
	scheduled chan time.Time

	round   roundLock // one at a time; guards what follows
	started bool
	era     uint64 // in which the round began
	applied store.SourceState
	// begun is the last revision of which anything was written, also if that was not completed.
	begun sync.Revision
	index *sync.Index
	owned map[store.Key]struct{}
	// complete tells whether the last round came to its end, and failing why it failed beside the
	// objects that could not be written.
	complete bool
	failing  error
	refused  map[store.Key]*refusal
	warned   map[store.Key][]*encrypt.Fault
	doomed   map[store.Key]struct{} // declared no longer, and still there
	strays   map[store.Key]struct{} // doomed by the configuration
	// restoring says, while objects are put back, what had become of each.
	restoring map[store.Key]string
	contests  map[store.Key]*contest
	window    store.Deletions
	// What an operator said, and what is waiting to be accepted: [Override].
	allowed, accepted, rewound sync.Revision
	rewind                     Rewind

	// What was verified, up to which tip; and which was not.
	verified store.Verified
	checked  sync.Revision
	doubted  doubt

	told    map[string]*encrypt.Fault      // the faults that were logged
	blamed  map[store.Key][]*encrypt.Fault // those that the observer was told; nil before the first time
	skipped map[sync.Skip]bool             // the skips that were logged
	lagging bool                           // a revision was applied before, so that what comes counts as new

	pruneFailed bool
	waits       string // what deletions wait for
	changed     bool   // whether the lists of the status may be out of date

	mu     gosync.Mutex // guards status
	status Status
}

// New returns a source whose mirror is kept in dir. Close it when it is no
// longer run.
func New(config Config, dir string, deps Deps) (*Source, error) {
	if reasons := validation.IsValidLabelValue(config.Name); config.Name == "" || len(reasons) > 0 {
		return nil, fmt.Errorf("source %q: its objects cannot bear that name: %s", config.Name, strings.Join(reasons, "; "))
	}
	path, err := sync.CleanPath(config.Path)
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", config.Name, err)
	}
	config.Path = path
	if config.Verify, err = config.Verify.check(); err != nil {
		return nil, fmt.Errorf("source %s: %w", config.Name, err)
	}
	mirror, err := sync.OpenMirror(dir, config.Remote, config.Limits)
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", config.Name, err)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Era == nil {
		deps.Era = func() uint64 { return 1 }
	}
	longest := longestDelay
	if config.Remote.Local() {
		config.Interval, longest = cmp.Or(config.Interval, DefaultLocalInterval), longestLocalDelay
	}
	config.Interval = cmp.Or(config.Interval, DefaultInterval)
	s := &Source{
		config: config,
		deps:   deps,
		log:    deps.Log.With("source", config.Name),
		poller: sync.NewPoller(config.Interval, longest),
		mirror: mirror,
		told:   make(map[string]*encrypt.Fault),
		sight:  newSight(),
		round:  newRoundLock(),
		woken:  make(chan struct{}, 1), scheduled: make(chan time.Time, 1),
		status: Status{
			Source: config.Name, URL: config.Remote.URL,
			Branch: config.Remote.Branch, Tag: config.Remote.Tag, Commit: config.Remote.Commit,
		},
	}
	s.forget()
	return s, nil
}

// forget makes the next round the first: it learns everything anew.
func (s *Source) forget() {
	s.started = false
	s.index = sync.NewIndex(s.config.Path)
	s.owned = make(map[store.Key]struct{})
	s.refused = make(map[store.Key]*refusal)
	s.warned = make(map[store.Key][]*encrypt.Fault)
	s.doomed = make(map[store.Key]struct{})
	s.strays = make(map[store.Key]struct{})
	s.contests = make(map[store.Key]*contest)
	s.sight.clear()
	s.complete, s.changed = false, true
}

// Close frees what the source holds open, once Run has ended, and takes its metrics away.
func (s *Source) Close() error {
	s.deps.Metrics.forget(s.config.Name)
	return s.mirror.Close()
}

// Name returns NAMESPACE.NAME.
func (s *Source) Name() string { return s.config.Name }

// Hint asks for a round at once.
func (s *Source) Hint() { s.poller.Hint() }

// Retry asks for a round at once in which all that was refused is tried again,
// as after a change of keys.
func (s *Source) Retry() {
	s.retry.Store(true)
	s.Hint()
}

// Run goes round until ctx ends. Between the rounds it puts back what [Source.Saw] was told of, at
// once and whether or not the remote can be reached.
func (s *Source) Run(ctx context.Context) {
	var mending gosync.WaitGroup
	defer mending.Wait()
	mending.Go(func() { s.mendUntil(ctx) })
	s.poller.Run(ctx, func(ctx context.Context) error {
		err := s.Sync(ctx)
		if errors.Is(err, sync.ErrNoBranch) || errors.Is(err, ErrSealed) {
			// A repository before its first push, and a Safe before it is unsealed, whose
			// owner calls Retry then: nothing to wait out.
			return nil
		}
		return err
	})
}

// Run runs sources until ctx ends, and returns when all have stopped.
func Run(ctx context.Context, sources ...*Source) {
	var wg gosync.WaitGroup
	for _, s := range sources {
		wg.Go(func() { s.Run(ctx) })
	}
	wg.Wait()
}

// ErrSealed says that Safe is sealed, or was while a round went on. Without its keys it
// cannot tell what is good: nothing is applied and nothing judged.
var ErrSealed = errors.New("sealed")

// Sync does one round. Its error says why the store may not be what the branch
// says; faults of single manifests are no error of the round's. A sealed Safe does none:
// [ErrSealed].
func (s *Source) Sync(ctx context.Context) error {
	err := s.goRound(ctx)
	if s.deps.Reported != nil {
		s.deps.Reported(s)
	}
	return err
}

func (s *Source) goRound(ctx context.Context) error {
	s.round.Lock()
	defer s.round.Unlock()
	if s.era = s.deps.Era(); s.era == 0 {
		return ErrSealed
	}
	defer s.schedule()
	start := s.deps.Now()
	var seen sync.Revision
	s.complete = false
	err := s.contained(func() (err error) {
		seen, err = s.turn(ctx)
		return err
	})
	if errors.Is(err, ErrSealed) {
		s.applying("")
		return ErrSealed // the next round does what is left, and reports
	}
	s.report(ctx, start, seen, err)
	return err
}

// ErrPanic says that a round, or one value of it, made our code panic, which
// is a defect of ours. The log says where.
var ErrPanic = errors.New("an internal error, which is in the log")

// contained does a round, or a part of one, that ends in an error where it would have ended the
// process, and other sources with it, again and again.
func (s *Source) contained(do func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = s.panicked(r)
			s.forget()
		}
	}()
	return do()
}

// panicked logs where a panic came from. What it says may hold anything, so
// only the runtime's own words are logged.
func (s *Source) panicked(r any) error {
	what := fmt.Sprintf("%T", r)
	if err, ok := r.(runtime.Error); ok {
		what = err.Error()
	}
	s.log.Error("panic", "panic", what, "stack", string(debug.Stack()))
	return ErrPanic
}

// turn does the steps of a round, in their order.
func (s *Source) turn(ctx context.Context) (sync.Revision, error) {
	if err := s.start(ctx); err != nil {
		return "", err
	}
	seen, err := s.mirror.Fetch(ctx)
	if err != nil {
		err = &stepError{"fetch", err}
	} else {
		err = s.advance(ctx, seen)
	}
	// Whatever was refused may be right by now, also while the remote is away, and what others
	// changed is put back.
	mended := errors.Join(s.restore(ctx), s.again(ctx, true))
	if s.sealed() {
		return seen, ErrSealed
	}
	s.failing = err
	if err == nil { // what is gone is only known of the branch as it stands
		s.failing = s.prune(ctx)
	}
	s.failing = errors.Join(s.failing, s.remember(ctx, err))
	s.complete = true
	return seen, errors.Join(s.failing, mended)
}

// sealed tells whether Safe was sealed since the round began.
func (s *Source) sealed() bool { return s.deps.Era() != s.era }

// start finds out where the source stands, once in a process.
func (s *Source) start(ctx context.Context) error {
	if s.started {
		return nil
	}
	applied, err := s.deps.Journal.Load(ctx, s.config.Name)
	if err != nil {
		return &stepError{"journal", err}
	}
	if _, err := sync.ParseRevision(applied.Revision); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	begun, err := sync.ParseRevision(applied.Begun)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	objects, err := s.deps.Store.List(ctx)
	if err != nil {
		return err
	}
	for _, o := range objects {
		if s.owns(o) {
			s.owned[store.KeyOf(o)] = struct{}{}
		}
	}
	s.applied, s.window, s.started = applied, applied.Deletions, true
	s.begun = cmp.Or(s.begun, begun)
	return nil
}

func (s *Source) owns(o *v1alpha1.EncryptedSecret) bool {
	return o.Labels[v1alpha1.LabelSource] == s.config.Name
}

// advance applies what leads to revision seen. A manifest that cannot be
// applied now is put aside and does not hold up the others.
func (s *Source) advance(ctx context.Context, seen sync.Revision) error {
	s.rewind, s.rewound = Rewind{}, ""
	if seen != s.accepted {
		s.accepted = "" // the word was about a branch that stood there, and has gone on since
	}
	if err := s.verify(ctx, seen); err != nil {
		return err
	}
	if err := s.fastForward(ctx, seen); err != nil {
		return err
	}
	if s.index.Revision() == seen {
		return nil
	}
	first := s.index.Revision() == ""
	plan, err := s.index.Plan(ctx, s.mirror, seen)
	if err != nil {
		return err
	}
	if err := s.begin(ctx, seen); err != nil {
		return err
	}
	s.applying(seen)
	s.index.Commit(plan)
	s.begun, s.changed = seen, true
	if err := s.carryOut(ctx, plan, first); err != nil {
		s.index = sync.NewIndex(s.config.Path) // the next round does it all over again
		return err
	}
	return nil
}

// fastForward refuses a revision that does not descend from what was applied,
// unless an operator has accepted that very one.
func (s *Source) fastForward(ctx context.Context, seen sync.Revision) error {
	if seen == s.accepted {
		return nil
	}
	if n := s.covered(); s.applied.Revision == "" && n > 0 && s.config.Verify.Since == "" {
		s.rewind, s.rewound = Rewind{Seen: string(seen)}, seen
		return fmt.Errorf("%w: %d objects were delivered, and whether %s descends from their revision cannot be told", ErrUnrecorded, n, seen)
	}
	// What was begun may be ahead of what was applied, by what could not be completed.
	for _, from := range slices.Compact([]sync.Revision{sync.Revision(s.applied.Revision), s.begun}) {
		err := s.mirror.FastForward(ctx, from, seen)
		if errors.Is(err, sync.ErrRewound) {
			s.rewind, s.rewound = Rewind{Applied: string(from), Seen: string(seen)}, seen
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// carryOut writes what a plan says. What git no longer declares is only noted,
// and weighed before anything new is written, so that what is new does not
// count as something that stays.
func (s *Source) carryOut(ctx context.Context, plan *sync.Plan, first bool) error {
	for _, ref := range plan.Deletes {
		s.doomed[store.Key(ref)] = struct{}{}
	}
	if first {
		if err := s.orphans(ctx); err != nil {
			return err
		}
	}
	if err := s.brake(ctx); err != nil {
		return err
	}
	return s.deliver(ctx, plan.Upserts(ctx, s.mirror))
}
