package unseal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"
)

var updateVectors = flag.Bool("update-vectors", false, "make testdata/vectors anew")

const vectorsDir = "testdata/vectors"

// outcomes are the words of testdata/vectors/README.md.
var outcomes = map[string]error{
	"ok": nil, "not a share": ErrNotShare, "whole key": ErrWholeKey, "typo": ErrTypo, "version": ErrShareVersion, "forged": ErrForged,
	"other set": ErrOtherSet, "duplicate": ErrDuplicate, "too few": ErrTooFew, "malformed": ErrMalformedSet, "damaged": ErrDamagedSet,
}

type vector struct {
	name   string
	header map[string]string
	body   []byte
}

func readVectors(tb testing.TB, kind string) (vs []vector) {
	tb.Helper()
	paths, err := filepath.Glob(filepath.Join(vectorsDir, kind+"_*.txt"))
	if err != nil || len(paths) == 0 {
		tb.Fatalf("no vectors: %v", err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		head, body, found := bytes.Cut(text, []byte("\n\n"))
		v := vector{name: strings.TrimSuffix(filepath.Base(path), ".txt"), header: make(map[string]string), body: body}
		for line := range strings.Lines(string(head)) {
			name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			found = found && ok
			v.header[name] = value
		}
		if _, known := outcomes[v.header["expect"]]; !known || !found {
			tb.Fatalf("%s: no vector", path)
		}
		vs = append(vs, v)
	}
	return vs
}

func readSet(tb testing.TB, name string) *ShareSet {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(vectorsDir, name))
	if err != nil {
		tb.Fatal(err)
	}
	set, err := ParseShareSet(text)
	if err != nil {
		tb.Fatal(err)
	}
	if !bytes.Equal(set.Text(), text) {
		tb.Fatalf("%s is written otherwise", name)
	}
	return set
}

func TestVectorsOfShares(t *testing.T) {
	set := readSet(t, ShareSetFile)
	for _, v := range readVectors(t, "share") {
		t.Run(v.name, func(t *testing.T) {
			s, err := ParseShare(v.body)
			if err == nil {
				if got := fmt.Sprint(s.Set(), " ", s.Index(), " ", hex.EncodeToString(s.scalar()[:])); got != v.header["content"] {
					t.Errorf("it is read as %s", got)
				}
				err = set.Check(s)
			}
			if !errors.Is(err, outcomes[v.header["expect"]]) {
				t.Errorf("%v; want %s", err, v.header["expect"])
			}
		})
	}
}

func TestVectorsOfSets(t *testing.T) {
	for _, v := range readVectors(t, "set") {
		t.Run(v.name, func(t *testing.T) {
			set, err := ParseShareSet(v.body)
			if !errors.Is(err, outcomes[v.header["expect"]]) {
				t.Fatalf("%v; want %s", err, v.header["expect"])
			}
			if err == nil && set.ID().String() != v.header["set-id"] {
				t.Errorf("set id %s", set.ID())
			}
		})
	}
}

func TestVectorsOfOpening(t *testing.T) {
	for _, v := range readVectors(t, "open") {
		t.Run(v.name, func(t *testing.T) {
			set := readSet(t, v.header["set"])
			var shares []Share
			for line := range bytes.Lines(v.body) {
				s, err := ParseShare(line)
				if err != nil {
					t.Fatal(err)
				}
				shares = append(shares, s)
			}
			key, err := set.Combine(shares...)
			if !errors.Is(err, outcomes[v.header["expect"]]) {
				t.Fatalf("%v; want %s", err, v.header["expect"])
			}
			if err != nil {
				return
			}
			if got := strings.Join(strings.Fields(string(key.Text())), " "); got != v.header["root-key"] {
				t.Errorf("it opens %s", got)
			}
			secret, passphrase := between(t, shares[:set.Threshold()])
			if secret != v.header["secret"] || passphrase != v.header["passphrase"] {
				t.Errorf("secret %s, passphrase %s", secret, passphrase)
			}
		})
	}
}

// between returns what lies between the shares and the key.
func between(tb testing.TB, shares []Share) (secret, passphrase string) {
	tb.Helper()
	var parts []secretsharing.Share
	for _, s := range shares {
		value := group.Ristretto255.NewScalar()
		if err := value.UnmarshalBinary(s.scalar()[:]); err != nil {
			tb.Fatal(err)
		}
		parts = append(parts, secretsharing.Share{ID: group.Ristretto255.NewScalar().SetUint64(uint64(s.index)), Value: value})
	}
	scalar, err := secretsharing.Recover(uint(len(shares)-1), parts)
	if err != nil {
		tb.Fatal(err)
	}
	raw, err := scalar.MarshalBinary()
	if err != nil {
		tb.Fatal(err)
	}
	passphrase, err = passphraseOf(scalar)
	if err != nil {
		tb.Fatal(err)
	}
	return hex.EncodeToString(raw), passphrase
}
