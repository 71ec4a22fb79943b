package sync_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func TestCredentials(t *testing.T) {
	basic := gitserver.Options{TLS: true, Username: "bot", Password: "s3cret-password"}
	bearer := gitserver.Options{TLS: true, BearerToken: "s3cret-token"}
	tests := map[string]struct {
		server gitserver.Options
		remote sync.Remote
		noCA   bool
		want   error
	}{
		"basic":              {server: basic, remote: sync.Remote{Username: "bot", Password: "s3cret-password"}},
		"bearer":             {server: bearer, remote: sync.Remote{BearerToken: "s3cret-token"}},
		"basic over http":    {server: gitserver.Options{Username: "bot", Password: "s3cret-password"}, remote: sync.Remote{Username: "bot", Password: "s3cret-password"}},
		"wrong password":     {server: basic, remote: sync.Remote{Username: "bot", Password: "s3cret-passwort"}, want: sync.ErrAuthentication},
		"wrong token":        {server: bearer, remote: sync.Remote{BearerToken: "s3cret-t0ken"}, want: sync.ErrAuthentication},
		"no credentials":     {server: basic, want: sync.ErrAuthentication},
		"another repository": {server: gitserver.Options{}, remote: sync.Remote{URL: "/nobody.git"}, want: sync.ErrNoRepository},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := gitserver.New(t, test.server)
			want := server.Repo("r.git").Commit(map[string]string{"a.yaml": "1"})
			if test.remote.URL == "" {
				test.remote.URL = "/r.git"
			}
			test.remote.URL = server.URL + test.remote.URL
			test.remote.CA = server.CA
			m := open(t, t.TempDir(), test.remote, sync.Limits{})
			if test.want == nil {
				fetch(t, m, want)
				return
			}
			err := fails(t, m, test.want)
			if strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "html") {
				t.Errorf("error tells too much: %v", err)
			}
		})
	}
}

func TestUnknownCAIsRefused(t *testing.T) {
	server := gitserver.New(t, gitserver.Options{TLS: true})
	server.Repo("r.git").Commit(map[string]string{"a.yaml": "1"})
	m := open(t, t.TempDir(), sync.Remote{URL: server.URL + "/r.git"}, sync.Limits{})
	if _, err := m.Fetch(context.Background()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("fetch: %v", err)
	}
}

func TestRemotesThatAreRefused(t *testing.T) {
	for name, r := range map[string]sync.Remote{
		"no branch":                 {URL: "/srv/r.git"},
		"branch that climbs":        {URL: "/srv/r.git", Branch: "../../x"},
		"credentials in the URL":    {URL: "https://bot:s3cret@example.com/r.git", Branch: "main"},
		"credentials over http":     {URL: "http://example.com/r.git", Branch: "main", BearerToken: "s3cret"},
		"two kinds of credentials":  {URL: "https://example.com/r.git", Branch: "main", BearerToken: "s3cret", Username: "bot"},
		"ssh without a key":         {URL: "ssh://git@example.com/r.git", Branch: "main"},
		"tag and branch":            {URL: "/srv/r.git", Branch: "main", Tag: "v1"},
		"tag and commit":            {URL: "/srv/r.git", Commit: strings.Repeat("a", 40), Tag: "v1"},
		"tag that climbs":           {URL: "/srv/r.git", Tag: "../../x"},
		"half a commit":             {URL: "/srv/r.git", Branch: "main", Commit: "abcdef"},
		"identity over https":       {URL: "https://example.com/r.git", Branch: "main", Identity: []byte("s3cret")},
		"identity for local":        {URL: "/srv/r.git", Branch: "main", Identity: []byte("s3cret")},
		"ext":                       {URL: "ext::sh -c id", Branch: "main"},
		"relative path":             {URL: "r.git", Branch: "main"},
		"no PEM":                    {URL: "https://example.com/r.git", Branch: "main", CA: []byte("x")},
		"credentials for local":     {URL: "/srv/r.git", Branch: "main", Username: "s3cret"},
		"URL that cannot be parsed": {URL: "https://bot:s3cret@example.com:x/", Branch: "main"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := sync.OpenMirror(t.TempDir(), r, sync.Limits{})
			if err == nil {
				m.Close()
				t.Fatal("accepted")
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("error tells a secret: %v", err)
			}
		})
	}
}

func TestRedirects(t *testing.T) {
	var stolen atomic.Int32
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { stolen.Add(1) }))
	t.Cleanup(thief.Close)
	var target atomic.Value
	target.Store("")
	server := gitserver.New(t, gitserver.Options{Username: "bot", Password: "pw", Wrap: func(git http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if rest, ok := strings.CutPrefix(r.URL.Path, "/old.git"); ok {
				http.Redirect(w, r, target.Load().(string)+rest+"?"+r.URL.RawQuery, http.StatusMovedPermanently)
				return
			}
			git.ServeHTTP(w, r)
		})
	}})
	want := server.Repo("new.git").Commit(map[string]string{"a.yaml": "1"})
	remote := sync.Remote{URL: server.URL + "/old.git", Username: "bot", Password: "pw"}

	target.Store(strings.Replace(thief.URL, "127.0.0.1", "localhost", 1) + "/new.git")
	m := open(t, t.TempDir(), remote, sync.Limits{})
	fails(t, m, sync.ErrRedirect)
	if stolen.Load() != 0 {
		t.Error("the other host was asked")
	}
	target.Store("/new.git") // a repository that was renamed
	fetch(t, m, want)
}

