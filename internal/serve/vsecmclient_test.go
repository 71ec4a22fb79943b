package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	spiffeapi "github.com/spiffe/go-spiffe/v2/workloadapi"
)

// A vsecmClient does what VMware Secrets Manager's Go SDK and its sidecar do (0.28.1), in
// the order in which they do it. Where that stands:
//
//   - github.com/vmware-tanzu/secrets-manager sdk/sentry/fetch.go, and since the SDK has a repository of
//     its own github.com/spiffe/vsecm-sdk-go sentry/fetch.go: a new X509Source for each fetch, a
//     connection for one request, HTTP/1.1, no look at any status but 404;
//   - sdk/core/validation/validation.go (IsWorkload, IsSafe), sdk/core/env/spiffeid.go and
//     sdk/core/constants/env/env.go: which IDs it trusts;
//   - sdk/core/entity/v1/reqres/safe/safe.go (SecretFetchResponse): what it decodes;
//   - sdk/sentry/privates.go (fetchSecrets, saveData), which app/sidecar/cmd/main.go runs by sentry.Watch: what
//     the sidecar makes of it; sdk/startup/state.go: what the init container waits for.
//
// What Safe has to answer stands in github.com/vmware/secrets-manager app/safe/internal/server/route/fetch/fetch.go
// and …/route/base/handle/response.go.
type vsecmClient struct {
	// Variables of its environment.
	socket         string // SPIFFE_ENDPOINT_SOCKET
	trustDomain    string // SPIFFE_TRUST_DOMAIN
	safeURL        string // VSECM_SAFE_ENDPOINT_URL
	prefixWorkload string // VSECM_SPIFFEID_PREFIX_WORKLOAD
	prefixSafe     string // VSECM_SPIFFEID_PREFIX_SAFE
	nameRegexp     string // VSECM_WORKLOAD_NAME_REGEXP
	secretsPath    string // VSECM_SIDECAR_SECRETS_PATH
}

// A vsecmAnswer is what its programs get.
type vsecmAnswer struct {
	Data    string `json:"data"`
	Created string `json:"created"`
	Updated string `json:"updated"`
	Err     string `json:"err,omitempty"`
}

var errVSecMNotFound = errors.New("secret does not exist")

// vsecmClient returns a client of a workload's, configured as VSecM's users configure theirs where the
// trust domain is not VSecM's own.
func (s *safe) vsecmClient(id string) *vsecmClient {
	s.t.Helper()
	dir := must(os.MkdirTemp("", "vsecm"))(s.t)
	s.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := must(s.ca.Listen(filepath.Join(dir, "spiffe"), spiffeid.RequireFromString(id), time.Hour))(s.t)
	s.t.Cleanup(socket.Close)
	return &vsecmClient{
		socket: socket.Addr(), trustDomain: "example.org", safeURL: s.url + "/",
		prefixWorkload: "^spiffe://example.org/workload/[^/]+/ns/[^/]+/sa/[^/]+/n/[^/]+$",
		prefixSafe:     "^spiffe://example.org/workload/vsecm-safe/ns/vsecm-system/sa/vsecm-safe/n/[^/]+$",
		nameRegexp:     "^spiffe://example.org/workload/([^/]+)/ns/[^/]+/sa/[^/]+/n/[^/]+$",
		secretsPath:    filepath.Join(dir, "secrets.json"),
	}
}

func (v *vsecmClient) isWorkload(id string) bool {
	if strings.HasPrefix(v.prefixWorkload, "^spiffe://"+v.trustDomain+"/") {
		return regexp.MustCompile(v.nameRegexp).MatchString(id) && regexp.MustCompile(v.prefixWorkload).MatchString(id)
	}
	return strings.HasPrefix(id, "spiffe://"+v.trustDomain+"/") && regexp.MustCompile(v.nameRegexp).MatchString(id) && strings.HasPrefix(id, v.prefixWorkload)
}

func (v *vsecmClient) isSafe(id string) bool {
	if !v.isWorkload(id) {
		return false
	}
	if strings.HasPrefix(v.prefixSafe, "^spiffe://"+v.trustDomain+"/") {
		return regexp.MustCompile(v.prefixSafe).MatchString(id)
	}
	return strings.HasPrefix(id, v.prefixSafe)
}

// fetch is sentry.Fetch.
func (v *vsecmClient) fetch(t testing.TB) (vsecmAnswer, error) {
	source, err := spiffeapi.NewX509Source(t.Context(), spiffeapi.WithClientOptions(spiffeapi.WithAddr(v.socket)))
	if err != nil {
		return vsecmAnswer{}, err
	}
	defer func() { check(t, source.Close()) }()
	svid, err := source.GetX509SVID()
	if err != nil {
		return vsecmAnswer{}, err
	}
	if !v.isWorkload(svid.ID.String()) {
		return vsecmAnswer{}, fmt.Errorf("fetch: untrusted workload: %s", svid.ID)
	}
	authorizer := tlsconfig.AdaptMatcher(func(id spiffeid.ID) error {
		if !v.isSafe(id.String()) {
			return fmt.Errorf("fetch: unknown Safe: %s", id)
		}
		return nil
	})
	at, err := url.JoinPath(v.safeURL, "/workload/v1/secrets")
	if err != nil {
		return vsecmAnswer{}, err
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   tlsconfig.MTLSClientConfig(source, source, authorizer),
	}}
	resp, err := client.Get(at)
	if err != nil {
		return vsecmAnswer{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return vsecmAnswer{}, errVSecMNotFound
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return vsecmAnswer{}, err
	}
	var a vsecmAnswer
	if err := json.Unmarshal(body, &a); err != nil {
		return vsecmAnswer{}, fmt.Errorf("unable to deserialize response: %w", err)
	}
	return a, nil
}

// sidecar is one round of sentry.Watch. It returns what then stands in the file.
func (v *vsecmClient) sidecar(t testing.TB) string {
	t.Helper()
	a, err := v.fetch(t)
	switch {
	case errors.Is(err, errVSecMNotFound):
		check(t, os.WriteFile(v.secretsPath, nil, 0o600))
	case a.Data != "":
		check(t, os.WriteFile(v.secretsPath, []byte(a.Data), 0o600))
	}
	text, err := os.ReadFile(v.secretsPath)
	if !errors.Is(err, os.ErrNotExist) {
		check(t, err)
	}
	return string(text)
}
