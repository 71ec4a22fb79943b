package unseal

import (
	"bytes"
	"errors"
	"slices"
	"sync"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// ErrShut says that a root key was to be used after the gate was shut.
var ErrShut = errors.New("no root key is held: sealed")

// A Gate is the one place through which every use of a root key goes. It is shut, holding
// nothing, or open, holding a keyring. It is safe for concurrent use.
type Gate struct {
	mu   sync.RWMutex // held for reading while a key is used
	keys *Keyring     // nil while shut
	era  uint64
	turn uint64
}

var _ encrypt.Keys = (*Gate)(nil)

// NewGate returns a gate that is shut.
func NewGate() *Gate { return new(Gate) }

// Open lets keys through. They become the gate's, which wipes them when it drops
// them: those of an open gate that are not among the new ones at once.
func (g *Gate) Open(keys *Keyring) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.turn++
	if g.keys == nil {
		g.era++
	} else {
		g.keys.wipeExcept(keys)
	}
	g.keys = keys
}

// Shut drops the keyring. When it returns, no use of a key that began before goes on,
// and none begins.
//
// The keys' own bytes are overwritten. What age made of them, and strings that they
// passed through, are garbage from then on; a program that is built with
// GOEXPERIMENT=runtimesecret has those erased, too. No more is claimed.
func (g *Gate) Shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.keys != nil {
		g.keys.Wipe()
		g.keys = nil
	}
}

// Era returns 0 while the gate is shut, and otherwise a number that tells this
// opening from every other. If it is the same before and after a number of
// uses, the gate was not shut in between.
func (g *Gate) Era() uint64 {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.keys == nil {
		return 0
	}
	return g.era
}

// Turn returns 0 while the gate is shut, and otherwise a number that is another after every
// Open, also of an open gate. Whoever was refused for want of a key tries again when it
// is another.
func (g *Gate) Turn() uint64 {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.keys == nil {
		return 0
	}
	return g.turn
}

// Held returns the id of the active key, and those of the others, sorted. The first is empty
// while the gate is shut.
func (g *Gate) Held() (active encrypt.KeyID, others []encrypt.KeyID) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.keys == nil {
		return "", nil
	}
	active = g.keys.active.KeyID()
	for id := range g.keys.byID {
		if id != active {
			others = append(others, id)
		}
	}
	slices.Sort(others)
	return active, others
}

// Alone returns a view through the gate that holds the key of this id, for as long as the gate
// does, and no other: what it opens needs no other key.
func (g *Gate) Alone(id encrypt.KeyID) encrypt.Keys { return alone{g, id} }

// ActiveText returns the text of the active key, as [Parse] reads it; nil while the gate is
// shut. It is the caller's to wipe.
func (g *Gate) ActiveText() []byte {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.keys == nil {
		return nil
	}
	return g.keys.active.Text()
}

// Copies returns copies of all keys that are held, the active one first; none while the gate
// is shut. They are the caller's to wipe, or to open a gate with.
func (g *Gate) Copies() []*RootKey {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.keys == nil {
		return nil
	}
	copies := []*RootKey{g.keys.active.clone()}
	for _, k := range g.keys.byID {
		if k != g.keys.active {
			copies = append(copies, k.clone())
		}
	}
	return copies
}

// RetiredText returns the text of the keys that are not the active one, as [ParseAll] reads it; nil if none is
// held. It is the caller's to wipe.
func (g *Gate) RetiredText() []byte {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.keys == nil {
		return nil
	}
	var texts [][]byte
	for _, k := range g.keys.byID {
		if k != g.keys.active {
			texts = append(texts, k.Text())
		}
	}
	if texts == nil {
		return nil
	}
	all := bytes.Join(texts, []byte("\n"))
	for _, text := range texts {
		clear(text)
	}
	return all
}

// Identity implements [encrypt.Keys]. A shut gate holds none. What it returns holds no
// key: used after the gate was shut, or when its key was replaced, it fails
// with [ErrShut].
func (g *Gate) Identity(id encrypt.KeyID) (age.Identity, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.keys == nil || g.keys.byID[id] == nil {
		return nil, false
	}
	return passage{g, id}, true
}

// A passage is the use of one key through the gate.
type passage struct {
	gate *Gate
	id   encrypt.KeyID
}

func (p passage) Unwrap(stanzas []*age.Stanza) (fileKey []byte, err error) {
	p.gate.mu.RLock()
	defer p.gate.mu.RUnlock()
	if p.gate.keys == nil {
		return nil, ErrShut
	}
	key, held := p.gate.keys.Identity(p.id)
	if !held {
		return nil, ErrShut
	}
	return key.Unwrap(stanzas)
}

// An alone is one key of a gate.
type alone struct {
	gate *Gate
	id   encrypt.KeyID
}

func (a alone) Identity(id encrypt.KeyID) (age.Identity, bool) {
	if id != a.id {
		return nil, false
	}
	return a.gate.Identity(id)
}
