package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

const (
	// requestValues and requestBytes bound one POST /v1/reencrypt; Safe takes as many values, and
	// four times the bytes.
	requestValues = 200
	requestBytes  = 2 << 20
	// lanesOfReplica is how many requests a replica has under way: while one is on its way, it works
	// on another.
	lanesOfReplica = 2
	// requestTime bounds a request; Safe itself takes 20 seconds for it at most.
	requestTime = 30 * time.Second
	// busyPause is how long a replica that is asked too often is left alone, busyPauses how often.
	busyPause  = 2 * time.Second
	busyPauses = 60
)

// A safeResealer has Safe seal anew. No plaintext leaves it.
type safeResealer struct {
	conn *connection

	free chan *replica // those that nothing is asked of now
	gone chan struct{} // closed once no replica is left
	busy time.Duration // of one pause

	mu     sync.Mutex
	all    []*replica
	left   int
	errs   []error
	denied map[string]error // by namespace
	lost   bool             // Safe does not hold the key of a value any more
}

// errKeyLost says why Safe seals a value anew no more that is sealed to a retired key.
var errKeyLost = errors.New("sealed to a retired root key that Safe does not hold any more")

// newSafeResealer asks all replicas at once, each of them several times.
func newSafeResealer(conn *connection, all *safes) *safeResealer {
	s := &safeResealer{
		conn: conn, gone: make(chan struct{}), busy: busyPause, denied: make(map[string]error),
		free: make(chan *replica, lanesOfReplica*len(all.replicas)),
	}
	for range lanesOfReplica {
		for _, r := range all.replicas {
			// One is for one call at a time.
			lane := &replica{name: r.name, base: r.base, host: r.host, remote: r.remote, dial: r.dial, pins: r.recognisedBy(), source: r.source, patience: connectWait}
			s.all = append(s.all, lane)
			s.free <- lane
		}
	}
	s.left = len(s.all)
	return s
}

func (s *safeResealer) close() {
	for _, r := range s.all {
		r.close()
	}
}

// reseal implements [resealer].
func (s *safeResealer) reseal(ctx context.Context, values []*staleValue) error {
	for request := range s.requests(values) {
		if err := s.ask(ctx, request); err != nil {
			return err
		}
	}
	return nil
}

// requests yields values as many at a time as one request takes. Those for a namespace where Safe
// has refused others are refused without asking: it counts how often it has to.
func (s *safeResealer) requests(values []*staleValue) func(yield func([]*staleValue) bool) {
	return func(yield func([]*staleValue) bool) {
		var request []*staleValue
		size := 0
		for _, v := range values {
			if v.refused = s.refusal(v); v.refused != nil {
				continue
			}
			if len(request) > 0 && (len(request) == requestValues || size+v.size() > requestBytes) {
				if !yield(request) {
					return
				}
				request, size = nil, 0
			}
			request = append(request, v)
			size += v.size()
		}
		if len(request) > 0 {
			yield(request)
		}
	}
}

func (s *safeResealer) refusal(v *staleValue) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.denied[v.info.Binding.Namespace]
}

func (s *safeResealer) deny(values []*staleValue, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range values {
		s.denied[v.info.Binding.Namespace] = err
		v.refused = err
	}
}

// advice says what a caller lacks for what Safe has refused; empty if it has refused nothing.
func (s *safeResealer) advice() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost {
		return "what 'kubectl vsecm rekey finish --archive' wrote has the retired key: do it without Safe, with --root-key and --retired-key"
	}
	if len(s.denied) == 0 || !s.all[0].remote {
		return ""
	}
	where := slices.Sorted(maps.Keys(s.denied))
	for i, namespace := range where {
		if namespace == "" {
			where[i] = "the whole cluster"
		}
	}
	of := s.all[0].source
	return fmt.Sprintf("ask for a binding of service account %s/%s to ClusterRole vsecm-reencrypt in %s, or name your team's account with --service-account", of.namespace, of.account, strings.Join(where, ", "))
}

// ask has one replica after the other seal the values anew, until one has an answer.
func (s *safeResealer) ask(ctx context.Context, values []*staleValue) error {
	body, err := requestOf(values)
	if err != nil {
		return err
	}
	for {
		var r *replica
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.gone:
			return s.nobody()
		case r = <-s.free:
		}
		text, err := s.post(ctx, r, body)
		switch {
		case err == nil:
			s.free <- r
			return s.takeAnswers(r, values, text)
		case ctx.Err() != nil:
			s.free <- r
			return ctx.Err()
		case refusedAs(err) == problem.Forbidden:
			s.free <- r
			s.deny(values, err)
			return nil
		case anotherMayDo(err):
			s.drop(err)
		default:
			s.free <- r
			return err
		}
	}
}

