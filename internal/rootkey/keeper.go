package rootkey

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime/debug"
	"sync"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

const (
	// callTimeout bounds one look at the place, and one write with the look
	// before it.
	callTimeout = 15 * time.Second
	// lookEvery is how often Run looks without having been told to.
	lookEvery = time.Minute
	// firstPause and longestPause bound how long Run waits after what failed.
	firstPause   = time.Second
	longestPause = 30 * time.Second
	// maxRaces is how often a write is begun anew since somebody else wrote.
	maxRaces = 10
)

// A Config is what a [Keeper] needs.
type Config struct {
	Place Place
	// Manual: no root key is made where there is none.
	Manual bool
	// Memory: the root key is never written anywhere. Implies Manual.
	Memory bool
	Gate   *unseal.Gate
	// Holder holds what was opened with the root key: the cache.
	Holder interface {
		Seal()
		Unseal()
	}
	// Objects returns what is stored. It may wait until that is known, and fail where it
	// cannot be known whole.
	Objects func(context.Context) ([]*v1alpha1.EncryptedSecret, error)
	Log     *slog.Logger
	// Now is the clock by which shares lapse; nil: [time.Now].
	Now func() time.Time
}

// A Keeper keeps the seal. It is safe for concurrent use.
//
// Three locks, always taken in this order: busy, for whoever reads and writes the place, which
// may take long; turn, for the gate's and the holder's opening and shutting; mu, for what
// Status tells. So a seal takes effect at once, also while the place does not
// answer.
type Keeper struct {
	config Config
	wake   chan struct{} // holds a token when Run is to look
	lapse  chan struct{} // holds a token when something else may be the next to lapse
	busy   chan struct{} // holds a token while somebody uses the place

	ceremonies *ceremonies

	turn sync.Mutex
	// seals counts the seals of this process, and those elsewhere that ended its ceremonies. What
	// was decided before one must not open the gate after it.
	seals uint64
	// held: sealed here by an operator, and no mark of it was seen yet in the place, which would
	// hold longer. It keeps Run from unsealing.
	held bool
	// part is the first of two keys, which waits for the second: nil if none does.
	part *unseal.RootKey
	// stopped: no key waits for another any more.
	stopped bool

	mu      sync.Mutex
	status  Status
	reason  string            // of the status, without what is told of missing keys
	known   encrypt.Recipient // the zero one: none is known
	changed chan struct{}
	rekey   *Rekey // the one that is under way
	pair    bool   // both of its keys are needed to unseal
	// Which key part is, and until when it counts.
	partID    encrypt.KeyID
	partLapse time.Time
	// staged are the keys that were handed to this replica for a re-key, and until when they
	// count. The gate holds them, which outlasts that until a look has found that they were
	// not taken.
	staged map[encrypt.KeyID]time.Time

	// Under busy: whether the place was read once, whether there was no mark of a seal in it when
	// last it was, and what was last logged of each kind, so that it is logged
	// once.
	looked, unmarked bool
	told             map[string]string
	// Also under busy: the mark that Safe is sealed by, and whether it ever was by one; whether a record was
	// ever seen; and the recipient of the key that this process held, or the zero
	// one.
	obeyed           mark
	marked, onRecord bool
	proven           encrypt.Recipient
	// Also under busy: when the last seal was whose mark was seen. Unlike obeyed it outlasts
	// an unseal.
	seen time.Time
	// Also under busy: the record of a re-key that was seen last, and what bore it.
	witnessed   *Rekey
	witnessedIn string

	firstLook chan struct{} // closed after it
}

