package lead_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/lead"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/logs"
)

// patience bounds every wait. It only ends a test that has failed.
const patience = 2 * time.Minute

var cluster controlplane.Shared

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

// A world is a namespace whose Lease replicas contend for.
type world struct {
	*controlplane.ControlPlane
	namespace string
	client    *kube.Client

	working atomic.Int32 // how many do a leader's work
	twice   atomic.Bool  // more than one did
}

func newWorld(t *testing.T, cp *controlplane.ControlPlane) *world {
	t.Helper()
	w := &world{ControlPlane: cp, namespace: strings.ToLower("lead-" + rand.Text())}
	w.client = newClient(t, cp.Config())
	body := `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"` + w.namespace + `"}}`
	if err := w.client.Core.Post().Resource("namespaces").SetHeader("Content-Type", "application/json").
		Body([]byte(body)).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	return w
}

func newClient(t *testing.T, config *rest.Config) *kube.Client {
	t.Helper()
	client, err := kube.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Coordination.(*rest.RESTClient).Client.CloseIdleConnections)
	return client
}

// lease returns the Lease, or nil where there is none.
func (w *world) lease(t *testing.T) *coordinationv1.Lease {
	t.Helper()
	l := &coordinationv1.Lease{}
	err := w.client.Coordination.Get().Namespace(w.namespace).Resource("leases").Name(lead.Name).Do(context.Background()).Into(l)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// holder returns who holds the Lease, "" for nobody.
func (w *world) holder(t *testing.T) string {
	t.Helper()
	if l := w.lease(t); l != nil && l.Spec.HolderIdentity != nil {
		return *l.Spec.HolderIdentity
	}
	return ""
}

func (w *world) deleteLease(t *testing.T) {
	t.Helper()
	if err := w.client.Coordination.Delete().Namespace(w.namespace).Resource("leases").Name(lead.Name).
		Do(context.Background()).Error(); err != nil {
		t.Fatal(err)
	}
}

// A replica takes part in the election.
type replica struct {
	*lead.Lead
	name  string
	world *world
	reg   *prometheus.Registry
	log   logs.Buffer
	cut   cutter

	mu       sync.Mutex
	unsealed bool
	changed  chan struct{}

	begun, ended atomic.Int32  // terms
	hold         chan struct{} // if any, work ends only when it is closed
	last         atomic.Pointer[context.Context]

	cancel context.CancelFunc
	result chan error
}

// aLongTime is longer than a test lasts: what takes it does not happen.
const aLongTime = time.Hour

// replica returns one that is unsealed and does not run yet. Its Lease does not run out.
func (w *world) replica(t *testing.T, name string) *replica {
	t.Helper()
	r := &replica{name: name, world: w, unsealed: true, changed: make(chan struct{}), reg: prometheus.NewRegistry()}
	config := w.Config()
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		r.cut.next = next
		return &r.cut
	})
	r.Lead = lead.New(newClient(t, config), w.namespace, name, slog.New(slog.NewTextHandler(&r.log, nil)), r.reg)
	r.LeaseDuration, r.RenewDeadline, r.RetryPeriod = aLongTime, aLongTime/2, 20*time.Millisecond
	r.SealedWait, r.SealedTerm = 100*time.Millisecond, 200*time.Millisecond
	return r
}

func (r *replica) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.result = cancel, make(chan error, 1)
	go func() { r.result <- r.Run(ctx, r.isUnsealed, r.whenChanged, r.work) }()
	t.Cleanup(func() { r.stop(t) })
}

// stop ends the replica, which is no error.
func (r *replica) stop(t *testing.T) {
	t.Helper()
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.cancel = nil
	if err := <-r.result; err != nil {
		t.Errorf("%s: %v", r.name, err)
	}
	if r.Leads() {
		t.Errorf("%s leads after its end", r.name)
	}
}

// work is what a leader does.
func (r *replica) work(ctx context.Context) error {
	if r.world.working.Add(1) > 1 {
		r.world.twice.Store(true)
	}
	r.last.Store(&ctx)
	r.begun.Add(1)
	<-ctx.Done()
	if r.hold != nil {
		<-r.hold
	}
	r.world.working.Add(-1)
	r.ended.Add(1)
	return ctx.Err()
}

func (r *replica) isUnsealed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unsealed
}

func (r *replica) whenChanged() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

func (r *replica) setUnsealed(unsealed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unsealed = unsealed
	close(r.changed)
	r.changed = make(chan struct{})
}

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// A cutter is a network that can be cut: requests hang, as they do when packets are lost.
type cutter struct {
	next http.RoundTripper
	down atomic.Bool
	hung atomic.Int32
}

func (c *cutter) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.down.Load() {
		c.hung.Add(1)
		<-r.Context().Done()
		return nil, errors.Join(errors.New("the network is cut"), r.Context().Err())
	}
	return c.next.RoundTrip(r)
}

// gauge returns what a replica measures: vsecm_leader.
func gauge(t *testing.T, r *replica) prometheus.Collector {
	t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) != 1 || families[0].GetName() != "vsecm_leader" {
		t.Fatalf("measured: %v", families)
	}
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "vsecm_leader"})
	g.Set(families[0].GetMetric()[0].GetGauge().GetValue())
	return g
}
