//go:build linux

package node

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"
)

const containerdSocket = "/run/containerd/containerd.sock"

// patience bounds waits. It only ends a test that has failed.
const patience = 2 * time.Minute

// startControllers starts the scheduler and the controllers.
func (n *Node) startControllers() error {
	kubeconfig, err := n.kubeconfig("kube-controller-manager", "system:kube-controller-manager")
	if err != nil {
		return err
	}
	if _, err := n.program("kube-controller-manager",
		"--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
		"--leader-elect=false", "--bind-address=127.0.0.1", "--cert-dir="+n.file("controller-manager"),
		"--use-service-account-credentials",
		"--service-account-private-key-file="+n.AccountsKey(), "--root-ca-file="+n.CACertificate(),
	); err != nil {
		return err
	}
	if kubeconfig, err = n.kubeconfig("kube-scheduler", "system:kube-scheduler"); err != nil {
		return err
	}
	_, err = n.program("kube-scheduler",
		"--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
		"--leader-elect=false", "--bind-address=127.0.0.1", "--cert-dir="+n.file("scheduler"),
	)
	return err
}

// containerdConfig is containerd's. What it would set for a container that it
// may not, here, it leaves out: restrict_oom_score_adj.
const containerdConfig = `version = 2
root = %[1]q
state = "/run/containerd"

[grpc]
address = %[2]q

[plugins."io.containerd.internal.v1.opt"]
path = %[3]q

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/vsecm/pause:dev"
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = %[4]q

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
`

// startContainerd starts containerd and gives it the images.
func (n *Node) startContainerd() error {
	network, err := n.write("network/pods.conflist", podNetwork)
	if err != nil {
		return err
	}
	config, err := n.write("containerd.toml", fmt.Sprintf(containerdConfig,
		n.file("containerd"), containerdSocket, n.file("opt"), filepath.Dir(network)))
	if err != nil {
		return err
	}
	containerd, err := n.program("containerd", "--config="+config)
	if err != nil {
		return err
	}
	if err := containerd.Wait("be connected to", func() error {
		conn, err := net.Dial("unix", containerdSocket)
		if err != nil {
			return err
		}
		return conn.Close()
	}); err != nil {
		return err
	}
	images, err := filepath.Glob(filepath.Join(n.made, "images", "*.tar"))
	if err != nil {
		return err
	}
	for _, image := range images {
		if _, err := run("ctr", "--address", containerdSocket, "--namespace", "k8s.io", "images", "import", image); err != nil {
			return err
		}
	}
	return nil
}

// kubeletConfig is kubelet's. It keeps no cgroups but the containers' own, and
// is content with a disk that is nearly full.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://%[1]s
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %[2]q}
authorization: {mode: Webhook}
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
resolvConf: ""
podLogsDir: %[3]q
volumePluginDir: %[4]q
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 1Mi}
syncFrequency: 10s
`

// startKubelet starts kubelet and waits until its node is ready.
func (n *Node) startKubelet() error {
	kubeconfig, err := n.kubeconfig("kubelet", "system:node:"+Name, "system:nodes")
	if err != nil {
		return err
	}
	config, err := n.write("kubelet.yaml", fmt.Sprintf(kubeletConfig, containerdSocket, n.CACertificate(), n.file("pods"), n.file("volumeplugins")))
	if err != nil {
		return err
	}
	kubelet, err := n.program("kubelet",
		"--config="+config, "--kubeconfig="+kubeconfig, "--root-dir="+n.file("kubelet"), "--cert-dir="+n.file("kubelet-pki"),
		"--hostname-override="+Name, "--node-ip="+address.String())
	if err != nil {
		return err
	}
	return kubelet.Wait("have its node ready", func() error {
		ready, stderr, err := n.kubectl("get", "node", Name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")]}`)
		if err == nil && !strings.Contains(ready, `"status":"True"`) {
			return fmt.Errorf("not yet: %s", ready)
		}
		if err != nil {
			return fmt.Errorf("%w: %s", err, stderr)
		}
		return nil
	})
}

// proxyConfig is kube-proxy's. What it would set for the whole machine stays.
const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clientConnection: {kubeconfig: %q}
hostnameOverride: %s
clusterCIDR: 10.91.0.0/24
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`

func (n *Node) startProxy() error {
	kubeconfig, err := n.kubeconfig("kube-proxy", "system:kube-proxy")
	if err != nil {
		return err
	}
	config, err := n.write("kube-proxy.yaml", fmt.Sprintf(proxyConfig, kubeconfig, Name))
	if err != nil {
		return err
	}
	_, err = n.program("kube-proxy", "--config="+config)
	return err
}

// kubectl runs kubectl as the admin.
func (n *Node) kubectl(args ...string) (stdout, stderr string, err error) {
	return n.RunKubectl(n.Kubeconfig(), "", args...)
}
