package rootkey

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcutil/bech32"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A dealt key is one in the hands of several people.
type dealt struct {
	set    *unseal.ShareSet
	shares []unseal.Share
}

func deal(t testing.TB, key string, n, threshold int) dealt {
	t.Helper()
	k, err := unseal.Parse([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	set, shares, err := unseal.Split(k, n, threshold)
	if err != nil {
		t.Fatal(err)
	}
	return dealt{set, shares}
}

// The parts of a share's payload, as in docs/formats.md.
const (
	shareSetID  = 1
	shareIndex  = shareSetID + 16
	shareNumber = shareIndex + 1
)

func payloadOf(t testing.TB, s unseal.Share) []byte {
	t.Helper()
	_, symbols, err := bech32.DecodeNoLimit(string(s.Text()))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := bech32.ConvertBits(symbols, 5, 8, false)
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

// forge returns a share that is changed, with a right checksum.
func forge(t testing.TB, s unseal.Share, change func(payload []byte)) unseal.Share {
	t.Helper()
	payload := payloadOf(t, s)
	change(payload)
	symbols, err := bech32.ConvertBits(payload, 8, 5, true)
	if err != nil {
		t.Fatal(err)
	}
	text, err := bech32.EncodeM("vsecm-share", symbols)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := unseal.ParseShare([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return forged
}

// damaged returns the same shares with a public file that holds something else than the
// key, and whose hash they bear.
func (d dealt) damaged(t testing.TB, other dealt) dealt {
	t.Helper()
	lines, others := strings.Split(string(d.set.Text()), "\n"), strings.Split(string(other.set.Text()), "\n")
	at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "rootKey: ") })
	lines[at] = others[at]
	set, err := unseal.ParseShareSet([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	bad := dealt{set: set}
	for _, s := range d.shares {
		id := set.ID()
		bad.shares = append(bad.shares, forge(t, s, func(p []byte) { copy(p[shareSetID:shareIndex], id[:]) }))
	}
	return bad
}

// showsNoShare looks for what only a share's holder may see.
func showsNoShare(t testing.TB, what, text string, all ...dealt) {
	t.Helper()
	for _, d := range all {
		for _, s := range d.shares {
			number := payloadOf(t, s)[shareNumber:]
			raw := string(s.Text())
			const window = 12
			for _, secret := range []string{
				// Of 98 characters, the last six are the checksum; the number begins in the 29th of the data.
				raw[len("vsecm-share1")+29:], hex.EncodeToString(number), base64.StdEncoding.EncodeToString(number), fmt.Sprint(number),
			} {
				for i := 0; i+window <= len(secret); i++ {
					if strings.Contains(strings.ToLower(text), strings.ToLower(secret[i:i+window])) {
						t.Fatalf("%s shows a part of share %d", what, s.Index())
					}
				}
			}
		}
	}
}

// watch makes the end of a test look for shares in the log.
func (r *rig) watch(all ...dealt) *rig {
	r.t.Cleanup(func() { showsNoShare(r.t, "the log", r.log.String(), all...) })
	return r
}

// give gives one share, with the public file.
func (r *rig) give(d dealt, index int, accept encrypt.KeyID) error {
	r.t.Helper()
	err := r.keeper.UnsealWithShare(r.t.Context(), d.shares[index-1], d.set, accept)
	if err != nil {
		showsNoKey(r.t, "an error", err.Error(), keyA, keyB)
		showsNoShare(r.t, "an error", err.Error(), d)
	}
	return err
}

// gives gives shares that are taken.
func (r *rig) gives(d dealt, indices ...int) {
	r.t.Helper()
	for _, i := range indices {
		if err := r.give(d, i, ""); err != nil {
			r.t.Fatalf("share %d: %v", i, err)
		}
	}
}

// has checks which shares of a set count, and that Safe is sealed.
func (r *rig) has(d dealt, indices ...int) Progress {
	r.t.Helper()
	st := r.status()
	if st.State == Unsealed {
		r.t.Fatal("it is unsealed")
	}
	all := st.Ceremonies
	if all == nil {
		all = []Progress{st.Progress}
	}
	for _, p := range all {
		if p.Set != d.set.ID() {
			continue
		}
		if p.Given != len(indices) || p.Needed != d.set.Threshold() || !slices.Equal(p.Indices, indices) || p.Expires.IsZero() != (len(indices) == 0) {
			r.t.Errorf("progress %+v, want shares %v", p, indices)
		}
		return p
	}
	if len(indices) > 0 {
		r.t.Errorf("no progress of set %s: %+v", d.set.ID(), st)
	}
	return Progress{}
}
