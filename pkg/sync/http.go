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
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
)

// maxAdvertisement bounds the list of references that a server shows.
const maxAdvertisement = 16 << 20

// An httpSource speaks git's smart HTTP protocol with go-git's client. It has
// a client of its own: go-git's Remote and Repository take theirs from one
// table for the whole process, and so could not tell one source's CA from
// another's.
type httpSource struct {
	remote Remote
	ref    plumbing.ReferenceName
	limits Limits
	http   *http.Transport
	git    transport.Transport
}

func newHTTPSource(r Remote, ref plumbing.ReferenceName, limits Limits) (*httpSource, error) {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: limits.Stall}).DialContext,
		TLSHandshakeTimeout:   limits.Stall,
		ResponseHeaderTimeout: limits.Stall,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConns:          2,
		ForceAttemptHTTP2:     true,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if len(r.CA) > 0 {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(r.CA) {
			return nil, errors.New("CA holds no certificate in PEM")
		}
		t.TLSClientConfig.RootCAs = pool
	}
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
		return nil, fmt.Errorf("%w: %s (the repository is empty)", ErrNoBranch, s.remote.Branch)
	} else if err != nil {
		return nil, httpError(ctx, err)
	}
	tip, ok := refs.References[s.ref.String()]
	if !ok || tip.IsZero() {
		return nil, fmt.Errorf("%w: %s", ErrNoBranch, s.remote.Branch)
	}
	return &httpSession{source: s, up: up, refs: refs, hash: tip}, nil
}

type httpSession struct {
	source *httpSource
	up     transport.UploadPackSession
	refs   *packp.AdvRefs
	hash   plumbing.Hash
}

func (s *httpSession) tip() plumbing.Hash { return s.hash }

func (s *httpSession) close() { s.up.Close() }

// bring asks for the pack that leads from what is there to the branch's tip.
// The pack is spooled and read to its end before the first object is taken
// over, so a connection that is cut leaves nothing behind.
func (s *httpSession) bring(ctx context.Context, store *objectStore, have []plumbing.Hash) error {
	if slices.Contains(have, s.hash) {
		return nil // a rewind to what is there already
	}
	req := packp.NewUploadPackRequestFromCapabilities(s.refs.Capabilities)
	if s.refs.Capabilities.Supports(capability.NoProgress) {
		if err := req.Capabilities.Set(capability.NoProgress); err != nil {
			return err
		}
	}
	req.Wants = []plumbing.Hash{s.hash}
	req.Haves = have
	res, err := s.up.UploadPack(ctx, req)
	if errors.Is(err, transport.ErrEmptyUploadPackRequest) {
		return httpError(ctx, errors.New("connection was cut: empty answer"))
	} else if err != nil {
		return httpError(ctx, err)
	}
	defer res.Close()

	f, err := os.CreateTemp(store.tmp, "fetch-")
	if err != nil {
		return err
	}
	defer discard(f)
	if _, err := io.Copy(f, demux(req.Capabilities, res)); err != nil {
		var own *os.PathError
		if errors.As(err, &own) {
			return err
		}
		return httpError(ctx, fmt.Errorf("connection was cut: %w", err))
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return takeOver(ctx, store, f)
}

// takeOver reads a pack that was received whole and adds its objects. From
// here on nobody else is to blame for the time it takes: a pack that runs out
// of it would do so again.
func takeOver(ctx context.Context, store *objectStore, f *os.File) error {
	p, err := readPack(ctx, f, store.tmp, store.limits)
	if err == nil {
		err = store.addPack(ctx, p)
	}
	return overtime(err)
}

func demux(caps *capability.List, r io.Reader) io.Reader {
	switch {
	case caps.Supports(capability.Sideband64k):
		return sideband.NewDemuxer(sideband.Sideband64k, r)
	case caps.Supports(capability.Sideband):
		return sideband.NewDemuxer(sideband.Sideband, r)
	}
	return r
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
	var timeout net.Error
	switch {
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		return ErrAuthentication
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return ErrNoRepository
	case errors.Is(err, ErrLimit), errors.Is(err, ErrStalled), errors.Is(err, ErrRedirect):
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
	select {
	case <-b.late:
		return n, fmt.Errorf("%w for %v", ErrStalled, b.stall)
	default:
	}
	if b.timer.Stop() { // not, once it has fired: it fires only once
		b.timer.Reset(b.stall)
	}
	if b.left -= int64(n); b.left < 0 {
		return n, fmt.Errorf("%w: more bytes than a fetch may bring", ErrLimit)
	}
	return n, err
}

func (b *boundedBody) Close() error {
	b.timer.Stop()
	return b.body.Close()
}
