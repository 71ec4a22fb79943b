// Package safe puts Safe's rooms together: for a replica in a cluster
// ([RunInCluster]), and for local mode ([Run]), which is one process, one data
// directory, and no cluster.
package safe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/config"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/internal/serve"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/version"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// auditDrain bounds how long the end waits for audit lines that a slow reader
// of standard output holds up.
const auditDrain = 5 * time.Second

// Status is what GET /v1/status of the operator's socket answers.
type Status = serve.Status

// Started says where a Safe that has started listens.
type Started struct {
	API, Liveness, Readiness, Metrics net.Addr // nil where turned off
	Operator                          string   // path of the socket
	// Recipient of the root key; empty where none is known yet.
	Recipient serve.Recipient
}

// Run serves what cfg says until ctx ends, and then stops gracefully. Where there is no
// root key that it may use, it starts sealed, and says why. The audit log goes to auditLog. started, where it is not nil, is called once workloads can
// connect.
func Run(ctx context.Context, cfg *config.Config, mode RootKey, log *slog.Logger, auditLog io.Writer, started func(Started)) (err error) {
	if err := harden(); err != nil {
		return err
	}
	closing := func(what string, c io.Closer) {
		if e := c.Close(); e != nil {
			err = errors.Join(err, fmt.Errorf("closing %s: %w", what, e))
		}
	}

	objects, err := store.OpenDir(cfg.DataDir)
	if err != nil {
		return err
	}
	defer closing("the object store", objects)
	for _, f := range objects.Faults() {
		log.Error("a stored object cannot be read, and is not served", "file", f.Path, "error", f.Err)
	}
	journal, err := store.OpenJournal(cfg.DataDir)
	if err != nil {
		return err
	}
	defer closing("the journal", journal)

	metrics := newMetrics()
	auditor, err := audit.New(auditLog, metrics)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAudit(ctx, auditor)) }()

	gate := unseal.NewGate()
	defer gate.Shut()
	secrets := cache.New(gate, metrics, log)
	keeper := rootkey.New(rootkey.Config{
		Place:  rootkey.NewDirPlace(cfg.RootKey, cfg.DataDir),
		Manual: mode.Manual, Memory: mode.Memory,
		Gate: gate, Holder: secrets, Objects: storedIn(objects), Log: log,
	})
	sources, err := openSources(cfg, reconcile.Deps{
		Store: objects, Journal: journal, Keys: gate, Era: gate.Era, Metrics: reconcile.NewMetrics(metrics), Log: log,
	})
	for _, s := range sources {
		defer closing("source "+s.Name(), s)
	}
	if err != nil {
		return err
	}

	listeners, err := listen(cfg.Listen)
	defer closeListeners(listeners)
	if err != nil {
		return err
	}

	self, err := newOwnIdentity(cfg.SPIFFE, log)
	if err != nil {
		return err
	}
	server, err := newServer(serverParts{
		self: self, secrets: secrets, keeper: keeper, keys: gate, auditor: auditor,
		log: log, metrics: metrics, sources: sources, objects: objects,
		rekey: rekeyingHere(keeper, gate, objects, secrets, sources),
	})
	if err != nil {
		return err
	}
	group, run := errgroup.WithContext(ctx)
	group.Go(func() error { return keeper.Run(run) })
	select {
	case <-keeper.Looked():
	case <-run.Done():
	}
	at := startedAs(listeners, cfg, keeper)
	logStarted(log, at, keeper.Status(), len(sources))
	group.Go(func() error { return secrets.Run(run, objects) })
	group.Go(func() error { reconcile.Run(run, sources...); return nil })
	group.Go(func() error {
		return reconcile.Follow(run, objects, func() []*reconcile.Source { return sources })
	})
	group.Go(func() error { retryAfterUnseal(run, gate, keeper, sources); return nil })
	group.Go(func() error { settle(run, keeper, secrets, sources); return nil })
	group.Go(func() error {
		self.run(run, func() {
			log.Info("serving", "api", text(at.API))
			if started != nil {
				started(at)
			}
		}, func() {})
		return nil
	})
	group.Go(func() error { return runServer(run, server, listeners, log) })
	if err := group.Wait(); ctx.Err() == nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// openSources returns what could be opened beside an error.
