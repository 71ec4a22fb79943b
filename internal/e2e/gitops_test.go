//go:build linux

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
)

// gitSource is what a team writes to have its repository followed. It is not polled while the test runs:
// what arrives does so by webhooks.
const gitSource = `apiVersion: vsecm.com/v1alpha1
kind: GitSource
metadata: {name: platform, namespace: shop}
spec:
  url: %s
  interval: 24h
  secretRef: {name: git}
  webhook: {type: generic, secretRef: {name: hook}}
`

const hookToken = "what only the forge and Safe know"

func TestGitToClusterInRealPods(t *testing.T) {
	install(t, "spire")
	await(t, 2, "are ready", ready)
	namespace(t, "shop")
	kubectl(t, "create", "rolebinding", "vsecm-deliver", "-n", "shop", "--clusterrole=vsecm-deliver", "--serviceaccount="+system+":vsecm-safe")
	url, ca, repo := serveGit(t)
	credentials(t, "git", "--from-file=ca.crt="+ca, "--from-literal=username=safe", "--from-literal=password=of-git")
	credentials(t, "hook", "--from-literal=token="+hookToken)
	repo.Commit(map[string]string{"db.yaml": asSecret(t, "db", "one"), "mail.yaml": asSecret(t, "mail", "hello")})
	kubectlWith(t, fmt.Sprintf(gitSource, url), "apply", "--server-side", "-f", "-")

	t.Run("what is in git is at the workload, and in the Kubernetes Secret", func(t *testing.T) {
		holds(t, "db", "one")
		holds(t, "mail", "hello")
		start(t, "db-0", "db")
		if got := fetched(t, ended(t, "db-0", 0)); got["db/password"] != "one" {
			t.Errorf("it was given %v", got)
		}
	})
	t.Run("a push is", func(t *testing.T) {
		repo.Commit(map[string]string{"db.yaml": asSecret(t, "db", "two")})
		pushed := time.Now()
		webhook(t)
		holds(t, "db", "two")
		t.Logf("from the webhook to the Kubernetes Secret: %v", time.Since(pushed).Round(time.Millisecond))
		start(t, "db-1", "db")
		if got := fetched(t, ended(t, "db-1", 0)); got["db/password"] != "two" {
			t.Errorf("it was given %v", got)
		}
	})
	t.Run("a push is, when the pod that leads is gone", func(t *testing.T) {
		before := leader(t)
		// It gives nothing back: the Lease has to run out.
		if err := syscall.Kill(processOf(t, before), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		kubectl(t, "-n", system, "delete", "pod", before, "--grace-period=0", "--force")
		killed := time.Now()
		until(t, "another pod leads", func() error {
			if now := leader(t); now == "" || now == before {
				return fmt.Errorf("the Lease is %q's", now)
			}
			return nil
		})
		t.Logf("from the death of the leader to the next one: %v", time.Since(killed).Round(100*time.Millisecond))
		repo.Commit(map[string]string{"db.yaml": asSecret(t, "db", "three")})
		webhook(t)
		holds(t, "db", "three")
		await(t, 2, "are ready", ready)
	})
	t.Run("what is deleted in git is deleted", func(t *testing.T) {
		repo.Commit(nil, "mail.yaml")
		webhook(t)
		gone(t, "encryptedsecret", "mail")
		gone(t, "secret", "mail")
		holds(t, "db", "three")
	})
	noRestarts(t)
	t.Run("without Safe, Kubernetes deletes the Secret of what is deleted", func(t *testing.T) {
		kubectl(t, "-n", system, "scale", "deployment/vsecm-safe", "--replicas=0")
		until(t, "no pod of Safe is left", func() error {
			if left := kubectl(t, "-n", system, "get", "pods", "-l", "app.kubernetes.io/name=vsecm-safe", "-o", "name"); left != "" {
				return fmt.Errorf("there is %s", left)
			}
			return nil
		})
		holds(t, "db", "three")
		kubectl(t, "delete", "encryptedsecret", "db", "-n", "shop")
		gone(t, "secret", "db")
	})
}

// serveGit serves an empty repository over https at the node's address, where pods reach it, to who
// shows a password. It returns the address and the file of the CA.
func serveGit(t *testing.T) (address, ca string, repo *gitserver.Repo) {
	t.Helper()
	node := strings.TrimSpace(kubectl(t, "get", "nodes", "-o", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`))
	git := gitserver.New(t, gitserver.Options{Username: "safe", Password: "of-git"})
	behind, err := url.Parse(git.URL)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(node, "0"))
	if err != nil {
		t.Fatal(err)
	}
	certificate, authority := certificateFor(t, net.ParseIP(node))
	server := &httptest.Server{
		Listener: listener,
		Config:   &http.Server{Handler: httputil.NewSingleHostReverseProxy(behind), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)},
		TLS:      &tls.Config{Certificates: []tls.Certificate{certificate}},
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	ca = filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, authority, 0o600); err != nil {
		t.Fatal(err)
	}
	return "https://" + listener.Addr().String() + "/shop.git", ca, git.Repo("shop.git")
}

// certificateFor makes a certificate of a server, and the one in PEM to trust it by.
func certificateFor(t *testing.T, address net.IP) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "git"}, IPAddresses: []net.IP{address},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// credentials makes Secret shop/NAME, which a GitSource may name.
func credentials(t *testing.T, name string, content ...string) {
	t.Helper()
	kubectl(t, append([]string{"create", "secret", "generic", name, "-n", "shop"}, content...)...)
	kubectl(t, "label", "secret", name, "-n", "shop", "vsecm.com/git-credentials=true")
}

// asSecret is the manifest of shop/NAME that is delivered as a Kubernetes Secret too, as a person encrypts it.
func asSecret(t *testing.T, name, password string) string {
	t.Helper()
	manifest, stderr, err := cluster.Kubectl(t, cluster.UserKubeconfig(t, "dora"), password,
		"vsecm", "encrypt", name, "-n", "shop", "--key", "password", "--secret=Opaque")
	if err != nil {
		t.Fatalf("encrypt: %v: %s", err, stderr)
	}
	return manifest
}

// webhook tells Safe of a push through its Service, as a forge does.
func webhook(t *testing.T) {
	t.Helper()
	const body = `{"ref":"refs/heads/main"}`

	address := kubectl(t, "-n", system, "get", "service", "vsecm-safe", "-o", "jsonpath={.spec.clusterIP}")
	mac := hmac.New(sha256.New, []byte(hookToken))
	mac.Write([]byte(body))
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	until(t, "the webhook is accepted", func() error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+":8444/v1/hooks/shop/platform", strings.NewReader(body))
		if err != nil {
			return err
		}
		request.Header.Set("X-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
		response, err := client.Do(request)
		if err != nil {
			return err // the pod that is gone may still be behind the Service
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusAccepted {
			return fmt.Errorf("status %s", response.Status)
		}
		return nil
	})
}

// holds waits until Kubernetes Secret shop/NAME holds a password.
func holds(t *testing.T, name, password string) {
	t.Helper()
	until(t, fmt.Sprintf("Secret %s holds what is in git", name), func() error {
		text, stderr, err := cluster.Kubectl(t, cluster.Kubeconfig(), "", "get", "secret", name, "-n", "shop", "-o", "jsonpath={.data.password}")
		if err != nil {
			status, _, _ := cluster.Kubectl(t, cluster.Kubeconfig(), "", "get", "gitsources,encryptedsecrets", "-n", "shop", "-o", "wide")
			return fmt.Errorf("%w: %s%s", err, stderr, status)
		}
		value, err := base64.StdEncoding.DecodeString(text)
		if err == nil && string(value) != password {
			err = fmt.Errorf("it holds %q", value)
		}
		return err
	})
}

// gone waits until there is no shop/NAME of a kind any more.
func gone(t *testing.T, kind, name string) {
	t.Helper()
	until(t, kind+" "+name+" is gone", func() error {
		if kubectl(t, "get", kind, name, "-n", "shop", "--ignore-not-found", "-o", "name") != "" {
			return errors.New("it is there")
		}
		return nil
	})
}

// processOf returns the process of a pod of Safe.
func processOf(t *testing.T, name string) int {
	t.Helper()
	for _, pod := range pods(t) {
		if pod.Name != name {
			continue
		}
		container, err := cluster.Container(pod.Status.ContainerStatuses[0].ContainerID)
		if err != nil {
			t.Fatal(err)
		}
		return container.PID
	}
	t.Fatalf("there is no pod %q", name)
	return 0
}

// leader returns the pod that leads, or nothing.
func leader(t *testing.T) string {
	t.Helper()
	return kubectl(t, "-n", system, "get", "lease", "vsecm-safe", "--ignore-not-found", "-o", "jsonpath={.spec.holderIdentity}")
}
