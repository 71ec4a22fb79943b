package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

const (
	// followTime is how long a replica may take to see that another was unsealed, where both keep
	// the root key in one place.
	followTime  = 10 * time.Second
	followEvery = 200 * time.Millisecond
)

// A receipt is what a replica made of what it was given.
type receipt struct {
	said  string // "" where it failed
	state sealStatus
	twice bool // it had that share already
	half  bool // it has that key, and needs another one
}

// needsAnother tells whether a replica has taken one of two root keys that it lacked, and is sealed still.
func needsAnother(before, now sealStatus) (receipt, bool) {
	took := slices.IndexFunc(before.Missing, func(id encrypt.KeyID) bool { return !slices.Contains(now.Missing, id) })
	if now.State == unsealed || len(now.Missing) == 0 || took < 0 {
		return receipt{}, false
	}
	return receipt{said: fmt.Sprintf("it has key %s; one more key is needed: %s", before.Missing[took], alternatives(now.Missing)), state: now, half: true}, true
}

// give hands what was given to every replica that has a use for it, and says what each made of
// it.
func (o unsealOptions) give(ctx context.Context, all *safes, states []sealStatus, errs []error, given gift) error {
	receipts := make([]receipt, len(all.replicas))
	more := all.each(func(i int, r *replica) (err error) {
		st := states[i]
		switch {
		case errs[i] != nil:
		case given.key != nil:
			receipts[i], err = o.giveKey(ctx, r, st, given.key)
		case given.share != nil && st.State != unsealed:
			receipts[i], err = o.giveShare(ctx, r, st, given)
		default:
			receipts[i] = receipt{said: "unsealed already", state: st}
		}
		return err
	})
	if given.share != nil {
		o.follow(ctx, all, receipts)
	}
	for i, r := range all.replicas {
		if receipts[i].said != "" {
			fmt.Fprintf(o.streams.Out, "%s: %s\n", visible(r.name), visible(receipts[i].said))
		}
	}
	if err := errors.Join(append(errs, more...)...); err != nil {
		return err
	}
	sealed, half, taken, twice := false, false, false, false
	for _, got := range receipts {
		sealed = sealed || got.state.State != unsealed
		half = half || got.half
		twice = twice || got.twice
		taken = taken || got.said != "" && !got.twice
	}
	switch {
	case twice && !taken:
		return withHint(fmt.Errorf("share %d was given already, and counts once", given.share.Index()), "now another holder's is needed")
	case half:
		return errMoreKeys
	case sealed:
		return errMoreShares
	}
	return nil
}

// giveKey hands a root key to one replica. One that is unsealed gets it too: where the place
// that its key is kept in has lost it, that puts it back.
func (o unsealOptions) giveKey(ctx context.Context, r *replica, st sealStatus, key *unseal.RootKey) (receipt, error) {
	if err := fits(r, st, key.KeyID(), "the one given is %s, and was not sent"); err != nil {
		return receipt{}, err
	}
	body := key.Text()
	defer clear(body)
	now, err := o.post(ctx, r, body, "text/plain; charset=utf-8")
	if refusedAs(err) == problem.KeyIDNeeded {
		return receipt{}, withHint(err, "if it is the right one, say --accept-key-id %s", key.KeyID())
	}
	if err != nil {
		return receipt{}, err
	}
	if half, is := needsAnother(st, now); is {
		return half, nil
	}
	if now.State != unsealed {
		return receipt{}, fmt.Errorf("%s: it is %s still: %s", r.name, visible(now.State), visible(now.Reason))
	}
	said := fmt.Sprintf("unsealed with key %s", now.KeyID)
	if st.State == unsealed {
		said = "unsealed already"
	}
	return receipt{said: said, state: now}, nil
}

