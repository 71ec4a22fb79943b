package controlplane

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	// patience bounds every wait. It only ends a test that has failed.
	patience = 2 * time.Minute
	// pause lies between two looks at whether something is there.
	pause = 20 * time.Millisecond
)

//go:embed audit-policy.yaml
var auditPolicy []byte

func (cp *ControlPlane) file(name string) string { return filepath.Join(cp.dir, name) }

// writeFiles writes what the API server reads.
func (cp *ControlPlane) writeFiles() error {
	certificate, key, err := cp.authority.serving(cp.options.addresses())
	if err != nil {
		return err
	}
	accounts, err := newKey()
	if err != nil {
		return err
	}
	accountsKey, err := keyPEM(accounts)
	if err != nil {
		return err
	}
	kubeletCertificate, kubeletKey, err := cp.authority.user("kube-apiserver-kubelet-client", "system:masters")
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"ca.crt":            cp.authority.certificatePEM(),
		"apiserver.crt":     certificate,
		"apiserver.key":     key,
		"accounts.key":      accountsKey,
		"audit-policy.yaml": auditPolicy,
		"kubelet.crt":       kubeletCertificate,
		"kubelet.key":       kubeletKey,
	} {
		if err := os.WriteFile(cp.file(name), content, 0o600); err != nil {
			return err
		}
	}
	return os.Mkdir(cp.EtcdDir(), 0o700)
}

// startEtcd starts etcd and waits until it can be connected to. It listens on
// a socket in a folder that nobody else may enter.
func (cp *ControlPlane) startEtcd() error {
	socket := cp.file("etcd.sock")
	// Nobody talks to this peer; its address is a socket beside the other.
	const peer = "unix://peer:0"
	var err error
	cp.etcd, err = cp.startProcess("etcd",
		"--name=etcd",
		"--data-dir="+cp.EtcdDir(),
		"--listen-client-urls=unix://"+socket, "--advertise-client-urls=unix://"+socket,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=etcd="+peer,
		// What it keeps need not outlive the machine.
		"--unsafe-no-fsync",
		"--log-level=warn",
	)
	if err != nil {
		return err
	}
	return cp.etcd.Wait("be connected to", func() error {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// startAPIServer starts the API server and waits until it is ready.
func (cp *ControlPlane) startAPIServer() error {
	var err error
	cp.apiserver, err = cp.startProcess("kube-apiserver", append(cp.options.flags(cp.dir),
		"--etcd-servers=unix://"+cp.file("etcd.sock"),
		fmt.Sprintf("--secure-port=%d", cp.port.number),
		// The port is held by a socket of ours, so that nobody takes it.
		"--permit-port-sharing",
		"--service-cluster-ip-range="+serviceRange,
		"--tls-cert-file="+cp.file("apiserver.crt"), "--tls-private-key-file="+cp.file("apiserver.key"),
		"--client-ca-file="+cp.file("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file="+cp.file("accounts.key"), "--service-account-signing-key-file="+cp.file("accounts.key"),
		"--audit-policy-file="+cp.file("audit-policy.yaml"), "--audit-log-path="+cp.AuditLog(), "--audit-log-mode=blocking",
		// Never rotated: a test reads all of it.
		"--audit-log-maxsize=0",
	)...)
	if err != nil {
		return err
	}
	if err := cp.apiserver.Wait("be ready", func() error {
		_, err := cp.get("/readyz")
		return err
	}); err != nil {
		return err
	}
	return cp.apiserver.Wait("have its namespaces", cp.namespacesExist)
}

// namespacesExist fails until the namespaces are there that the API server
// makes after it is ready.
func (cp *ControlPlane) namespacesExist() error {
	for _, name := range []string{"default", "kube-system"} {
		if _, err := cp.get("/api/v1/namespaces/" + name); err != nil {
			return err
		}
	}
	return nil
}

func (cp *ControlPlane) get(path string) ([]byte, error) {
	request, err := http.NewRequest(http.MethodGet, cp.admin.Host+path, nil)
	if err != nil {
		return nil, err
	}
	return cp.do(request)
}

// do sends a request as the admin and returns the answer's body.
func (cp *ControlPlane) do(request *http.Request) ([]byte, error) {
	response, err := cp.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= http.StatusBadRequest {
		var status struct {
			Message string `json:"message"`
		}
		if json.Unmarshal(body, &status) != nil {
			status.Message = strings.TrimSpace(string(body))
		}
		return nil, fmt.Errorf("%s %s: %s: %s", request.Method, request.URL.Path, response.Status, status.Message)
	}
	return body, nil
}

// StopAPIServer ends the API server, at once: connections to its port are
// refused until [ControlPlane.StartAPIServer].
func (cp *ControlPlane) StopAPIServer(t testing.TB) {
	t.Helper()
	if cp.apiserver == nil {
		t.Fatal("the API server is stopped already")
	}
	cp.apiserver.Kill()
	cp.apiserver = nil
	cp.client.CloseIdleConnections()
}

// StartAPIServer starts the API server again, on the port that it had, and
// returns when it is ready.
func (cp *ControlPlane) StartAPIServer(t testing.TB) {
	t.Helper()
	if cp.apiserver != nil {
		t.Fatal("the API server runs already")
	}
	if err := cp.startAPIServer(); err != nil {
		t.Fatal(err)
	}
}

// StopEtcd ends etcd, at once: the API server answers with errors until
// [ControlPlane.StartEtcd].
func (cp *ControlPlane) StopEtcd(t testing.TB) {
	t.Helper()
	if cp.etcd == nil {
		t.Fatal("etcd is stopped already")
	}
	cp.etcd.Kill()
	cp.etcd = nil
}

// StartEtcd starts etcd again, with the data that it had, and returns when the
// API server is ready.
func (cp *ControlPlane) StartEtcd(t testing.TB) {
	t.Helper()
	if cp.etcd != nil {
		t.Fatal("etcd runs already")
	}
	if err := cp.startEtcd(); err != nil {
		t.Fatal(err)
	}
	if err := cp.apiserver.Wait("be ready", func() error {
		_, err := cp.get("/readyz")
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

var errEnded = errors.New("it has ended")

// Wait waits until ready succeeds; what names that for the error. It fails as
// soon as the process has ended.
func (p *Process) Wait(what string, ready func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			err = errEnded
		case <-time.After(pause):
			if time.Now().Before(deadline) {
				continue
			}
		}
		return fmt.Errorf("wait for %s to %s: %w; the end of its log:\n%s", p.name, what, err, p.logTail())
	}
}
