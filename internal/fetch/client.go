// Package fetch is the workload's side of Safe's workload API: it takes the
// pod's X.509-SVID from the SPIFFE Workload API, asks Safe for the workload's
// secrets over mTLS, and prints them or writes them as files.
//
// What Safe sends is checked before it is used: its identity, the size of its
// answer, and every name that would become a path or a variable.
package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/logger"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/vsecm/kubectl-vsecm/internal/answer"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

const (
	// DefaultURL is where Safe is found in a cluster.
	DefaultURL = "https://vsecm-safe.vsecm-system.svc:8443"

	// MaxAnswer bounds, in bytes, an answer of Safe's.
	MaxAnswer = answer.MaxSize

	// identityWait is how long New waits for an SVID.
	identityWait = 10 * time.Second
	// answerWait bounds a whole exchange, watchWait one that Safe may hold:
	// it does so for a minute at most.
	answerWait = 30 * time.Second
	watchWait  = 90 * time.Second
)

var (
	// ErrNoIdentity says that the Workload API gave no SVID in time: it is
	// not there, or this process is not registered with it.
	ErrNoIdentity = errors.New("no X.509-SVID from the SPIFFE Workload API")
	// ErrUnauthorized says that Safe does not let this workload in.
	ErrUnauthorized = errors.New("safe refused this workload")
	// ErrNotFound says that what was asked is not there: an older Safe, or
	// not a Safe at all.
	ErrNotFound = errors.New("safe does not know this call")
	// ErrSealed says that Safe holds no root key until operators unseal it.
	ErrSealed = errors.New("safe is sealed")
	// ErrUnavailable says that Safe cannot be reached, or cannot answer now.
	// Trying again later may help.
	ErrUnavailable = errors.New("safe is unavailable")
	// ErrWrongSafe says that who answered is not Safe.
	ErrWrongSafe = errors.New("the server is not Safe")
	// ErrBadAnswer says that an answer of Safe's is not what the API says:
	// too large, cut short, malformed, or with a name that must not become a
	// path.
	ErrBadAnswer = errors.New("safe's answer is not usable")
)

// Options say how to reach Safe.
type Options struct {
	// Socket is the address of the Workload API, such as
	// unix:///run/spire/agent.sock; empty: $SPIFFE_ENDPOINT_SOCKET.
	Socket string
	// URL is Safe's address; empty: [DefaultURL].
	URL string
	// SafeID is the SPIFFE ID that the server must have; empty: that of
	// VSecM's Safe, with any pod name, in this workload's own trust domain.
	SafeID string
}

// A Client fetches the secrets of one workload. It follows the rotation of the
// workload's SVID. It is safe for concurrent use.
type Client struct {
	source *workloadapi.X509Source
	http   *http.Client
	url    string
}

// New takes an SVID from the Workload API, waiting for it up to ten seconds.
// The caller closes the client. Errors: [ErrNoIdentity].
func New(ctx context.Context, o Options) (*Client, error) {
	target, err := secretsURL(o.URL)
	if err != nil {
		return nil, err
	}
	var exact spiffeid.ID
	if o.SafeID != "" {
		if exact, err = spiffeid.FromString(o.SafeID); err != nil {
			return nil, fmt.Errorf("SPIFFE ID of Safe %q: %w", o.SafeID, err)
		}
	}
	source, err := takeIdentity(ctx, o.Socket)
	if err != nil {
		return nil, err
	}
	authorize := func(id spiffeid.ID) error { return spiffeid.MatchID(exact)(id) }
	if exact.IsZero() {
		authorize = func(id spiffeid.ID) error {
			svid, err := source.GetX509SVID()
			if err != nil {
				return err
			}
			return matchSafe(svid.ID.TrustDomain(), id)
		}
	}
	tlsConfig := tlsconfig.MTLSClientConfig(source, source, tlsconfig.AdaptMatcher(func(id spiffeid.ID) error {
		if err := authorize(id); err != nil {
			return fmt.Errorf("%w: %w", ErrWrongSafe, err)
		}
		return nil
	}))
	tlsConfig.MinVersion = tls.VersionTLS13
	return &Client{
		source: source,
		url:    target,
		http: &http.Client{
			Transport: &http.Transport{
				// No proxy from the environment: what stands between a
				// workload and Safe is the mTLS connection alone.
				Proxy:                  nil,
				TLSClientConfig:        tlsConfig,
				TLSHandshakeTimeout:    10 * time.Second,
				DisableCompression:     true,
				ForceAttemptHTTP2:      true,
				MaxResponseHeaderBytes: 64 << 10,
				IdleConnTimeout:        90 * time.Second,
			},
			// Safe sends no redirect; one that comes is not followed.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Close ends the client's connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return c.source.Close()
}

// matchSafe accepts the ID that VSecM registers its Safe with.
func matchSafe(own spiffeid.TrustDomain, id spiffeid.ID) error {
	pod, ok := strings.CutPrefix(id.Path(), "/workload/vsecm-safe/ns/vsecm-system/sa/vsecm-safe/n/")
	if !id.MemberOf(own) || !ok || strings.Contains(pod, "/") {
		return fmt.Errorf("unexpected ID %q", id)
	}
	return nil
}

func secretsURL(base string) (string, error) {
	if base == "" {
		base = DefaultURL
	}
	u, err := url.Parse(base)
	if err != nil {
		return "", fmt.Errorf("address of Safe: %w", err)
	}
	if u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("address of Safe %q: want https://HOST:PORT", base)
	}
	return "https://" + u.Host + "/v1/secrets", nil
}

// takeIdentity waits for the first SVID. The Workload API client retries for
// ever and keeps its errors to its log; the last one is what a person needs to
// know.
func takeIdentity(ctx context.Context, socket string) (*workloadapi.X509Source, error) {
	ctx, cancel := context.WithTimeout(ctx, identityWait)
	defer cancel()
	last := &lastError{Logger: logger.Null}
	options := []workloadapi.ClientOption{workloadapi.WithLogger(last)}
	if socket != "" {
		options = append(options, workloadapi.WithAddr(socket))
	}
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(options...))
	if err != nil {
		if text := last.get(); text != "" {
			return nil, fmt.Errorf("%w: %s", ErrNoIdentity, text)
		}
		return nil, fmt.Errorf("%w: %w", ErrNoIdentity, err)
	}
	return source, nil
}

