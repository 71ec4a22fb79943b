package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/btcsuite/btcd/btcutil/bech32"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// withKeeper makes the seal a real one, unsealed. nil: a place on this machine.
func withKeeper(memory bool, place func(*safe) rootkey.Place) safeOption {
	return func(s *safe) {
		var at rootkey.Place
		if place != nil {
			at = place(s)
		} else {
			dir := s.t.TempDir()
			at = rootkey.NewDirPlace(filepath.Join(dir, "root-key.txt"), dir)
		}
		keeper := rootkey.New(rootkey.Config{
			Place: at, Manual: true, Memory: memory, Gate: unseal.NewGate(), Holder: s.Cache, Log: s.Log, Now: s.now,
			Objects: func(context.Context) ([]*v1alpha1.EncryptedSecret, error) { return nil, nil },
		})
		s.RootKey = keeper
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { _ = keeper.Run(ctx) })
		s.t.Cleanup(func() { cancel(); running.Wait() })
		check(s.t, keeper.Unseal(s.t.Context(), s.key.Text(), ""))
	}
}

// A ceremony is shares of Safe's key, and how they are given to Safe.
type ceremony struct {
	*safe
	set    *unseal.ShareSet
	shares []unseal.Share
	client *http.Client
	url    string
	header []string
}

// newCeremony starts a sealed Safe in memory mode whose key is split, and gives it shares over
// TLS.
func newCeremony(t testing.TB, n, threshold int) *ceremony {
	t.Helper()
	return newCeremonyOf(t, true, n, threshold)
}

func newCeremonyOf(t testing.TB, memory bool, n, threshold int) *ceremony {
	t.Helper()
	s, _ := newOperated(t, withKeeper(memory, nil))
	c := &ceremony{safe: s, client: s.client(""), url: s.url, header: bearer(adminToken)}
	c.deal(n, threshold)
	if r := c.post("/v1/seal", nil); r.StatusCode != http.StatusOK {
		t.Fatalf("seal: %s %s", r.Status, r.body)
	}
	return c
}

func (c *ceremony) deal(n, threshold int) {
	c.t.Helper()
	var err error
	c.set, c.shares, err = unseal.Split(c.key, n, threshold)
	check(c.t, err)
}

// onSocket is the same ceremony through the operator's socket.
func (c *ceremony) onSocket() *ceremony {
	other := *c
	other.client, other.url, other.header = c.operatorClient(), "http://safe", nil
	return &other
}

func (c *ceremony) post(path string, body []byte, headers ...string) reply {
	c.t.Helper()
	c.spares()
	var from io.Reader
	if body != nil {
		from = bytes.NewReader(body)
	}
	return send(c.t, c.client, http.MethodPost, c.url+path, from, append(slices.Clone(c.header), headers...)...)
}

// spares gives everybody one attempt to unseal back, which the next call may fail at.
func (c *ceremony) spares() {
	for _, caller := range []string{adminName + "\x00" + credentialOf + adminName, fmt.Sprintf("uid:%d\x00", os.Getuid())} {
		c.unseals.Give(caller, c.now())
	}
	c.unsealing.Give("", c.now())
}

// json posts a body to unseal as JSON.
func (c *ceremony) json(query, body string) reply {
	c.t.Helper()
	return c.post("/v1/unseal"+query, []byte(body), "Content-Type", "application/json; charset=utf-8")
}

// gives gives a share; an empty set is left out.
func (c *ceremony) gives(share, set []byte, query string) reply {
	c.t.Helper()
	in := map[string]string{"share": string(share)}
	if len(set) > 0 {
		in["set"] = string(set)
	}
	return c.json(query, string(must(json.Marshal(in))(c.t)))
}

// status returns the status of an answer that took a share.
func (r reply) status(t testing.TB) rootkey.Status {
	t.Helper()
	var st rootkey.Status
	if r.StatusCode != http.StatusOK {
		t.Fatalf("got %s %s", r.Status, r.body)
	}
	check(t, json.Unmarshal(r.body, &st))
	return st
}

// forge changes a share's payload, as docs/formats.md has it, and gives it a right checksum.
func forge(t testing.TB, share unseal.Share, change func([]byte)) []byte {
	t.Helper()
	_, symbols, err := bech32.DecodeNoLimit(string(share.Text()))
	check(t, err)
	payload := must(bech32.ConvertBits(symbols, 5, 8, false))(t)
	change(payload)
	return []byte(must(bech32.EncodeM("vsecm-share", must(bech32.ConvertBits(payload, 8, 5, true))(t)))(t))
}
