package operator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
)

var cluster controlplane.Shared

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

const audience = "vsecm-safe/5e3f"

// A site is a Safe's namespace in a real cluster, with the accounts that operate it,
// and a reviewer with no more rights than Safe has.
type site struct {
	*controlplane.ControlPlane
	t         *testing.T
	namespace string
	reviewer  *Reviewer
}

// newSite prepares namespace in cp, with accounts safe, viewer, operator and nobody, and
// NAMESPACE-shop, where operator may reveal db.
func newSite(t *testing.T, cp *controlplane.ControlPlane, namespace string) *site {
	t.Helper()
	s := &site{ControlPlane: cp, t: t, namespace: namespace}
	s.apply(strings.ReplaceAll(siteManifest, "NS", namespace))
	s.reviewer = New(s.client(cp.ServiceAccountKubeconfig(t, namespace, "safe")), namespace)
	return s
}

const siteManifest = `
{apiVersion: v1, kind: Namespace, metadata: {name: NS}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: NS-shop}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: safe, namespace: NS}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: viewer, namespace: NS}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: operator, namespace: NS}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: nobody, namespace: NS}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: NS-safe}
rules:
- {apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}
- {apiGroups: [authorization.k8s.io], resources: [subjectaccessreviews], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: NS-safe}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: NS-safe}
subjects: [{kind: ServiceAccount, name: safe, namespace: NS}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: viewer, namespace: NS}
rules: [{apiGroups: [vsecm.com], resources: [safes], resourceNames: [vsecm-safe], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: viewer, namespace: NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: viewer}
subjects: [{kind: ServiceAccount, name: viewer, namespace: NS}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: operator, namespace: NS}
rules: [{apiGroups: [vsecm.com], resources: [safes], resourceNames: [vsecm-safe], verbs: [get, unseal, seal, sync]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: operator, namespace: NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: operator}
subjects: [{kind: ServiceAccount, name: operator, namespace: NS}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reveal, namespace: NS-shop}
rules: [{apiGroups: [vsecm.com], resources: [encryptedsecrets], resourceNames: [db], verbs: [reveal]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reveal, namespace: NS-shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reveal}
subjects: [{kind: ServiceAccount, name: operator, namespace: NS}]
`

func (s *site) apply(manifest string) {
	s.t.Helper()
	s.kubectl(manifest, "apply", "-f", "-")
}

func (s *site) kubectl(stdin string, args ...string) {
	s.t.Helper()
	if _, stderr, err := s.Kubectl(s.t, s.Kubeconfig(), stdin, args...); err != nil {
		s.t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, stderr)
	}
}

func (s *site) client(kubeconfig string) *kube.Client {
	s.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		s.t.Fatal(err)
	}
	return newClient(s.t, config)
}

func newClient(t *testing.T, config *rest.Config) *kube.Client {
	t.Helper()
	config.QPS = -1
	c, err := kube.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		utilnet.CloseIdleConnectionsFor(c.Core.(*rest.RESTClient).Client.Transport)
	})
	return c
}

func (s *site) user(account string) string {
	return "system:serviceaccount:" + s.namespace + ":" + account
}

// resign returns a token with other claims, signed with key.
func resign(t *testing.T, token string, key *ecdsa.PrivateKey, change func(claims map[string]any)) string {
	t.Helper()
	parts := strings.Split(token, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	change(claims)
	if payload, err = json.Marshal(claims); err != nil {
		t.Fatal(err)
	}
	signed := parts[0] + "." + base64.RawURLEncoding.EncodeToString(payload)
	sum := sha256.Sum256([]byte(signed))
	r, sv, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	sv.FillBytes(signature[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// accountsKey is the key that the cluster signs tokens with.
func (s *site) accountsKey() *ecdsa.PrivateKey {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.Dir(), "accounts.key"))
	if err != nil {
		s.t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		s.t.Fatal(err)
	}
	return key
}

func otherKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issuedAgo makes claims those of a token that was issued that long ago, for an hour.
func issuedAgo(ago time.Duration) func(map[string]any) {
	return func(claims map[string]any) {
		at := time.Now().Add(-ago).Unix()
		claims["iat"], claims["nbf"], claims["exp"] = at, at, at+3600
	}
}

func unchanged(map[string]any) {}
