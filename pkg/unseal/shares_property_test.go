package unseal

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever the numbers, and whatever wrong shares come in between: as many right shares as
// the threshold always open, fewer never do, and each wrong one is named for what it
// is and costs nothing.
func TestSharesHoldTheirPromise(t *testing.T) {
	key := generate(t, true)
	_, strangers := splitInto(t, key, 5, 3)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(rapid.IntRange(MinThreshold, 9), rapid.IntRange(MinThreshold, 40)).Draw(t, "n")
		threshold := rapid.IntRange(MinThreshold, n).Draw(t, "threshold")
		set, shares := splitInto(t, key, n, threshold)
		order := rapid.Permutation(shares).Draw(t, "order")
		now := time.Unix(0, 0)
		c := NewCeremony(set, time.Minute, func() time.Time { return now })

		var given []int
		for i, s := range order[:threshold] {
			for range rapid.IntRange(0, 3).Draw(t, "wrong ones") {
				text, want := corrupt(t, order, order[:i], strangers)
				got, err := give(c, text)
				if got != nil || !errors.Is(err, want) {
					t.Fatalf("%v; want %v", err, want)
				}
				if p := c.Progress(); !slices.Equal(p.Given, given) {
					t.Fatalf("a wrong share changed what is given from %v to %v", given, p.Given)
				}
			}
			if i+1 < threshold {
				if got, err := set.Combine(order[:i+1]...); got != nil || !errors.Is(err, ErrTooFew) {
					t.Fatalf("%d of %d shares: %v", i+1, threshold, err)
				}
			}
			got, err := give(c, s.Text())
			if err != nil {
				t.Fatalf("%v: %v", s, err)
			}
			if given = append(given, s.Index()); i+1 < threshold {
				slices.Sort(given)
				if got != nil || !slices.Equal(c.Progress().Given, given) {
					t.Fatalf("%d of %d shares: %v, progress %v", i+1, threshold, got, c.Progress())
				}
				continue
			}
			if got == nil || !bytes.Equal(got.Text(), key.Text()) {
				t.Fatalf("%d of %d shares did not open the key", i+1, threshold)
			}
		}
	})
}

// Fewer shares than the threshold do not open it either when one forgoes every check
// and counts them as enough: what they give is another passphrase.
func TestFewerSharesGiveAnotherSecret(t *testing.T) {
	key := generate(t, true)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(3, 9).Draw(t, "n")
		threshold := rapid.IntRange(3, n).Draw(t, "threshold")
		set, shares := splitInto(t, key, n, threshold)
		fewer := rapid.IntRange(MinThreshold, threshold-1).Draw(t, "fewer")
		lax := *set
		lax.threshold = fewer
		if got, err := lax.combine(rapid.Permutation(shares).Draw(t, "order")[:fewer]); got != nil || !errors.Is(err, ErrDamagedSet) {
			t.Fatalf("%d of %d: %v", fewer, threshold, err)
		}
	})
}

// give is what is done with a text that somebody enters.
func give(c *Ceremony, text []byte) (*RootKey, error) {
	share, err := ParseShare(text)
	if err != nil {
		return nil, err
	}
	defer share.Wipe()
	key, _, err := c.Add(share)
	return key, err
}

// corrupt makes a share that is not to count, and says what it is to be called.
func corrupt(t *rapid.T, all, given, strangers []Share) ([]byte, error) {
	s := rapid.SampledFrom(all).Draw(t, "of")
	text := s.Text()
	kinds := []string{"typo", "cut", "foreign", "other index", "other number", "other name", "key"}
	if len(given) > 0 {
		kinds = append(kinds, "double")
	}
	switch kind := rapid.SampledFrom(kinds).Draw(t, "kind"); kind {
	case "typo": // up to four wrong characters are found with certainty
		first := len(sharePrefix) + 1
		for _, at := range rapid.SliceOfNDistinct(rapid.IntRange(first, len(text)-1), 1, 4, rapid.ID[int]).Draw(t, "at") {
			was := text[at]
			text[at] = rapid.SampledFrom([]byte(alphabet)).Filter(func(c byte) bool { return c != was }).Draw(t, "typed")
		}
		return text, ErrTypo
	case "cut":
		return text[:rapid.IntRange(len(sharePrefix)+1, len(text)-1).Draw(t, "at")], ErrTypo
	case "foreign":
		return rapid.SampledFrom(strangers).Draw(t, "stranger").Text(), ErrOtherSet
	case "other index": // of one that exists, or not
		index := rapid.IntRange(1, MaxShares).Filter(func(i int) bool { return i != s.Index() }).Draw(t, "index")
		return newShare(s.set, index, s.scalar()[:]).Text(), ErrForged
	case "other number":
		number := bytes.Clone(s.scalar()[:])
		number[rapid.IntRange(0, 30).Draw(t, "byte")] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		return newShare(s.set, s.Index(), number).Text(), ErrForged
	case "other name": // a share of another set that claims to be of this one
		stranger := rapid.SampledFrom(strangers).Draw(t, "stranger")
		return newShare(s.set, stranger.Index(), stranger.scalar()[:]).Text(), ErrForged
	case "key":
		return aKey().Text(), ErrWholeKey
	case "double":
		return rapid.SampledFrom(given).Draw(t, "again").Text(), ErrDuplicate
	default:
		panic(fmt.Sprintf("no corruption %q", kind))
	}
}
