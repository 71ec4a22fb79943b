package unseal

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// FuzzParseShare looks for a text that is read as a share which writes itself otherwise, for
// an error of no kind, and for one that repeats the text.
func FuzzParseShare(f *testing.F) {
	set := readSet(f, ShareSetFile)
	for _, v := range readVectors(f, "share") {
		f.Add(v.body)
	}
	for _, payload := range [][]byte{nil, {1}, {2}, payloadOf(1, set.ID(), 255, make([]byte, scalarSize))} {
		f.Add(forge(f, payload))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		given := bytes.Clone(text)
		s, err := ParseShare(text)
		if !bytes.Equal(text, given) {
			t.Fatal("the caller's text was changed")
		}
		if err != nil {
			for _, kind := range []error{ErrNotShare, ErrWholeKey, ErrTypo, ErrShareVersion, ErrForged} {
				if errors.Is(err, kind) {
					if s.scalar != nil {
						t.Fatal("a share and an error")
					}
					if len(err.Error()) > 120 {
						t.Fatalf("a long error: %v", err)
					}
					return
				}
			}
			t.Fatalf("an error of no kind: %v", err)
		}
		if want := strings.ToLower(string(withoutBlanks(text))); string(s.Text()) != want {
			t.Fatal("one share has two texts")
		}
		if s.Index() < 1 || s.Index() > MaxShares {
			t.Fatalf("index %d", s.Index())
		}
		if err := set.Check(s); err != nil && !errors.Is(err, ErrOtherSet) && !errors.Is(err, ErrForged) {
			t.Fatal(err)
		}
	})
}

// FuzzParseShareSet looks for a file that is read as a set which writes itself otherwise, or
// is beyond the limits.
func FuzzParseShareSet(f *testing.F) {
	for _, v := range readVectors(f, "set") {
		f.Add(v.body)
	}
	share, err := ParseShare(readVectors(f, "open")[0].body[:shareLength])
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseShareSet(text)
		if err != nil {
			if s != nil || !errors.Is(err, ErrMalformedSet) || len(err.Error()) > 300 {
				t.Fatalf("%v, %v", s, err)
			}
			return
		}
		if !bytes.Equal(s.Text(), bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))) {
			t.Fatal("one set has two texts")
		}
		if s.Threshold() < MinThreshold || s.Size() < s.Threshold() || s.Size() > MaxShares {
			t.Fatalf("%v", s)
		}
		if err := s.Check(share); err != nil && !errors.Is(err, ErrOtherSet) && !errors.Is(err, ErrForged) {
			t.Fatal(err)
		}
	})
}
