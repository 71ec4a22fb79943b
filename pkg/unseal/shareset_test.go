package unseal

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

func TestSplitAndCombine(t *testing.T) {
	for _, classic := range []bool{false, true} {
		key := generate(t, classic)
		set, shares := splitInto(t, key, 5, 3)
		if set.Threshold() != 3 || set.Size() != 5 || len(shares) != 5 || set.Recipient().String() != key.Recipient().String() {
			t.Errorf("%v with %d shares", set, len(shares))
		}
		for _, some := range [][]int{{0, 1, 2}, {4, 2, 0}, {1, 3, 4}, {4, 3, 2, 1, 0}} {
			var given []Share
			for _, i := range some {
				given = append(given, shares[i])
			}
			got, err := set.Combine(given...)
			if err != nil {
				t.Fatalf("%v: %v", some, err)
			}
			if !bytes.Equal(got.Text(), key.Text()) {
				t.Errorf("%v open another key", some)
			}
		}
	}
}

func TestSplitRefusesImpossibleNumbers(t *testing.T) {
	for _, c := range [][2]int{{0, 0}, {1, 1}, {5, 1}, {5, 0}, {5, -1}, {5, 6}, {1, 2}, {-1, -1}, {256, 3}, {256, 256}, {1 << 40, 2}} {
		set, shares, err := Split(aKey(), c[0], c[1])
		if set != nil || shares != nil || !errors.Is(err, ErrCounts) {
			t.Errorf("%v: %v", c, err)
		}
	}
}

func TestSplitTriesWhatItMade(t *testing.T) {
	key := generate(t, true)
	key.Wipe()
	if set, shares, err := Split(key, 3, 2); err == nil || set != nil || shares != nil {
		t.Errorf("a wiped key was split: %v", err)
	}
}

func TestTheMostSharesOpen(t *testing.T) {
	set, shares := splitInto(t, generate(t, false), MaxShares, MaxShares)
	if len(set.Text()) > MaxShareSetSize*3/4 {
		t.Errorf("the public file has %d bytes", len(set.Text()))
	}
	if _, err := set.Combine(shares...); err != nil {
		t.Error(err)
	}
	if _, err := set.Combine(shares[:MaxShares-1]...); !errors.Is(err, ErrTooFew) {
		t.Error(err)
	}
}

func TestSplittingAgainMakesAnotherSet(t *testing.T) {
	one, ones := splitInto(t, aKey(), 3, 2)
	two, twos := splitInto(t, aKey(), 3, 2)
	if one.ID() == two.ID() || *ones[0].scalar() == *twos[0].scalar() {
		t.Fatal("two sets share something")
	}
	for i := range ones {
		err := one.Check(twos[i])
		if !errors.Is(err, ErrOtherSet) || !strings.Contains(err.Error(), two.ID().String()) || !strings.Contains(err.Error(), one.ID().String()) {
			t.Error(err)
		}
	}
	if _, err := one.Combine(ones[0], twos[1]); !errors.Is(err, ErrOtherSet) {
		t.Error(err)
	}
}

func TestCheckFindsForgedShares(t *testing.T) {
	set, shares := splitInto(t, aKey(), 3, 2)
	scalar := shares[0].scalar()[:]
	changed := bytes.Clone(scalar)
	changed[3] ^= 1
	for name, payload := range map[string][]byte{
		"another number":             payloadOf(1, set.ID(), 1, changed),
		"zero":                       payloadOf(1, set.ID(), 1, make([]byte, 32)),
		"another's number":           payloadOf(1, set.ID(), 2, scalar),
		"an index beyond the set":    payloadOf(1, set.ID(), 4, scalar),
		"the last index that exists": payloadOf(1, set.ID(), 255, scalar),
	} {
		forged, err := ParseShare(forge(t, payload))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := set.Check(forged); !errors.Is(err, ErrForged) || !strings.Contains(err.Error(), fmt.Sprintf("share %d", forged.Index())) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := set.Combine(shares[1], forged); !errors.Is(err, ErrForged) {
			t.Errorf("%s: combined: %v", name, err)
		}
	}
	if err := set.Check(Share{}); !errors.Is(err, ErrOtherSet) {
		t.Error(err)
	}
}

