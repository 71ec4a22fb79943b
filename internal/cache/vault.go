package cache

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// A vault keeps values that were decrypted once, encrypted under a random key
// of its own, for as long as a version needs them.
//
// seal drops the key and everything under it. Go keeps a cipher's key schedule
// where it cannot be overwritten; it is garbage from then on, and no more is
// claimed.
type vault struct {
	mu   sync.RWMutex
	now  *era // nil while sealed
	held map[valueID]*held
}

// An era is the time from one unseal to the next seal. Who comes after a seal
// must not join what was begun before it, and fail with it.
type era struct {
	aead   cipher.AEAD
	flight singleflight.Group
}

// held is a value that refs versions have.
type held struct {
	refs int
	box  *box // nil until first use
}

// A box is a value, encrypted. It is immutable.
type box struct {
	aead     cipher.AEAD
	sealed   []byte
	sealedAt time.Time
}

func newVault() *vault {
	v := &vault{held: make(map[valueID]*held)}
	v.unseal()
	return v
}

// newAEAD returns AES-256-GCM under a new random key, with random nonces: they
// stay unique for far more values (2³²) than a process ever keeps.
func newAEAD() cipher.AEAD {
	key := make([]byte, 32)
	defer clear(key)
	rand.Read(key) // never fails: the process ends if it does
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key's length is right
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // the block's length is right
	}
	return aead
}

func (v *vault) seal() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.now = nil
	for _, h := range v.held {
		h.box = nil
	}
}

func (v *vault) unseal() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.now == nil {
		v.now = &era{aead: newAEAD()}
	}
}

// retain notes that one more version has values; release, that one less has.
func (v *vault) retain(values []value) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, value := range values {
		h := v.held[value.id]
		if h == nil {
			h = new(held)
			v.held[value.id] = h
		}
		h.refs++
	}
}

func (v *vault) release(values []value) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, value := range values {
		h := v.held[value.id]
		if h.refs--; h.refs == 0 {
			delete(v.held, value.id)
		}
	}
}

// open returns the plaintext of a value, which becomes the caller's to wipe,
// and when it was sealed. It calls decrypt if nobody has asked for the value
// before, once for all who ask at the same time.
func (v *vault) open(id valueID, decrypt func() ([]byte, time.Time, error)) ([]byte, time.Time, error) {
	b, err := v.boxOf(id, decrypt)
	if err != nil {
		return nil, time.Time{}, err
	}
	// Room for exactly the plaintext: growing would leave copies behind.
	room := make([]byte, 0, len(b.sealed)-b.aead.Overhead())
	plaintext, err := b.aead.Open(room, nil, b.sealed, id[:])
	if err != nil {
		return nil, time.Time{}, err
	}
	return plaintext, b.sealedAt, nil
}

// boxOf returns the box of a value, and makes it where there is none.
func (v *vault) boxOf(id valueID, decrypt func() ([]byte, time.Time, error)) (*box, error) {
	b, now, err := v.find(id)
	if b != nil || err != nil {
		return b, err
	}
	made, err, _ := now.flight.Do(string(id[:]), func() (any, error) {
		b, _, err := v.find(id)
		if b != nil || err != nil {
			return b, err
		}
		plaintext, sealedAt, err := decrypt()
		if err != nil {
			if v.over(now) {
				// The keys went in the middle of it: nothing is wrong with the value.
				return nil, ErrSealed
			}
			return nil, err
		}
		defer clear(plaintext)
		b = &box{aead: now.aead, sealed: now.aead.Seal(nil, nil, plaintext, id[:]), sealedAt: sealedAt}
		return b, v.put(id, b, now)
	})
	if err != nil {
		return nil, err
	}
	return made.(*box), nil
}

func (v *vault) find(id valueID) (*box, *era, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.now == nil {
		return nil, nil, ErrSealed
	}
	if h := v.held[id]; h != nil {
		return h.box, v.now, nil
	}
	return nil, v.now, nil
}

// over tells whether era then has ended. A seal ends it before it takes the keys away.
func (v *vault) over(then *era) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.now != then
}

// put keeps b, which was made in era then, if a version has its value still.
func (v *vault) put(id valueID, b *box, then *era) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.now != then {
		return ErrSealed // while it was being decrypted
	}
	if h := v.held[id]; h != nil {
		h.box = b
	}
	return nil
}
