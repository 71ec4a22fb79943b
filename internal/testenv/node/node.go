//go:build linux

// Package node gives tests a whole node of Kubernetes beside the control plane
// of internal/testenv/controlplane: kubelet, scheduler, controller manager,
// kube-proxy, containerd and runc, which run real pods of our image.
//
// It takes root, and namespaces of its own: hack/e2e makes them, builds programs
// and images, names their folder in the environment variable VSECM_TEST_NODE, and
// ends and removes all of it. So this package stops programs, and unmounts and
// removes nothing: what it leaves goes with its namespaces.
//
// There is no DNS, no registry, and no network plugin that enforces
// NetworkPolicies.
package node

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
)

// Variable is the environment variable that names the folder with what hack/e2e
// made: programs/, and images/ as archives.
const Variable = "VSECM_TEST_NODE"

// Name is the node's name.
const Name = "node"

// Images of Safe: the one that the manifests name, and the next version of it.
const (
	Image     = "vsecm/safe:dev"
	NextImage = "vsecm/safe:next"
)

// address is the node's own.
var address = net.IPv4(10, 90, 0, 1)

// A Node is a control plane with one node.
type Node struct {
	*controlplane.ControlPlane

	// SVIDs gives pods their SPIFFE identities.
	SVIDs *SVIDs

	made      string // by hack/e2e
	dir       string
	processes []*controlplane.Process
}

// Start starts a node. It returns when the node is ready for pods. The caller
// closes it.
func Start() (_ *Node, err error) {
	n := &Node{made: os.Getenv(Variable)}
	if n.made == "" {
		return nil, errors.New(Variable + " is not set")
	}
	n.dir = filepath.Join(n.made, "node")
	if err := startNetwork(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		return nil, err
	}
	n.ControlPlane, err = controlplane.New(os.Getenv(controlplane.Variable), controlplane.Options{NodeAddress: address})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = n.Close()
		}
	}()
	n.PluginDir = filepath.Join(n.made, "programs")
	for _, start := range []func() error{n.startControllers, n.startContainerd, n.startKubelet, n.startProxy, n.startSVIDs} {
		if err := start(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// Close ends the programs. Pods go on until their namespaces end.
func (n *Node) Close() error {
	var errs []error
	if n.SVIDs != nil {
		errs = append(errs, n.SVIDs.close())
	}
	for _, p := range slices.Backward(n.processes) {
		p.Kill()
	}
	errs = append(errs, n.ControlPlane.Close())
	return errors.Join(errs...)
}

// program starts one of the programs that hack/e2e was handed, or of the
// machine's.
func (n *Node) program(name string, args ...string) (*controlplane.Process, error) {
	path := filepath.Join(n.made, "programs", name)
	if _, err := os.Stat(path); err != nil {
		if path, err = exec.LookPath(name); err != nil {
			return nil, err
		}
	}
	p, err := controlplane.StartProcess(n.dir, path, args...)
	if err == nil {
		n.processes = append(n.processes, p)
	}
	return p, err
}

// kubeconfig writes the kubeconfig file of a component and returns its name.
func (n *Node) kubeconfig(component, user string, groups ...string) (string, error) {
	file := n.file(component + ".kubeconfig")
	return file, n.WriteKubeconfig(file, user, groups...)
}

func (n *Node) file(name string) string { return filepath.Join(n.dir, name) }

func (n *Node) write(name, content string) (string, error) {
	if err := os.MkdirAll(filepath.Dir(n.file(name)), 0o700); err != nil {
		return "", err
	}
	return n.file(name), os.WriteFile(n.file(name), []byte(content), 0o600)
}

// run runs a command to its end and returns what it printed.
func run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Until waits for a condition and returns the last error where it never holds.
func Until(patience time.Duration, condition func() error) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := condition()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
