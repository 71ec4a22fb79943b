package unseal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A key in VSecM's layout, made by age-keygen: public, it protects nothing.
const (
	vsecmIdentity  = "AGE-SECRET-KEY-16T0M7W0NUYSQDF9YLN62RC80EASS25VT73AY3J7H2VVX28EFN93SWUET98"
	vsecmRecipient = "age1cv4geeksgwl8g2g67n7ygtw8w637hp4jjlkh8ty0dhldjc8tlstspfc07u"
	vsecmState     = "bc95a5e9b1f2cd6a2f6ab4c1d3d4f5e60718293a4b5c6d7e8f90a1b2c3d4e5f6"
)

func generate(t *testing.T, classic bool) *RootKey {
	t.Helper()
	k, err := Generate(classic)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestParseAcceptsWhatIsSeenInTheField(t *testing.T) {
	lines := vsecmIdentity + "\n" + vsecmRecipient + "\n" + vsecmState
	for name, text := range map[string]string{
		"three lines":          lines,
		"a final line break":   lines + "\n",
		"CRLF":                 strings.ReplaceAll(lines, "\n", "\r\n") + "\r\n",
		"blank lines":          "\n\n" + strings.ReplaceAll(lines, "\n", "\n\n") + "\n\n \t\n",
		"blanks around lines":  "  " + strings.ReplaceAll(lines, "\n", "  \n\t") + " ",
		"VSecM's version line": "2024/01/02 03:04:05 [keygen] App version: 0.26.1\n" + lines + "\n",
		"\\n spelled out":      strings.ReplaceAll(lines, "\n", `\n`),
		"\\n at its end too":   strings.ReplaceAll(lines, "\n", `\n`) + `\n` + "\n",
		"hex in capitals":      vsecmIdentity + "\n" + vsecmRecipient + "\n" + strings.ToUpper(vsecmState),
	} {
		t.Run(name, func(t *testing.T) {
			k, err := Parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if got := string(k.Text()); got != lines+"\n" {
				t.Errorf("it is read as\n%s", got)
			}
			if k.Recipient().String() != vsecmRecipient || k.KeyID() != encrypt.KeyIDOf(vsecmRecipient) {
				t.Errorf("recipient %s, key id %s", k.Recipient(), k.KeyID())
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	good := vsecmIdentity + "\n" + vsecmRecipient + "\n" + vsecmState + "\n"
	other := strings.Split(string(generate(t, true).Text()), "\n")
	hybrid := strings.Split(string(generate(t, false).Text()), "\n")
	noise := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	for name, test := range map[string]struct {
		text string
		want error
	}{
		"nothing":                     {"", ErrMalformed},
		"blank lines":                 {"\n \n", ErrMalformed},
		"the placeholder":             {"{}", ErrNone},
		"the placeholder in a file":   {"\n{}\r\n", ErrNone},
		"something like it":           {"{ }", ErrMalformed},
		"noise":                       {string(noise), ErrMalformed},
		"noise that is not too large": {string(noise[:MaxTextSize]), ErrMalformed},
		"lines without end":           {strings.Repeat("\n", 1<<20), ErrMalformed},
		"an identity alone":           {vsecmIdentity, ErrMalformed},
		"half an identity":            {good[:40], ErrMalformed},
		"two lines":                   {vsecmIdentity + "\n" + vsecmRecipient, ErrMalformed},
		"four lines":                  {good + "x", ErrMalformed},
		"two keys":                    {good + good, ErrMalformed},
		"half a hash":                 {vsecmIdentity + "\n" + vsecmRecipient + "\n" + vsecmState[:32], ErrMalformed},
		"66 digits":                   {good[:len(good)-1] + "00", ErrMalformed},
		"no hex":                      {vsecmIdentity + "\n" + vsecmRecipient + "\n" + strings.Repeat("g", 64), ErrMalformed},
		"a damaged identity":          {strings.Replace(good, "16T0", "16T1", 1), ErrMalformed},
		"an identity in small":        {strings.ToLower(vsecmIdentity) + "\n" + vsecmRecipient + "\n" + vsecmState, ErrMalformed},
		"a damaged recipient":         {vsecmIdentity + "\n" + vsecmRecipient[:40] + "\n" + vsecmState, ErrMalformed},
		"another key's recipient":     {vsecmIdentity + "\n" + other[1] + "\n" + vsecmState, ErrMismatch},
		"another family's recipient":  {vsecmIdentity + "\n" + hybrid[1] + "\n" + vsecmState, ErrMismatch},
		"an identity as recipient":    {vsecmIdentity + "\n" + vsecmIdentity + "\n" + vsecmState, ErrMalformed},
		"lines in another order":      {vsecmRecipient + "\n" + vsecmIdentity + "\n" + vsecmState, ErrMalformed},
		"an ssh key":                  {"-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n", ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := Parse([]byte(test.text))
			if k != nil || !errors.Is(err, test.want) {
				t.Fatalf("%v, %v; want %v", k, err, test.want)
			}
			holdsNoKey(t, "the error", []byte(err.Error()), vsecmIdentity, vsecmState, other[0], hybrid[0])
			if len(err.Error()) > 200 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestWhatIsParsedInVainIsWiped(t *testing.T) {
	good := vsecmIdentity + "\n" + vsecmRecipient + "\n" + vsecmState + "\n"
	other := generate(t, true)
	for name, tt := range map[string]struct {
		text string
		one  bool
		made int
	}{
		"two keys, where one is expected": {good + string(other.Text()), true, 2},
		"half a second key":               {good + "nonsense\nnonsense\nnonsense\n", false, 1},
		"no recipient":                    {good + vsecmIdentity + "\nnonsense\n" + vsecmState, false, 2},
		"another key's recipient":         {vsecmIdentity + "\n" + other.Recipient().String() + "\n" + vsecmState, true, 1},
		"no state":                        {vsecmIdentity + "\n" + vsecmRecipient + "\n" + vsecmState[2:], true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var p parser
			if keys, err := p.all([]byte(tt.text), tt.one); err == nil || keys != nil || len(p.keys) != tt.made {
				t.Fatalf("%d keys were made, error %v", len(p.keys), err)
			}
			for _, k := range p.keys {
				if held := k.private(); len(bytes.Trim(held.secret, "\x00")) > 0 || held.state != [stateKeySize]byte{} || held.identity != (wiped{}) {
					t.Error("a key that was parsed in vain still holds something")
				}
			}
		})
	}
}

func TestParseAllReadsRetiredKeys(t *testing.T) {
	a, b := generate(t, false), generate(t, true)
	keys, err := ParseAll([]byte(string(a.Text()) + "\n" + string(b.Text())))
	if err != nil || len(keys) != 2 || keys[0].KeyID() != a.KeyID() || keys[1].KeyID() != b.KeyID() {
		t.Errorf("%v, %v", keys, err)
	}
	if keys, err := ParseAll([]byte(string(a.Text()) + vsecmIdentity)); keys != nil || !errors.Is(err, ErrMalformed) {
		t.Errorf("%v, %v", keys, err)
	}
}

func TestGenerateMakesKeysThatDiffer(t *testing.T) {
	for _, classic := range []bool{false, true} {
		a, b := generate(t, classic), generate(t, classic)
		if bytes.Equal(a.private().secret, b.private().secret) || a.private().state == b.private().state || a.KeyID() == b.KeyID() || a.private().state == [stateKeySize]byte{} {
			t.Error("two keys share something")
		}
		if a.Recipient().Hybrid() == classic {
			t.Errorf("classic %v: recipient %.10s", classic, a.Recipient())
		}
		again, err := Parse(a.Text())
		if err != nil || !bytes.Equal(again.Text(), a.Text()) {
			t.Errorf("read again: %v", err)
		}
	}
}

// holdsNoKey looks for any part of a key, of eight characters and more, in small and
// large letters.
func holdsNoKey(t *testing.T, what string, text []byte, keys ...string) {
	t.Helper()
	upper := bytes.ToUpper(text)
	for _, key := range keys {
		key = strings.ToUpper(strings.TrimPrefix(strings.TrimPrefix(key, "AGE-SECRET-KEY-"), "PQ-"))
		for i := 0; i+8 <= len(key); i++ {
			if bytes.Contains(upper, []byte(key[i:i+8])) {
				t.Fatalf("%s shows a part of a key: %.300q", what, text)
			}
		}
	}
}

func TestPromise01_NothingPrintsARootKey(t *testing.T) {
	for _, classic := range []bool{false, true} {
		k := generate(t, classic)
		ring, err := NewKeyring(k, generate(t, true))
		if err != nil {
			t.Fatal(err)
		}
		identity, held := ring.Identity(k.KeyID())
		if !held {
			t.Fatal("not held")
		}
		state := make([]string, stateKeySize)
		for i, b := range k.private().state {
			state[i] = fmt.Sprint(b)
		}
		secrets := []string{string(k.private().secret), fmt.Sprintf("%x", k.private().state), strings.Join(state, " "), strings.Join(state, ","), fmt.Sprintf("%q", k.private().state)}
		for name, v := range map[string]any{
			"a key": k, "a copy of a key": *k, "a list of keys": []*RootKey{k}, "a list of copies": []RootKey{*k},
			"a map": map[string]RootKey{"a": *k}, "a struct": struct{ Key RootKey }{*k}, "a private field": struct{ key RootKey }{*k}, "a struct of pointers": struct{ Key *RootKey }{k},
			"a keyring": ring, "a copy of a keyring": *ring, "an identity": identity,
			"an error": fmt.Errorf("with %v and %+v: %w", k, *k, errors.New("x")),
		} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%T", "%p", "%t", "%w"} {
				holdsNoKey(t, name+" as "+verb, fmt.Appendf(nil, verb, v), secrets...)
			}
			holdsNoKey(t, name+" printed", []byte(fmt.Sprint(v)+fmt.Sprintln(v)), secrets...)
			if text, err := json.Marshal(v); err == nil {
				holdsNoKey(t, name+" as JSON", text, secrets...)
			}
			var log bytes.Buffer
			for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
				slog.New(handler).Info("x", "v", v, slog.Any("w", v), slog.Group("g", "v", v))
			}
			if log.Len() == 0 {
				t.Fatal("no log")
			}
			holdsNoKey(t, name+" in a log", log.Bytes(), secrets...)
		}
		if got, want := fmt.Sprint(k), "root key "+string(k.KeyID()); got != want {
			t.Errorf("a key prints as %q, want %q", got, want)
		}
	}
}

func TestKeyringLooksUpByKeyID(t *testing.T) {
	active, old, stranger := generate(t, false), generate(t, true), generate(t, true)
	ring, err := NewKeyring(active, old)
	if err != nil {
		t.Fatal(err)
	}
	if ring.Active() != active {
		t.Error("another key is active")
	}
	for _, k := range []*RootKey{active, old} {
		if identity, held := ring.Identity(k.KeyID()); !held || identity == nil {
			t.Errorf("%v is not held", k)
		}
	}
	for _, id := range []encrypt.KeyID{stranger.KeyID(), "", encrypt.KeyID(strings.ToUpper(string(old.KeyID()))), active.KeyID()[:31]} {
		if identity, held := ring.Identity(id); held || identity != nil {
			t.Errorf("%q is held", id)
		}
	}
	if _, err := NewKeyring(nil); err == nil {
		t.Error("a keyring without an active key")
	}
	if _, err := NewKeyring(active, old, active); err == nil {
		t.Error("a keyring with a key twice")
	}
}

func TestKeyringOpensWhatWasSealedToAnyOfItsKeys(t *testing.T) {
	place := encrypt.Binding{Scope: encrypt.Strict, Namespace: "shop", Name: "db", Key: "password"}
	now := time.Unix(1767225600, 0)
	for _, classic := range []bool{false, true} {
		active, retired, stranger := generate(t, classic), generate(t, !classic), generate(t, classic)
		ring, err := NewKeyring(active, retired)
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range [][]encrypt.Recipient{{active.Recipient()}, {retired.Recipient()}, {stranger.Recipient(), active.Recipient()}} {
			sealed, err := encrypt.Seal([]byte("correct horse"), place, to, now)
			if err != nil {
				t.Fatal(err)
			}
			value, err := encrypt.Open(sealed, place, ring, now)
			if err != nil || string(value) != "correct horse" {
				t.Errorf("opened %q: %v", value, err)
			}
		}
		sealed, err := encrypt.Seal([]byte("correct horse"), place, []encrypt.Recipient{stranger.Recipient()}, now)
		if err != nil {
			t.Fatal(err)
		}
		if value, err := encrypt.Open(sealed, place, ring, now); value != nil || !errors.Is(err, encrypt.ErrKeyNotHeld) {
			t.Errorf("opened %q: %v", value, err)
		}
	}
}

// What age itself encrypted to a root key's recipient is for other readers; the
// key's first line is an ordinary identity file.
func TestRootKeyIsAnAgeIdentity(t *testing.T) {
	for _, classic := range []bool{false, true} {
		first, _, _ := strings.Cut(string(generate(t, classic).Text()), "\n")
		if ids, err := age.ParseIdentities(strings.NewReader(first)); err != nil || len(ids) != 1 {
			t.Errorf("%d identities: %v", len(ids), err)
		}
	}
}

func FuzzParseRootKey(f *testing.F) {
	good := vsecmIdentity + "\n" + vsecmRecipient + "\n" + vsecmState + "\n"
	hybrid, err := Generate(false)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{good, strings.ReplaceAll(good, "\n", `\n`), strings.ReplaceAll(good, "\n", "\r\n"), "x App version: 1\n" + good, good + "\n" + string(hybrid.Text()), "{}", "", good[:70]} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := ParseAll(text)
		if err != nil {
			if keys != nil {
				t.Error("keys beside an error")
			}
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrMismatch) && !errors.Is(err, ErrNone) {
				t.Errorf("an error without a kind: %v", err)
			}
			if len(err.Error()) > 200 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		for _, k := range keys {
			again, err := Parse(k.Text())
			if err != nil || !bytes.Equal(again.Text(), k.Text()) {
				t.Errorf("read again: %v", err)
			}
		}
	})
}