// New returns a keeper of a Safe that is sealed until Run says otherwise.
func New(c Config) *Keeper {
	c.Manual = c.Manual || c.Memory
	if c.Now == nil {
		c.Now = time.Now
	}
	k := &Keeper{
		ceremonies: newCeremonies(c.Now),

		config:  c,
		wake:    make(chan struct{}, 1),
		lapse:   make(chan struct{}, 1),
		busy:    make(chan struct{}, 1),
		changed: make(chan struct{}),
		told:    make(map[string]string),
		staged:  make(map[encrypt.KeyID]time.Time),

		firstLook: make(chan struct{}),
	}
	k.reason = "where the root key is kept has not been looked at yet"
	k.status = Status{State: Sealed, Input: "auto", Store: c.Place.Kind(), Progress: Progress{Needed: 1}, Reason: k.reason}
	if c.Manual {
		k.status.Input = "manual"
	}
	if c.Memory {
		k.status.Store = "memory"
	}
	c.Holder.Seal()
	return k
}

// Status tells how things stand. It does not block.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	st := k.status
	k.mu.Unlock()
	if st.State == Unsealed {
		return st
	}
	return k.gathered(st)
}

// Changed returns a channel that is closed when the status next changes.
func (k *Keeper) Changed() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changed
}

// Looked returns a channel that is closed once Run has looked for the root key, whatever came
// of it.
func (k *Keeper) Looked() <-chan struct{} { return k.firstLook }

// Recipient returns the public half of the root key, whether Safe is sealed or
// not; false if none is known.
func (k *Keeper) Recipient() (encrypt.Recipient, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.known, k.known.String() != ""
}

// set changes the status. The zero recipient says that none is known.
func (k *Keeper) set(state State, known encrypt.Recipient, reason string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tell(state, known, reason)
}

// tell makes the status of what is known. It is called with mu held.
func (k *Keeper) tell(state State, known encrypt.Recipient, reason string) {
	next := k.status
	next.State, next.Reason, next.KeyID, next.Progress = state, reason, "", Progress{Needed: 1}
	if known.String() != "" {
		next.KeyID = known.KeyID()
	}
	if state == Unsealed {
		next.Progress.Given = 1
	}
	next.Rekey, next.Missing = k.rekey.shown(), nil
	if state != Unsealed && k.pair {
		k.lacks(&next)
	}
	k.known, k.reason = known, reason
	if reflect.DeepEqual(next, k.status) {
		return
	}
	k.status = next
	close(k.changed)
	k.changed = make(chan struct{})
}

// Run unseals Safe, or makes its root key, where that may be, and obeys what other
// replicas do, until ctx ends, whose error it returns then. Shares that were given are wiped
// when they lapse, and when it ends. It is called once.
func (k *Keeper) Run(ctx context.Context) error {
	var watch sync.WaitGroup
	defer watch.Wait()
	watch.Go(func() { k.ceremonies.run(ctx, k.lapsed) })
	watch.Go(func() { k.config.Place.Watch(ctx, k.hint) })
	watch.Go(func() { k.runLapses(ctx) })

	timer := time.NewTimer(0)
	defer timer.Stop()
	pause, first := firstPause, sync.OnceFunc(func() { close(k.firstLook) })
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-k.wake:
		}
		err := k.look(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		first()
		if err != nil {
			timer.Reset(pause)
			pause = min(2*pause, longestPause)
		} else {
			timer.Reset(lookEvery)
			pause = firstPause
		}
	}
}