// giveShare hands a share to one replica, which gathers them.
func (o unsealOptions) giveShare(ctx context.Context, r *replica, st sealStatus, given gift) (receipt, error) {
	set := given.share.Set().String()
	if given.set != nil {
		if err := fits(r, st, given.keyID(), "these are shares of %s, and none was sent"); err != nil {
			return receipt{}, err
		}
	}
	body, err := shareBody(*given.share, given.set)
	if err != nil {
		return receipt{}, err
	}
	defer clear(body)
	now, err := o.post(ctx, r, body, "application/json")
	switch refusedAs(err) {
	case problem.ShareSetNeeded:
		return receipt{}, withHint(err, "name %s with --shares", unseal.ShareSetFile)
	case problem.KeyIDNeeded:
		hint := "say --accept-key-id with the id of the right key"
		if id := given.keyID(); id != "" {
			hint = "if it is the right one, say --accept-key-id " + string(id)
		}
		return receipt{}, withHint(err, "%s", hint)
	case problem.WrongShare:
		if !strings.Contains(err.Error(), unseal.ErrDuplicate.Error()) {
			return receipt{}, withHint(err, "the shares of others still count")
		}
		p, _ := st.of(set)
		return receipt{said: fmt.Sprintf("it has share %d already: %s", given.share.Index(), p), state: st, twice: true}, nil
	}
	if err != nil {
		return receipt{}, err
	}
	if now.State == unsealed {
		return receipt{said: fmt.Sprintf("unsealed with key %s", now.KeyID), state: now}, nil
	}
	p, has := now.of(set)
	if half, is := needsAnother(st, now); is {
		return half, nil
	}
	if !has {
		return receipt{}, fmt.Errorf("%s: it is %s still, and tells of no share: %s", r.name, visible(now.State), visible(now.Reason))
	}
	return receipt{said: p.String(), state: now}, nil
}

// follow waits for the replicas that are unsealed by what another one has written. They may have
// been given fewer shares, since they were away in between.
func (o unsealOptions) follow(ctx context.Context, all *safes, receipts []receipt) {
	opened := false
	for _, got := range receipts {
		opened = opened || got.said != "" && got.state.State == unsealed
	}
	if !opened {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, followTime)
	defer cancel()
	all.each(func(i int, r *replica) error {
		for got := &receipts[i]; got.said != "" && got.state.State != unsealed && got.state.Store != inMemory; {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(followEvery):
			}
			st, err := r.sealStatus(ctx)
			if err != nil {
				return nil // what it said before stands
			}
			if st.State == unsealed {
				*got = receipt{said: fmt.Sprintf("unsealed with key %s, by another replica", st.KeyID), state: st}
			}
		}
		return nil
	})
}

// fits tells whether a key is the one that a replica needs. If not, it may be that of another
// cluster, which this one is not to see.
func fits(r *replica, st sealStatus, id encrypt.KeyID, otherwise string) error {
	needs := st.needs()
	if len(needs) == 0 || slices.Contains(needs, id) {
		return nil
	}
	return withHint(fmt.Errorf("%s: it needs root key %s; "+otherwise, r.name, alternatives(needs), id),
		"is this the right cluster? See --context")
}

func (o unsealOptions) post(ctx context.Context, r *replica, body []byte, contentType string) (now sealStatus, err error) {
	target := "/v1/unseal"
	if o.accept != "" {
		target += "?" + url.Values{"accept-key-id": {o.accept}}.Encode()
	}
	text, err := r.act(ctx, http.MethodPost, target, body, contentType)
	if err != nil {
		return now, err
	}
	return now, decode(r, text, &now)
}

// drop has every replica forget the shares that it was given: all, or those of the set that was
// named.
func (o unsealOptions) drop(ctx context.Context, all *safes, public *shareSetFile) error {
	query := url.Values{"reset": {"1"}}
	if public.named {
		query.Set("set", public.set.ID().String())
	}
	results := make([]string, len(all.replicas))
	errs := all.each(func(i int, r *replica) error {
		before, err := r.sealStatus(ctx)
		if err != nil {
			return err
		}
		text, err := r.act(ctx, http.MethodPost, "/v1/unseal?"+query.Encode(), nil, "")
		if err != nil {
			return err
		}
		var now sealStatus
		if err := decode(r, text, &now); err != nil {
			return err
		}
		results[i] = dropped(before, now)
		return nil
	})
	for i, r := range all.replicas {
		if results[i] != "" {
			fmt.Fprintf(o.streams.Out, "%s: %s\n", visible(r.name), visible(results[i]))
		}
	}
	return errors.Join(errs...)
}

// dropped says what there was before and is not any more.
func dropped(before, now sealStatus) string {
	var said []string
	for _, p := range ceremonies(before.Progress, before.Ceremonies) {
		if _, still := now.of(p.Set); !still && p.Given > 0 {
			said = append(said, fmt.Sprintf("dropped %d of %d shares (%s)", p.Given, p.Needed, numbers(p.Indices)))
		}
	}
	if len(said) == 0 {
		return "no share to drop"
	}
	return strings.Join(said, "; ")
}