func openSources(cfg *config.Config, deps reconcile.Deps) ([]*reconcile.Source, error) {
	var sources []*reconcile.Source
	for _, c := range cfg.Sources {
		remote, err := remoteOf(c)
		if err != nil {
			return sources, fmt.Errorf("source %s: %w", c.Name, err)
		}
		verify, err := verifyOf(c.Verify)
		if err != nil {
			return sources, fmt.Errorf("source %s: verify: %w", c.Name, err)
		}
		s, err := reconcile.New(reconcile.Config{
			// In a cluster a source has a namespace; here there is one of them.
			Name:       "local." + c.Name,
			Remote:     remote,
			Path:       c.Path,
			Interval:   c.Interval,
			Prune:      c.Prunes(),
			Namespaces: c.Namespaces,
			Verify:     verify,
		}, filepath.Join(cfg.DataDir, "mirrors", c.Name), deps)
		if err != nil {
			return sources, err
		}
		sources = append(sources, s)
	}
	return sources, nil
}

func remoteOf(c config.Source) (sync.Remote, error) {
	r := sync.Remote{URL: c.URL, Branch: c.Branch, Tag: c.Tag, Commit: c.Commit, Username: c.Username}
	var err error
	if r.Password, err = config.ReadCredential(c.PasswordFile); err != nil {
		return r, fmt.Errorf("passwordFile: %w", err)
	}
	if r.BearerToken, err = config.ReadCredential(c.BearerTokenFile); err != nil {
		return r, fmt.Errorf("bearerTokenFile: %w", err)
	}
	for _, f := range []struct {
		field, path string
		to          *[]byte
	}{
		{"identityFile", c.IdentityFile, &r.Identity}, {"knownHostsFile", c.KnownHostsFile, &r.KnownHosts}, {"caFile", c.CAFile, &r.CA},
	} {
		if *f.to, err = config.ReadFile(f.path); err != nil {
			return r, fmt.Errorf("%s: %w", f.field, err)
		}
	}
	return r, nil
}

func verifyOf(c config.Verification) (reconcile.Verify, error) {
	if !c.Verifies() {
		return reconcile.Verify{}, nil
	}
	files := make(map[string][]byte)
	for _, path := range c.TrustFiles {
		data, err := config.ReadFile(path)
		if err != nil {
			return reconcile.Verify{}, fmt.Errorf("trustFiles: %w", err)
		}
		files[path] = data
	}
	trust, err := sync.ParseTrust(files)
	if err != nil {
		return reconcile.Verify{}, fmt.Errorf("trustFiles: %w", err)
	}
	return reconcile.Verify{Mode: c.Mode, Trust: trust, Since: sync.Revision(c.Since)}, nil
}

type serverParts struct {
	self    *ownIdentity
	secrets *cache.Cache
	keeper  *rootkey.Keeper
	keys    *unseal.Gate
	auditor *audit.Log
	log     *slog.Logger
	metrics *prometheus.Registry
	sources []*reconcile.Source
	objects *store.Dir
	rekey   serve.Rekey
}

func newServer(p serverParts) (*serve.Server, error) {
	certificate, err := serve.SelfSigned()
	if err != nil {
		return nil, err
	}
	return serve.New(serve.Config{
		Source:      p.self,
		Workloads:   p.self,
		Certificate: certificate,
		Cache:       p.secrets,
		RootKey:     p.keeper,
		Keys:        p.keys,
		Archive:     p.keys,
		Audit:       p.auditor,
		Log:         p.log,
		Metrics:     p.metrics,
		Status:      p.status,
		Rekey:       p.rekey,
		Sync: func(ctx context.Context, name string, o reconcile.Override) error {
			return syncNow(ctx, p.sources, name, o)
		},
	})
}

