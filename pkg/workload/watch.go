package workload

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// Safe holds a watch for most of a minute. One that ends unchanged before
	// settled was cut off, as when Safe stops and lets go of all of them; one
	// that ends before brief was not held at all.
	settled = 30 * time.Second
	brief   = time.Second
	// hasty is how many changes in a row may come in less than brief each before
	// the next one is waited for.
	hasty = 5
)

// Watch calls fn with the workload's secrets, at once and then after each
// change, until ctx ends. It returns ctx's error, or [ErrClosed]; nothing else
// ends it.
//
// When Safe fails, is sealed, or refuses this workload, Watch tries again, with
// growing pauses of half a minute at most that differ from client to client,
// and tells the observer ([WithObserver]). What fn was called with last stays
// true until the next call, as far as anybody knows: fn is never called with
// nothing because Safe is away, with a part of an answer, or twice in a row
// with the same state. A change during the call is seen after it; of several
// changes fn may see the last alone.
//
// Calls of fn do not overlap. The secrets are fn's to keep: Watch holds no
// value once it has called fn, and never wipes one. Who no longer needs the
// values calls [Secrets.Wipe], as fn itself may.
func (c *Client) Watch(ctx context.Context, fn func(*Secrets)) error {
	w := watch{client: c, pause: backoff{random: c.random}}
	for {
		next, pause, err := w.next(ctx)
		switch {
		case ctx.Err() != nil:
			if next != nil {
				next.Wipe()
			}
			return ctx.Err()
		case errors.Is(err, ErrClosed):
			return err
		}
		w.tell(err)
		if next != nil {
			fn(next)
		}
		if pause > 0 {
			c.rest(ctx, pause)
		}
	}
}

// A watch is the state of one Watch.
type watch struct {
	client *Client
	pause  backoff
	known  bool
	etag   string
	digest [32]byte
	well   bool
	hasty  int // changes that came in less than brief, in a row
}

// next asks once. It returns the secrets if they are not those that are known,
// and how long to wait before the next time.
func (w *watch) next(ctx context.Context) (*Secrets, time.Duration, error) {
	q := question{path: "/v1/secrets", wait: w.client.answerWait}
	if w.known {
		q = question{path: "/v1/secrets?watch=1", etag: w.etag, wait: w.client.watchWait}
	}
	began := w.client.now()
	s, err := w.client.secrets(ctx, q)
	if err == nil && s != nil && s.ETag == "" {
		s.Wipe()
		s, err = nil, fmt.Errorf("%w: it has no ETag", ErrBadAnswer)
	}
	if err != nil {
		var r *refusal
		if errors.As(err, &r) {
			return nil, r.retryAfter + w.pause.next(), err
		}
		return nil, w.pause.next(), err
	}
	if s != nil {
		w.etag = s.ETag
		if digest := s.digest(); !w.known || digest != w.digest {
			w.known, w.digest = true, digest
			w.pause.reset()
			if w.client.now().Sub(began) >= brief {
				w.hasty = 0
				return s, 0, nil
			}
			// Several changes in a row may come at once. A Safe that says so of
			// each answer must not keep the workload busy.
			if w.hasty++; w.hasty <= hasty {
				return s, 0, nil
			}
			return s, brief, nil
		}
		// Another name for what is known, as a new Safe may have.
		s.Wipe()
	}
	held := w.client.now().Sub(began)
	if held >= brief {
		w.pause.reset()
	}
	if held >= settled {
		return nil, 0, nil
	}
	return nil, w.pause.next(), nil
}

// tell tells the observer what it does not know yet.
func (w *watch) tell(err error) {
	if err != nil || !w.well {
		w.client.observe(err)
	}
	w.well = err == nil
}

// rest waits, until ctx or the client ends.
func (c *Client) rest(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.closing, cancel)()
	c.sleep(ctx, d)
}
