package unseal

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

func keyring(t *testing.T, active *RootKey, retired ...*RootKey) *Keyring {
	t.Helper()
	ring, err := NewKeyring(active, retired...)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

var (
	gatePlace = encrypt.Binding{Scope: encrypt.Strict, Namespace: "shop", Name: "db", Key: "password"}
	gateTime  = time.Unix(1767225600, 0)
)

func sealTo(t *testing.T, to encrypt.Recipient) string {
	t.Helper()
	sealed, err := encrypt.Seal([]byte("correct horse"), gatePlace, []encrypt.Recipient{to}, gateTime)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestPromise05_AShutGateOpensNothing(t *testing.T) {
	for _, classic := range []bool{false, true} {
		gate, key := NewGate(), generate(t, classic)
		sealed, text := sealTo(t, key.Recipient()), key.Text()
		open := func() error {
			value, err := encrypt.Open(sealed, gatePlace, gate, gateTime)
			if err == nil && string(value) != "correct horse" {
				t.Errorf("opened %q", value)
			}
			return err
		}
		if err := open(); !errors.Is(err, encrypt.ErrKeyNotHeld) || gate.Era() != 0 {
			t.Errorf("a new gate: %v", err)
		}
		gate.Open(keyring(t, key))
		held, ok := gate.Identity(key.KeyID())
		first := gate.Era()
		if err := open(); err != nil || !ok || first == 0 {
			t.Errorf("an open gate: %v", err)
		}
		gate.Shut()
		if err := open(); !errors.Is(err, encrypt.ErrKeyNotHeld) || gate.Era() != 0 {
			t.Errorf("a shut gate: %v", err)
		}
		if _, err := held.Unwrap(nil); !errors.Is(err, ErrShut) {
			t.Errorf("an identity that was taken before: %v", err)
		}
		gate.Shut() // changes nothing

		again, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		gate.Open(keyring(t, again))
		if err := open(); err != nil || gate.Era() == first || gate.Era() == 0 {
			t.Errorf("opened again: %v, era %d after %d", err, gate.Era(), first)
		}
	}
}

func TestShutWipesTheKeys(t *testing.T) {
	gate, active, retired := NewGate(), generate(t, false), generate(t, true)
	keys := []*RootKey{active, retired}
	gate.Open(keyring(t, active, retired))
	gate.Shut()
	for _, k := range keys {
		p := k.private()
		if !bytes.Equal(p.secret, make([]byte, len(p.secret))) || len(p.secret) == 0 || p.state != [stateKeySize]byte{} {
			t.Errorf("%v is still there", k)
		}
		if _, err := p.identity.Unwrap(nil); !errors.Is(err, ErrShut) {
			t.Errorf("%v still opens: %v", k, err)
		}
	}
}

func TestOpeningAnOpenGateWipesOnlyTheKeysThatAreDropped(t *testing.T) {
	gate, old, kept, fresh := NewGate(), generate(t, true), generate(t, true), generate(t, true)
	oldValue, keptValue, freshValue := sealTo(t, old.Recipient()), sealTo(t, kept.Recipient()), sealTo(t, fresh.Recipient())
	gate.Open(keyring(t, old, kept))
	era := gate.Era()
	held, _ := gate.Identity(old.KeyID())
	gate.Open(keyring(t, fresh, kept))
	if gate.Era() != era {
		t.Error("the gate was taken for shut in between")
	}
	if old.private().state != [stateKeySize]byte{} {
		t.Error("the dropped key is still there")
	}
	if _, err := held.Unwrap(nil); !errors.Is(err, ErrShut) {
		t.Errorf("the dropped key: %v", err)
	}
	for sealed, want := range map[string]error{oldValue: encrypt.ErrKeyNotHeld, keptValue: nil, freshValue: nil} {
		if _, err := encrypt.Open(sealed, gatePlace, gate, gateTime); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}

// A slow is a key whose use can be held up.
type slow struct {
	began, goOn chan struct{}
}

func (s slow) Unwrap([]*age.Stanza) ([]byte, error) {
	close(s.began)
	<-s.goOn
	return []byte("file key"), nil
}

func TestShutWaitsForUsesInFlight(t *testing.T) {
	gate, key := NewGate(), generate(t, true)
	use := slow{make(chan struct{}), make(chan struct{})}
	key.private().identity = use
	gate.Open(keyring(t, key))
	held, _ := gate.Identity(key.KeyID())
	var order []string // written by one at a time, or the race detector says so
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := held.Unwrap(nil); err != nil {
			t.Errorf("the use in flight: %v", err)
		}
	})
	<-use.began
	wg.Go(func() {
		gate.Shut()
		order = append(order, "shut")
	})
	// Once Shut waits, nobody else gets in.
	for gate.mu.TryRLock() {
		gate.mu.RUnlock()
	}
	order = append(order, "used")
	close(use.goOn)
	wg.Wait()
	if len(order) != 2 || order[0] != "used" {
		t.Errorf("in this order: %v", order)
	}
}

func TestPromise05_NothingOpensAfterShut(t *testing.T) {
	gate, key := NewGate(), generate(t, true)
	sealed, text := sealTo(t, key.Recipient()), key.Text()
	var (
		mu   sync.RWMutex // a reader's use lies wholly before or after a Shut
		shut bool
		wg   sync.WaitGroup
		stop = make(chan struct{})
	)
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.RLock()
				wasShut := shut
				_, err := encrypt.Open(sealed, gatePlace, gate, gateTime)
				if wasShut && err == nil {
					t.Error("opened after Shut had returned")
				}
				mu.RUnlock()
				_, _ = encrypt.Open(sealed, gatePlace, gate, gateTime) // across
			}
		})
	}
	for range 50 {
		again, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		gate.Open(keyring(t, again))
		shut = false
		mu.Unlock()
		if _, err := encrypt.Open(sealed, gatePlace, gate, gateTime); err != nil {
			t.Errorf("open: %v", err)
		}
		gate.Shut()
		mu.Lock()
		shut = true
		mu.Unlock()
	}
	close(stop)
	wg.Wait()
}