func (p serverParts) status() serve.Status {
	st := serve.Status{Version: version.Get().Version}
	for _, f := range p.objects.Faults() {
		st.Unreadable = append(st.Unreadable, fmt.Sprintf("%s: %v", f.Path, f.Err))
	}
	for _, s := range p.sources {
		st.Sources = append(st.Sources, s.Status())
	}
	return st
}

// syncNow does a round of the source of that name, local/NAME, or of every one if it is
// empty. One that fails does not hold up the others.
func syncNow(ctx context.Context, sources []*reconcile.Source, name string, o reconcile.Override) error {
	if name != "" {
		owner := strings.Replace(name, "/", ".", 1)
		i := slices.IndexFunc(sources, func(s *reconcile.Source) bool { return s.Name() == owner })
		if i < 0 {
			return serve.ErrNoSource
		}
		sources = sources[i : i+1]
	}
	if o != (reconcile.Override{}) {
		waited := false
		for _, s := range sources {
			waited = s.Override(o) || waited
		}
		if !waited {
			return reconcile.ErrNothingWaits
		}
	}
	errs := make([]error, len(sources))
	var group errgroup.Group
	for i, s := range sources {
		group.Go(func() error {
			if err := s.Sync(ctx); err != nil {
				errs[i] = fmt.Errorf("%s: %w", s.Name(), err)
			}
			return nil
		})
	}
	_ = group.Wait() // every source has its own error
	return errors.Join(errs...)
}

// listen opens every listener, so that nothing else starts where one cannot. What was
// opened is returned beside an error.
func listen(l config.Listen) (serve.Listeners, error) {
	var ls serve.Listeners
	var err error
	open := func(field, at string, to *net.Listener) {
		if err != nil || at == config.Off {
			return
		}
		if *to, err = net.Listen("tcp", at); err != nil {
			err = fmt.Errorf("listen.%s: %w", field, err)
		}
	}
	open("api", l.API, &ls.API)
	open("liveness", l.Liveness, &ls.Liveness)
	open("readiness", l.Readiness, &ls.Readiness)
	open("metrics", l.Metrics, &ls.Metrics)
	if err == nil && l.Operator != config.Off {
		ls.Operator, err = serve.ListenOperator(l.Operator)
	}
	return ls, err
}

// closeListeners is for those that no server came to close; closing twice does
// no harm.
func closeListeners(ls serve.Listeners) {
	for _, l := range []net.Listener{ls.API, ls.Liveness, ls.Readiness, ls.Metrics, ls.Operator, ls.Webhooks} {
		if l != nil {
			_ = l.Close()
		}
	}
}

func text(a net.Addr) string {
	if a == nil {
		return config.Off
	}
	return a.String()
}

func startedAs(ls serve.Listeners, cfg *config.Config, keeper *rootkey.Keeper) Started {
	at := func(l net.Listener) net.Addr {
		if l == nil {
			return nil
		}
		return l.Addr()
	}
	s := Started{API: at(ls.API), Liveness: at(ls.Liveness), Readiness: at(ls.Readiness), Metrics: at(ls.Metrics)}
	if ls.Operator != nil {
		s.Operator = cfg.Listen.Operator
	}
	if r, known := keeper.Recipient(); known {
		s.Recipient = serve.Recipient{Recipient: r.String(), KeyID: string(r.KeyID())}
	}
	return s
}

func logStarted(log *slog.Logger, at Started, seal rootkey.Status, sources int) {
	log.Info("started", "version", version.Get().Version, "state", seal.State, "keyID", seal.KeyID, "sources", sources,
		"api", text(at.API), "liveness", text(at.Liveness), "readiness", text(at.Readiness), "metrics", text(at.Metrics), "operator", at.Operator)
	if seal.State != rootkey.Unsealed {
		log.Warn("sealed: no secret is served", "reason", seal.Reason)
	}
}
