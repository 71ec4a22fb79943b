package safe

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/config"
	"github.com/vsecm/kubectl-vsecm/internal/hooks"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
	"github.com/vsecm/kubectl-vsecm/internal/operator"
	"github.com/vsecm/kubectl-vsecm/internal/publication"
	"github.com/vsecm/kubectl-vsecm/internal/publish"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/internal/serve"
	"github.com/vsecm/kubectl-vsecm/internal/version"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
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
	SPIFFE   config.SPIFFE
	RootKey  RootKey
	Webhooks Webhooks
	// LeaseDuration is after how long another replica takes the lead from one that has died; at least
	// a second.
	LeaseDuration time.Duration
	// MirrorDir holds copies of git repositories. Nothing else is in it; it may be lost.
	MirrorDir string
	// AllowGitAddress are addresses that repositories are read from although they are loopback,
	// link-local, or the API server's.
	AllowGitAddress []netip.Prefix
}

// Webhooks say where forges tell of pushes.
type Webhooks struct {
	// Address HOST:PORT, or [config.Off].
	Address string
	// Certificate is the folder of tls.crt and tls.key; empty: plain HTTP.
	Certificate string
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
		{"webhooks", c.Webhooks.Address},
	} {
		if l.address == config.Off && l.flag != "api" {
			continue
		}
		if _, _, err := net.SplitHostPort(l.address); err != nil {
			errs = append(errs, fmt.Errorf("--listen-%s: want HOST:PORT or :PORT: %w", l.flag, err))
		}
	}
	if c.LeaseDuration < time.Second {
		errs = append(errs, errors.New("--lease-duration: at least 1s"))
	}
	if err := c.SPIFFE.Check("--workload-id"); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// RunInCluster serves what c says until ctx ends, and then stops gracefully. The audit log
// goes to auditLog.
//
// Nothing waits for the Kubernetes API to begin: a Safe that cannot reach it is alive, sealed,
// and not ready, and says so in its log.
func RunInCluster(ctx context.Context, c ClusterConfig, log *slog.Logger, auditLog io.Writer) (err error) {
	if err := harden(); err != nil {
		return err
	}
	to, err := restConfig(c.Kubeconfig)
	if err != nil {
		return err
	}
	client, err := kube.NewClient(to)
	if err != nil {
		return err
	}
	metrics := newMetrics()
	auditor, err := audit.New(auditLog, metrics)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAudit(ctx, auditor)) }()

	objects := kubestore.New(client, log)
	gate := unseal.NewGate()
	defer gate.Shut()
	secrets := cache.New(gate, metrics, log)
	keeper := rootkey.New(rootkey.Config{
		Place:  rootkey.NewSecretPlace(client, c.Namespace, c.RootKey.Name, c.RootKey.Path),
		Manual: c.RootKey.Manual, Memory: c.RootKey.Memory,
		Gate: gate, Holder: secrets, Objects: storedIn(objects), Log: log,
	})
	leading := newLeading(ctx, c, leadingParts{
		client: client, to: to, objects: objects, gate: gate, keeper: keeper, metrics: metrics, log: log,
	})
	certificate, err := serve.SelfSigned()
	if err != nil {
		return err
	}
	parts := serve.Config{
		Certificate: certificate,
		Cache:       secrets,
		RootKey:     keeper,
		Keys:        gate,
		Archive:     gate,
		Namespace:   c.Namespace,
		Operators:   operator.New(client, c.Namespace),
		Audit:       auditor,
		Log:         log,
		Metrics:     metrics,
		Status:      func() serve.Status { return clusterStatus(c, objects, leading) },
		Sync:        leading.sync,
		Rekey:       rekeyingInCluster(keeper, gate, objects, secrets, leading.sources),

		Hooks:              hooks.New(leading.sources, log, metrics),
		WebhookCertificate: c.Webhooks.Certificate,
	}
	self, err := newOwnIdentity(c.SPIFFE, log)
	if err != nil {
		return err
	}
	if c.SPIFFE.Socket != "" {
		parts.Source, parts.Workloads = self, self
	}
	server, err := serve.New(parts)
	if err != nil {
		return err
	}
	c.Listen.Operator = config.Off // operators come over TLS
	listeners, err := listen(c.Listen)
	if err == nil {
		err = listenForHooks(c.Webhooks, &listeners)
	}
	defer closeListeners(listeners)
	if err != nil {
		return err
	}
	publisher := publish.New(client, c.Namespace, c.Name, log)
	log.Info("started", "version", version.Get().Version, "namespace", c.Namespace, "replica", c.Name, "spiffe", c.SPIFFE.Socket != "",
		"api", addressOf(listeners.API), "liveness", addressOf(listeners.Liveness),
		"readiness", addressOf(listeners.Readiness), "metrics", addressOf(listeners.Metrics), "webhooks", addressOf(listeners.Webhooks))

	group, run := errgroup.WithContext(ctx)
	group.Go(func() error { return objects.Run(run) })
	group.Go(func() error { return secrets.Run(run, objects) })
	group.Go(func() error { return keeper.Run(run) })
	group.Go(func() error { settle(run, keeper, secrets, nil); return nil })
	group.Go(func() error { return leading.run(run) })
	group.Go(func() error {
		publisher.Run(run, func() publish.Self { return describe(certificate, keeper, self) }, keeper.Changed)
		return nil
	})
	if c.SPIFFE.Socket != "" {
		group.Go(func() error {
			// With an SVID it shows another certificate.
			self.run(run, func() { log.Info("serving workloads", "api", addressOf(listeners.API)) }, publisher.Look)
			return nil
		})
	} else {
		log.Warn("no SPIFFE Workload API is configured: workloads cannot fetch their secrets")
	}
	group.Go(func() error { return runServer(run, server, listeners, log) })
	if err := group.Wait(); ctx.Err() == nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// restConfig says how to reach the cluster: as a kubeconfig has it, or as a pod does.
func restConfig(kubeconfig string) (*rest.Config, error) {
	from := rest.InClusterConfig
	if kubeconfig != "" {
		from = func() (*rest.Config, error) { return clientcmd.BuildConfigFromFlags("", kubeconfig) }
	}
	to, err := from()
	if err != nil {
		return nil, fmt.Errorf("reaching the cluster: %w", err)
	}
	to.UserAgent = "vsecm-safe/" + version.Get().Version
	return to, nil
}

// describe returns what this replica publishes of itself.
func describe(certificate tls.Certificate, keeper *rootkey.Keeper, self *ownIdentity) publish.Self {
	sum := sha256.Sum256(certificate.Leaf.Raw)
	s := publish.Self{Replica: publication.Replica{
		State:             string(keeper.Status().State),
		CertificateSHA256: hex.EncodeToString(sum[:]),
		Version:           version.Get().Version,
	}}
	svid, err := self.GetX509SVID()
	if err != nil {
		return s
	}
	bundle, err := self.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
	if err != nil {
		return s
	}
	text, err := bundle.Marshal()
	if err != nil {
		return s
	}
	s.Replica.SPIFFEID, s.Bundle = svid.ID.String(), string(text)
	return s
}

func clusterStatus(c ClusterConfig, objects *kubestore.Store, leading *leading) serve.Status {
	st := serve.Status{
		Version: version.Get().Version, Replica: c.Name,
		Leader: leading.lead.Leader(), Leads: leading.lead.Leads(), Sources: leading.sources.Statuses(),
	}
	for _, f := range objects.Faults() {
		st.Unreadable = append(st.Unreadable, fmt.Sprintf("%s: %v", f.Key, f.Err))
	}
	return st
}
