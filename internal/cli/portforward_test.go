//go:build linux

package cli

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/streaming/pkg/httpstream"
	streamspdy "k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/vsecm/kubectl-vsecm/internal/publication"
)

// A node is the kubelet of the pods of a test: it forwards ports to what the test runs.
type node struct {
	name string
	port int

	mu   sync.Mutex
	pods map[string]string // by name; where port 8443 is
	want []string          // the ports that were asked for
}

// newNode starts a kubelet and tells the API server of it.
func newNode(t *testing.T, w *world, pods map[string]string) *node {
	t.Helper()
	n := &node{name: strings.ToLower(t.Name()), pods: pods}
	srv := httptest.NewUnstartedServer(n)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	n.port = srv.Listener.Addr().(*net.TCPAddr).Port
	w.kubectl(fmt.Sprintf(`{"apiVersion":"v1","kind":"Node","metadata":{"name":%q}}`, n.name), "create", "-f", "-")
	w.kubectl("", "patch", "node", n.name, "--subresource=status", "-p",
		fmt.Sprintf(`{"status":{"addresses":[{"type":"InternalIP","address":"127.0.0.1"}],"daemonEndpoints":{"kubeletEndpoint":{"Port":%d}}}}`, n.port))
	t.Cleanup(func() {
		w.kubectl("", "delete", "pods", "--all", "-n", "vsecm-system", "--force", "--wait=false")
		w.kubectl("", "delete", "node", n.name)
	})
	return n
}

// runs makes a pod of Safe that the node runs.
func (n *node) runs(w *world, name, phase string) {
	w.t.Helper()
	w.kubectl(fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"namespace":"vsecm-system","labels":{"app.kubernetes.io/name":"vsecm-safe"}},
"spec":{"nodeName":%q,"serviceAccountName":"vsecm-safe","automountServiceAccountToken":false,
"securityContext":{"runAsNonRoot":true,"seccompProfile":{"type":"RuntimeDefault"}},
"containers":[{"name":"safe","image":"safe","securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}}]}}`, name, n.name), "create", "-f", "-")
	w.kubectl("", "patch", "pod", name, "-n", "vsecm-system", "--subresource=status", "-p", fmt.Sprintf(`{"status":{"phase":%q}}`, phase))
}

// ServeHTTP is POST /portForward/NAMESPACE/POD, as a kubelet has it.
func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(parts) < 3 || parts[0] != "portForward" {
		http.NotFound(w, r)
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{forwardProtocol}); err != nil {
		return
	}
	streams := make(chan httpstream.Stream, 8)
	var mu sync.Mutex
	var opened []httpstream.Stream
	link := streamspdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		mu.Lock()
		opened = append(opened, s)
		mu.Unlock()
		streams <- s
		return nil
	})
	if link == nil {
		return
	}
	// The link stays until whoever opened it closes it, whatever becomes of what it forwards.
	var forwards sync.WaitGroup
	defer forwards.Wait()
	defer link.Close()
	defer func() { // or the link would wait for them to end
		mu.Lock()
		defer mu.Unlock()
		for _, s := range opened {
			_ = s.Reset()
		}
	}()
	var reasons httpstream.Stream
	for {
		select {
		case <-link.CloseChan():
			return
		case s := <-streams:
			if s.Headers().Get("streamType") == "error" {
				reasons = s
				continue
			}
			to := reasons
			forwards.Go(func() { n.forward(parts[2], s, to) })
		}
	}
}

func (n *node) forward(pod string, data, reasons httpstream.Stream) {
	n.mu.Lock()
	to := n.pods[pod]
	n.want = append(n.want, data.Headers().Get("port"))
	n.mu.Unlock()
	conn, err := net.Dial("tcp", to)
	if err != nil {
		fmt.Fprintf(reasons, "failed to connect to localhost:8443 inside namespace: %v", err)
		reasons.Close()
		return
	}
	defer conn.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(conn, data)
		conn.Close()
	}()
	_, _ = io.Copy(data, conn)
	data.Close()
	reasons.Close()
	<-done
}

