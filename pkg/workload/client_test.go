package workload

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/vsecm/kubectl-vsecm/internal/answer"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/workloadapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	safePath = "/workload/vsecm-safe/ns/vsecm-system/sa/vsecm-safe/n/safe-0"
	oneFile  = `{"secrets":[{"name":"db","version":"v1","updated":"2026-01-02T03:04:05Z","data":{"password":"czNjcjN0"}}]}`
)

var testDomain = spiffeid.RequireTrustDomainFromString("example.org")

// A world is a CA, a workload with a socket, and a server that says it is Safe.
type world struct {
	ca     *workloadapi.CA
	socket *workloadapi.Socket
	url    string
}

// shortDir returns a directory whose path is short enough for a Unix socket.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "workload")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func newCA(t testing.TB, td spiffeid.TrustDomain) *workloadapi.CA {
	t.Helper()
	ca, err := workloadapi.NewCA(td)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// newWorld starts a server with identity safeID, issued by issuer (nil: the
// workload's own CA).
func newWorld(t *testing.T, safeID string, issuer *workloadapi.CA, h http.HandlerFunc) *world {
	t.Helper()
	w := &world{ca: newCA(t, testDomain)}
	if issuer == nil {
		issuer = w.ca
	}
	svid, err := issuer.Issue(spiffeid.RequireFromString(safeID), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	bundles := x509bundle.NewSet(w.ca.Bundle())
	srv.TLS = tlsconfig.MTLSServerConfig(svid, bundles, tlsconfig.AuthorizeMemberOf(testDomain))
	srv.TLS.NextProtos = []string{"h2", "http/1.1"}
	// httptest gives its own certificate precedence over GetCertificate, for
	// clients that send no server name; none of ours does, by address.
	get := srv.TLS.GetCertificate
	cert, err := get(nil)
	if err != nil {
		t.Fatal(err)
	}
	srv.TLS.Certificates = append(srv.TLS.Certificates, *cert)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	w.url = srv.URL

	w.socket, err = w.ca.Listen(filepath.Join(shortDir(t), "s"), spiffeid.RequireFromString("spiffe://example.org/ns/shop/sa/db"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.socket.Close)
	return w
}

func (w *world) client(t *testing.T, opts ...Option) *Client {
	t.Helper()
	c, err := New(t.Context(), append([]Option{WithSocket(w.socket.Addr()), WithSafe(w.url)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func respond(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
}

func TestSecretsAreFetched(t *testing.T) {
	w := newWorld(t, "spiffe://example.org"+safePath, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/v1/secrets" || r.URL.RawQuery != "" || r.Proto != "HTTP/1.1" {
			t.Errorf("got %s %s by %s", r.Method, r.URL, r.Proto)
		}
		w.Header().Set("ETag", `"e1"`)
		_, _ = io.WriteString(w, oneFile)
	})
	s, err := w.client(t).Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Secrets) != 1 || s.Secrets[0].Name != "db" || string(s.Secrets[0].Data["password"]) != "s3cr3t" || s.ETag != `"e1"` {
		t.Errorf("got %+v", s)
	}
	s.Wipe()
	if strings.Contains(string(s.Secrets[0].Data["password"]), "s3cr3t") {
		t.Error("a wiped value is still there")
	}
}

func TestAServerThatIsNotSafeIsRefused(t *testing.T) {
	foreign := spiffeid.RequireTrustDomainFromString("evil.org")
	for _, tt := range []struct {
		name   string
		id     string
		issuer *workloadapi.CA
		safeID string
		want   error
	}{
		{"Safe by its usual ID", "spiffe://example.org" + safePath, nil, "", nil},
		{"Safe by an ID that was given", "spiffe://example.org/ns/x/sa/safe", nil, "spiffe://example.org/ns/x/sa/safe", nil},
		{"another workload", "spiffe://example.org/ns/shop/sa/db", nil, "", ErrWrongSafe},
		{"a workload that calls itself Safe in another namespace", "spiffe://example.org/workload/vsecm-safe/ns/shop/sa/vsecm-safe/n/p", nil, "", ErrWrongSafe},
		{"a longer path", "spiffe://example.org" + safePath + "/x", nil, "", ErrWrongSafe},
		{"the usual ID where another one was given", "spiffe://example.org" + safePath, nil, "spiffe://example.org/ns/x/sa/safe", ErrWrongSafe},
		{"Safe of another trust domain", "spiffe://evil.org" + safePath, newCA(t, foreign), "", ErrWrongSafe},
		{"the right ID from a CA that nobody trusts", "spiffe://example.org" + safePath, newCA(t, testDomain), "", ErrWrongSafe},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := false
			w := newWorld(t, tt.id, tt.issuer, func(w http.ResponseWriter, r *http.Request) {
				asked = true
				respond(oneFile)(w, r)
			})
			_, err := w.client(t, WithSafeID(tt.safeID)).Fetch(t.Context())
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if asked != (tt.want == nil) {
				t.Errorf("the request reached the server: %v", asked)
			}
		})
	}
}

func TestProblemsBecomeErrors(t *testing.T) {
	for typ, want := range map[problem.Type]error{
		problem.Sealed: ErrSealed, problem.Unauthorized: ErrUnauthorized, problem.Forbidden: ErrUnauthorized,
		problem.NotFound: ErrNotFound, problem.MethodNotAllowed: ErrNotFound, problem.BadRequest: ErrNotFound,
		problem.Unavailable: ErrUnavailable, problem.TooManyRequests: ErrUnavailable,
		problem.Internal: ErrUnavailable, problem.Timeout: ErrUnavailable,
		problem.WrongKey: ErrBadAnswer, "": ErrBadAnswer,
	} {
		t.Run(string(typ), func(t *testing.T) {
			w := newWorld(t, "spiffe://example.org"+safePath, nil, func(w http.ResponseWriter, _ *http.Request) {
				problem.Write(w, typ, "detail", "r7")
			})
			_, err := w.client(t).Fetch(t.Context())
			if !errors.Is(err, want) || !strings.Contains(err.Error(), "detail (request r7)") {
				t.Errorf("got %v, want %v", err, want)
			}
		})
	}
}

func TestBadAnswersAreRefused(t *testing.T) {
	value := base64.StdEncoding.EncodeToString([]byte("a-secret-value"))
	object := func(name, key string) string {
		return fmt.Sprintf(`{"secrets":[{"name":%q,"version":"v","updated":"2026-01-02T03:04:05Z","data":{%q:%q}}]}`, name, key, value)
	}
	for name, h := range map[string]http.HandlerFunc{
		"half a JSON":                     respond(oneFile[:len(oneFile)/2]),
		"nothing":                         respond(""),
		"null":                            respond("null"),
		"a list":                          respond("[]"),
		"no secrets":                      respond("{}"),
		"more after the end":              respond(oneFile + oneFile),
		"not base64":                      respond(strings.ReplaceAll(object("db", "k"), value, "a-secret-value!")),
		"a value of the wrong kind":       respond(strings.ReplaceAll(object("db", "k"), `"`+value+`"`, "42")),
		"two secrets of one name":         respond(strings.Replace(oneFile, "[{", `[{"name":"db"},{`, 1)),
		"two lists of secrets":            respond(strings.TrimSuffix(oneFile, "}") + `,"secrets":[]}`),
		"a key that is there twice":       respond(strings.Replace(oneFile, `"password":`, `"password":"AA==","pass\u0077ord":`, 1)),
		"an object with two names":        respond(strings.Replace(oneFile, `"name":`, `"name":"api","name":`, 1)),
		"a name that climbs out":          respond(object("../../etc", "k")),
		"an absolute name":                respond(object("/etc/passwd", "k")),
		"a name that is the link's":       respond(object("..data", "k")),
		"an empty name":                   respond(object("", "k")),
		"a name with a NUL":               respond(object("a\x00b", "k")),
		"a key that climbs out":           respond(object("db", "../../etc/passwd")),
		"a key that is a dot":             respond(object("db", ".")),
		"an empty key":                    respond(object("db", "")),
		"cut off before the length given": cutOff,
		"a length beyond the bound":       func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "1073741824") },
		"a redirect":                      func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"an unasked 304":                  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) },
		"a page of somebody else's":       func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<h1>", http.StatusBadGateway) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "spiffe://example.org"+safePath, nil, h)
			s, err := w.client(t).Fetch(t.Context())
			if s != nil || !errors.Is(err, ErrBadAnswer) {
				t.Errorf("got %v, %v", s, err)
			}
			if err != nil && (strings.Contains(err.Error(), "a-secret-value") || strings.Contains(err.Error(), value)) {
				t.Errorf("the error holds the value: %v", err)
			}
		})
	}
}

