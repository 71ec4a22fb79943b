package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/version"
)

// maxAnswerSize bounds, in bytes, what is read of an answer.
const maxAnswerSize = 16 << 20

// A replica is one Safe. But for those of one goroutine's calls, one after the other, it is
// not safe for concurrent use.
type replica struct {
	name   string // how it is called in messages
	base   string // of its calls' addresses
	host   string // for TLS's server name; may be empty
	remote bool   // reached over TLS; if not, over a socket of this machine
	dial   func(context.Context) (net.Conn, error)
	source tokenSource

	// patience bounds the time in which a connection has to be there; 0 for as long as the call.
	patience time.Duration

	token  string
	client *http.Client

	mu          sync.Mutex // the HTTP client dials from another goroutine
	pins        *pins
	ready       net.Conn // shown to be Safe, and not used yet
	fingerprint string   // of the public key that the token is for
	names       []string // of the published replicas that it may be
}

// errUnreachable says that a replica does not answer.
var errUnreachable = errors.New("it cannot be reached")

// ask makes a call that anybody may make.
func (r *replica) ask(ctx context.Context, method, target string) ([]byte, error) {
	return r.do(ctx, method, target, nil, "")
}

// act makes a call in an operator's name. The body stays the caller's, to be wiped.
func (r *replica) act(ctx context.Context, method, target string, body []byte, contentType string) ([]byte, error) {
	if err := r.introduce(ctx); err != nil {
		return nil, err
	}
	return r.do(ctx, method, target, body, contentType)
}

// introduce has a token to say in whose name calls are made.
func (r *replica) introduce(ctx context.Context) error {
	if r.remote && r.token == "" {
		// The token is for the key that is shown here, so it comes first. What was left
		// open may be about to be closed by Safe, which what acts is not to run into.
		r.httpClient().CloseIdleConnections()
		r.forget()
		err := r.prepare(ctx)
		if err != nil {
			return err
		}
		if r.token, err = r.source.get(ctx, r.known()); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

// forget has a pod show itself anew: it may have its first SVID since it was asked, and no token is for the key that
// it showed. Behind an address there may be another replica.
func (r *replica) forget() {
	if r.host != "" {
		return
	}
	r.mu.Lock()
	r.fingerprint, r.names = "", nil
	r.mu.Unlock()
}

func (r *replica) do(ctx context.Context, method, target string, body []byte, contentType string) ([]byte, error) {
	response, err := r.send(ctx, method, target, body, contentType)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := readAll(response.Body, "its answer", maxAnswerSize)
	if errors.Is(err, errLarger) {
		return nil, fmt.Errorf("%s: %w", r.name, err)
	}
	if err != nil {
		return nil, r.unreachable(err)
	}
	return text, nil
}

// send makes a call, and returns the answer if it is no refusal. The caller closes its body.
func (r *replica) send(ctx context.Context, method, target string, body []byte, contentType string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, r.base+target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.GetBody = nil // what could not be sent is not sent again
	request.Header.Set("User-Agent", "kubectl-vsecm/"+version.Get().Version)
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	if r.token != "" {
		request.Header.Set("Authorization", "Bearer "+r.token)
	}
	if err := r.meet(ctx); err != nil {
		return nil, err
	}
	response, err := r.httpClient().Do(request)
	if err != nil {
		var hinted hintError
		if err = bare(err); errors.As(err, &hinted) {
			return nil, err
		}
		return nil, r.unreachable(err)
	}
	if response.StatusCode >= http.StatusMultipleChoices {
		defer response.Body.Close()
		return nil, r.refusal(problem.Read(response), target)
	}
	return response, nil
}

func (r *replica) httpClient() *http.Client {
	if r.client == nil {
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return r.take(ctx) }
		r.client = &http.Client{
			// No proxy: only what was dialled here is Safe. No redirects: nobody else gets a token.
			Transport:     &http.Transport{DialContext: dial, DialTLSContext: dial},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return r.client
}

// take returns the connection that is ready, or a new one.
func (r *replica) take(ctx context.Context) (net.Conn, error) {
	r.mu.Lock()
	conn := r.ready
	r.ready = nil
	r.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	return r.connect(ctx)
}

const (
	// publishWait is how long what a replica is recognised by may be published after it is shown: of one
	// that has just started, or has its first SVID.
	publishWait  = 3 * time.Second
	publishPause = 200 * time.Millisecond
)

// meet has a first connection ready: to one that shows itself to be a Safe of the cluster, as every later one
// has to. It waits here, where a call's time is known, and not where the HTTP client dials.
func (r *replica) meet(ctx context.Context) error {
	if !r.remote || r.known() != "" {
		return nil
	}
	return r.prepare(ctx)
}

// prepare has a new connection ready.
func (r *replica) prepare(ctx context.Context) error {
	conn, err := r.connect(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ready != nil {
		r.ready.Close()
	}
	r.ready = conn
	return nil
}

// known returns the fingerprint of the key that the replica has shown; empty before it has.
func (r *replica) known() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fingerprint
}

// connect returns a new connection. Over TLS it is one on which a Safe of the cluster has shown
// itself, always the same one; to anything else nothing was sent. What the first one is recognised by is waited for.
func (r *replica) connect(ctx context.Context) (net.Conn, error) {
	if r.patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.patience)
		defer cancel()
	}
	wait := r.known() == ""
	var refused error
	for until := time.Now().Add(publishWait); ; {
		conn, err := r.handshake(ctx)
		switch {
		case err == nil:
			return conn, nil
		case !errors.Is(err, errNotPinned):
			if refused != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				err = refused
			}
			return nil, err
		case !wait || time.Now().After(until):
			return nil, err
		}
		refused = err
		if err := r.renewPins(ctx); errors.Is(err, context.Canceled) {
			return nil, r.unreachable(err)
		} else if err != nil {
			return nil, refused
		}
	}
}

