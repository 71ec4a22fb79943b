package reconcile

import (
	"context"
	gosync "sync"

	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// Follow tells sources what happens to the objects in st, until ctx ends, and returns its error or
// that of the watch. sources is asked at every event, and returns those that there are.
func Follow(ctx context.Context, st store.Store, sources func() []*Source) error {
	return st.Watch(ctx, func(e store.Event) {
		for _, s := range sources() {
			s.Saw(e)
		}
	})
}

// Saw tells the source of a change in the store. What somebody else did to an object that the source
// has applied is put back soon: that is all it remembers here, so it is quick and
// waits for no round.
func (s *Source) Saw(e store.Event) {
	if e.Type != store.Synced && s.sight.saw(s.config.Name, e) {
		s.wake()
	}
}

// A sight is what a source knows of its objects in the store while others write there,
// too. Rounds write it, and events that come at any time.
type sight struct {
	mu gosync.Mutex
	// stands is what was applied.
	stands map[store.Key]stand
	// awaited are objects that could not be written: each is tried again as soon as what is in the way
	// is gone.
	awaited map[store.Key]struct{}
	// marked are objects to look at, because they changed.
	marked map[store.Key]struct{}
	// calm are objects that are looked at in their time, whatever happens to them.
	calm map[store.Key]struct{}
}

// A stand is what an object is when nobody has changed it.
type stand struct {
	digest   digest
	declared *declared
}

func newSight() *sight {
	return &sight{
		stands: make(map[store.Key]stand), awaited: make(map[store.Key]struct{}),
		marked: make(map[store.Key]struct{}), calm: make(map[store.Key]struct{}),
	}
}

// saw takes in an event, and reports whether it leaves something to be done at once.
func (v *sight) saw(owner string, e store.Event) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	st, applied := v.stands[e.Key]
	_, awaited := v.awaited[e.Key]
	switch ours := e.Type == store.Applied && store.OwnerOf(e.Object) == owner; {
	case applied && ours && digestOf(e.Object, st.declared) == st.digest:
		return false // it is as it has to be: if it was another before, the source looks at it once more, and says so
	case applied:
	case awaited && (e.Type == store.Deleted || ours):
	default:
		return false
	}
	v.marked[e.Key] = struct{}{}
	_, calm := v.calm[e.Key]
	return !calm
}

// expect notes what is about to be applied, so that its event is not taken for somebody else's
// doing, and returns what takes that back.
func (v *sight) expect(key store.Key, st stand) (undo func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	before, known := v.stands[key]
	v.stands[key] = st
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if known {
			v.stands[key] = before
		} else {
			delete(v.stands, key)
		}
	}
}

// stand returns what was applied of an object.
func (v *sight) stand(key store.Key) (stand, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	st, ok := v.stands[key]
	return st, ok
}

// correct makes d what an object is when nobody has changed it: the store has its own way to
// write down what was declared.
func (v *sight) correct(key store.Key, d digest) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if st, ok := v.stands[key]; ok {
		st.digest = d
		v.stands[key] = st
	}
}

// await notes whether an object could not be written.
func (v *sight) await(key store.Key, waits bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if waits {
		v.awaited[key] = struct{}{}
	} else {
		delete(v.awaited, key)
	}
}

// clear drops everything.
func (v *sight) clear() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.stands)
	clear(v.awaited)
	clear(v.marked)
	clear(v.calm)
}

// forget drops all that is known of an object.
func (v *sight) forget(key store.Key) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.stands, key)
	delete(v.awaited, key)
	delete(v.marked, key)
	delete(v.calm, key)
}

// take returns the objects to look at, in order, which are then no longer marked.
func (v *sight) take() []store.Key {
	v.mu.Lock()
	defer v.mu.Unlock()
	keys := keysOf(v.marked)
	clear(v.marked)
	return keys
}

// mark has objects looked at again. Those that are to be left alone for a while are calm.
func (v *sight) mark(calm bool, keys ...store.Key) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, key := range keys {
		v.marked[key] = struct{}{}
		if calm {
			v.calm[key] = struct{}{}
		}
	}
}

// rouse ends the calm around an object.
func (v *sight) rouse(key store.Key) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.calm, key)
}

// isMarked tells whether an object is to be looked at.
func (v *sight) isMarked(key store.Key) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, marked := v.marked[key]
	return marked
}
