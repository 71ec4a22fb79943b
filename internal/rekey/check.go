// Package rekey finds out what still needs a root key that is to go.
//
// A header says which keys a value was sealed to, and is only believed where it speaks against letting a key go: that
// the active key opens a value is known once it did, alone. So [Checker.Check] opens all that is stored, and all
// that stands at the head of every git source, which it fetches first. What a source does not show (it is
// suspended, its server is away) blocks, too: whatever is there comes back one day.
package rekey

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

var (
	// ErrSealed says that Safe is sealed, or was while a check went on.
	ErrSealed = errors.New("sealed")
	// ErrChanged says that the keys became others while a check went on, so that it says nothing.
	ErrChanged = errors.New("the root keys were changed while the values were being checked; check again")
	// ErrUnavailable says that it cannot be found out now what there is.
	ErrUnavailable = errors.New("what there is to check cannot be found out now")
)

// Keys are the root keys that are held, as [unseal.Gate] lets them through.
type Keys interface {
	// Turn is 0 while none is held, and another number whenever they may be others.
	Turn() uint64
	// Held returns the active key and the others.
	Held() (active encrypt.KeyID, others []encrypt.KeyID)
	// Alone holds one of them and no other.
	Alone(id encrypt.KeyID) encrypt.Keys
}

// A Config is what a [Checker] works with.
type Config struct {
	Keys Keys
	// Stored returns every stored object. faults are those that are stored and cannot be read.
	Stored func(context.Context) (objects []*v1alpha1.EncryptedSecret, faults []Need, err error)
	// Heads has visit see every manifest at the head of every source, perhaps from several goroutines, and returns
	// a head for each source that there is. An error says that it could not be done here and now.
	Heads func(ctx context.Context, visit func(source string, m encrypt.Manifest)) ([]reconcile.Head, error)
	// Going returns the key that a re-key under way is to destroy; empty if none is. It counts as one to go also where it
	// is not held here: a replica may have been unsealed without it, and somebody else has it. nil: there is none.
	Going func() encrypt.KeyID
	// Now is the clock; nil for the machine's.
	Now func() time.Time
}

// A Checker checks whether keys may go. It is safe for concurrent use.
type Checker struct {
	config Config
	turn   chan struct{} // holds a token while a check goes on: two would cost twice the memory, and take as long
}

// New returns a checker.
func New(c Config) *Checker {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Checker{config: c, turn: make(chan struct{}, 1)}
}

