package serve

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

func TestAWorkloadGetsItsSecretsAndNoOthers(t *testing.T) {
	s := newSafe(t)
	s.apply("shop", "db", map[string]string{"password": "p\x00\xff\n", "user": "u"})
	s.apply("shop", "shared", map[string]string{"token": "t"}, "api", "db")
	s.apply("shop", "api", map[string]string{"key": "not for db"})
	s.apply("bank", "db", map[string]string{"password": "another namespace"})
	for _, tt := range []struct {
		id   string
		want map[string]string
	}{
		{svc("shop", "db"), map[string]string{"db/password": "p\x00\xff\n", "db/user": "u", "shared/token": "t"}},
		{"spiffe://example.org/workload/db/ns/shop/sa/x/n/pod", map[string]string{"db/password": "p\x00\xff\n", "db/user": "u", "shared/token": "t"}},
		{svc("shop", "api"), map[string]string{"api/key": "not for db", "shared/token": "t"}},
		{svc("bank", "db"), map[string]string{"db/password": "another namespace"}},
		{svc("shop", "shared"), map[string]string{}},
		{svc("nowhere", "nobody"), map[string]string{}},
	} {
		t.Run(tt.id, func(t *testing.T) {
			c := s.client(tt.id)
			var r reply
			wait.Until(t, "the objects are served", func() bool {
				r = do(t, c, http.MethodGet, s.url+"/v1/secrets")
				return equal(r.values(t), tt.want)
			})
			if r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("ETag") == "" {
				t.Errorf("headers %v", r.Header)
			}
		})
	}
}

func TestConditionalRequests(t *testing.T) {
	s := newSafe(t)
	s.apply("shop", "db", map[string]string{"password": "one"})
	c := s.client(svc("shop", "db"))
	wait.Until(t, "the object is served", func() bool {
		return len(do(t, c, http.MethodGet, s.url+"/v1/secrets").values(t)) == 1
	})
	etag := do(t, c, http.MethodGet, s.url+"/v1/secrets").Header.Get("ETag")
	for _, tt := range []struct {
		name, header string
		want         int
	}{
		{"the same", etag, http.StatusNotModified},
		{"the same, weak", "W/" + etag, http.StatusNotModified},
		{"one of a list", `"x", ` + etag, http.StatusNotModified},
		{"anything", "*", http.StatusNotModified},
		{"another one", `"x"`, http.StatusOK},
		{"without quotes", strings.Trim(etag, `"`), http.StatusOK},
		{"nothing", "", http.StatusOK},
		{"commas", ",,,", http.StatusOK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				r := do(t, c, method, s.url+"/v1/secrets", "If-None-Match", tt.header)
				if r.StatusCode != tt.want || r.Header.Get("ETag") != etag {
					t.Errorf("%s: got %s with ETag %s", method, r.Status, r.Header.Get("ETag"))
				}
				if hasBody := len(r.body) > 0; hasBody != (method == http.MethodGet && tt.want == http.StatusOK) {
					t.Errorf("%s: got body %q", method, r.body)
				}
			}
		})
	}
	s.apply("shop", "db", map[string]string{"password": "two"})
	wait.Until(t, "the ETag changes with the value", func() bool {
		return do(t, c, http.MethodHead, s.url+"/v1/secrets", "If-None-Match", etag).StatusCode == http.StatusOK
	})
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	s := newSafe(t)
	for _, tt := range []struct {
		name, method, path string
		want               problem.Type
	}{
		{"an unknown path", "GET", "/v1/secret", problem.NotFound},
		{"the root", "GET", "/", problem.NotFound},
		{"a path below", "GET", "/v1/secrets/db", problem.NotFound},
		{"a trailing slash", "GET", "/v1/secrets/", problem.NotFound},
		{"two slashes", "GET", "//v1/secrets", problem.NotFound},
		{"dots", "GET", "/v1/x/../secrets", problem.NotFound},
		{"the operator's call", "POST", "/v1/sync", problem.NotFound},
		{"POST", "POST", "/v1/secrets", problem.MethodNotAllowed},
		{"DELETE", "DELETE", "/v1/recipient", problem.MethodNotAllowed},
		{"an odd method", "FROB", "/v1/secrets", problem.MethodNotAllowed},
		{"an unknown query", "GET", "/v1/secrets?namespace=bank", problem.BadRequest},
		{"an odd watch", "GET", "/v1/secrets?watch=yes", problem.BadRequest},
		{"watch twice", "GET", "/v1/secrets?watch=1&watch=0", problem.BadRequest},
		{"a broken query", "GET", "/v1/secrets?watch=%zz", problem.BadRequest},
	} {
		for protocol, option := range map[string]func(*http.Transport){"HTTP/1.1": http1, "HTTP/2.0": func(*http.Transport) {}} {
			t.Run(tt.name+" "+protocol, func(t *testing.T) {
				r := do(t, s.client(svc("shop", "db"), option), tt.method, s.url+tt.path)
				if r.Proto != protocol {
					t.Errorf("spoke %s", r.Proto)
				}
				r.is(t, tt.want)
			})
		}
	}
	t.Run("a body", func(t *testing.T) {
		req := must(http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/v1/secrets", strings.NewReader("{}")))(t)
		resp := must(s.client(svc("shop", "db")).Do(req))(t)
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("got %s", resp.Status)
		}
	})
	t.Run("huge headers", func(t *testing.T) {
		r, err := try(t.Context(), s.client(svc("shop", "db"), http1), http.MethodGet, s.url+"/v1/secrets", "X-Big", strings.Repeat("x", 1<<20))
		if err == nil && r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("got %s", r.Status)
		}
	})
}

