package cli

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// States of Safe: unsealed is the one in which it serves, uninitialised the one before its first root key.
const (
	unsealed      = "unsealed"
	uninitialised = "uninitialised"
)

// inMemory is the store of a Safe whose replicas are unsealed each for itself.
const inMemory = "memory"

// A sealStatus is what Safe tells anyone.
type sealStatus struct {
	State      string        `json:"state"`
	Store      string        `json:"store"`
	KeyID      encrypt.KeyID `json:"keyID"`
	Reason     string        `json:"reason"`
	Progress   progress      `json:"progress"`
	Ceremonies []progress    `json:"ceremonies"`

	// In the middle of a re-key: between which keys, and which of them a replica that needs both lacks.
	Rekey   *rekeying       `json:"rekey"`
	Missing []encrypt.KeyID `json:"missing"`
}

// A rekeying is what Safe tells anyone of a re-key that is under way.
type rekeying struct {
	From encrypt.KeyID `json:"from"`
	To   encrypt.KeyID `json:"to"`
}

// needs returns the root keys that a replica has a use for; none where it does not say.
func (st *sealStatus) needs() []encrypt.KeyID {
	switch {
	case len(st.Missing) > 0:
		return st.Missing
	case st.State == unsealed && st.Rekey != nil:
		return []encrypt.KeyID{st.Rekey.From, st.Rekey.To}
	case st.KeyID != "":
		return []encrypt.KeyID{st.KeyID}
	}
	return nil
}

// misshapen tells whether something that Safe calls a key id is none.
func (st *sealStatus) misshapen() bool {
	ids := append(slices.Clone(st.Missing), st.KeyID)
	if st.Rekey != nil {
		ids = append(ids, st.Rekey.From, st.Rekey.To)
	}
	return slices.ContainsFunc(ids, func(id encrypt.KeyID) bool { return !isKeyID(string(id)) })
}

// isKeyID tells whether id is the id of a key, or of none: it stands in prompts and commands to be
// copied.
func isKeyID(id string) bool {
	return id == "" || len(id) == 32 && strings.Trim(id, "0123456789abcdef") == ""
}

// sealStatus asks a replica.
func (r *replica) sealStatus(ctx context.Context) (st sealStatus, err error) {
	text, err := r.ask(ctx, http.MethodGet, "/v1/seal-status")
	if err != nil {
		return st, err
	}
	return st, decode(r, text, &st)
}

// alternatives says "A" or "A or B".
func alternatives(ids []encrypt.KeyID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = string(id)
	}
	return strings.Join(texts, " or ")
}

// A progress is how much was given of what unseals: of a key, or of its shares.
type progress struct {
	Given  int `json:"given"`
	Needed int `json:"needed"`

	// Of shares alone.
	Set     string    `json:"set"`
	Indices []int     `json:"indices"`
	Lapsed  []int     `json:"lapsed"`
	Expires time.Time `json:"expires"`
}

// ceremonies returns the progress of each set of shares of which some were given, or have lapsed.
func ceremonies(furthest progress, all []progress) []progress {
	if len(all) > 0 {
		return all
	}
	if furthest.Set != "" {
		return []progress{furthest}
	}
	return nil
}

// of returns the progress of a set of shares.
func (st sealStatus) of(set string) (progress, bool) {
	all := ceremonies(st.Progress, st.Ceremonies)
	if i := slices.IndexFunc(all, func(p progress) bool { return p.Set == set }); i >= 0 {
		return all[i], true
	}
	return progress{}, false
}

// String says "2 of 3 shares (1, 4); expires in 15m".
func (p progress) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d shares", p.Given, p.Needed)
	if len(p.Indices) > 0 {
		fmt.Fprintf(&b, " (%s)", numbers(p.Indices))
	}
	if len(p.Lapsed) > 0 {
		fmt.Fprintf(&b, "; lapsed, to be given again: %s", numbers(p.Lapsed))
	}
	if !p.Expires.IsZero() {
		left, to := max(0, time.Until(p.Expires)), time.Second
		if left > 2*time.Minute {
			to = time.Minute
		}
		fmt.Fprintf(&b, "; expires in %s", duration.HumanDuration(left.Round(to)))
	}
	return b.String()
}

func numbers(list []int) string {
	texts := make([]string, len(list))
	for i, n := range list {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, ", ")
}
