package gitserver

import (
	"crypto/subtle"
	"crypto/tls"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Options say what a [Server] demands.
type Options struct {
	// TLS makes the server speak https, with a certificate of its own CA.
	TLS bool
	// Expired makes it a certificate of a CA that was valid until yesterday.
	Expired bool
	// Username and Password, if any, are demanded as basic authentication.
	Username, Password string
	// BearerToken, if any, is demanded.
	BearerToken string
	// Wrap, if any, stands between the client and git.
	Wrap func(git http.Handler) http.Handler
}

// A Server serves repositories with git's own http-backend.
type Server struct {
	URL  string
	Root string
	CA   []byte // PEM, with TLS

	t testing.TB
}

// New starts a server, which ends with the test.
func New(t testing.TB, o Options) *Server {
	t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	var handler http.Handler = &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
		Dir:  root,
		Env:  append([]string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"}, environment...),
	}
	handler = o.authenticate(handler)
	if o.Wrap != nil {
		handler = o.Wrap(handler)
	}
	s := &Server{Root: root, t: t}
	var server *httptest.Server
	if o.TLS && o.Expired {
		server = httptest.NewUnstartedServer(handler)
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		var certificate tls.Certificate
		s.CA, certificate = expired(t)
		server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
		server.StartTLS()
	} else if o.TLS {
		server = httptest.NewUnstartedServer(handler)
		// A client that does not trust the server is not the server's fault.
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		server.StartTLS()
		s.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	} else {
		server = httptest.NewServer(handler)
	}
	s.URL = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return s
}

func (o Options) authenticate(next http.Handler) http.Handler {
	equal := func(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		ok := true
		if o.Username != "" {
			ok = equal(user, o.Username) && equal(password, o.Password)
		} else if o.BearerToken != "" {
			ok = equal(r.Header.Get("Authorization"), "Bearer "+o.BearerToken)
		}
		if !ok {
			http.Error(w, "<html>who are you?</html>", http.StatusUnauthorized)
			return
		}
		r.Header.Del("Authorization")
		next.ServeHTTP(w, r)
	})
}

// Repo makes a repository on the server; its address is URL/NAME.
func (s *Server) Repo(name string) *Repo {
	s.t.Helper()
	return newRepo(s.t, filepath.Join(s.Root, name))
}
