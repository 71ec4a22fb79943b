package safe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/vsecm/kubectl-vsecm/internal/config"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A ClusterConfig is what Safe serves in a cluster.
type ClusterConfig struct {
	// Kubeconfig is the file that says how to reach the cluster; empty: as a pod
	// does.
	Kubeconfig string
	// Namespace that Safe is installed in.
	Namespace string
	// Name of this replica, which is its pod's.
	Name string
	// Listen says where each listener listens. There is no operator's socket.
	Listen config.Listen
	// SPIFFE says who Safe and its workloads are. Without a socket workloads
	// cannot fetch.
	SPIFFE  config.SPIFFE
	RootKey RootKey
}

// Check tells what is wrong with c.
func (c ClusterConfig) Check() error {
	var errs []error
	if err := encrypt.ValidateNamespace(c.Namespace); err != nil {
		errs = append(errs, fmt.Errorf("--namespace: %w", err))
	}
	if err := encrypt.ValidateName(c.Name); err != nil {
		errs = append(errs, fmt.Errorf("--name: %w", err))
	}
	for _, l := range []struct{ flag, address string }{
		{"api", c.Listen.API}, {"liveness", c.Listen.Liveness}, {"readiness", c.Listen.Readiness}, {"metrics", c.Listen.Metrics},
	} {
		if l.address == config.Off && l.flag != "api" {
			continue
		}
		if _, _, err := net.SplitHostPort(l.address); err != nil {
			errs = append(errs, fmt.Errorf("--listen-%s: want HOST:PORT or :PORT: %w", l.flag, err))
		}
	}
	if len(c.SPIFFE.Workloads) > 0 {
		if _, err := identity.NewMapper(spiffeid.RequireTrustDomainFromString("example.org"), c.SPIFFE.Workloads...); err != nil {
			errs = append(errs, fmt.Errorf("--workload-id: %w", err))
		}
	}
	return errors.Join(errs...)
}

// RunInCluster serves what c says until ctx ends, and then stops gracefully. The audit log
// goes to auditLog.
func RunInCluster(ctx context.Context, c ClusterConfig, log *slog.Logger, auditLog io.Writer) error {
	return errors.ErrUnsupported
}