// errNothingComes says that nothing is published of which more could be waited for.
var errNothingComes = errors.New("nobody publishes what replicas are recognised by")

// renewPins takes, after a pause, what is published by now.
func (r *replica) renewPins(ctx context.Context) error {
	old := r.recognisedBy()
	if old.renew == nil {
		return errNothingComes
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(publishPause):
	}
	fresh, err := old.renew(ctx)
	if err != nil {
		return ctx.Err() // the API server may answer the next time
	}
	r.mu.Lock()
	r.pins = fresh
	r.mu.Unlock()
	return nil
}

// recognisedBy returns the pins that are known by now.
func (r *replica) recognisedBy() *pins {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pins
}

// handshake is one try of connect.
func (r *replica) handshake(ctx context.Context) (net.Conn, error) {
	conn, err := r.dial(ctx)
	if err != nil {
		return nil, r.unreachable(err)
	}
	if !r.remote {
		return conn, nil
	}
	var refused error
	secure := tls.Client(conn, &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: r.host,
		NextProtos: []string{"http/1.1"},
		// Pins take the place of authorities and host names.
		InsecureSkipVerify: true, // VerifyConnection verifies
		VerifyConnection: func(state tls.ConnectionState) error {
			refused = r.recognise(state)
			return refused
		},
	})
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		if refused != nil {
			return nil, fmt.Errorf("%s: %w", r.name, refused)
		}
		return nil, r.unreachable(fmt.Errorf("TLS: %w", err))
	}
	r.met(secure.ConnectionState().PeerCertificates[0])
	return secure, nil
}

// recognise judges what is shown, by whoever may not have the key that belongs to it.
func (r *replica) recognise(state tls.ConnectionState) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.pins.check(state.PeerCertificates); err != nil {
		return err
	}
	if r.fingerprint != "" && r.fingerprint != fingerprintOf(state.PeerCertificates[0]) {
		return withHint(errors.New("another Safe answers than before"), "try again; behind a load balancer, name each replica with --safe")
	}
	return nil
}

// met keeps who has proved to have the key of what was recognised.
func (r *replica) met(leaf *x509.Certificate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fingerprint != "" {
		return
	}
	r.fingerprint, r.names = fingerprintOf(leaf), r.pins.names(leaf)
	r.pins.skew.hear(r.pins.versionOf(r.names))
}

func (r *replica) close() {
	if r.client != nil {
		r.client.CloseIdleConnections()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ready != nil {
		r.ready.Close()
		r.ready = nil
	}
}

func (r *replica) unreachable(err error) error {
	var hinted hintError
	if errors.As(err, &hinted) || errors.Is(err, errUnreachable) {
		return err
	}
	var failed *net.OpError
	if errors.As(err, &failed) {
		err = failed.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("it did not answer in time")
	}
	err = unreachableError{fmt.Errorf("reaching Safe at %s: %w", r.name, err)}
	if !r.remote {
		return withHint(err, "is it running, and are you its user?")
	}
	return withHint(err, "does it run, and can it be reached from here? 'kubectl get pods -A -l app.kubernetes.io/name=vsecm-safe' shows its pods")
}

// An unreachableError is an [errUnreachable] that says why.
type unreachableError struct{ error }

func (e unreachableError) Unwrap() []error { return []error{e.error, errUnreachable} }

// refusal is what Safe answered to a call.
func (r *replica) refusal(p *problem.Problem, target string) error {
	said := p.Detail
	if said == "" || p.Type == problem.Internal || p.Type == "" {
		said = p.Error() // with what finds the call in Safe's log
	}
	// It is one line, whatever it holds: the next one would look like ours.
	err := error(refusedError{fmt.Sprintf("%s: %s", r.name, visible(said)), p})
	account := r.source.namespace + "/" + r.source.account
	if !r.remote && (p.Type == problem.Unauthorized || p.Type == problem.Forbidden) {
		return err // a socket's callers are known by their user
	}
	switch p.Type {
	case problem.Sealed:
		return withHint(err, "unseal it with 'kubectl vsecm unseal'")
	case problem.Unauthorized:
		return withHint(err, "Safe did not take the token of service account %s; its log says why", account)
	case problem.Forbidden:
		return withHint(err, "service account %s lacks the right; name another with --service-account", account)
	case problem.TooManyRequests:
		return withHint(err, "wait a while, and try again")
	}
	if hint := r.skewHint(p, target); hint != "" {
		return withHint(err, "%s", hint)
	}
	return err
}

// A refusedError says what a replica refused.
type refusedError struct {
	said    string
	problem *problem.Problem
}

func (e refusedError) Error() string { return e.said }

// refusedAs returns the type of the problem that Safe answered with, or "".
func refusedAs(err error) problem.Type {
	var refused refusedError
	if errors.As(err, &refused) {
		return refused.problem.Type
	}
	return ""
}
