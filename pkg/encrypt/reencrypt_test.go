package encrypt

import (
	"bytes"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"pgregory.net/rapid"
)

// keyOf is one key of the tests.
func keyOf(tb testing.TB, secret string) Recipient { return recipientsOf(tb, secret)[0] }

func isOne(ids ...KeyID) func(KeyID) bool {
	return func(id KeyID) bool { return slices.Contains(ids, id) }
}

// newIdentity returns a key that no vector has.
func newIdentity(tb testing.TB, keys *countingKeys, hybrid bool) Recipient {
	tb.Helper()
	var (
		text     string
		identity age.Identity
	)
	if hybrid {
		i, err := age.GenerateHybridIdentity()
		if err != nil {
			tb.Fatal(err)
		}
		text, identity = i.Recipient().String(), i
	} else {
		i, err := age.GenerateX25519Identity()
		if err != nil {
			tb.Fatal(err)
		}
		text, identity = i.Recipient().String(), i
	}
	r, err := ParseRecipient(text)
	if err != nil {
		tb.Fatal(err)
	}
	keys.identities[r.KeyID()] = identity
	return r
}

// TestPromise04_ReencryptionKeepsAllButTheRetiredKey seals for random places and recipients, and has
// the retired ones replaced.
func TestPromise04_ReencryptionKeepsAllButTheRetiredKey(t *testing.T) {
	keys := keysOf(t)
	families := make(map[bool][]Recipient)
	for _, hybrid := range []bool{true, false} {
		for range 4 {
			families[hybrid] = append(families[hybrid], newIdentity(t, keys, hybrid))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		all := families[rapid.Bool().Draw(t, "hybrid")]
		active, older, old, breakGlass := all[0], all[1], all[2], all[3]
		b := drawBinding(t, "at")
		value := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value")
		at := time.Unix(rapid.Int64Range(0, maxSealedAt).Draw(t, "at"), 0)
		from := rapid.SliceOfNDistinct(rapid.SampledFrom(all), 1, 4, Recipient.KeyID).Draw(t, "from")
		sealed, err := Seal(value, b, from, at)
		if err != nil {
			t.Fatal(err)
		}
		before, err := Inspect(sealed)
		if err != nil {
			t.Fatal(err)
		}
		retired := isOne(old.id, older.id)
		stale := slices.Contains(before.KeyIDs, old.id) || slices.Contains(before.KeyIDs, older.id)
		var to []Recipient
		if slices.Contains(before.KeyIDs, breakGlass.id) {
			to = append(to, breakGlass)
		}
		if stale || slices.Contains(before.KeyIDs, active.id) {
			to = append(to, active)
		}
		holding := &countingKeys{identities: maps.Clone(keys.identities)}
		delete(holding.identities, breakGlass.id)

		again, err := Reencrypt(sealed, holding, active.id, retired, to, at)
		if !stale {
			if !errors.Is(err, ErrCurrent) || again != "" || holding.used != 0 {
				t.Fatalf("nothing is retired: %v, %d private-key operations", err, holding.used)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		after, err := Inspect(again)
		if err != nil {
			t.Fatal(err)
		}
		want := slices.Sorted(maps.Keys(idsOf(to)))
		if !sameBinding(after.Binding, b) || after.Binding.body() != before.Binding.body() || !after.SealedAt.Equal(before.SealedAt) || after.Size != before.Size || after.Hybrid != before.Hybrid || !slices.Equal(after.KeyIDs, want) {
			t.Fatalf("it was %+v, and is %+v", before, after)
		}
		for _, r := range to {
			one := &countingKeys{identities: map[KeyID]age.Identity{r.id: keys.identities[r.id]}}
			if got, err := Open(again, b, one, at); err != nil || !bytes.Equal(got, value) {
				t.Fatalf("%s opens it to %q, %v", r.id, got, err)
			}
		}
		gone := &countingKeys{identities: map[KeyID]age.Identity{old.id: keys.identities[old.id], older.id: keys.identities[older.id]}}
		if _, err := Open(again, b, gone, at); !errors.Is(err, ErrKeyNotHeld) {
			t.Fatalf("the retired keys: %v", err)
		}
		// Once more changes nothing.
		if _, err := Reencrypt(again, holding, active.id, retired, to, at); !errors.Is(err, ErrCurrent) {
			t.Fatalf("once more: %v", err)
		}
	})
}

func idsOf(rs []Recipient) map[KeyID]bool {
	ids := make(map[KeyID]bool)
	for _, r := range rs {
		ids[r.id] = true
	}
	return ids
}

func TestReencryptRefusesWhatWouldChangeMoreThanTheKey(t *testing.T) {
	old, active := keyOf(t, hybridSecret), keyOf(t, otherHybridSecret)
	classicOld, classicNew := keyOf(t, classicSecret), keyOf(t, otherClassicSecret)
	keys := keysOf(t, hybridSecret, otherHybridSecret, classicSecret, otherClassicSecret)
	foreign := newHybrid(t)
	retired := isOne(old.id, classicOld.id)
	seal := func(at time.Time, to ...Recipient) string {
		t.Helper()
		sealed, err := Seal(aValue, aBinding, to, at)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	damaged := func(sealed string, change func([]byte)) string {
		raw, err := base64.StdEncoding.DecodeString(sealed)
		if err != nil {
			t.Fatal(err)
		}
		change(raw)
		return base64.StdEncoding.EncodeToString(raw)
	}
	for name, test := range map[string]struct {
		sealed string
		active Recipient
		to     []Recipient
		want   error
		used   int
	}{
		"a recipient more":             {seal(aTime, old), active, []Recipient{active, foreign}, ErrRecipients, 0},
		"a recipient less":             {seal(aTime, old, foreign), active, []Recipient{active}, ErrRecipients, 0},
		"another in its place":         {seal(aTime, old, foreign), active, []Recipient{active, newHybrid(t)}, ErrRecipients, 0},
		"the retired one":              {seal(aTime, old), active, []Recipient{old}, ErrRecipients, 0},
		"the retired one beside":       {seal(aTime, old), active, []Recipient{active, old}, ErrRecipients, 0},
		"not the active one":           {seal(aTime, old), active, []Recipient{foreign}, ErrRecipients, 0},
		"nobody":                       {seal(aTime, old), active, nil, nil, 0},
		"nothing retired":              {seal(aTime, active), active, []Recipient{active}, ErrCurrent, 0},
		"nothing retired, and others":  {seal(aTime, active), active, []Recipient{foreign}, ErrCurrent, 0},
		"hybrid to classic":            {seal(aTime, old), classicNew, []Recipient{classicNew}, ErrMixedRecipients, 0},
		"both kinds":                   {seal(aTime, old, foreign), classicNew, []Recipient{classicNew, foreign}, ErrMixedRecipients, 0},
		"a key that is not held":       {seal(aTime, foreign), active, []Recipient{active}, ErrCurrent, 0},
		"a future":                     {seal(aTime.Add(time.Hour), old), active, []Recipient{active}, ErrFuture, 0},
		"no binding":                   {readVectors(t)["header_unbound"].sealed, active, []Recipient{active}, ErrUnbound, 0},
		"no sealed value":              {"YWdl", active, []Recipient{active}, ErrMalformed, 0},
		"an edited binding":            {damaged(seal(aTime, old), func(b []byte) { swap(b, "c2hvcC9kYi9wYXNzd29yZ", "c2hvcC9kYy9wYXNzd29yZ") }), active, []Recipient{active}, ErrMalformed, 1},
		"a damaged payload":            {damaged(seal(aTime, old), func(b []byte) { b[len(b)-1] ^= 1 }), active, []Recipient{active}, ErrMalformed, 1},
		"a key id that it is not for":  {damaged(seal(aTime, active), func(b []byte) { swap(b, string(active.id), string(old.id)) }), active, []Recipient{active}, ErrMalformed, 1},
		"classic to hybrid":            {seal(aTime, classicOld), active, []Recipient{active}, nil, 1},
		"several retired, one of each": {seal(aTime, classicOld, classicNew), classicNew, []Recipient{classicNew}, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			keys.used = 0
			got, err := Reencrypt(test.sealed, keys, test.active.id, retired, test.to, aTime)
			if name == "classic to hybrid" || name == "several retired, one of each" {
				if value, openErr := Open(got, aBinding, keys, aTime); err != nil || openErr != nil || !bytes.Equal(value, aValue) {
					t.Errorf("got %v, %v", err, openErr)
				}
				return
			}
			if err == nil || got != "" || test.want != nil && !errors.Is(err, test.want) || keys.used != test.used {
				t.Errorf("%.20q, %v, %d private-key operations", got, err, keys.used)
			}
			if err != nil && strings.Contains(err.Error(), string(aValue)) {
				t.Errorf("the value is in %v", err)
			}
		})
	}
	if _, err := Reencrypt(seal(aTime, old), keysOf(t, otherHybridSecret), active.id, retired, []Recipient{active}, aTime); !errors.Is(err, ErrKeyNotHeld) {
		t.Errorf("the retired key is not held any more: %v", err)
	}
}

// swap replaces text in place.
func swap(b []byte, old, with string) {
	if i := bytes.Index(b, []byte(old)); i >= 0 {
		copy(b[i:], with)
	}
}

func FuzzReencrypt(f *testing.F) {
	addVectors(f)
	active := newIdentity(f, keysOf(f), true)
	keys := &countingKeys{identities: allIdentities}
	var retired []KeyID
	for id := range allIdentities {
		retired = append(retired, id)
	}
	f.Fuzz(func(t *testing.T, sealed string) {
		for _, text := range []string{sealed, base64.StdEncoding.EncodeToString([]byte(sealed))} {
			again, err := Reencrypt(text, keys, active.id, isOne(retired...), []Recipient{active}, aTime)
			if err != nil {
				if again != "" {
					t.Errorf("a value beside %v", err)
				}
				if !errors.Is(err, ErrCurrent) && !errors.Is(err, ErrRecipients) && !errors.Is(err, ErrMixedRecipients) {
					wantRefusal(t, err)
				}
				continue
			}
			was, err := Inspect(text)
			if err != nil {
				t.Fatal(err)
			}
			is, err := Inspect(again)
			if err != nil || !sameBinding(is.Binding, was.Binding) || !is.SealedAt.Equal(was.SealedAt) || is.Size != was.Size || !slices.Equal(is.KeyIDs, []KeyID{active.id}) {
				t.Errorf("it was %+v, and is %+v, %v", was, is, err)
			}
		}
	})
}
