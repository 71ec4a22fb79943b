// Package controlplane gives tests a real control plane of Kubernetes: etcd and
// kube-apiserver, of the very code that clusters run, on loopback, and kubectl.
// RBAC decides, tokens are issued and reviewed, and every request is audited.
// There is no controller manager: what controllers do in a cluster (default
// ServiceAccounts, garbage collection, the end of a namespace) does not happen.
//
// hack/controlplane builds the programs, and `make test` names their folder in
// the environment variable VSECM_TEST_CONTROLPLANE. Without it, the tests that
// need them are left out, and say so.
//
// A test that changes what others see (cluster roles, Safe's own namespace, the
// API server's being there) takes a control plane of its own with [Start]. It
// takes some three seconds, so tests that keep to a namespace of their own
// share one: [Shared].
package controlplane

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/rest"
)

// Variable is the environment variable that names the folder with the programs.
const Variable = "VSECM_TEST_CONTROLPLANE"

// leftOut is what a test says that is skipped for want of the programs.
const leftOut = "left out: what needs a control plane of Kubernetes; make test runs it"

// Dir returns the folder that holds etcd, kube-apiserver and kubectl. Where
// there is none, the test is skipped; where it lacks a program, the test fails.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	if dir == "" {
		t.Skip(leftOut)
	}
	return dir
}

// programs returns the folder with the programs, or "" where none is named.
func programs() (string, error) {
	dir := os.Getenv(Variable)
	if dir == "" {
		return "", nil
	}
	for _, name := range []string{"etcd", "kube-apiserver", "kubectl"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return "", fmt.Errorf("%s: %w", Variable, err)
		}
		if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			return "", fmt.Errorf("%s: %s is no program", Variable, filepath.Join(dir, name))
		}
	}
	return dir, nil
}

// A ControlPlane is one etcd and one kube-apiserver. Its methods may be called
// from several tests at a time, but for those that stop and start a server.
type ControlPlane struct {
	// PluginDir, if any, is where kubectl finds plugins. Set it before kubectl
	// is called.
	PluginDir string

	options   Options
	programs  string
	dir       string
	port      *port
	authority *authority
	admin     *rest.Config
	client    *http.Client // the admin's, for what the harness itself asks for
	etcd      *Process
	apiserver *Process
}

// Start starts a control plane that ends with the test. It returns when the
// API server is ready, with RBAC's own roles and the namespaces default and
// kube-system in it.
func Start(t testing.TB) *ControlPlane {
	t.Helper()
	cp, err := New(Dir(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cp.Close(); err != nil {
			t.Error(err)
		}
	})
	return cp
}

// New starts a control plane of the programs in a folder, as [Start] does. It
// is the caller's to close.
func New(programs string, options Options) (_ *ControlPlane, err error) {
	// A folder with a short name: the path of a socket may not be long.
	dir, err := os.MkdirTemp("", "controlplane")
	if err != nil {
		return nil, err
	}
	cp := &ControlPlane{options: options, programs: programs, dir: dir}
	defer func() {
		if err != nil {
			_ = cp.Close()
		}
	}()
	if cp.port, err = reservePort(); err != nil {
		return nil, fmt.Errorf("choose a port for the API server: %w", err)
	}
	if cp.authority, err = newAuthority(); err != nil {
		return nil, err
	}
	if err := cp.writeFiles(); err != nil {
		return nil, err
	}
	if cp.admin, err = cp.clientConfig("admin", "system:masters"); err != nil {
		return nil, err
	}
	if cp.client, err = clientFor(cp.admin); err != nil {
		return nil, err
	}
	if err := writeKubeconfig(cp.Kubeconfig(), cp.admin); err != nil {
		return nil, err
	}
	if err := cp.startEtcd(); err != nil {
		return nil, err
	}
	if err := cp.startAPIServer(); err != nil {
		return nil, err
	}
	return cp, nil
}

// Close ends what runs and removes every file.
func (cp *ControlPlane) Close() error {
	if cp.client != nil {
		cp.client.CloseIdleConnections()
	}
	for _, p := range []*Process{cp.apiserver, cp.etcd} {
		if p != nil {
			p.Kill()
		}
	}
	if cp.port != nil {
		cp.port.release()
	}
	return os.RemoveAll(cp.dir)
}

// Dir returns the folder that holds every file of the control plane: etcd's
// data, keys, logs, kubectl's home.
func (cp *ControlPlane) Dir() string { return cp.dir }

// EtcdDir returns etcd's data directory.
func (cp *ControlPlane) EtcdDir() string { return filepath.Join(cp.dir, "etcd") }

// AuditLog returns the file that the API server's audit log is written to, a
// JSON object a line, before a request is answered. Requests for Secrets and
// tokens are there with their metadata, all others with what was sent and
// answered.
func (cp *ControlPlane) AuditLog() string { return filepath.Join(cp.dir, "audit.log") }

// Processes returns the processes that run: etcd and the API server, unless they
// were stopped.
func (cp *ControlPlane) Processes() []*os.Process {
	var running []*os.Process
	for _, p := range []*Process{cp.etcd, cp.apiserver} {
		if p != nil {
			running = append(running, p.cmd.Process)
		}
	}
	return running
}
