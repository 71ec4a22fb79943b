package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

const (
	rekeyPath = "/v1/rekey"

	// rekeyTimeout bounds what a replica does with keys alone.
	rekeyTimeout = 30 * time.Second
	// checkTimeout is somewhat longer than Safe's own for opening everything.
	checkTimeout = 5*time.Minute + 30*time.Second
)

// A rekeyRecord is what Safe has on record of a re-key that is under way.
type rekeyRecord struct {
	From    encrypt.KeyID `json:"from"`
	To      encrypt.KeyID `json:"to"`
	Started time.Time     `json:"started"`
	By      string        `json:"by"`
	Aborted bool          `json:"aborted"`
}

func (r *rekeyRecord) String() string {
	return fmt.Sprintf("the re-key from %s to %s, which %s began %s", r.From, r.To, orNone(r.By), ago(r.Started))
}

// A rekeyState is what a replica that is unsealed answers of its keys.
type rekeyState struct {
	Active struct {
		KeyID     encrypt.KeyID `json:"keyID"`
		Recipient string        `json:"recipient"`
	} `json:"active"`
	Retired []encrypt.KeyID `json:"retired"`
	Staged  []encrypt.KeyID `json:"staged"`
	Store   string          `json:"store"`
	Rekey   *rekeyRecord    `json:"rekey"`
	Replica string          `json:"replica"`
	Leads   bool            `json:"leads"`
}

func (s *rekeyState) misshapen() bool {
	ids := slices.Concat(s.Retired, s.Staged)
	if s.Rekey != nil {
		ids = append(ids, s.Rekey.From, s.Rekey.To)
	}
	if s.Active.Recipient != "" { // it may not be known there
		if r, err := encrypt.ParseRecipient(s.Active.Recipient); err != nil || r.KeyID() != s.Active.KeyID {
			return true
		}
	}
	return s.Active.KeyID == "" || !isKeyID(string(s.Active.KeyID)) || slices.ContainsFunc(ids, func(id encrypt.KeyID) bool { return id == "" || !isKeyID(string(id)) })
}

// A rekeyNeed is a value that needs another key than the active one.
type rekeyNeed struct {
	Source    string          `json:"source,omitempty"`
	Namespace string          `json:"namespace,omitempty"`
	Name      string          `json:"name,omitempty"`
	Key       string          `json:"key,omitempty"`
	File      string          `json:"file,omitempty"`
	Line      int             `json:"line,omitempty"`
	KeyIDs    []encrypt.KeyID `json:"keyIDs,omitempty"`
	Why       string          `json:"why"`
}

// A rekeyUnread is a source of which nobody knows what is there.
type rekeyUnread struct {
	Source string `json:"source"`
	Why    string `json:"why"`
}

// A rekeyReport says what the active key opens alone, and what not. Its lists may be cut, its counts are whole.
type rekeyReport struct {
	KeyID           encrypt.KeyID  `json:"keyID"`
	Opened          int            `json:"opened"`
	Needs           []rekeyNeed    `json:"needs"`
	NeedCount       int            `json:"needCount"`
	Unread          []rekeyUnread  `json:"unread"`
	Unreadable      []rekeyNeed    `json:"unreadable"`
	UnreadableCount int            `json:"unreadableCount"`
	BySource        map[string]int `json:"bySource"`
}

// blocked tells whether something may be lost with the old key.
func (r *rekeyReport) blocked() bool { return r.NeedCount > 0 || len(r.Needs) > 0 || len(r.Unread) > 0 }

// A rekeyCall is the body of POST /v1/rekey that holds no key.
type rekeyCall struct {
	Do      string        `json:"do"`
	To      any           `json:"to,omitempty"` // recipients of an archive, or a key id
	From    encrypt.KeyID `json:"from,omitempty"`
	Archive string        `json:"archive,omitempty"`
	Force   bool          `json:"force,omitempty"`
}

// text is how the call is sent. It is the caller's to wipe where it holds a key.
func (c rekeyCall) text() []byte {
	text, _ := json.Marshal(c) // of strings and a truth: it cannot fail
	return text
}

// keyCall is a call with a root key, the caller's to wipe; key may be nil.
func keyCall(do string, key *unseal.RootKey) []byte {
	if key == nil {
		return rekeyCall{Do: do}.text()
	}
	text := key.Text()
	defer clear(text)
	before, after := `{"do":"`+do+`","key":"`, `"}`
	// Of the size that it has at most: nothing of it is left behind where it grows.
	body := make([]byte, 0, len(before)+2*len(text)+len(after))
	body = append(body, before...)
	for _, c := range text { // letters, digits, hyphens, and the lines' ends
		if c == '\n' {
			body = append(body, '\\', 'n')
			continue
		}
		body = append(body, c)
	}
	return append(body, after...)
}

// rekeys has a replica do something with its keys.
func (r *replica) rekeys(ctx context.Context, body []byte, into any) error {
	text, err := r.act(ctx, http.MethodPost, rekeyPath, body, "application/json")
	if err != nil || into == nil {
		return err
	}
	return decode(r, text, into)
}

// A fleet is how the replicas were found.
type fleet struct {
	all  *safes
	seal []sealStatus
	keys []rekeyState // of those that are unsealed
	errs []error
}