// post makes a call of one replica, and makes it again where that is all that is needed.
func (s *safeResealer) post(ctx context.Context, r *replica, body []byte) ([]byte, error) {
	again := true // a token has run out, or a connection was closed, since the last call
	for pauses := 0; ; {
		asking, cancel, err := s.conn.within(ctx, requestTime)
		if err != nil {
			return nil, err
		}
		text, err := r.act(asking, http.MethodPost, "/v1/reencrypt", body, "application/json")
		late := asking.Err() != nil
		cancel()
		switch {
		case err == nil || ctx.Err() != nil:
			return text, err
		case refusedAs(err) == problem.TooManyRequests && pauses < busyPauses:
			pauses++
			timer := time.NewTimer(s.busy)
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil, ctx.Err()
			case <-timer.C:
			}
		case again && !late && (refusedAs(err) == problem.Unauthorized || errors.Is(err, errUnreachable)):
			again = false
			r.token = ""
			r.httpClient().CloseIdleConnections()
		default:
			return nil, err
		}
	}
}

// drop goes on without a replica.
func (s *safeResealer) drop(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.ContainsFunc(s.errs, func(known error) bool { return known.Error() == err.Error() }) {
		s.errs = append(s.errs, err)
	}
	if s.left--; s.left == 0 {
		close(s.gone)
	}
}

// nobody says why no replica is left.
func (s *safeResealer) nobody() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.errs...)
}

func requestOf(values []*staleValue) ([]byte, error) {
	type value struct {
		Sealed     string   `json:"sealed"`
		Recipients []string `json:"recipients"`
	}
	var request struct {
		Values []value `json:"values"`
	}
	for _, v := range values {
		to := make([]string, len(v.to))
		for i, r := range v.to {
			to[i] = r.String()
		}
		request.Values = append(request.Values, value{v.sealed, to})
	}
	return json.Marshal(request)
}

// takeAnswers notes what became of each value.
func (s *safeResealer) takeAnswers(r *replica, values []*staleValue, text []byte) error {
	var answer struct {
		Values []struct {
			Sealed string `json:"sealed"`
			Error  *struct {
				Type   string `json:"type"`
				Detail string `json:"detail"`
			} `json:"error"`
		} `json:"values"`
	}
	if err := decode(r, text, &answer); err != nil {
		return err
	}
	if len(answer.Values) != len(values) {
		return fmt.Errorf("%s: it answers for %d values of %d", r.name, len(answer.Values), len(values))
	}
	for i, a := range answer.Values {
		v := values[i]
		switch {
		case a.Error == nil:
			if err := v.take(a.Sealed); err != nil {
				v.refused = fmt.Errorf("%s: %w", r.name, err)
			}
		case a.Error.Type == problem.Forbidden.URI():
			s.deny([]*staleValue{v}, fmt.Errorf("%s: %s", r.name, visible(a.Error.Detail)))
		case a.Error.Type == problem.Current.URI():
			s.mu.Lock()
			s.lost = true
			s.mu.Unlock()
			v.refused = errKeyLost
		default:
			v.refused = fmt.Errorf("%s: %s", r.name, visible(a.Error.Detail))
		}
	}
	return nil
}

// learn asks Safe which key is active, and which ones are retired. Whoever may not know about the latter
// learns of the one that a re-key under way retires, which anybody may know.
func (c *keyChange) learn(ctx context.Context, all *safes) error {
	var errs []error
	for i, r := range all.replicas {
		asking, cancel := ctx, context.CancelFunc(func() {})
		if deadline, has := ctx.Deadline(); has && i < len(all.replicas)-1 {
			asking, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(all.replicas)-i))
			r.patience = connectWait
		}
		err := c.learnFrom(asking, r)
		cancel()
		if err == nil {
			return nil
		}
		errs = append(errs, err)
		if !anotherMayDo(err) || ctx.Err() != nil {
			break
		}
	}
	all.adviseTokens(errs)
	return errors.Join(errs...)
}

func (c *keyChange) learnFrom(ctx context.Context, r *replica) error {
	var now struct {
		Active struct {
			Recipient string `json:"recipient"`
		} `json:"active"`
		Retired []encrypt.KeyID `json:"retired"`
	}
	text, err := r.act(ctx, http.MethodGet, "/v1/rekey", nil, "")
	switch {
	case err == nil:
		if err := decode(r, text, &now); err != nil {
			return err
		}
	case refusedAs(err) == problem.Forbidden:
		if text, err = r.ask(ctx, http.MethodGet, "/v1/recipient"); err != nil {
			return err
		}
		if err := decode(r, text, &now.Active); err != nil {
			return err
		}
		retired, err := retiredBy(ctx, r)
		if err != nil {
			return err
		}
		now.Retired = retired
	default:
		return err
	}
	active, err := encrypt.ParseRecipient(now.Active.Recipient)
	if err != nil {
		return fmt.Errorf("%s: its recipient: %w", r.name, err)
	}
	c.active = active.KeyID()
	c.know(active)
	c.retired = append(c.retired, now.Retired...)
	return nil
}

// retiredBy returns the key that a re-key under way retires, as Safe tells anybody; none if none is.
func retiredBy(ctx context.Context, r *replica) ([]encrypt.KeyID, error) {
	text, err := r.ask(ctx, http.MethodGet, "/v1/seal-status")
	if err != nil {
		return nil, err
	}
	var st sealStatus
	if err := decode(r, text, &st); err != nil {
		return nil, err
	}
	if st.Rekey == nil || st.Rekey.From == "" {
		return nil, nil
	}
	return []encrypt.KeyID{st.Rekey.From}, nil
}