func TestCombineRefuses(t *testing.T) {
	set, shares := splitInto(t, aKey(), 4, 3)
	for name, test := range map[string]struct {
		given []Share
		want  error
	}{
		"none":                {nil, ErrTooFew},
		"one less":            {shares[:2], ErrTooFew},
		"one twice":           {[]Share{shares[0], shares[1], shares[0]}, ErrDuplicate},
		"one twice of enough": {[]Share{shares[0], shares[1], shares[2], shares[2].clone()}, ErrDuplicate},
	} {
		if key, err := set.Combine(test.given...); key != nil || !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Somebody who makes shares can make a file that holds something else.
func TestCombineRefusesAFileThatHoldsAnotherKey(t *testing.T) {
	set, shares := splitInto(t, aKey(), 2, 2)
	other, _ := splitInto(t, generate(t, true), 2, 2)
	foreign := bytes.Clone(set.wrapped)
	foreign[len(foreign)-1] ^= 1
	for name, set := range map[string]*ShareSet{
		"another recipient":   newShareSet(2, other.recipient, set.hashes, set.wrapped),
		"another file":        newShareSet(2, set.recipient, set.hashes, other.wrapped),
		"a damaged file":      newShareSet(2, set.recipient, set.hashes, foreign),
		"half a file":         newShareSet(2, set.recipient, set.hashes, set.wrapped[:100]),
		"a dearer passphrase": newShareSet(2, set.recipient, set.hashes, bytes.Replace(set.wrapped, []byte(" 10\n"), []byte(" 30\n"), 1)),
	} {
		var given []Share
		for _, s := range shares {
			given = append(given, newShare(set.ID(), s.index, s.scalar()[:]))
		}
		if key, err := set.Combine(given...); key != nil || !errors.Is(err, ErrDamagedSet) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The format is not circl's: textbook arithmetic, a hash and age open a set.
func TestSharesOpenWithoutThisSoftware(t *testing.T) {
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	set, shares := splitInto(t, aKey(), 5, 3)
	secret := new(big.Int)
	some := []Share{shares[4], shares[0], shares[2]}
	for _, s := range some {
		raw := bytes.Clone(s.scalar()[:])
		slices.Reverse(raw)
		term := new(big.Int).SetBytes(raw)
		for _, o := range some {
			if o.index != s.index {
				term.Mul(term, big.NewInt(int64(o.index)))
				term.Mul(term, new(big.Int).ModInverse(big.NewInt(int64(o.index-s.index)), order))
			}
		}
		secret.Add(secret, term)
	}
	little := secret.Mod(secret, order).FillBytes(make([]byte, 32))
	slices.Reverse(little)

	identity, err := age.NewScryptIdentity(hkdfHex(little, "vsecm.com/shares/v1/passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(set.Text()), "\nrootKey: ")
	encoded, _, _ := strings.Cut(rest, "\n")
	wrapped, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(wrapped), identity)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, aKey().Text()) {
		t.Errorf("it opens as something else: %v", err)
	}

	sum := sha256.Sum256(set.Text())
	if got := hex.EncodeToString(sum[:16]); got != set.ID().String() {
		t.Errorf("the set's id is %s, its file's hash begins with %s", set.ID(), got)
	}
}

func TestParseShareSetReadsWhatTextWrites(t *testing.T) {
	for _, classic := range []bool{false, true} {
		set, shares := splitInto(t, generate(t, classic), 5, 3)
		for name, text := range map[string]string{
			"as it is": string(set.Text()),
			"CRLF":     strings.ReplaceAll(string(set.Text()), "\n", "\r\n"),
		} {
			got, err := ParseShareSet([]byte(text))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got.ID() != set.ID() || got.String() != set.String() || !bytes.Equal(got.Text(), set.Text()) {
				t.Errorf("%s: %v", name, got)
			}
			if _, err := got.Combine(shares[2:]...); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestParseShareSetRefuses(t *testing.T) {
	set, _ := splitInto(t, aKey(), 3, 2)
	good := string(set.Text())
	replace := func(old, new string) string {
		t.Helper()
		if !strings.Contains(good, old) {
			t.Fatalf("there is no %q", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	hash := fmt.Sprintf("- %x\n", set.hashes[0])
	encoded := base64.StdEncoding.EncodeToString(set.wrapped)
	wrapped := func(data string) string {
		return replace(encoded, base64.StdEncoding.EncodeToString([]byte(data)))
	}
	for name, test := range map[string]struct{ text, says string }{
		"nothing":                        {"", "line 1"},
		"another file":                   {"kind: Secret\n", "line 1"},
		"a share":                        {"vsecm-share1qqqq", "line 1"},
		"no title":                       {good[len(shareSetTitle):], "line 1"},
		"another version":                {replace("vsecmShares: v1", "vsecmShares: v2"), "line 3"},
		"a threshold of 0":               {replace("threshold: 2", "threshold: 0"), "threshold of 0"},
		"a threshold of 1":               {replace("threshold: 2", "threshold: 1"), "threshold of 1"},
		"a threshold beyond the shares":  {replace("threshold: 2", "threshold: 4"), "threshold of 4 with 3"},
		"a threshold below zero":         {replace("threshold: 2", "threshold: -2"), "threshold of -2"},
		"a threshold written otherwise":  {replace("threshold: 2", "threshold: 02"), "line 4"},
		"a huge threshold":               {replace("threshold: 2", "threshold: 99999999999999999999"), "line 4"},
		"no threshold":                   {replace("threshold: 2\n", ""), "line 4"},
		"a threshold twice":              {replace("threshold: 2\n", "threshold: 2\nthreshold: 2\n"), "line 5"},
		"another field":                  {replace("shares:", "holders: 3\nshares:"), "line 7"},
		"no recipient":                   {replace(vsecmRecipient, ""), "line 5"},
		"a damaged recipient":            {replace(vsecmRecipient, vsecmRecipient[:40]), "line 5"},
		"no key":                         {replace(encoded, ""), "line 6"},
		"a key in other base64":          {replace(encoded, encoded+"="), "line 6"},
		"plain text for a key":           {wrapped(string(aKey().Text())), "line 6"},
		"a key for a recipient":          {wrapped("age-encryption.org/v1\n-> X25519 abc\n"), "line 6"},
		"a passphrase that takes 1 TiB":  {wrapped(strings.Replace(string(set.wrapped), " 10\n", " 30\n", 1)), "line 6"},
		"a passphrase that takes little": {wrapped(strings.Replace(string(set.wrapped), " 10\n", " 1\n", 1)), "line 6"},
		"a key of 10 KiB":                {wrapped(string(set.wrapped) + strings.Repeat("x", 10<<10)), "line 6"},
		"no shares":                      {good[:strings.Index(good, "- ")], "with 0 shares"},
		"one share":                      {good[:strings.Index(good, "- ")] + hash, "with 1 shares"},
		"256 shares":                     {good[:strings.Index(good, "- ")] + strings.Repeat(hash, 256), "256 shares"},
		"half a hash":                    {replace(hash, hash[:30]+"\n"), "line 8"},
		"a longer hash":                  {replace(hash, hash[:66]+"00\n"), "line 8"},
		"a hash in capitals":             {replace(hash, "- "+strings.ToUpper(hash[2:])), "line 8"},
		"an indented hash":               {replace(hash, "  "+hash), "line 8"},
		"a blank line":                   {replace("shares:\n", "shares:\n\n"), "line 8"},
		"a blank line at the end":        {good + "\n", "line 11"},
		"no line break at the end":       {strings.TrimSuffix(good, "\n"), "line 10"},
		"cut off":                        {good[:len(good)-20], "line 10"},
		"white space":                    {replace("shares:\n", "shares: \n"), "line 7"},
		"carriage returns alone":         {strings.ReplaceAll(good, "\n", "\r"), "line 1"},
		"a byte order mark":              {"\ufeff" + good, "line 1"},
		"another document":               {good + "---\n", "line 11"},
		"too much":                       {good + strings.Repeat(hash, 1000), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseShareSet([]byte(test.text))
			if got != nil || !errors.Is(err, ErrMalformedSet) || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("%v, %v; want %q", got, err, test.says)
			}
			if len(err.Error()) > 300 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

// The public file may lie in a repository that Safe syncs.
func TestThePublicFileIsNoFaultInARepository(t *testing.T) {
	set, _ := splitInto(t, generate(t, false), 5, 3)
	m := encrypt.ReadManifests(ShareSetFile, set.Text(), "shop")
	if len(m.Faults) != 0 || len(m.Objects) != 0 {
		t.Errorf("%d objects, faults: %v", len(m.Objects), m.Faults)
	}
}

func TestSetIDsAreText(t *testing.T) {
	set, _ := splitInto(t, aKey(), 2, 2)
	text, err := set.ID().MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var id SetID
	if err := id.UnmarshalText(text); err != nil || id != set.ID() {
		t.Errorf("%v, %v", id, err)
	}
	for _, bad := range []string{"", "ab", strings.Repeat("A", 32), strings.Repeat("g", 32), strings.Repeat("0", 34)} {
		if err := id.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