func cutOff(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	_, _ = io.WriteString(w, oneFile)
	if err := http.NewResponseController(w).Flush(); err != nil {
		panic(err)
	}
	panic(http.ErrAbortHandler)
}

// Of a gigabyte that never ends, little more than the bound is taken.
func TestAnAnswerOfAGigabyteIsBounded(t *testing.T) {
	sent := make(chan int64, 1)
	w := newWorld(t, "spiffe://example.org"+safePath, nil, func(w http.ResponseWriter, _ *http.Request) {
		chunk := []byte(strings.Repeat(" ", 1<<20))
		var n int64
		for n < 1<<30 {
			m, err := w.Write(chunk)
			n += int64(m)
			if err != nil {
				break
			}
		}
		sent <- n
	})
	_, err := w.client(t).Fetch(t.Context())
	if !errors.Is(err, ErrBadAnswer) {
		t.Errorf("got %v", err)
	}
	// What is in flight when the client stops is some megabytes.
	if n := <-sent; n > MaxAnswer+(32<<20) {
		t.Errorf("%d bytes were taken", n)
	}
}

func TestASafeThatHangsIsLeft(t *testing.T) {
	arrived := make(chan struct{})
	w := newWorld(t, "spiffe://example.org"+safePath, nil, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	c := w.client(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := c.Fetch(ctx); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A server that sees a call end may answer it before the connection is gone.
func TestWhatAnswersACallThatWasEndedIsNoAnswer(t *testing.T) {
	w := newWorld(t, "spiffe://example.org"+safePath, nil, func(http.ResponseWriter, *http.Request) {})
	ctx, cancel := context.WithCancel(t.Context())
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: cancel})
	if _, err := w.client(t).Fetch(ctx); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestASafeThatIsNotThere(t *testing.T) {
	w := newWorld(t, "spiffe://example.org"+safePath, nil, respond(oneFile))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.url = "https://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client(t).Fetch(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// An address that nobody listens on; a workload that is not registered. The
// error tells which.
func TestWithoutAnIdentityThereIsNothing(t *testing.T) {
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "")
	revoked := newWorld(t, "spiffe://example.org"+safePath, nil, respond(oneFile))
	revoked.socket.Revoke()
	for _, tt := range []struct{ name, socket, text string }{
		{"no Workload API", "unix://" + filepath.Join(shortDir(t), "s"), "no such file"},
		{"not registered", revoked.socket.Addr(), "no identity issued"},
		{"not an address", "/run/spire.sock", "scheme"},
		{"no address", "", "$SPIFFE_ENDPOINT_SOCKET is not set"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// The client retries for as long as it may; a second is enough
			// for its first try, and all tries fail alike.
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := New(ctx, WithSocket(tt.socket))
			if !errors.Is(err, ErrNoIdentity) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Option{
		WithSafe("http://safe:8443"), WithSafe("https://"), WithSafe("safe:8443"), WithSafe("https://user@safe"), WithSafe("https://safe/v2"),
		WithSafe("https://safe?x=y"), WithSafeID("vsecm-safe"), WithSafeID("https://example.org/safe"), WithSafeID("spiffe://example.org/a//b"),
	} {
		if _, err := New(t.Context(), o); err == nil || errors.Is(err, ErrNoIdentity) {
			t.Errorf("got %v", err)
		}
	}
}

// Safe and its clients agree on how large an answer may be.
func TestTheBoundIsSafes(t *testing.T) {
	if MaxAnswer != answer.MaxSize {
		t.Errorf("%d is refused beyond, %d is sent", MaxAnswer, answer.MaxSize)
	}
}

// What Kubernetes says of names is what is said here.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"", "a", "a.b", "a..b", "-a", "a-", "a.-b", "A", "a_b", "..data", ".", "..", "...", ".a", "a/b", "ä", "a\x00", strings.Repeat("a", 253), strings.Repeat("a", 254)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := isObjectName(s), len(validation.IsDNS1123Subdomain(s)) == 0; got != want {
			t.Errorf("%q is the name of an object: %v, want %v", s, got, want)
		}
		if got, want := isKey(s), len(validation.IsConfigMapKey(s)) == 0; got != want {
			t.Errorf("%q is a key: %v, want %v", s, got, want)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(oneFile))
	f.Add([]byte(`{"secrets":[]}`))
	f.Add([]byte(`{"secrets":[{"name":"../x","data":{"..":""}}]}`))
	f.Add([]byte(`{"secrets":[{"name":"a","data":{"k":"AA==","\u006b":"AQ=="}}]}`))
	f.Add([]byte(`{"secrets":[{"name":"a","data":{"a/b":"AA=="}}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := parse(body)
		if err != nil {
			if !errors.Is(err, ErrBadAnswer) {
				t.Fatal(err)
			}
			return
		}
		names := map[string]bool{}
		for _, secret := range s.Secrets {
			if names[secret.Name] {
				t.Fatalf("%q is there twice", secret.Name)
			}
			names[secret.Name] = true
			for key := range secret.Data {
				if p := filepath.Join(secret.Name, key); !filepath.IsLocal(p) || strings.Count(p, "/") != 1 || strings.HasPrefix(p, ".") || strings.ContainsRune(p, 0) {
					t.Fatalf("%q would be written", p)
				}
			}
		}
	})
}

// Three bytes of JSON would become a hundred times as many in memory.
func TestAnAnswerOfEmptySecretsIsBounded(t *testing.T) {
	members := strings.Repeat("{},", 1<<20) + "{}"
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := parse([]byte(`{"secrets":[` + members + `]}`))
	_, inspectErr := parseInspection([]byte(`{"spiffeID":"x","objects":[` + members + `]}`))
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrBadAnswer) || !errors.Is(inspectErr, ErrBadAnswer) {
		t.Errorf("got %v and %v", err, inspectErr)
	}
	if made := (after.TotalAlloc - before.TotalAlloc) >> 20; made > 32 {
		t.Errorf("%d MiB", made)
	}
}

func TestErrorsQuoteTheBeginningOfNames(t *testing.T) {
	long := strings.Repeat("A", 1<<20)
	for _, body := range []string{
		`{"secrets":[{"name":"` + long + `"}]}`,
		`{"secrets":[{"name":"a","data":{"` + long + `!":""}}]}`,
		`{"secrets":[{"name":"a","x":{"` + long + `":1,"` + long + `":2}}]}`,
	} {
		if _, err := parse([]byte(body)); !errors.Is(err, ErrBadAnswer) || len(err.Error()) > 1000 {
			t.Errorf("%.40s: %.200v", body, err)
		}
	}
	if _, err := parseInspection([]byte(`{"spiffeID":"x","objects":[{"name":"` + long + `"}]}`)); !errors.Is(err, ErrBadAnswer) || len(err.Error()) > 1000 {
		t.Errorf("%.200v", err)
	}
}