func TestASealedCacheIsAnsweredAsSealed(t *testing.T) {
	s := newSafe(t)
	s.apply("shop", "db", map[string]string{"password": "one"})
	c := s.client(svc("shop", "db"))
	wait.Until(t, "the object is served", func() bool {
		return len(do(t, c, http.MethodGet, s.url+"/v1/secrets").values(t)) == 1
	})
	s.Cache.Seal()
	do(t, c, http.MethodGet, s.url+"/v1/secrets").is(t, problem.Sealed)
	etag := do(t, c, http.MethodHead, s.url+"/v1/secrets").Header.Get("ETag")
	do(t, c, http.MethodGet, s.url+"/v1/secrets?watch=1", "If-None-Match", etag).is(t, problem.Sealed)
}

// A cache that is being filled has a part of a workload's secrets, which must
// not be taken for all.
func TestNothingIsServedBeforeTheCacheIsFilled(t *testing.T) {
	s := startSafe(t, false)
	r := do(t, s.client(svc("shop", "db")), http.MethodGet, s.url+"/v1/secrets")
	r.is(t, problem.Unavailable)
	if r.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if got := s.probe(s.readiness); got != http.StatusServiceUnavailable {
		t.Errorf("readiness %d", got)
	}
	if got := s.probe(s.liveness); got != http.StatusOK {
		t.Errorf("liveness %d", got)
	}
}

func TestEncodeIsExactAndNeverGrows(t *testing.T) {
	odd := "a\"b\\c\x00\x1fé\u2028</script>\xff"
	list := []cache.Secret{
		{Name: odd, Version: odd, Updated: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), Data: map[string][]byte{odd: []byte(odd), "": nil}},
		{Name: strings.Repeat("\x00", 1000), Data: map[string][]byte{strings.Repeat("\x01", 1000): make([]byte, 1000)}},
		{},
	}
	for i := range 100 {
		list[2].Data = map[string][]byte{}
		for j := range i {
			list[2].Data[fmt.Sprint(j)] = make([]byte, j)
		}
		b := encode(list)
		if cap(b) != encodedSize(list) {
			t.Fatalf("the buffer grew from %d to %d bytes", encodedSize(list), cap(b))
		}
		var back struct {
			Secrets []cache.Secret
		}
		check(t, json.Unmarshal(b, &back))
		if len(back.Secrets) != 3 || string(back.Secrets[0].Data[strings.ToValidUTF8(odd, "\ufffd")]) != odd || len(back.Secrets[2].Data) != i {
			t.Fatalf("read back %+v", back)
		}
	}
	if got := string(encode(nil)); got != "{\"secrets\":[]}\n" {
		t.Errorf("nothing is %q", got)
	}
}
