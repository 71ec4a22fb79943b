package workload

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/logger"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

const (
	// DefaultURL is where Safe is found in a cluster.
	DefaultURL = "https://vsecm-safe.vsecm-system.svc:8443"

	// safeVariable is where workloads find Safe, by the name that VSecM's SDK
	// has for it.
	safeVariable = "VSECM_SAFE_ENDPOINT_URL"

	// identityWait is how long New waits for an SVID.
	identityWait = 10 * time.Second
	// answerWait bounds a whole exchange, watchWait one that Safe may hold:
	// it does so for a minute at most.
	answerWait = 30 * time.Second
	watchWait  = 90 * time.Second

	// aliveAfter is how long a connection is silent before the kernel asks
	// whether the other end is there, aliveEvery how often it asks again, and
	// aliveTries when it gives up.
	aliveAfter = 15 * time.Second
	aliveEvery = 5 * time.Second
	aliveTries = 4
)

// An Option changes what [New] would do.
type Option func(*options)

type options struct {
	socket, url, safeID string
	observe             func(error)
}

// WithSocket sets the address of the Workload API, such as
// unix:///run/spire/agent.sock. Without it, or with "", the address is
// $SPIFFE_ENDPOINT_SOCKET.
func WithSocket(address string) Option { return func(o *options) { o.socket = address } }

// WithSafe sets Safe's address, https://HOST:PORT. Without it, or with "", the
// address is $VSECM_SAFE_ENDPOINT_URL, and without that [DefaultURL].
func WithSafe(url string) Option { return func(o *options) { o.url = url } }

// WithSafeID sets the SPIFFE ID that the server must have. Without it, or with
// "", it must be that of VSecM's Safe, with any pod name, in this workload's
// own trust domain: spiffe://DOMAIN/workload/vsecm-safe/ns/vsecm-system/sa/vsecm-safe/n/POD.
func WithSafeID(id string) Option { return func(o *options) { o.safeID = id } }

// WithObserver sets what [Client.Watch] tells how it goes: the error of each
// try that failed, and nil when it is well, that is at the first success and
// at the first one after a failure. It is called between tries and must
// return soon; where there are several watches at once, it is called by each.
//
// Without it, the same is logged by [slog.Default].
func WithObserver(observe func(err error)) Option { return func(o *options) { o.observe = observe } }

// A Client fetches the secrets of one workload. It follows the rotation of the
// workload's SVID and of its trust bundle. It is safe for concurrent use.
type Client struct {
	source  *workloadapi.X509Source
	lastErr *lastError // of the Workload API
	base    string     // https://HOST:PORT
	observe func(error)

	closing context.Context // ends when Close is called
	stop    context.CancelFunc
	mu      sync.Mutex // guards asking.Add against Close, and http
	asking  sync.WaitGroup
	http    *http.Client // the newest; see connections
	fresh   func() *http.Client

	// What tests replace.
	now                   func() time.Time
	random                func() float64 // in [0, 1)
	sleep                 func(context.Context, time.Duration)
	answerWait, watchWait time.Duration
}

// New takes an SVID from the Workload API, waiting for it up to ten seconds or
// until ctx ends, and no longer needs ctx then. It does not ask Safe for
// anything. The caller closes the client.
//
// Errors: [ErrNoIdentity], and those of an option's value.
func New(ctx context.Context, opts ...Option) (*Client, error) {
	var o options
	for _, set := range opts {
		set(&o)
	}
	base, err := parseURL(cmp.Or(o.url, os.Getenv(safeVariable), DefaultURL))
	if err != nil {
		return nil, err
	}
	var exact spiffeid.ID
	if o.safeID != "" {
		if exact, err = spiffeid.FromString(o.safeID); err != nil {
			return nil, fmt.Errorf("SPIFFE ID of Safe %q: %w", o.safeID, err)
		}
	}
	last := &lastError{Logger: logger.Null}
	source, err := takeIdentity(ctx, o.socket, last)
	if err != nil {
		return nil, err
	}
	c := &Client{
		source: source, lastErr: last, base: base,
		fresh:   func() *http.Client { return newHTTP(source, exact) },
		observe: o.observe,
		now:     time.Now, random: rand.Float64, sleep: sleep,
		answerWait: answerWait, watchWait: watchWait,
	}
	if c.observe == nil {
		c.observe = logProgress
	}
	c.http = c.fresh()
	c.closing, c.stop = context.WithCancel(context.Background())
	return c, nil
}

// Close ends the client: its connections, and the calls that are under way,
// which return [ErrClosed].
func (c *Client) Close() error {
	c.mu.Lock()
	c.stop()
	c.mu.Unlock()
	// A connection is closed when it is idle.
	c.asking.Wait()
	c.http.CloseIdleConnections()
	return c.source.Close()
}

