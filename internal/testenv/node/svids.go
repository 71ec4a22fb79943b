//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/vsecm/kubectl-vsecm/internal/workloadapi"
)

const (
	driverName = "csi.spiffe.io"
	// socketName is what SPIRE's Helm charts call the agent's socket.
	socketName = "spire-agent.sock"
	// svidLife is how long an SVID is valid; the next one comes at half of it.
	svidLife = 10 * time.Minute
)

// TrustDomain is that of the pods' identities.
var TrustDomain = spiffeid.RequireTrustDomainFromString("example.org")

// SVIDs stands in for SPIRE and for SPIFFE's CSI driver, under the driver's
// name, so that manifests need no change: a volume of it holds a socket with
// the small Workload API. Where SPIRE attests who opens its one socket, each pod
// has a socket of its own here; kubelet tells whose it is.
//
// A pod is spiffe://example.org/workload/NAME/ns/NAMESPACE/sa/ACCOUNT/n/POD,
// where NAME is its label app.kubernetes.io/name.
type SVIDs struct {
	node    *Node
	ca      *workloadapi.CA
	dir     string
	servers []*grpc.Server
	serving sync.WaitGroup

	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer

	mu      sync.Mutex
	sockets map[string]*workloadapi.Socket // by volume id
}

// startSVIDs starts the driver, and returns when pods can use it.
func (n *Node) startSVIDs() (err error) {
	s := &SVIDs{node: n, dir: n.file("svids"), sockets: map[string]*workloadapi.Socket{}}
	if s.ca, err = workloadapi.NewCA(TrustDomain); err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	n.SVIDs = s
	if err := s.serve(s.endpoint(), func(server *grpc.Server) {
		csi.RegisterIdentityServer(server, s)
		csi.RegisterNodeServer(server, s)
	}); err != nil {
		return err
	}
	// Kubelet looks into this folder for drivers.
	if err := s.serve(n.file("kubelet/plugins_registry/"+driverName+".sock"), func(server *grpc.Server) {
		registration.RegisterRegistrationServer(server, s)
	}); err != nil {
		return err
	}
	if _, stderr, err := n.RunKubectl(n.Kubeconfig(), csiDriver, "apply", "-f", "-"); err != nil {
		return fmt.Errorf("announce the CSI driver: %w: %s", err, stderr)
	}
	return Until(patience, func() error {
		drivers, stderr, err := n.kubectl("get", "csinode", Name, "-o", "jsonpath={.spec.drivers[*].name}")
		if err != nil || !strings.Contains(drivers, driverName) {
			return fmt.Errorf("kubelet does not know the CSI driver: %w%s", errors.Join(err), stderr)
		}
		return nil
	})
}

// csiDriver says, as SPIFFE's does, that pods name it inline, and has kubelet
// say which pod a volume is for.
const csiDriver = `apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata:
  name: csi.spiffe.io
  labels: {security.kubernetes.io/csi-ephemeral-volume-profile: restricted}
spec:
  attachRequired: false
  podInfoOnMount: true
  fsGroupPolicy: None
  volumeLifecycleModes: [Ephemeral]
`

func (s *SVIDs) endpoint() string { return filepath.Join(s.dir, "csi.sock") }

func (s *SVIDs) serve(socket string, register func(*grpc.Server)) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	register(server)
	s.servers = append(s.servers, server)
	s.serving.Go(func() { _ = server.Serve(listener) }) // until close stops it
	return nil
}

func (s *SVIDs) close() error {
	for _, server := range s.servers {
		server.Stop()
	}
	s.serving.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, socket := range s.sockets {
		socket.Close()
	}
	return nil
}

// GetInfo tells kubelet what has registered.
func (s *SVIDs) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: driverName, Endpoint: s.endpoint(), SupportedVersions: []string{"1.0.0"},
	}, nil
}

// NotifyRegistrationStatus hears how it went; startSVIDs sees it.
func (s *SVIDs) NotifyRegistrationStatus(context.Context, *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	return &registration.RegistrationStatusResponse{}, nil
}

// GetPluginInfo names the driver.
func (s *SVIDs) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: driverName, VendorVersion: "test"}, nil
}

// NodeGetInfo names the node.
func (s *SVIDs) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: Name}, nil
}

// NodeGetCapabilities says that there is nothing but mounting.
func (s *SVIDs) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

// NodePublishVolume mounts a folder with the pod's socket.
func (s *SVIDs) NodePublishVolume(_ context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if err := s.publish(request); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (s *SVIDs) publish(request *csi.NodePublishVolumeRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, published := s.sockets[request.GetVolumeId()]; published {
		return nil // kubelet asks again when it has restarted
	}
	if !request.GetReadonly() {
		return errors.New("the volume has to be readOnly, as SPIFFE's driver demands")
	}
	id, err := s.identity(request.GetVolumeContext())
	if err != nil {
		return err
	}
	// A short name: the path of a socket may not be long.
	dir, err := os.MkdirTemp(s.dir, "")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	socket, err := s.ca.Listen(filepath.Join(dir, socketName), id, svidLife)
	if err != nil {
		return err
	}
	// Whoever is in the pod may connect.
	if err := errors.Join(
		os.Chmod(filepath.Join(dir, socketName), 0o777),
		os.MkdirAll(request.GetTargetPath(), 0o750),
		syscall.Mount(dir, request.GetTargetPath(), "", syscall.MS_BIND, ""),
	); err != nil {
		socket.Close()
		return err
	}
	s.sockets[request.GetVolumeId()] = socket
	return nil
}

// identity returns that of the pod that kubelet names.
func (s *SVIDs) identity(volume map[string]string) (spiffeid.ID, error) {
	namespace, pod := volume["csi.storage.k8s.io/pod.namespace"], volume["csi.storage.k8s.io/pod.name"]
	if pod == "" {
		return spiffeid.ID{}, errors.New("kubelet does not say whose volume it is")
	}
	workload, stderr, err := s.node.kubectl("get", "pod", "-n", namespace, pod, "-o", `jsonpath={.metadata.labels.app\.kubernetes\.io/name}`)
	if err != nil || workload == "" {
		return spiffeid.ID{}, fmt.Errorf("no label app.kubernetes.io/name on pod %s/%s: %w%s", namespace, pod, errors.Join(err), stderr)
	}
	return spiffeid.FromSegments(TrustDomain, "workload", workload, "ns", namespace,
		"sa", volume["csi.storage.k8s.io/serviceAccount.name"], "n", pod)
}

// NodeUnpublishVolume takes the socket away.
func (s *SVIDs) NodeUnpublishVolume(_ context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if socket, published := s.sockets[request.GetVolumeId()]; published {
		if err := syscall.Unmount(request.GetTargetPath(), 0); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		socket.Close()
		delete(s.sockets, request.GetVolumeId())
	}
	if err := os.RemoveAll(request.GetTargetPath()); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// Rotate gives a pod its next SVID now.
func (s *SVIDs) Rotate(namespace, pod string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, socket := range s.sockets {
		path := socket.ID().Path()
		if strings.Contains(path, "/ns/"+namespace+"/sa/") && strings.HasSuffix(path, "/n/"+pod) {
			return socket.Rotate(time.Now().Add(svidLife))
		}
	}
	return fmt.Errorf("pod %s/%s has no identity", namespace, pod)
}