// Check opens with the active key alone what is stored and what is at the head of every source. It keeps every
// processor busy; nothing that it learnt is kept. Errors: [ErrSealed], [ErrChanged], ctx's, and those of Stored
// and Heads, which are [ErrUnavailable], too.
func (c *Checker) Check(ctx context.Context) (Report, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return Report{}, ctx.Err()
	}
	turn := c.config.Keys.Turn()
	if turn == 0 {
		return Report{}, ErrSealed
	}
	defer debug.FreeOSMemory() // what was read of repositories
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	active, others := c.config.Keys.Held()
	if c.config.Going != nil {
		if id := c.config.Going(); id != "" && id != active && !slices.Contains(others, id) {
			others = append(others, id)
			slices.Sort(others)
		}
	}
	k := &check{
		checker: c, cancel: cancel, turn: turn, active: active, others: others, alone: c.config.Keys.Alone(active),
		now: c.config.Now(), stored: make(map[string]*finding), seen: make(map[store.Key]*v1alpha1.EncryptedSecret), faults: make(map[string]bool),
		report: Report{KeyID: active, BySource: make(map[string]int)},
	}
	err := k.run(ctx)
	// Of a check that has seen other keys, or none, nothing counts, not even why it failed.
	switch c.config.Keys.Turn() {
	case turn:
	case 0:
		return Report{}, ErrSealed
	default:
		return Report{}, ErrChanged
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Report{}, err
	case err != nil:
		return Report{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	k.report.tidy()
	return k.report, nil
}

// queue is how many values wait for a processor.
const queue = 64

func (k *check) run(ctx context.Context) error {
	// First what is stored: what is at a head as it is stored need not be opened again then.
	if err := k.readStored(ctx); err != nil {
		return err
	}
	err := k.each(ctx, func(give func(value)) error {
		heads, err := k.checker.config.Heads(ctx, func(source string, m encrypt.Manifest) { k.visit(give, source, m) })
		for _, h := range heads {
			k.head(h)
		}
		return err
	}, func(_ value, f *finding) { k.found(f) })
	if err == nil {
		// To read git takes minutes, in which more may have been applied, and is served by now.
		err = k.readStored(ctx)
	}
	k.report.Needs, k.report.Unreadable = k.with(k.report.Needs, needed), k.with(k.report.Unreadable, unreadable)
	return err
}

// readStored opens what is stored, but for what it has opened before.
func (k *check) readStored(ctx context.Context) error {
	objects, faults, err := k.checker.config.Stored(ctx)
	if err != nil {
		return fmt.Errorf("the stored objects cannot be listed: %w", err)
	}
	for _, f := range faults {
		if id := fmt.Sprint(f); !k.faults[id] {
			k.faults[id] = true
			k.found(&finding{verdict: needed, need: f})
		}
	}
	return k.each(ctx, func(give func(value)) error {
		for _, o := range objects {
			at := store.KeyOf(o)
			was := k.seen[at]
			k.seen[at] = o
			var before encrypt.Binding
			if was != nil {
				before = encrypt.BindingOf(was, "")
			}
			k.visit(func(v value) {
				before.Key = v.key
				if was == nil || was.Spec.EncryptedData[v.key] != v.sealed || !reflect.DeepEqual(before, v.binding) {
					give(v)
				}
			}, o.Labels[v1alpha1.LabelSource], encrypt.Manifest{Object: o})
		}
		return nil
	}, k.took)
}

// with adds what was found of stored values to a list.
func (k *check) with(list []Need, v verdict) []Need {
	for _, f := range k.open {
		switch {
		case f.verdict != v:
		case f.inGit != nil:
			list = append(list, *f.inGit)
		default:
			list = append(list, f.need)
		}
	}
	return list
}

// each opens the values that from gives, on all processors, and has note see what was found, which several
// goroutines do.
func (k *check) each(ctx context.Context, from func(give func(value)) error, note func(value, *finding)) error {
	values := make(chan value, queue)
	group, ctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			for v := range values {
				if note(v, k.judge(v)); k.checker.config.Keys.Turn() != k.turn {
					k.cancel() // nothing of it counts any more
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(values)
		err := from(func(v value) {
			select {
			case values <- v:
			case <-ctx.Done():
			}
		})
		if err == nil {
			err = ctx.Err()
		}
		return err
	})
	return group.Wait()
}

// visit gives the values of a manifest that need to be opened.
func (k *check) visit(give func(value), source string, m encrypt.Manifest) {
	binding := encrypt.BindingOf(m.Object, "") // once: a template takes time
	for _, key := range slices.Sorted(maps.Keys(m.Object.Spec.EncryptedData)) {
		binding.Key = key
		v := value{source: source, manifest: m, key: key, sealed: m.Object.Spec.EncryptedData[key], binding: binding}
		if m.File != "" && k.known(v) {
			continue
		}
		give(v)
	}
}

// head takes what a source's head says beside its manifests.
func (k *check) head(h reconcile.Head) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h.Err != nil {
		k.report.Unread = append(k.report.Unread, Unread{h.Source, h.Err.Error()})
	}
	for _, f := range h.Faults {
		k.list(&finding{verdict: needed, need: Need{
			Source: h.Source, Namespace: f.Namespace, Name: f.Name, File: f.File, Line: f.Line,
			Why: fmt.Sprintf("cannot be read, so whether it needs another key cannot be told: %v", f.Err),
		}})
	}
	if k.report.NeedCount += h.FaultCount; h.FaultCount > 0 {
		k.report.BySource[h.Source] += h.FaultCount
	}
	for _, s := range h.Skips {
		k.list(&finding{verdict: unreadable, need: Need{Source: h.Source, File: s.Path, Why: "it is never read: " + s.Reason}})
	}
	k.report.UnreadableCount += len(h.Skips)
}
