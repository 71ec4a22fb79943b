package safe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/internal/config"
	"github.com/vsecm/kubectl-vsecm/internal/deliver"
	"github.com/vsecm/kubectl-vsecm/internal/events"
	"github.com/vsecm/kubectl-vsecm/internal/gitsource"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
	"github.com/vsecm/kubectl-vsecm/internal/lead"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/internal/serve"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// leading is what one replica does for all: it fetches, applies, delivers and writes. Every
// replica has it, and the one with the Lease does it.
type leading struct {
	lead      *lead.Lead
	sources   *gitsource.Controller
	deliverer *deliver.Controller
	events    *events.Recorder
	gate      *unseal.Gate
	keeper    *rootkey.Keeper
}

type leadingParts struct {
	client  *kube.Client
	to      *rest.Config
	objects *kubestore.Store
	gate    *unseal.Gate
	keeper  *rootkey.Keeper
	metrics *prometheus.Registry
	log     *slog.Logger
}

func newLeading(ctx context.Context, c ClusterConfig, p leadingParts) *leading {
	l := &leading{gate: p.gate, keeper: p.keeper}
	l.events = events.New(p.client, "vsecm-safe", c.Name, p.log, p.metrics)
	l.lead = lead.New(p.client, c.Namespace, c.Name, p.log, p.metrics)
	// In the ratios that Kubernetes' own components have.
	l.lead.LeaseDuration = c.LeaseDuration
	l.lead.RenewDeadline, l.lead.RetryPeriod = c.LeaseDuration*2/3, c.LeaseDuration*2/15
	p.objects.FenceBy(l.lead.Held)
	l.deliverer = deliver.New(deliver.Config{
		Client: p.client, Namespace: c.Namespace, Store: p.objects, Keys: p.gate, Era: p.gate.Era,
		Events: l.events, Log: p.log, Metrics: p.metrics,
	})
	l.sources = gitsource.New(gitsource.Config{
		Client: p.client, Namespace: c.Namespace, MirrorDir: c.MirrorDir, Store: p.objects, Keys: p.gate, Era: p.gate.Era, Held: l.lead.Held,
		Metrics: reconcile.NewMetrics(p.metrics), Observer: l.deliverer, Events: l.events, Log: p.log,
		Removed: l.deliverer.SourceRemoved,
		Refuse:  newAddressRule(ctx, c.AllowGitAddress, p.to, p.log).refuse,
	})
	return l
}

// run takes part until ctx ends.
func (l *leading) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { l.events.Run(ctx); return nil })
	group.Go(func() error { return l.sources.Run(ctx) })
	group.Go(func() error { l.retry(ctx); return nil })
	group.Go(func() error { return l.lead.Run(ctx, l.unsealed, l.keeper.Changed, l.do) })
	return group.Wait()
}

// do is the leader's work, until the Lease is lost.
func (l *leading) do(ctx context.Context) error {
	// Sources end later than what they tell, perhaps, and what they told last is not for the next term.
	defer l.deliverer.Forget()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.deliverer.Lead(ctx) })
	group.Go(func() error { return l.sources.Lead(ctx) })
	group.Go(func() error { l.tidy(ctx); return nil })
	return group.Wait()
}

const (
	// tidyPoll is how often tidy looks whether there is something to do.
	tidyPoll = 500 * time.Millisecond
	// tidyPause lies between two times that it gives memory back: that makes Go look through all of it.
	tidyPause = time.Minute
)

// tidy gives memory back to the system whenever much was done, until ctx ends. To begin to lead, or to
// apply many manifests, leaves a multiple of what Safe then holds as garbage.
func (l *leading) tidy(ctx context.Context) {
	ticker := time.NewTicker(tidyPoll)
	defer ticker.Stop()
	var next time.Time
	for worked := false; ; {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			switch {
			case l.sources.Busy() || l.deliverer.Waiting() > 0:
				worked = true
			case worked && now.After(next):
				debug.FreeOSMemory()
				worked, next = false, now.Add(tidyPause)
			}
		}
	}
}

func (l *leading) unsealed() bool { return l.gate.Era() != 0 }

// retry has everything that was refused tried again whenever Safe was unsealed, or holds other keys
// since, until ctx ends.
func (l *leading) retry(ctx context.Context) {
	var before uint64
	for {
		changed := l.keeper.Changed()
		if turn := l.gate.Turn(); turn != before {
			before = turn
			l.sources.Retry()
			l.deliverer.Retry()
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// sync does a round of the source NAMESPACE/NAME, or of every one where name is empty.
func (l *leading) sync(ctx context.Context, name string, o reconcile.Override) error {
	err := l.sources.Sync(ctx, name, o)
	switch {
	case errors.Is(err, gitsource.ErrNotLeading):
		return fmt.Errorf("%w", serve.ErrNotLeading)
	case errors.Is(err, gitsource.ErrNoSource):
		return fmt.Errorf("%w: %s", serve.ErrNoSource, name)
	}
	return err
}

// listenForHooks opens the listener of webhooks.
func listenForHooks(w Webhooks, ls *serve.Listeners) (err error) {
	if w.Address == config.Off {
		return nil
	}
	if ls.Webhooks, err = net.Listen("tcp", w.Address); err != nil {
		return fmt.Errorf("--listen-webhooks: %w", err)
	}
	return nil
}