// connections returns what to ask with. Where there is a new SVID or a new bundle, or renew is said, these are new
// connections: who is on the other side has to prove it by that, and so do we. Calls that are under way end on the
// old ones, which nobody uses again.
func (c *Client) connections(renew bool) *http.Client {
	select {
	case <-c.source.Updated():
		renew = true
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if renew {
		c.http.CloseIdleConnections()
		c.http = c.fresh()
	}
	return c.http
}

// release closes connections that were replaced while a call used them.
func (c *Client) release(used *http.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if used != c.http {
		used.CloseIdleConnections()
	}
}

// Identity returns the SPIFFE ID that the client shows to Safe, and when the
// SVID that proves it expires.
func (c *Client) Identity() (id string, expires time.Time, err error) {
	svid, err := c.source.GetX509SVID()
	if err != nil {
		return "", time.Time{}, ErrClosed
	}
	return svid.ID.String(), svid.Certificates[0].NotAfter, nil
}

// URL returns Safe's address.
func (c *Client) URL() string { return c.base }

func newHTTP(source *workloadapi.X509Source, exact spiffeid.ID) *http.Client {
	authorize := spiffeid.MatchID(exact)
	if exact.IsZero() {
		authorize = func(id spiffeid.ID) error {
			svid, err := source.GetX509SVID()
			if err != nil {
				return err
			}
			return matchSafe(svid.ID.TrustDomain(), id)
		}
	}
	config := tlsconfig.MTLSClientConfig(source, source, tlsconfig.AdaptMatcher(func(id spiffeid.ID) error {
		if err := authorize(id); err != nil {
			return fmt.Errorf("%w: %w", ErrWrongSafe, err)
		}
		return nil
	}))
	config.MinVersion = tls.VersionTLS13
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	return &http.Client{
		Transport: &http.Transport{
			// No proxy from the environment: what stands between a
			// workload and Safe is the mTLS connection alone.
			Proxy:                  nil,
			TLSClientConfig:        config,
			TLSHandshakeTimeout:    10 * time.Second,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 64 << 10,
			IdleConnTimeout:        90 * time.Second,
			// HTTP/1.1: a client has one call under way, so HTTP/2 would gain
			// nothing, and a watch costs Safe half as much again with it. What
			// is given up, for it took too long, takes its connection along, so
			// that one whose other end vanished is never used a second time.
			Protocols:   http1,
			DialContext: (&net.Dialer{Timeout: 10 * time.Second, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: aliveAfter, Interval: aliveEvery, Count: aliveTries}}).DialContext,
		},
		// Safe sends no redirect; one that comes is not followed.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// matchSafe accepts the ID that VSecM registers its Safe with.
func matchSafe(own spiffeid.TrustDomain, id spiffeid.ID) error {
	pod, ok := strings.CutPrefix(id.Path(), "/workload/vsecm-safe/ns/vsecm-system/sa/vsecm-safe/n/")
	if !id.MemberOf(own) || !ok || strings.Contains(pod, "/") {
		return fmt.Errorf("unexpected ID %q", id)
	}
	return nil
}

func parseURL(base string) (string, error) {
	u, err := url.Parse(base)
	if err != nil {
		return "", fmt.Errorf("address of Safe: %w", err)
	}
	if u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("address of Safe %q: want https://HOST:PORT", base)
	}
	return "https://" + u.Host, nil
}

// takeIdentity waits for the first SVID. The Workload API client retries for
// ever and keeps its errors to its log; the last one is what a person needs to
// know.
func takeIdentity(ctx context.Context, socket string, last *lastError) (*workloadapi.X509Source, error) {
	ctx, cancel := context.WithTimeout(ctx, identityWait)
	defer cancel()
	options := []workloadapi.ClientOption{workloadapi.WithLogger(last)}
	switch {
	case socket == "" && os.Getenv(workloadapi.SocketEnv) == "":
		return nil, fmt.Errorf("%w: $%s is not set", ErrNoIdentity, workloadapi.SocketEnv)
	case socket != "":
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

// logProgress is the observer of who sets none.
func logProgress(err error) {
	if err == nil {
		slog.Info("watching the secrets of this workload")
		return
	}
	slog.Warn("cannot get the secrets of this workload; trying again", "error", err)
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// errIsAlert reports whether the other side ended the handshake. In TLS 1.3
// that is what a client sees whose certificate was refused.
func errIsAlert(err error) bool {
	var alert tls.AlertError
	return errors.As(err, &alert) || strings.Contains(err.Error(), "remote error: tls:")
}
