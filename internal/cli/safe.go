package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/vsecm/kubectl-vsecm/internal/publication"
)

// safeVariable is where operators reach Safe.
const safeVariable = "VSECM_SAFE"

// safePort is where Safe's pods listen.
const safePort = 8443

// A safeFlag says where Safe is reached by its operators, and in whose name.
type safeFlag struct {
	conn      *connection
	address   string
	namespace namespaceFlag
	account   string
	tokenFile string
}

func (f *safeFlag) addTo(cmd *cobra.Command) {
	f.addAddressTo(cmd)
	f.namespace.addTo(cmd)
	cmd.Flags().StringVar(&f.account, "service-account", "", "Act as this service account, `NAMESPACE/NAME`, instead of Safe's own")
	cmd.Flags().StringVar(&f.tokenFile, "token-file", "", "Take the service account's token from this `FILE`, and request none")
	_ = cmd.RegisterFlagCompletionFunc("service-account", cobra.NoFileCompletions)
}

func (f *safeFlag) addAddressTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.address, "safe", "", "Where Safe is reached: `https://HOST:PORT`, several by commas, or unix://SOCKET (default $VSECM_SAFE, or a port-forward to each of its pods)")
	_ = cmd.RegisterFlagCompletionFunc("safe", cobra.FixedCompletions([]string{"https://", "unix://"}, cobra.ShellCompDirectiveNoSpace|cobra.ShellCompDirectiveNoFileComp))
}

// A namespaceFlag is --safe-namespace.
type namespaceFlag string

func (f *namespaceFlag) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar((*string)(f), "safe-namespace", publication.DefaultNamespace, "The `NAMESPACE` that Safe is installed in")
}

// given returns the addresses that --safe or the environment name.
func (f *safeFlag) given() string {
	if f.address != "" {
		return f.address
	}
	return os.Getenv(safeVariable)
}

// Safes are the replicas that a verb works with.
type safes struct {
	replicas  []*replica
	published *publication.Publication // nil where only sockets are named
	cluster   *cluster                 // likewise
	idle      []idlePod                // that are not among the replicas
}

// openWithin is [safeFlag.open] for a command that has so long for all that it asks, unless --request-timeout says
// otherwise. done ends that, and closes what was opened.
func (f *safeFlag) openWithin(ctx context.Context, timeout time.Duration, account string) (_ context.Context, _ *safes, done func(), _ error) {
	ctx, cancel, err := f.conn.within(ctx, timeout)
	if err != nil {
		return nil, nil, nil, err
	}
	all, err := f.open(ctx, account)
	if err != nil {
		cancel()
		return nil, nil, nil, err
	}
	return ctx, all, func() { all.close(); cancel() }, nil
}