// lastError keeps the last error that was logged.
type lastError struct {
	logger.Logger
	mu   sync.Mutex
	text string
}

func (l *lastError) Errorf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = fmt.Sprintf(format, args...)
}

func (l *lastError) get() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text
}

// Get asks Safe for all secrets of this workload. A workload without secrets
// gets an empty list.
//
// Errors: [ErrUnauthorized], [ErrNotFound], [ErrSealed], [ErrUnavailable],
// [ErrWrongSafe], [ErrBadAnswer].
func (c *Client) Get(ctx context.Context) (*Secrets, error) {
	return c.get(ctx, c.url, "", answerWait)
}

// Watch returns the secrets once they differ from those of etag, or nil when
// Safe has held the request for as long as it does, about a minute, without a
// change. Errors are those of [Client.Get].
func (c *Client) Watch(ctx context.Context, etag string) (*Secrets, error) {
	return c.get(ctx, c.url+"?watch=1", etag, watchWait)
}

func (c *Client) get(ctx context.Context, target, etag string, wait time.Duration) (*Secrets, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, fmt.Errorf("ask Safe for secrets: %w", err)
	}
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask Safe for secrets: %w", classify(err))
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotModified && etag != "":
		return nil, nil
	case resp.StatusCode != http.StatusOK:
		return nil, refused(problem.Read(resp))
	}
	if resp.ContentLength > MaxAnswer {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrBadAnswer, resp.ContentLength, int64(MaxAnswer))
	}
	body, err := readBounded(resp.Body, resp.ContentLength)
	defer clear(body)
	if err != nil {
		return nil, err
	}
	secrets, err := parse(body)
	if err != nil {
		return nil, err
	}
	secrets.ETag = resp.Header.Get("ETag")
	return secrets, nil
}

// readBounded reads at most MaxAnswer bytes. Where the length is known the
// buffer never grows, so no copy of a secret is left behind.
func readBounded(r io.Reader, length int64) ([]byte, error) {
	if length >= 0 {
		body := make([]byte, length)
		n, err := io.ReadFull(r, body)
		if err != nil {
			return body, fmt.Errorf("%w: cut short after %d of %d bytes", ErrBadAnswer, n, length)
		}
		return body, nil
	}
	body, err := io.ReadAll(io.LimitReader(r, MaxAnswer+1))
	switch {
	case err != nil:
		return body, fmt.Errorf("%w: cut short after %d bytes", ErrBadAnswer, len(body))
	case len(body) > MaxAnswer:
		return body, fmt.Errorf("%w: more than %d bytes", ErrBadAnswer, MaxAnswer)
	}
	return body, nil
}

// classify says what a failed exchange means. A handshake that Safe refuses
// ends, in TLS 1.3, with the alert that it sends when it has looked at our
// certificate.
func classify(err error) error {
	var alert tls.AlertError
	switch {
	case errors.Is(err, ErrWrongSafe):
		return err
	case errors.As(err, &alert), strings.Contains(err.Error(), "remote error: tls:"):
		return fmt.Errorf("%w: %w", ErrUnauthorized, err)
	case strings.Contains(err.Error(), "x509svid:"):
		return fmt.Errorf("%w: %w", ErrWrongSafe, err)
	default:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
}

// refused turns a problem into one of this package's errors.
func refused(p *problem.Problem) error {
	switch p.Type {
	case problem.Unauthorized, problem.Forbidden:
		return fmt.Errorf("%w: %w", ErrUnauthorized, p)
	case problem.NotFound, problem.MethodNotAllowed, problem.BadRequest:
		return fmt.Errorf("%w: %w", ErrNotFound, p)
	case problem.Sealed:
		return fmt.Errorf("%w: %w", ErrSealed, p)
	case problem.Unavailable, problem.TooManyRequests, problem.Internal, problem.Timeout:
		return fmt.Errorf("%w: %w", ErrUnavailable, p)
	default:
		// Not a problem of Safe's, though it proved to be Safe.
		return fmt.Errorf("%w: %w", ErrBadAnswer, p)
	}
}
