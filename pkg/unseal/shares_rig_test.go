package unseal

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"testing"

	"github.com/btcsuite/btcd/btcutil/bech32"
)

// aKey is a root key of tests, which nobody wipes.
var aKey = sync.OnceValue(func() *RootKey {
	k, err := Parse([]byte(vsecmIdentity + "\n" + vsecmRecipient + "\n" + vsecmState))
	if err != nil {
		panic(err)
	}
	return k
})

// fails is what a test of testing and one of rapid share.
type fails interface {
	Helper()
	Fatal(...any)
}

func splitInto(tb fails, key *RootKey, n, threshold int) (*ShareSet, []Share) {
	tb.Helper()
	set, shares, err := Split(key, n, threshold)
	if err != nil {
		tb.Fatal(err)
	}
	return set, shares
}

// forge makes a share of any content, with a right checksum.
func forge(tb testing.TB, payload []byte) []byte {
	tb.Helper()
	symbols, err := bech32.ConvertBits(payload, 8, 5, true)
	if err != nil {
		tb.Fatal(err)
	}
	text, err := bech32.EncodeM(sharePrefix, symbols)
	if err != nil {
		tb.Fatal(err)
	}
	return []byte(text)
}

// payloadOf lays out a share as docs/formats.md says.
func payloadOf(version byte, set SetID, index byte, scalar []byte) []byte {
	return append(append(append([]byte{version}, set[:]...), index), scalar...)
}

// holdsNoShare looks for what only a share's holder may see.
func holdsNoShare(tb testing.TB, what string, text []byte, s Share, raw []byte) {
	tb.Helper()
	// What stands before the scalar is no secret, and a whole symbol apart from it.
	secret := raw[len(sharePrefix)+1+(1+setIDSize+1)*8/5+1:]
	digits := hex.EncodeToString(s.scalar()[:])
	for _, part := range []string{string(secret), digits} {
		for i := 0; i+8 <= len(part); i++ {
			if bytes.Contains(bytes.ToLower(text), []byte(part[i:i+8])) {
				tb.Fatalf("%s shows a part of a share: %.300q", what, text)
			}
		}
	}
}

// bech32Old returns the share with the checksum that was before bech32m.
func bech32Old(tb testing.TB, text string) string {
	tb.Helper()
	_, symbols, err := bech32.DecodeNoLimit(text)
	if err != nil {
		tb.Fatal(err)
	}
	old, err := bech32.Encode(sharePrefix, symbols)
	if err != nil {
		tb.Fatal(err)
	}
	return old
}

// hkdfHex is HKDF-SHA256 (RFC 5869) for 32 bytes without a salt, in hex, spelled out.
func hkdfHex(secret []byte, info string) string {
	extract := hmac.New(sha256.New, make([]byte, sha256.Size))
	extract.Write(secret)
	expand := hmac.New(sha256.New, extract.Sum(nil))
	expand.Write(append([]byte(info), 1))
	return hex.EncodeToString(expand.Sum(nil))
}
