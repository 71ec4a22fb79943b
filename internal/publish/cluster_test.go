package publish

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/publication"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
)

var cluster controlplane.Shared

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

// A safe is a replica as far as it publishes.
type safe struct {
	mu      sync.Mutex
	self    Self
	changed chan struct{}
	stop    func()
}

func (s *safe) say(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.self.Replica.State = state
	close(s.changed)
	s.changed = make(chan struct{})
}

func start(t *testing.T, client *kube.Client, name string) *safe {
	t.Helper()
	s := &safe{self: Self{Replica: publication.Replica{State: "sealed", Version: "v1"}}, changed: make(chan struct{})}
	p := New(client, "default", name, slog.New(slog.DiscardHandler))
	p.lookEvery, p.checkEvery = 10*time.Millisecond, 20*time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		p.Run(ctx, func() Self {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.self
		}, func() <-chan struct{} {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.changed
		})
	})
	s.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(s.stop)
	return s
}

// says waits until the ConfigMap has these states by replica, and no other.
func says(t *testing.T, client *kube.Client, want map[string]string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := func() error {
			var cm kube.ConfigMap
			err := client.Core.Get().Namespace("default").Resource("configmaps").Name(publication.Name).Do(t.Context()).Into(&cm)
			if err != nil {
				return err
			}
			p, err := publication.Parse(cm.Data)
			if err != nil {
				return err
			}
			got := make(map[string]string)
			for name, r := range p.Replicas {
				got[name] = r.State
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				return fmt.Errorf("it says %v", got)
			}
			return nil
		}()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("want %v: %v", want, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestReplicasPublishThemselves(t *testing.T) {
	cp := cluster.Start(t)
	client, err := kube.NewClient(cp.Config())
	if err != nil {
		t.Fatal(err)
	}
	one, two := start(t, client, "safe-0"), start(t, client, "safe-1")
	says(t, client, map[string]string{"safe-0": "sealed", "safe-1": "sealed"})
	one.say("unsealed")
	says(t, client, map[string]string{"safe-0": "unsealed", "safe-1": "sealed"})

	// What somebody takes away or spoils is put back.
	if err := client.Core.Delete().Namespace("default").Resource("configmaps").Name(publication.Name).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	says(t, client, map[string]string{"safe-0": "unsealed", "safe-1": "sealed"})
	var cm kube.ConfigMap
	for {
		if err := client.Core.Get().Namespace("default").Resource("configmaps").Name(publication.Name).Do(t.Context()).Into(&cm); err != nil {
			t.Fatal(err)
		}
		cm.Data["replica.safe-0"], cm.Data["replica.gone"], cm.Data["recipient"] = "x", "{", "age1x"
		cm.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}
		err := client.Core.Put().Namespace("default").Resource("configmaps").Name(publication.Name).Body(&cm).Do(t.Context()).Error()
		if err == nil {
			break
		}
		if !apierrors.IsConflict(err) {
			t.Fatal(err)
		}
	}
	says(t, client, map[string]string{"safe-0": "unsealed", "safe-1": "sealed"})

	// A replica that ends takes itself away, and leaves the record alone.
	two.stop()
	says(t, client, map[string]string{"safe-0": "unsealed"})
	if err := client.Core.Get().Namespace("default").Resource("configmaps").Name(publication.Name).Do(t.Context()).Into(&cm); err != nil {
		t.Fatal(err)
	}
	if cm.Data["recipient"] != "age1x" {
		t.Errorf("the record is %q", cm.Data["recipient"])
	}

	// While the API server is away it goes on trying.
	cp.StopAPIServer(t)
	one.say("sealed")
	cp.StartAPIServer(t)
	says(t, client, map[string]string{"safe-0": "sealed"})
}

// What comes without a word is published at once where somebody says to look.
func TestAReplicaLooksAtItselfWhenTold(t *testing.T) {
	client, err := kube.NewClient(cluster.Start(t).Config())
	if err != nil {
		t.Fatal(err)
	}
	p := New(client, "default", "safe-told", slog.New(slog.DiscardHandler))
	p.lookEvery = time.Hour
	var spiffeID atomic.Value
	spiffeID.Store("")
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		p.Run(ctx, func() Self {
			return Self{Replica: publication.Replica{State: "sealed" + spiffeID.Load().(string)}}
		}, func() <-chan struct{} { return nil })
	})
	defer running.Wait()
	defer cancel()
	says(t, client, map[string]string{"safe-told": "sealed"})
	spiffeID.Store(", with an SVID")
	p.Look()
	says(t, client, map[string]string{"safe-told": "sealed, with an SVID"})
}