// Without --safe, every pod of Safe that runs is reached through the API server.
func TestSafeIsReachedThroughAPortForwardToEachOfItsPods(t *testing.T) {
	key := newKey(t)
	cp := shared.Start(t)
	a, b := newRealSafe(t, cp, "safe-a", key), newRealSafe(t, cp, "safe-b", key)
	stranger := newImpostor(t, selfSigned(t), func(http.ResponseWriter, *http.Request) {})
	w := install(t, key, a, b)
	host := func(address string) string { return strings.TrimPrefix(address, "https://") }
	n := newNode(t, w, map[string]string{"safe-a": host(a.address), "safe-b": host(b.address), "safe-x": host(stranger.address), "safe-y": "127.0.0.1:1"})
	n.runs(w, "safe-a", "Running")
	n.runs(w, "safe-b", "Running")
	n.runs(w, "safe-pending", "Pending")
	n.runs(w, "safe-over", "Succeeded")
	n.runs(w, "safe-ending", "Running")
	w.kubectl("", "delete", "pod", "safe-ending", "-n", "vsecm-system", "--wait=false")
	operator := w.person("peggy", "vsecm-operators")

	for name, kubeconfig := range map[string]string{"WebSocket": operator, "SPDY alone": withoutWebSockets(t, operator)} {
		t.Run(name, func(t *testing.T) {
			w := &world{t, cp}
			code, stdout, stderr := w.vsecm(kubeconfig, string(key.Text()), "unseal")
			if code != exitOK || a.sealed() || b.sealed() || !strings.Contains(stdout, "safe-a: unsealed") || !strings.Contains(stdout, "safe-b: unsealed") || strings.Count(stdout, "\n") != 2 {
				t.Fatalf("unseal: exit code %d:\n%s%s", code, stdout, stderr)
			}
			if code, stdout, stderr = w.vsecm(kubeconfig, "", "status"); code != exitOK || strings.Count(stdout, " "+unsealed+"  ") != 2 {
				t.Errorf("status: exit code %d:\n%s%s", code, stdout, stderr)
			}
			if code, stdout, stderr = w.vsecm(kubeconfig, "", "seal"); code != exitOK || !a.sealed() || !b.sealed() {
				t.Errorf("seal: exit code %d:\n%s%s", code, stdout, stderr)
			}
		})
	}

	// What answers in a pod may be anything, or nothing.
	n.runs(w, "safe-x", "Running")
	n.runs(w, "safe-y", "Running")
	code, stdout, stderr := w.vsecm(operator, string(key.Text()), "unseal")
	if code != exitError || strings.Count(stdout, ": unsealed with") != 2 {
		t.Errorf("unseal: exit code %d:\n%s", code, stdout)
	}
	for _, want := range []string{"error: safe-x: this is none of the cluster's Safes", "error: reaching Safe at safe-y: ", "refused"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("not told %q: %s", want, stderr)
		}
	}
	if stranger.heard.Load() != 0 {
		t.Error("the stranger was sent a request")
	}
	for _, port := range n.want {
		if port != "8443" {
			t.Errorf("port %s was forwarded", port)
		}
	}
	for _, line := range strings.Split(string(key.Text()), "\n") {
		if len(line) == 64 && strings.Contains(w.auditLog(), line) {
			t.Error("the API server's audit log has the key")
		}
	}

	// Listing pods does not give the right to forward.
	w.kubectl("", "create", "role", "look", "-n", publication.DefaultNamespace, "--verb=list,get", "--resource=pods")
	w.kubectl("", "create", "rolebinding", "look", "-n", publication.DefaultNamespace, "--role=look", "--user=luke")
	code, _, stderr = w.vsecm(cp.UserKubeconfig(t, "luke"), "", "status")
	if code != exitError || !strings.Contains(stderr, "port-forward to pod vsecm-system/safe-a") || !strings.Contains(stderr, "ClusterRole vsecm-viewers") {
		t.Errorf("without the right: exit code %d: %s", code, stderr)
	}
}

// withoutWebSockets returns a kubeconfig that leads through a proxy which refuses them.
func withoutWebSockets(t *testing.T, kubeconfig string) string {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	check(t, err)
	secure, err := rest.TLSConfigFor(config)
	check(t, err)
	secure.NextProtos = []string{"http/1.1"}
	target, err := url.Parse(config.Host)
	check(t, err)
	transport := &http.Transport{TLSClientConfig: secure, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = transport
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	var refused atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			refused.Add(1)
			http.Error(w, "no WebSockets here", http.StatusBadRequest)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		srv.Close()
		if refused.Load() == 0 {
			t.Error("nobody tried a WebSocket")
		}
	})
	file := filepath.Join(t.TempDir(), "kubeconfig")
	check(t, clientcmd.WriteToFile(clientcmdapi.Config{
		CurrentContext: "proxy",
		Contexts:       map[string]*clientcmdapi.Context{"proxy": {Cluster: "proxy"}},
		Clusters:       map[string]*clientcmdapi.Cluster{"proxy": {Server: srv.URL}},
	}, file))
	return file
}
