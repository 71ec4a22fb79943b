package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

var (
	// ErrSealed: Vault is sealed or not initialised.
	ErrSealed = errors.New("this Vault is sealed: it answers when somebody has unsealed it")
	// ErrDenied: the token is not valid, or has no right to what was asked for.
	ErrDenied = errors.New("permission denied by Vault")
	// ErrNotFound: there is nothing of that path.
	ErrNotFound = errors.New("no such path in Vault")
	// ErrRedirect: another server is to be asked, which is not done.
	ErrRedirect = errors.New("a redirect from Vault to another server")
	// ErrUnreachable: no answer came, or none that is Vault's.
	ErrUnreachable = errors.New("no answer from Vault")
)

const (
	// timeout bounds one attempt of one call.
	timeout = 30 * time.Second
	// maxAnswer bounds an answer, in bytes: a folder of some 100,000 names. Vault itself takes no secret that is larger.
	maxAnswer = 32 << 20
	// retries is how often a call is made again of which nobody knows how it ended, or that was too many.
	retries = 3
	// longestWait is how long a server can have a call wait before it is made again.
	longestWait = 30 * time.Second
)

// A Client asks one Vault.
type Client struct {
	settings Settings
	http     *retryablehttp.Client
}

// New returns a client. It does not connect. Close it.
func New(s *Settings) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = s.TLS
	transport.MaxIdleConnsPerHost = atOnce
	again := retryablehttp.NewClient()
	again.HTTPClient = &http.Client{Transport: transport, Timeout: timeout, CheckRedirect: sameServer}
	again.RetryMax, again.RetryWaitMin, again.RetryWaitMax = retries, 200*time.Millisecond, 5*time.Second
	again.Backoff = func(least, most time.Duration, attempt int, response *http.Response) time.Duration {
		return min(retryablehttp.DefaultBackoff(least, most, attempt, response), longestWait)
	}
	again.Logger = nil // it would print addresses to standard error
	again.ErrorHandler = retryablehttp.PassthroughErrorHandler
	return &Client{settings: *s, http: again}
}

// Close closes its connections.
func (c *Client) Close() { c.http.HTTPClient.CloseIdleConnections() }

// sameServer follows no redirect to a server that was not named: the token would go there.
func sameServer(to *http.Request, via []*http.Request) error {
	from := via[0].URL
	if to.URL.Scheme != from.Scheme || to.URL.Host != from.Host || len(via) > 3 {
		return fmt.Errorf("%w, %s", ErrRedirect, (&url.URL{Scheme: to.URL.Scheme, Host: to.URL.Host}).String())
	}
	return nil
}

// String names the server.
func (c *Client) String() string { return c.settings.Address.Host }

// get makes one call. The answer is the caller's to wipe. The error is one of this package's; with [ErrNotFound] the answer may
// say more.
func (c *Client) get(ctx context.Context, list bool, path string) ([]byte, error) {
	address := c.settings.Address.JoinPath("v1").String() + "/" + path
	if list {
		address += "?list=true"
	}
	request, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %q is no path", ErrNotFound, path)
	}
	request.Header.Set("X-Vault-Token", c.settings.Token)
	request.Header.Set("X-Vault-Request", "true")
	if c.settings.Namespace != "" {
		request.Header.Set("X-Vault-Namespace", c.settings.Namespace)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		clear(answer)
		return nil, c.unreachable(ctx, err)
	case len(answer) > maxAnswer:
		clear(answer)
		return nil, fmt.Errorf("%w: the answer of %s is larger than %d bytes", ErrUnreachable, c, maxAnswer)
	}
	if response.StatusCode == http.StatusOK {
		return answer, nil
	}
	return c.refused(response.StatusCode, answer)
}

// refused words an answer that is not what was asked for.
func (c *Client) refused(code int, answer []byte) ([]byte, error) {
	var said struct{ Errors []string }
	_ = json.Unmarshal(answer, &said)
	text := strings.Join(strings.Fields(strings.Join(said.Errors, "; ")), " ")
	text = strings.ToValidUTF8(text[:min(len(text), 300)], "")
	switch {
	case code == http.StatusNotFound:
		return answer, ErrNotFound
	case code == http.StatusForbidden || code == http.StatusUnauthorized:
		return nil, ErrDenied
	case code == http.StatusServiceUnavailable && (strings.Contains(text, "sealed") || strings.Contains(text, "not initialized")):
		return nil, ErrSealed
	case text == "":
		text = http.StatusText(code)
	}
	return nil, fmt.Errorf("%w: %s answers %d, %s", ErrUnreachable, c, code, text)
}

func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, ErrRedirect) {
		var failed *url.Error
		if errors.As(err, &failed) {
			return failed.Err
		}
		return err
	}
	var failed *url.Error
	if errors.As(err, &failed) {
		err = failed.Err // without the path
	}
	return fmt.Errorf("%w: asking %s: %w", ErrUnreachable, c, err)
}
