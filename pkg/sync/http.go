package sync

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
)

// An httpSource speaks git's smart HTTP protocol with go-git's client. It has
// a client of its own: go-git's Remote and Repository take theirs from one
// table for the whole process, and so could not tell one source's CA from
// another's.
type httpSource struct {
	remote Remote
	ref    plumbing.ReferenceName
	limits Limits
	http   *proxyChooser
	git    transport.Transport
}

func newHTTPSource(r Remote, ref plumbing.ReferenceName, limits Limits) (*httpSource, error) {
	var roots *x509.CertPool
	if len(r.CA) > 0 {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(r.CA) {
			return nil, errors.New("CA holds no certificate in PEM")
		}
	}
	newTransport := func(refuse func(netip.Addr) error) *http.Transport {
		return &http.Transport{
			DialContext:           newDialer(refuse, limits.Stall).DialContext,
			TLSHandshakeTimeout:   limits.Stall,
			ResponseHeaderTimeout: limits.Stall,
			IdleConnTimeout:       90 * time.Second,
			MaxIdleConns:          2,
			ForceAttemptHTTP2:     true,
			TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		}
	}
	t := &proxyChooser{direct: newTransport(r.Refuse), proxied: newTransport(nil), proxy: http.ProxyFromEnvironment, refuse: r.Refuse}
	t.proxied.Proxy = http.ProxyFromEnvironment
	s := &httpSource{remote: r, ref: ref, limits: limits, http: t}
	client := &http.Client{
		Transport: &boundedTransport{next: t, limits: limits},
		// go-git follows redirects of the first request only and drops the
		// credentials on the way to another origin. Another host could still
		// feed us another repository.
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if req.URL.Hostname() != via[0].URL.Hostname() {
				return fmt.Errorf("%w: %s", ErrRedirect, printable(req.URL.Hostname(), 100))
			}
			return nil
		},
	}
	s.git = githttp.NewClientWithOptions(client, &githttp.ClientOptions{RedirectPolicy: githttp.FollowInitialRedirects})
	return s, nil
}

func (s *httpSource) close() { s.http.CloseIdleConnections() }

func (s *httpSource) auth() transport.AuthMethod {
	switch {
	case s.remote.BearerToken != "":
		return &githttp.TokenAuth{Token: s.remote.BearerToken}
	case s.remote.Username != "" || s.remote.Password != "":
		return &githttp.BasicAuth{Username: s.remote.Username, Password: s.remote.Password}
	}
	return nil
}

func (s *httpSource) open(ctx context.Context) (session, error) {
	// The session changes its endpoint when it is redirected, so each has
	// one of its own.
	ep, err := transport.NewEndpoint(strings.TrimSuffix(s.remote.URL, "/"))
	if err != nil {
		return nil, err
	}
	up, err := s.git.NewUploadPackSession(ep, s.auth())
	if err != nil {
		return nil, err
	}
	refs, err := up.AdvertisedReferencesContext(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return nil, errEmpty(s.ref)
	} else if err != nil {
		return nil, httpError(ctx, err)
	}
	found, err := findRef(refs, s.ref)
	if err != nil {
		return nil, err
	}
	return &httpSession{advertised: found, up: up}, nil
}

type httpSession struct {
	*advertised
	up transport.UploadPackSession
}

func (s *httpSession) tip() plumbing.Hash { return s.advertised.tip }

func (s *httpSession) close() { s.up.Close() }

// bring asks for the pack that leads from what is there to the tip.
func (s *httpSession) bring(ctx context.Context, store *objectStore, have []plumbing.Hash) error {
	if slices.Contains(have, s.tip()) {
		return nil // a rewind to what is there already
	}
	req, err := s.request(have)
	if err != nil {
		return err
	}
	res, err := s.up.UploadPack(ctx, req)
	if errors.Is(err, transport.ErrEmptyUploadPackRequest) {
		return httpError(ctx, fmt.Errorf("%w: empty answer", errCut))
	} else if err != nil {
		return httpError(ctx, err)
	}
	defer res.Close()
	f, err := spool(store.tmp, req.Capabilities, res)
	if errors.Is(err, errCut) {
		return httpError(ctx, err)
	} else if err != nil {
		return err
	}
	defer discard(f)
	return takeOver(ctx, store, f)
}

// httpError says in our own words what a server's answer means. The server's
// words are kept out: they are a page of HTML at best.
func httpError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	// go-git's wrapper hides what it wraps from errors.Is and errors.As.
	var hidden *plumbing.UnexpectedError
	if errors.As(err, &hidden) {
		err = hidden.Err
	}
	if refused := certificateError(err); refused != nil {
		return refused
	}
	var timeout net.Error
	switch {
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		return ErrAuthentication
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return ErrNoRepository
	case errors.Is(err, ErrLimit), errors.Is(err, ErrStalled), errors.Is(err, ErrRedirect), errors.Is(err, ErrAddress):
		return &remoteError{err}
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %w", ErrStalled, &remoteError{err})
	}
	return &remoteError{err}
}

// A boundedTransport bounds what a server may answer, and how long it may
// stay silent while it does.
type boundedTransport struct {
	next   http.RoundTripper
	limits Limits
}

func (t *boundedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		// go-git makes the whole body part of its error.
		res.Body.Close()
		res.Body = io.NopCloser(bytes.NewReader(nil))
		return res, nil
	}
	limit := t.limits.FetchBytes
	if req.Method == http.MethodGet {
		limit = min(limit, maxAdvertisement)
	}
	res.Body = newBoundedBody(res.Body, limit, t.limits.Stall)
	return res, nil
}

// A boundedBody ends with [ErrLimit] after so many bytes and with
// [ErrStalled] after so long without one.
type boundedBody struct {
	body  io.ReadCloser
	left  int64
	stall time.Duration
	timer *time.Timer
	late  chan struct{}
}

func newBoundedBody(body io.ReadCloser, limit int64, stall time.Duration) *boundedBody {
	b := &boundedBody{body: body, left: limit, stall: stall, late: make(chan struct{})}
	b.timer = time.AfterFunc(stall, func() {
		close(b.late)
		body.Close() // ends the Read that waits
	})
	return b
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if b.stalled() {
		return n, fmt.Errorf("%w for %v", ErrStalled, b.stall)
	}
	if b.timer.Stop() { // not, once it has fired: it fires only once
		b.timer.Reset(b.stall)
	}
	if b.left -= int64(n); b.left < 0 {
		return n, fmt.Errorf("%w: more bytes than a fetch may bring", ErrLimit)
	}
	return n, err
}

// stalled reports whether the server has been silent for too long.
func (b *boundedBody) stalled() bool {
	select {
	case <-b.late:
		return true
	default:
		return false
	}
}

func (b *boundedBody) Close() error {
	b.timer.Stop()
	return b.body.Close()
}