// survey asks every replica for its keys.
func survey(ctx context.Context, all *safes) *fleet {
	f := &fleet{all: all, seal: make([]sealStatus, len(all.replicas)), keys: make([]rekeyState, len(all.replicas))}
	f.errs = all.each(func(i int, r *replica) (err error) {
		if f.seal[i], err = r.sealStatus(ctx); err != nil || f.seal[i].State != unsealed {
			return err
		}
		f.keys[i], err = r.rekeyState(ctx)
		if refusedAs(err) == problem.Sealed {
			f.seal[i].State, err = "sealed", nil // meanwhile
		}
		return err
	})
	return f
}

func (r *replica) rekeyState(ctx context.Context) (st rekeyState, err error) {
	text, err := r.act(ctx, http.MethodGet, rekeyPath, nil, "")
	if err != nil {
		return st, err
	}
	return st, decode(r, text, &st)
}

// unsealed returns which replicas are; those that lead come first.
func (f *fleet) unsealed() []int {
	var open []int
	for i, st := range f.seal {
		switch {
		case f.errs[i] != nil || st.State != unsealed:
		case f.keys[i].Leads:
			open = append([]int{i}, open...)
		default:
			open = append(open, i)
		}
	}
	return open
}

// renew has the next call to each replica made with a new token: to check may take as long as one is good for.
func (f *fleet) renew() {
	for _, r := range f.all.replicas {
		r.token = ""
	}
}

// memory tells whether the replicas keep their keys in memory alone, each for itself.
func (f *fleet) memory() bool {
	for i, st := range f.seal {
		if f.errs[i] == nil && st.Store == inMemory {
			return true
		}
	}
	return false
}

// record returns the re-key that is under way, or nil.
func (f *fleet) record() *rekeyRecord {
	for _, i := range f.unsealed() {
		if r := f.keys[i].Rekey; r != nil {
			return r
		}
	}
	return nil
}

// usable says why nothing can be done if no replica is unsealed.
func (f *fleet) usable() error {
	if len(f.unsealed()) > 0 {
		return nil
	}
	if err := errors.Join(f.errs...); err != nil {
		return err
	}
	return withHint(errors.New("every replica of Safe is sealed"), "unseal it with 'kubectl vsecm unseal'")
}

// anyone has one unsealed replica after the other do something, until one has: all of them can. unsure tells
// whether one may have done it whose answer was lost.
func (f *fleet) anyone(ctx context.Context, body []byte, into any) (unsure bool, err error) {
	var errs []error
	open := f.unsealed()
	for n, i := range open {
		r := f.all.replicas[i]
		call, cancel := context.WithTimeout(ctx, rekeyTimeout)
		if n+1 < len(open) {
			r.patience = connectWait
		}
		err := r.rekeys(call, body, into)
		cancel()
		if err == nil {
			return false, nil
		}
		errs = append(errs, err)
		switch refusedAs(err) {
		case problem.Sealed, problem.Unavailable, problem.Timeout, problem.Internal:
			unsure = true // it may have been sealed right after
			continue
		}
		if !errors.Is(err, errUnreachable) {
			return unsure, errors.Join(errs...)
		}
		unsure = true
	}
	return unsure, errors.Join(errs...)
}

// leader has the replica that leads do something. Who that is may change at any time, and for a while
// nobody leads.
func (f *fleet) leader(ctx context.Context, wait time.Duration, body []byte, into any) error {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var last error
	err := poll(waiting, func() (bool, error) {
		var again bool
		again, last = f.leaderOnce(ctx, body, into)
		if again {
			return false, nil
		}
		return true, last
	})
	if errors.Is(err, context.DeadlineExceeded) && last != nil {
		return last
	}
	return err
}

func (f *fleet) leaderOnce(ctx context.Context, body []byte, into any) (again bool, err error) {
	var errs []error
	following := 0
	for _, i := range f.unsealed() {
		r := f.all.replicas[i]
		if len(f.all.replicas) > 1 {
			r.patience = connectWait
		}
		err := r.rekeys(ctx, body, into)
		switch {
		case err == nil:
			return false, nil
		case refusedAs(err) == problem.NotLeading:
			following++
			continue
		case !anotherMayDo(err):
			return false, err
		}
		errs = append(errs, err)
	}
	if following == 0 {
		return false, errors.Join(errs...)
	}
	errs = append(errs, withHint(errors.New("no replica of Safe that was asked leads now"), "try again in a while; 'kubectl vsecm status' shows the replicas"))
	return true, errors.Join(errs...)
}

// follow waits until every replica that was unsealed is as wanted, and returns those that are not, and why.
func (f *fleet) follow(ctx context.Context, patience time.Duration, done func(ctx context.Context, i int, st rekeyState) error) []error {
	open := f.unsealed()
	behind := make([]error, len(f.all.replicas))
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	f.all.each(func(i int, r *replica) error {
		if !slices.Contains(open, i) {
			return nil
		}
		// The end of its time leaves what was found last.
		_ = poll(ctx, func() (bool, error) {
			st, err := r.rekeyState(ctx)
			if err == nil {
				err = done(ctx, i, st)
			}
			if err != nil && ctx.Err() != nil && behind[i] != nil {
				return true, nil
			}
			behind[i] = err
			return err == nil || refusedAs(err) == problem.Sealed, nil
		})
		return nil
	})
	return slices.DeleteFunc(behind, func(err error) bool { return err == nil })
}
