package safecmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/klog/v2"

	"github.com/vsecm/kubectl-vsecm/internal/config"
	"github.com/vsecm/kubectl-vsecm/internal/publication"
	"github.com/vsecm/kubectl-vsecm/internal/safe"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

type serveOptions struct {
	streams genericiooptions.IOStreams
	config  string
	level   string
	rootKey rootKeyFlags
	cluster safe.ClusterConfig
	allowed []string
}

func newServe(streams genericiooptions.IOStreams) *cobra.Command {
	o := serveOptions{streams: streams}
	cmd := &cobra.Command{
		Use:   "serve [--config FILE]",
		Short: "Serve secrets to workloads",
		Long: `Serve secrets to workloads until it is interrupted.

Without --config, in the Kubernetes cluster that it runs in: the
EncryptedSecrets of the cluster, to workloads and operators (docs/install.md). One
replica, by Lease, also applies what GitSources bring and delivers Kubernetes
Secrets (docs/gitops.md).

With --config, on one machine and without a cluster, from git repositories.
FILE says which repositories, where the data and the root key lie, and where to
listen (docs/configuration.md); the flags that only a cluster has are refused
then.

The root key is made at the first start, unless --root-key-manual or
--root-key-store=memory say otherwise: then Safe is sealed until an operator
unseals it (kubectl vsecm unseal). A variable in parentheses says the same as
its flag, and is overruled by it.

The audit log, a JSON line for every call, goes to standard output; Safe's own
log, as JSON too, to standard error.

Exit codes: 0 stopped as asked; 1 error.`,
		Example: `  # In a pod
  safe serve

  # On one machine
  safe serve --config safe.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", "", "the configuration `FILE` for a machine without a cluster")
	f.StringVar(&o.level, "log-level", "info", "least `LEVEL` to log: debug, info, warn or error")
	o.rootKey.addTo(cmd)
	f.StringVar(&o.cluster.Kubeconfig, "kubeconfig", "", "reach the cluster as this `FILE` says, rather than as a pod does")
	f.StringVar(&o.cluster.Namespace, "namespace", "", "the `NAMESPACE` that Safe is installed in ($POD_NAMESPACE, default "+publication.DefaultNamespace+")")
	f.StringVar(&o.cluster.Name, "name", "", "the `NAME` of this replica: its pod's ($POD_NAME, default the host's)")
	f.StringVar(&o.cluster.Listen.API, "listen-api", ":8443", "`ADDRESS` of the API, TLS")
	f.StringVar(&o.cluster.Listen.Liveness, "listen-liveness", ":8081", "`ADDRESS` of the liveness probe; - for none")
	f.StringVar(&o.cluster.Listen.Readiness, "listen-readiness", ":8082", "`ADDRESS` of the readiness probe; - for none")
	f.StringVar(&o.cluster.Listen.Metrics, "listen-metrics", ":9090", "`ADDRESS` of the metrics; - for none")
	f.StringVar(&o.cluster.Webhooks.Address, "listen-webhooks", ":8444", "`ADDRESS` of the webhooks, plain HTTP behind an ingress; - for none")
	f.StringVar(&o.cluster.Webhooks.Certificate, "webhook-certificate", "", "serve webhooks over TLS with tls.crt and tls.key of this `FOLDER`, which are read again when they change")
	f.DurationVar(&o.cluster.LeaseDuration, "lease-duration", 15*time.Second, "after how long another replica takes the lead from one that has died")
	f.StringVar(&o.cluster.MirrorDir, "mirror-dir", "", "the `FOLDER` for copies of git repositories, which hold what the repositories hold ($VSECM_MIRROR_DIR, default vsecm-mirrors in the temporary folder)")
	f.StringArrayVar(&o.allowed, "allow-git-address", nil, "read repositories from this `ADDRESS` or CIDR block, too, though it is loopback, link-local or the API server's; may be repeated")
	f.StringVar(&o.cluster.SPIFFE.Socket, "spiffe-socket", "", "`ADDRESS` of the SPIFFE Workload API, unix:///…; without one workloads cannot fetch ($SPIFFE_ENDPOINT_SOCKET)")
	f.StringArrayVar(&o.cluster.SPIFFE.Workloads, "workload-id", nil, "`PATTERN` that tells a workload from its SPIFFE ID; may be repeated ($VSECM_SPIFFEID_PREFIX_WORKLOAD and $VSECM_WORKLOAD_NAME_REGEXP say it in VSecM's way; docs/configuration.md)")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	_ = cmd.MarkFlagFilename("kubeconfig")
	_ = cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// clusterOnly are the flags that mean nothing where there is no cluster.
var clusterOnly = []string{
	"kubeconfig", "namespace", "name", "listen-api", "listen-liveness", "listen-readiness", "listen-metrics", "spiffe-socket", "workload-id",
	"root-key-path", "root-key-name", "listen-webhooks", "webhook-certificate", "mirror-dir", "allow-git-address", "lease-duration",
}

func (o serveOptions) run(ctx context.Context, cmd *cobra.Command) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(strings.ToUpper(o.level))); err != nil {
		return withHint(fmt.Errorf("--log-level: unknown level %q", o.level), "want debug, info, warn or error")
	}
	log := slog.New(slog.NewJSONHandler(o.streams.ErrOut, &slog.HandlerOptions{Level: level}))
	// What client-go says is a line of the log like any other.
	klog.SetSlogLogger(log)
	rootKey, err := o.rootKey.read()
	if err != nil {
		return err
	}
	if o.config != "" {
		for _, name := range clusterOnly {
			if cmd.Flags().Changed(name) {
				return withHint(fmt.Errorf("--%s is for a cluster, and --config for a machine without one", name), "put it into %s", o.config)
			}
		}
		cfg, err := config.Load(o.config)
		if err != nil {
			return err
		}
		return explainServe(safe.Run(ctx, cfg, rootKey, log, o.streams.Out, nil))
	}
	c, err := o.inCluster()
	if err != nil {
		return err
	}
	c.RootKey = rootKey
	return explainServe(safe.RunInCluster(ctx, c, log, o.streams.Out))
}

// inCluster fills in what flags leave to the environment.
func (o serveOptions) inCluster() (safe.ClusterConfig, error) {
	c := o.cluster
	if c.Kubeconfig == "" && os.Getenv("KUBERNETES_SERVICE_HOST") == "" {
		return c, withHint(errors.New("no configuration given, and this is no pod of a cluster"),
			"name a configuration with --config, or a cluster with --kubeconfig; 'safe dev' needs neither")
	}
	set := func(to *string, values ...string) {
		for _, value := range values {
			if *to == "" {
				*to = value
			}
		}
	}
	set(&c.Namespace, os.Getenv("POD_NAMESPACE"), publication.DefaultNamespace)
	host, err := os.Hostname()
	if err != nil {
		return c, err
	}
	set(&c.Name, os.Getenv("POD_NAME"), host)
	c.SPIFFE.FillIn(os.Getenv)
	set(&c.MirrorDir, os.Getenv("VSECM_MIRROR_DIR"), filepath.Join(os.TempDir(), "vsecm-mirrors"))
	for _, text := range o.allowed {
		block, err := prefixOf(text)
		if err != nil {
			return c, fmt.Errorf("--allow-git-address: %w", err)
		}
		c.AllowGitAddress = append(c.AllowGitAddress, block)
	}
	return c, c.Check()
}

// prefixOf reads an address or a block of them.
func prefixOf(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	block, err := netip.ParsePrefix(text)
	if err != nil {
		return block, fmt.Errorf("%q is no address and no CIDR block", text)
	}
	return block.Masked(), nil
}

// explainServe gives err its next step.
func explainServe(err error) error {
	switch {
	case errors.Is(err, store.ErrLocked):
		return withHint(err, "a data directory belongs to one process: stop the other Safe, or name another dataDir")
	}
	return err
}