// onPack wraps the server so that do answers requests for packs, while broken
// says so.
func onPack(broken *atomic.Bool, do func(w http.ResponseWriter, r *http.Request, git http.Handler)) func(http.Handler) http.Handler {
	return func(git http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if broken.Load() && strings.HasSuffix(r.URL.Path, "/git-upload-pack") {
				do(w, r, git)
				return
			}
			git.ServeHTTP(w, r)
		})
	}
}

func TestConnectionCutInThePack(t *testing.T) {
	for name, end := range map[string]func(){
		"connection breaks": func() { panic(http.ErrAbortHandler) },
		"answer just ends":  func() {},
	} {
		for _, part := range []float64{0, 0.01, 0.1, 0.5, 0.9, 0.999} {
			t.Run(fmt.Sprint(name, " at ", part), func(t *testing.T) {
				var broken atomic.Bool
				server := gitserver.New(t, gitserver.Options{Wrap: onPack(&broken, func(w http.ResponseWriter, r *http.Request, git http.Handler) {
					rec := httptest.NewRecorder()
					git.ServeHTTP(rec, r)
					w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
					w.Write(rec.Body.Bytes()[:int(part*float64(rec.Body.Len()))])
					w.(http.Flusher).Flush()
					end()
				})})
				repo := server.Repo("r.git")
				dir := t.TempDir()
				m := open(t, dir, sync.Remote{URL: server.URL + "/r.git"}, sync.Limits{})
				a := fetch(t, m, repo.Commit(map[string]string{"a.yaml": noise(t, 5000)}))
				b := repo.Commit(map[string]string{"b.yaml": noise(t, 50000)})

				broken.Store(true)
				if _, err := m.Fetch(context.Background()); err == nil {
					t.Fatal("half a pack was taken for a whole one")
				}
				if got := changes(t, m, "", a, ""); got != "+ a.yaml" {
					t.Errorf("meanwhile: %s", got)
				}
				if left, _ := os.ReadDir(filepath.Join(dir, "tmp")); len(left) > 0 {
					t.Errorf("files stay behind: %v", left)
				}
				broken.Store(false)
				fetch(t, m, b)
				if got := changes(t, m, a, sync.Revision(b), ""); got != "+ b.yaml" {
					t.Errorf("afterwards: %s", got)
				}
			})
		}
	}
}

func TestServerThatHangs(t *testing.T) {
	for name, first := range map[string]int{"from the start": -1, "in the middle": 3000} {
		t.Run(name, func(t *testing.T) {
			var broken atomic.Bool
			server := gitserver.New(t, gitserver.Options{Wrap: onPack(&broken, func(w http.ResponseWriter, r *http.Request, git http.Handler) {
				if first >= 0 {
					rec := httptest.NewRecorder()
					git.ServeHTTP(rec, r)
					w.Write(rec.Body.Bytes()[:first])
					w.(http.Flusher).Flush()
				} else {
					io.Copy(io.Discard, r.Body) // or the server would not notice that we left
				}
				<-r.Context().Done()
			})})
			repo := server.Repo("r.git")
			m := open(t, t.TempDir(), sync.Remote{URL: server.URL + "/r.git"}, sync.Limits{Stall: 200 * time.Millisecond})
			want := repo.Commit(map[string]string{"a.yaml": noise(t, 50000)})
			broken.Store(true)
			fails(t, m, sync.ErrStalled)

			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(20*time.Millisecond, cancel)
			if _, err := m.Fetch(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, sync.ErrStalled) {
				t.Errorf("cancelled: %v", err)
			}
			broken.Store(false)
			m.Close()
			m = open(t, t.TempDir(), sync.Remote{URL: server.URL + "/r.git"}, sync.Limits{})
			fetch(t, m, want)
		})
	}
}

func TestFetchOverTheLimitIsRefusedOnce(t *testing.T) {
	limits := sync.Limits{FetchBytes: 100_000}
	var packs atomic.Int32
	server := gitserver.New(t, gitserver.Options{Wrap: func(git http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				packs.Add(1)
			}
			git.ServeHTTP(w, r)
		})
	}})
	repo := server.Repo("r.git")
	for name, url := range map[string]string{"http": server.URL + "/r.git", "local": repo.Dir} {
		t.Run(name, func(t *testing.T) {
			m := open(t, t.TempDir(), sync.Remote{URL: url}, limits)
			good := repo.Commit(map[string]string{"a.yaml": "1"})
			fetch(t, m, good)
			repo.Commit(map[string]string{"big.bin": noise(t, 90_000), "bigger.bin": noise(t, 90_000)})
			packs.Store(0)
			fails(t, m, sync.ErrLimit)
			fails(t, m, sync.ErrLimit)
			if n := packs.Load(); n > 1 {
				t.Errorf("what is over the limit was fetched %d times", n)
			}
			repo.SetHead(good)
			fetch(t, m, repo.Commit(map[string]string{"a.yaml": "2"}))
		})
	}
}

// noise returns text that no compression makes much smaller.
func noise(t testing.TB, n int) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return string(bytes.ReplaceAll(b, []byte("\n"), []byte(" ")))
}