// hint asks Run to look.
func (k *Keeper) hint() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// enter waits for its turn to use the place, and returns what ends it.
func (k *Keeper) enter(ctx context.Context) (leave func(), err error) {
	select {
	case k.busy <- struct{}{}:
		return func() { <-k.busy }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// read returns what is kept, and how many seals there were before that.
func (k *Keeper) read(ctx context.Context, keysOfSealed bool) (*Kept, uint64, error) {
	k.turn.Lock()
	seals := k.seals
	k.turn.Unlock()
	kept, err := k.config.Place.Read(ctx, keysOfSealed)
	if err != nil {
		return nil, 0, err
	}
	return kept, seals, nil
}

// open opens the gate, unless Safe was sealed since that many seals. The keys are the gate's
// then; otherwise they are wiped.
func (k *Keeper) open(keys *unseal.Keyring, seals uint64) bool {
	k.turn.Lock()
	defer k.turn.Unlock()
	if k.seals != seals {
		keys.Wipe()
		return false
	}
	k.held = false
	active := keys.Active().Recipient()
	k.ceremonies.turn(errUnsealed)
	k.dropPart()
	k.config.Gate.Open(keys)
	k.config.Holder.Unseal()
	k.set(Unsealed, active, "")
	return true
}

// shut shuts the gate. hold: until an operator unseals this very replica, or the
// mark of a seal is seen.
func (k *Keeper) shut(hold bool, reason string) {
	// Before waiting for the turn: an unseal under way has nothing to go on
	// with then, and is soon over.
	k.config.Holder.Seal()
	k.turn.Lock()
	defer k.turn.Unlock()
	k.seals++
	k.held = hold
	k.config.Holder.Seal()
	k.config.Gate.Shut()
	k.ceremonies.turn(nil)
	k.dropPart()
	k.forgetStaged()
	recipient, _ := k.Recipient()
	k.set(Sealed, recipient, reason)
}

const byOperator = "sealed by an operator"

// Seal drops every key, every share and all that was opened with them, and then leaves a mark that
// every replica obeys. An error, which is
// [ErrUnavailable], says that Safe is sealed here, but that the mark could not be left. An unseal that meets a seal loses.
func (k *Keeper) Seal(ctx context.Context) error {
	k.shut(true, byOperator)
	debug.FreeOSMemory()
	if err := k.mark(ctx); err != nil {
		k.shut(true, byOperator)
		k.config.Log.Error("sealed by an operator; no mark of it could be left, so the others, and this replica after a restart, may not be", "error", err)
		return fmt.Errorf("sealed here, but no mark of it could be left for the other replicas, and for this one after a restart: %w", unreachable(err))
	}
	k.config.Log.Info("sealed by an operator")
	return nil
}

// mark leaves the mark of a seal, a new one also where one stands: so the others learn that what
// was begun after that one is not to go on.
func (k *Keeper) mark(ctx context.Context) error {
	leave, err := k.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = k.race(func() error {
		kept, _, err := k.read(ctx, false)
		if err != nil {
			return err
		}
		defer kept.Wipe()
		at := after(kept.SealedAt)
		if err := k.config.Place.WriteMark(ctx, kept, at); err != nil {
			return err
		}
		k.obeyed, k.marked, k.seen = mark{at, kept.object}, true, at
		return nil
	})
	if err == nil {
		k.unmarked = false
		k.shut(false, byOperator)
	}
	return err
}

// race does a read and the writes that follow from it, anew as long as somebody
// else writes in between. What fails then is that the place is out of reach.
func (k *Keeper) race(turn func() error) error {
	var err error
	for range maxRaces {
		if err = turn(); !errors.Is(err, ErrChanged) {
			break
		}
	}
	return unreachable(err)
}

// unreachable makes the errors of a place [ErrUnavailable]. Those that decide about a
// key are left as they are.
func unreachable(err error) error {
	for _, own := range []error{
		ErrUnavailable, ErrWrongKey, ErrConfirm, unseal.ErrMalformed, unseal.ErrMismatch,
		ErrSealed, ErrNoRekey, ErrRekeying, ErrNotMemory, ErrKeyWanted, ErrNotStaged, ErrOtherKind, ErrActiveKey, ErrNotHeld, ErrUnheard, ErrTooManyStaged,
	} {
		if err == nil || errors.Is(err, own) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// tellOnce warns of what, once for each text. An empty text says that it is over.
func (k *Keeper) tellOnce(what, text string) {
	if k.told[what] == text {
		return
	}
	if k.told[what] = text; text != "" {
		k.config.Log.Warn(what, "reason", text)
	}
}