func TestEachOpeningIsAnotherTurn(t *testing.T) {
	gate, a, b := NewGate(), generate(t, true), generate(t, true)
	text := a.Text()
	if gate.Turn() != 0 {
		t.Error("a shut gate has a turn")
	}
	seen := map[uint64]bool{0: true}
	turn := func(what string) {
		t.Helper()
		now := gate.Turn()
		if seen[now] || now != gate.Turn() {
			t.Errorf("%s: turn %d again", what, now)
		}
		seen[now] = true
	}
	gate.Open(keyring(t, a))
	turn("opened")
	era := gate.Era()
	gate.Open(keyring(t, a, b))
	turn("opened while it was open")
	if gate.Era() != era {
		t.Error("the era is another")
	}
	gate.Shut()
	if gate.Turn() != 0 {
		t.Error("a shut gate has a turn")
	}
	again, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	gate.Open(keyring(t, again))
	turn("opened again")
}

func TestTheGateTellsWhichKeysItHolds(t *testing.T) {
	gate := NewGate()
	if active, others := gate.Held(); active != "" || others != nil || gate.ActiveText() != nil || gate.Copies() != nil {
		t.Errorf("a shut gate holds %s and %s", active, others)
	}
	keys := []*RootKey{generate(t, true), generate(t, false), generate(t, true), generate(t, true)}
	text := keys[0].Text()
	gate.Open(keyring(t, keys[0], keys[1:]...))
	active, others := gate.Held()
	if active != keys[0].KeyID() || len(others) != 3 || !slices.IsSorted(others) {
		t.Errorf("it holds %s and %s", active, others)
	}
	for _, k := range keys[1:] {
		if !slices.Contains(others, k.KeyID()) {
			t.Errorf("it does not name %s", k)
		}
	}
	if !bytes.Equal(gate.ActiveText(), text) {
		t.Error("the active key's text is another")
	}
	copies := gate.Copies()
	if len(copies) != 4 || copies[0].KeyID() != active {
		t.Fatalf("copies: %v", copies)
	}
	sealed := sealTo(t, copies[1].Recipient())
	gate.Shut()
	if !bytes.Equal(copies[0].Text(), text) {
		t.Error("a copy was wiped with the gate's key")
	}
	gate.Open(keyring(t, copies[0], copies[1:]...))
	if _, err := encrypt.Open(sealed, gatePlace, gate, gateTime); err != nil {
		t.Errorf("with copies: %v", err)
	}
}

func TestAKeyAloneOpensWhatIsSealedToItAndNothingElse(t *testing.T) {
	gate, a, b := NewGate(), generate(t, true), generate(t, true)
	toA, toB := sealTo(t, a.Recipient()), sealTo(t, b.Recipient())
	both, err := encrypt.Seal([]byte("correct horse"), gatePlace, []encrypt.Recipient{a.Recipient(), b.Recipient()}, gateTime)
	if err != nil {
		t.Fatal(err)
	}
	alone := gate.Alone(a.KeyID())
	opens := func(sealed string) bool {
		value, err := encrypt.Open(sealed, gatePlace, alone, gateTime)
		if err != nil && !errors.Is(err, encrypt.ErrKeyNotHeld) {
			t.Error(err)
		}
		return err == nil && string(value) == "correct horse"
	}
	if opens(toA) {
		t.Error("through a shut gate")
	}
	gate.Open(keyring(t, b, a))
	if !opens(toA) || opens(toB) || !opens(both) {
		t.Errorf("it opens its own: %v, another's: %v, one of both: %v", opens(toA), opens(toB), opens(both))
	}
	gate.Open(keyring(t, b))
	if opens(toA) || opens(toB) || opens(both) {
		t.Error("after its key was dropped")
	}
}
