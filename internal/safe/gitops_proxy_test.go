package safe_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// An apiProxy stands between one Safe and the API server: it counts what is asked for, and can answer
// itself. Everybody else reaches the API server as before.
type apiProxy struct {
	server *httptest.Server
	onward http.Handler

	mu     sync.Mutex
	answer func(http.ResponseWriter, *http.Request) // nil: the API server's
	counts map[string]int                           // by verb and resource
	late   chan struct{}                            // while objects change unseen; closed to let them be seen
}

// proxy starts one, which ends with the test.
func (g *gitops) proxy() *apiProxy {
	g.t.Helper()
	config := g.cp.Config()
	config.CertData, config.KeyData = nil, nil // whoever comes brings a token
	tls, err := rest.TLSConfigFor(config)
	if err != nil {
		g.t.Fatal(err)
	}
	to, err := url.Parse(config.Host)
	if err != nil {
		g.t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: tls, ForceAttemptHTTP2: true}
	quiet := log.New(io.Discard, "", 0)
	p := &apiProxy{counts: make(map[string]int)}
	p.onward = &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport:      transport,
		FlushInterval:  -1, // a watch
		ModifyResponse: p.holdBack,
		ErrorLog:       quiet,
	}
	p.server = httptest.NewUnstartedServer(p)
	p.server.EnableHTTP2 = true
	p.server.Config.ErrorLog = quiet
	p.server.StartTLS()
	g.t.Cleanup(func() {
		p.answers(nil)
		p.server.CloseClientConnections()
		p.server.Close()
		transport.CloseIdleConnections()
	})
	return p
}

// launchBehind starts a replica that reaches the API server through p.
func (g *gitops) launchBehind(p *apiProxy, name string) *replica {
	g.t.Helper()
	config, err := clientcmd.LoadFromFile(g.cp.ServiceAccountKubeconfig(g.t, "vsecm-system", "vsecm-safe"))
	if err != nil {
		g.t.Fatal(err)
	}
	for _, c := range config.Clusters {
		c.Server = p.server.URL
		c.CertificateAuthorityData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.server.Certificate().Raw})
	}
	file := filepath.Join(g.t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		g.t.Fatal(err)
	}
	return g.launchAs(name, file)
}

// ServeHTTP implements [http.Handler].
func (p *apiProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.counts[what(r)]++
	answer := p.answer
	p.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	p.onward.ServeHTTP(w, r)
}

// what says what is asked for, as RBAC does: VERB RESOURCE, or VERB RESOURCE/SUBRESOURCE.
func what(r *http.Request) string {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if parts[0] == "api" {
		parts = parts[min(2, len(parts)):]
	} else {
		parts = parts[min(3, len(parts)):]
	}
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	verb := strings.ToLower(r.Method)
	switch {
	case len(parts) == 0:
		return verb + " " + r.URL.Path
	case verb == "get" && r.URL.Query().Get("watch") != "":
		verb = "watch"
	case verb == "get" && len(parts) == 1:
		verb = "list"
	}
	if len(parts) > 2 {
		return verb + " " + parts[0] + "/" + parts[2]
	}
	return verb + " " + parts[0]
}

// asked returns how often each was asked for.
func (p *apiProxy) asked() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts)
}

// answers has f answer from now on, or, where it is nil, the API server. What was under way is cut off, or a
// watch would go on.
func (p *apiProxy) answers(f func(http.ResponseWriter, *http.Request)) {
	p.set(f)
	p.server.CloseClientConnections()
}

// set is answers without cutting anything off.
func (p *apiProxy) set(f func(http.ResponseWriter, *http.Request)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = f
}

// hidesChanges keeps from Safe what the watch of EncryptedSecrets tells, until it is called again.
func (p *apiProxy) hidesChanges(hide bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if hide {
		p.late = make(chan struct{})
	} else {
		close(p.late)
		p.late = nil
	}
}

func (p *apiProxy) holdBack(r *http.Response) error {
	if what(r.Request) == "watch encryptedsecrets" {
		r.Body = &heldBack{r.Body, p, r.Request.Context()}
	}
	return nil
}

// A heldBack is the body of a watch.
type heldBack struct {
	io.ReadCloser
	p   *apiProxy
	ctx context.Context
}

func (b *heldBack) Read(to []byte) (int, error) {
	n, err := b.ReadCloser.Read(to)
	b.p.mu.Lock()
	late := b.p.late
	b.p.mu.Unlock()
	if late != nil {
		select {
		case <-late:
		case <-b.ctx.Done():
		}
	}
	return n, err
}

// A held is a request that is kept on its way.
type held struct {
	came    chan struct{} // closed when it is there
	release chan struct{} // closed to let it go on
	code    chan int      // what the API server answered
}

// holds keeps the first request back that is asked for at a path that ends so, and has the replica lose the Lease
// from then on. Its sender may give it up meanwhile: it goes on all the same.
func (p *apiProxy) holds(asked, path string) *held {
	h := &held{came: make(chan struct{}), release: make(chan struct{}), code: make(chan int, 1)}
	var once sync.Once
	p.set(func(w http.ResponseWriter, r *http.Request) {
		first := false
		if what(r) == asked && strings.HasSuffix(r.URL.Path, path) {
			once.Do(func() { first = true })
		}
		lost := false
		select {
		case <-h.came:
			lost = true
		default:
		}
		switch {
		case first:
			h.pass(w, r, p.onward)
		case lost && strings.HasSuffix(what(r), " leases"):
			http.Error(w, "out of reach", http.StatusServiceUnavailable)
		default:
			p.onward.ServeHTTP(w, r)
		}
	})
	return h
}

func (h *held) pass(w http.ResponseWriter, r *http.Request, onward http.Handler) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	close(h.came)
	<-h.release
	later := r.Clone(context.Background())
	later.Body = io.NopCloser(bytes.NewReader(body))
	answer := httptest.NewRecorder()
	onward.ServeHTTP(answer, later)
	h.code <- answer.Code
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()) // its sender may be gone
}
