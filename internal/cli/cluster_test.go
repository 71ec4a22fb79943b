//go:build linux

package cli

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/publication"
)

// apiServer returns a cluster whose API server answers every call alike.
func apiServer(t *testing.T, answer string) *cluster {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
	t.Cleanup(srv.Close)
	base, err := url.Parse(srv.URL)
	check(t, err)
	return &cluster{client: srv.Client(), base: base}
}

// Safe is not sent a token that is good for more than the call.
func TestATokenThatWasNotAskedForIsNotSent(t *testing.T) {
	const audience, me = publication.AudiencePrefix + "ab", "system:serviceaccount:vsecm-system:vsecm-viewer"
	jwt := func(claims string) string {
		return "eyJhbGciOiJSUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2lnbmF0dXJl"
	}
	for name, tt := range map[string]struct {
		token string
		ok    bool
	}{
		"as it was asked for":       {jwt(`{"aud":["` + audience + `"],"sub":"` + me + `"}`), true},
		"one audience as a string":  {jwt(`{"aud":"` + audience + `","sub":"` + me + `"}`), true},
		"for the API server":        {jwt(`{"aud":["https://kubernetes.default.svc"],"sub":"` + me + `"}`), false},
		"for the API server too":    {jwt(`{"aud":["` + audience + `","https://kubernetes.default.svc"],"sub":"` + me + `"}`), false},
		"for nobody in particular":  {jwt(`{"sub":"` + me + `"}`), false},
		"another account's":         {jwt(`{"aud":["` + audience + `"],"sub":"system:serviceaccount:vsecm-system:vsecm-admin"}`), false},
		"one that is not a token":   {"secret", false},
		"a token without a subject": {jwt(`{"aud":["` + audience + `"]}`), false},
	} {
		t.Run(name, func(t *testing.T) {
			c := apiServer(t, fmt.Sprintf(`{"status":{"token":%q}}`, tt.token))
			got, err := tokenSource{cluster: c, namespace: "vsecm-system", account: "vsecm-viewer"}.get(t.Context(), "ab")
			if tt.ok != (err == nil) || tt.ok != (got == tt.token) {
				t.Errorf("got %q, %v", got, err)
			}
			if err != nil && (strings.Contains(err.Error(), tt.token) || !strings.Contains(err.Error(), "vsecm-system/vsecm-viewer")) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestPodsThatDoNotRunAreNamed(t *testing.T) {
	pod := func(name, phase, deleted string) string {
		return fmt.Sprintf(`{"metadata":{"name":%q,"deletionTimestamp":%q},"status":{"phase":%q}}`, name, deleted, phase)
	}
	c := apiServer(t, `{"items":[`+strings.Join([]string{
		pod("a", "Running", ""), pod("b", "Pending", ""), pod("c", "Running", "2026-01-02T03:04:05Z"),
		pod("d", "Failed", ""), pod("e", "Succeeded", "2026-01-02T03:04:05Z"), pod("f", "Running", ""),
	}, ",")+`]}`)
	names, others, err := c.safePods(t.Context(), "vsecm-system")
	if err != nil || !slices.Equal(names, []string{"a", "f"}) {
		t.Errorf("got %q, %v", names, err)
	}
	var told strings.Builder
	new(safeFlag).tellMissed(&told, &safes{idle: others}, nil)
	if want := "note: pod b was not asked: it does not run yet (Pending)\nnote: pod c was not asked: it is being deleted\n"; told.String() != want {
		t.Errorf("told %q", told.String())
	}
	_, _, err = apiServer(t, `{"items":[`+pod("b", "Pending", "")+`]}`).safePods(t.Context(), "vsecm-system")
	if hints := hintsOf(err); err == nil || !strings.Contains(err.Error(), "b: it does not run yet") || !slices.Equal(hints, []string{"kubectl describe pod -n vsecm-system b"}) {
		t.Errorf("got %v, %q", err, hints)
	}
}

func TestOneSpoiltEntryKeepsNobodyFromTheOthers(t *testing.T) {
	c := apiServer(t, `{"data":{"recipient":"age1x","replica.a":"scribble","replica.b":"{\"certificateSHA256\":\"ab\"}"}}`)
	p, err := c.publication(t.Context(), "vsecm-system")
	if err != nil || p.Recipient != "age1x" || len(p.Replicas) != 1 || p.Replicas["b"].CertificateSHA256 != "ab" {
		t.Errorf("got %+v, %v", p, err)
	}
}