// open finds Safe's replicas, to be asked in the name of one of its accounts. It connects to
// none yet.
func (f *safeFlag) open(ctx context.Context, account string) (*safes, error) {
	source := tokenSource{namespace: string(f.namespace), account: account, file: f.tokenFile}
	if f.account != "" {
		namespace, name, ok := strings.Cut(f.account, "/")
		if !ok || len(content.IsDNS1123Label(namespace)) > 0 || len(content.IsDNS1123Subdomain(name)) > 0 {
			return nil, errors.New("--service-account: want NAMESPACE/NAME")
		}
		source.namespace, source.account = namespace, name
	}
	if len(content.IsDNS1123Label(string(f.namespace))) > 0 {
		return nil, errors.New("--safe-namespace: not the name of a namespace")
	}
	s := &safes{}
	if given := f.given(); given != "" {
		for address := range strings.SplitSeq(given, ",") {
			r, err := newReplica(strings.TrimSpace(address))
			if err != nil {
				return nil, err
			}
			s.replicas = append(s.replicas, r)
		}
	}
	if err := f.throughCluster(ctx, s, source); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// throughCluster gives each replica what it is recognised by; where none is named, it
// finds them too.
func (f *safeFlag) throughCluster(ctx context.Context, s *safes, source tokenSource) error {
	if len(s.replicas) > 0 && !s.remote() {
		return nil
	}
	cluster, err := f.conn.cluster()
	if errors.Is(err, errNoCluster) {
		if len(s.replicas) == 0 {
			return withHint(errors.New("no Safe given, and no cluster to look for it in"), "name Safe with --safe or $%s, or a kubeconfig with --kubeconfig", safeVariable)
		}
		return withHint(errors.New("there is no kubeconfig, and so nothing to recognise Safe by"), "name the one of Safe's cluster with --kubeconfig")
	}
	if err != nil {
		return err
	}
	s.cluster, source.cluster = cluster, cluster
	if len(s.replicas) == 0 {
		pods, idle, err := cluster.safePods(ctx, string(f.namespace))
		if err != nil {
			// Without any, does it not run, or is it not there at all?
			if _, missing := cluster.publication(ctx, string(f.namespace)); errors.Is(missing, errNoSafe) && codeOf(err) == 0 {
				return missing
			}
			return err
		}
		s.idle = idle
		for _, pod := range pods {
			s.replicas = append(s.replicas, &replica{name: pod, base: "https://safe", remote: true, dial: func(ctx context.Context) (net.Conn, error) {
				return cluster.forward(ctx, string(f.namespace), pod, safePort)
			}})
		}
	}
	// Pods first: what the youngest of them is recognised by is published later.
	if s.published, err = cluster.publication(ctx, string(f.namespace)); err != nil {
		return err
	}
	pins := f.pinned(cluster, s.published)
	for _, r := range s.replicas {
		r.pins, r.source = pins, source
	}
	return nil
}

func (f *safeFlag) pinned(c *cluster, p *publication.Publication) *pins {
	ps := newPins(c.String(), p)
	ps.skew = f.conn.skew
	ps.renew = func(ctx context.Context) (*pins, error) {
		p, err := c.publication(ctx, string(f.namespace))
		if err != nil {
			return nil, err
		}
		return f.pinned(c, p), nil
	}
	return ps
}

// remote tells whether a replica is reached by more than a socket of this machine.
func (s *safes) remote() bool {
	for _, r := range s.replicas {
		if r.remote {
			return true
		}
	}
	return false
}

func (s *safes) close() {
	for _, r := range s.replicas {
		r.close()
	}
	if s.cluster != nil {
		s.cluster.close()
	}
}

// each does something with every replica, at once, and returns their errors in the order of
// the replicas.
func (s *safes) each(do func(i int, r *replica) error) []error {
	errs := make([]error, len(s.replicas))
	var all sync.WaitGroup
	for i, r := range s.replicas {
		all.Go(func() { errs[i] = do(i, r) })
	}
	all.Wait()
	s.adviseTokens(errs)
	return errs
}

// within bounds what is done with a replica: by --request-timeout where that is given.
func (c *connection) within(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc, error) {
	if c.overrides.Timeout != "" && c.overrides.Timeout != "0" {
		given, err := clientcmd.ParseTimeout(c.overrides.Timeout)
		if err != nil {
			return nil, nil, errors.New("--request-timeout: want a number of seconds, or a duration such as 30s")
		}
		if given > 0 {
			timeout = given
		}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	return ctx, cancel, nil
}

// newReplica returns the replica at an address. It does not connect.
func newReplica(address string) (*replica, error) {
	dialer := &net.Dialer{}
	if socket, ok := strings.CutPrefix(address, "unix://"); ok && socket != "" {
		return &replica{name: address, base: "http://safe", dial: func(ctx context.Context) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}}, nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery+u.Fragment != "" {
		return nil, withHint(fmt.Errorf("%q: not an address of Safe", address), "write https://HOST:PORT or unix:///PATH")
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	// Straight, past every proxy: the pin is what this connection is about.
	return &replica{name: "https://" + u.Host, base: "https://" + u.Host, host: u.Hostname(), remote: true, dial: func(ctx context.Context) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	}}, nil
}
