package serve

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/operator"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
)

const clusterManifest = `
{apiVersion: v1, kind: Namespace, metadata: {name: NS}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: vsecm-safe, namespace: NS}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: vsecm-viewer, namespace: NS}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: vsecm-operator, namespace: NS}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{kind: ServiceAccount, name: vsecm-safe, namespace: NS}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: vsecm-viewer, namespace: NS}
rules: [{apiGroups: [vsecm.com], resources: [safes], resourceNames: [vsecm-safe], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: vsecm-viewer, namespace: NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: vsecm-viewer}
subjects: [{kind: ServiceAccount, name: vsecm-viewer, namespace: NS}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: vsecm-operator, namespace: NS}
rules: [{apiGroups: [vsecm.com], resources: [safes], resourceNames: [vsecm-safe], verbs: [get, unseal, seal, sync]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: vsecm-operator, namespace: NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: vsecm-operator}
subjects: [{kind: ServiceAccount, name: vsecm-operator, namespace: NS}]
`

// newInCluster starts a Safe whose operators a real API server judges, as the account that
// Safe has there. Nothing of SPIFFE is in it.
func newInCluster(t *testing.T, cp *controlplane.ControlPlane, namespace string, options ...safeOption) *safe {
	t.Helper()
	_, stderr, err := cp.Kubectl(t, cp.Kubeconfig(), strings.ReplaceAll(clusterManifest, "NS", namespace), "apply", "-f", "-")
	if err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	config := must(clientcmd.BuildConfigFromFlags("", cp.ServiceAccountKubeconfig(t, namespace, "vsecm-safe")))(t)
	config.QPS = -1
	client := must(kube.NewClient(config))(t)
	t.Cleanup(func() { utilnet.CloseIdleConnectionsFor(client.Core.(*rest.RESTClient).Client.Transport) })
	return newSafe(t, append([]safeOption{withCertificate, func(s *safe) {
		s.Source = nil
		s.Operators = operator.New(client, namespace)
	}}, options...)...)
}

func TestOperatorsOfARealCluster(t *testing.T) {
	cp := cluster.Start(t)
	s := newInCluster(t, cp, "operated")
	c := s.anyServer()
	ours := AudienceOf(s.shown())
	status, unseal := s.operatorCalls()["status"], s.operatorCalls()["unseal"]
	viewer, op := cp.Token(t, "operated", "vsecm-viewer", ours), cp.Token(t, "operated", "vsecm-operator", ours)

	if r := s.operate(c, status, bearer(viewer)...); r.StatusCode != http.StatusOK {
		t.Errorf("a viewer's status: %s %s", r.Status, r.body)
	}
	s.Cache.Seal()
	s.operate(c, unseal, bearer(viewer)...).is(t, problem.Forbidden)
	s.operate(c, unseal, bearer(cp.Token(t, "operated", "vsecm-operator"))...).is(t, problem.Unauthorized)
	s.operate(c, unseal, bearer(cp.Token(t, "operated", "vsecm-operator", "vsecm-safe/"+strings.Repeat("0", 64)))...).is(t, problem.Unauthorized)
	s.operate(c, unseal, bearer(op[:len(op)-8]+"AAAAAAAA")...).is(t, problem.Unauthorized)
	if !s.Cache.Sealed() {
		t.Error("it was unsealed")
	}
	if r := s.operate(c, unseal, bearer(op)...); r.StatusCode != http.StatusOK || s.Cache.Sealed() {
		t.Errorf("an operator's unseal: %s %s", r.Status, r.body)
	}

	lines := s.onRecord()
	// The API server's audit log says under the same id to whom the token was issued.
	if n := len(lines); n == 0 || !strings.HasPrefix(lines[n-1].Credential, "JTI=") {
		t.Fatalf("on record: %+v", lines)
	}
	if text := s.audit.String() + s.log.String(); strings.Contains(text, viewer) || strings.Contains(text, op) || leak(text, strings.Split(op, ".")[2]) != "" {
		t.Error("a token is in a log")
	}
	want := []string{string(problem.Forbidden), string(problem.Unauthorized), string(problem.Unauthorized), string(problem.Unauthorized), audit.Allowed, audit.OK}
	var got []string
	for _, e := range lines {
		if e.Verb == "unseal" {
			got = append(got, e.Outcome)
			if wantActor := e.Outcome != string(problem.Unauthorized); wantActor != strings.HasPrefix(e.Actor, "system:serviceaccount:operated:") {
				t.Errorf("on record: %+v", e)
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("on record: %v", got)
	}
}

func TestOperatorsAreRefusedWhileTheAPIServerIsAway(t *testing.T) {
	cp := controlplane.Start(t)
	s := newInCluster(t, cp, "away")
	s.withDB(theValue)
	token := cp.Token(t, "away", "vsecm-operator", AudienceOf(s.shown()))
	status := s.operatorCalls()["status"]
	if r := s.operate(s.anyServer(), status, bearer(token)...); r.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	cp.StopAPIServer(t)
	r := s.operate(s.anyServer(), status, bearer(token)...)
	r.is(t, problem.Unavailable)
	if strings.Contains(string(r.body), "127.0.0.1") {
		t.Errorf("whoever asks learns where the API server is: %s", r.body)
	}
	// On the socket, which needs nobody's judgement, Safe is operated still.
	if r := do(t, s.operatorClient(), http.MethodPost, "http://safe/v1/seal"); r.StatusCode != http.StatusOK {
		t.Errorf("on the socket: %s", r.Status)
	}
}

// TestAManInTheMiddleGetsATokenThatIsWorthNothing plays a false Safe, which an operator
// took for the real one: it is given a token, and tries everything with it at once on
// the real Safe, passing on what the operator sends.
func TestAManInTheMiddleGetsATokenThatIsWorthNothing(t *testing.T) {
	cp := cluster.Start(t)
	s := newInCluster(t, cp, "middle")
	s.Cache.Seal()

	real := must(url.Parse(s.url))(t)
	var stolen []string
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			stolen = append(stolen, r.In.Header.Get("Authorization"))
			r.SetURL(real)
		},
		Transport: s.anyServer().Transport,
	}
	falseSafe := httptest.NewUnstartedServer(proxy)
	falseSafe.TLS = &tls.Config{Certificates: []tls.Certificate{must(SelfSigned())(t)}}
	falseSafe.StartTLS()
	defer falseSafe.Close()

	// The operator asks for a token for the key that they were shown.
	operatorsClient := s.anyServer()
	shown := do(t, operatorsClient, http.MethodGet, falseSafe.URL+"/v1/seal-status").TLS.PeerCertificates[0]
	token := cp.Token(t, "middle", "vsecm-operator", AudienceOf(shown))
	for _, call := range s.operatorCalls() {
		body := io.Reader(strings.NewReader(call.body))
		send(t, operatorsClient, call.method, falseSafe.URL+call.path, body, bearer(token)...).is(t, problem.Unauthorized)
	}
	// Nor is it worth anything when it is replayed by whatever other means.
	if len(stolen) == 0 || stolen[len(stolen)-1] != "Bearer "+token {
		t.Fatalf("the false Safe was given %d tokens", len(stolen))
	}
	for _, call := range s.operatorCalls() {
		s.operate(s.anyServer(), call, "Authorization", stolen[len(stolen)-1]).is(t, problem.Unauthorized)
		s.operate(s.anyServer(http1), call, "Authorization", stolen[len(stolen)-1]).is(t, problem.Unauthorized)
	}
	if !s.Cache.Sealed() || s.root.attempts != 0 {
		t.Error("the real Safe was unsealed")
	}
	// It is the audience that the real Safe refuses, and nothing else about the account.
	good := cp.Token(t, "middle", "vsecm-operator", AudienceOf(s.shown()))
	now := time.Now().Add(time.Minute) // so many bad tokens have to be waited for
	s.stopped.Store(&now)
	if r := s.operate(s.anyServer(), s.operatorCalls()["unseal"], bearer(good)...); r.StatusCode != http.StatusOK {
		t.Errorf("a token for the real Safe: %s %s", r.Status, r.body)
	}
}

// What a viewer is forbidden, and what is forged, over the same loopback that everybody's
// port-forwards come from, keeps no operator out.
func TestNobodyIsLockedOutByAnotherAtTheSameAddress(t *testing.T) {
	cp := cluster.Start(t)
	s := newInCluster(t, cp, "lockout")
	c := s.anyServer()
	ours := AudienceOf(s.shown())
	viewer, op := cp.Token(t, "lockout", "vsecm-viewer", ours), cp.Token(t, "lockout", "vsecm-operator", ours)
	elsewhere := cp.Token(t, "lockout", "vsecm-viewer")
	seal, status := s.operatorCalls()["seal"], s.operatorCalls()["status"]
	seen := map[int]int{}
	for range 200 {
		r := s.operate(c, seal, bearer(viewer)...)
		seen[r.StatusCode]++
		s.operate(c, seal, bearer(elsewhere)...).is(t, problem.Unauthorized)
	}
	if seen[http.StatusForbidden] == 0 || seen[http.StatusTooManyRequests] == 0 || len(seen) != 2 {
		t.Errorf("the viewer was answered %v", seen)
	}
	if r := s.operate(c, status, bearer(op)...); r.StatusCode != http.StatusOK {
		t.Errorf("the operator: %s %s", r.Status, r.body)
	}
}
