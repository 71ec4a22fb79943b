package events

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/logs"
)

// patience bounds every wait. It only ends a test that has failed.
const patience = 2 * time.Minute

var cluster controlplane.Shared

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

func newRecorder(t *testing.T, client *kube.Client) *Recorder {
	t.Helper()
	r, _ := newLoggedRecorder(t, client)
	return r
}

func newLoggedRecorder(t *testing.T, client *kube.Client) (*Recorder, *logs.Buffer) {
	t.Helper()
	log := &logs.Buffer{}
	return New(client, "vsecm-safe", "vsecm-safe-0", slog.New(slog.NewTextHandler(log, nil)), prometheus.NewRegistry()), log
}

func newClient(t *testing.T, config *rest.Config) *kube.Client {
	t.Helper()
	client, err := kube.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Core.(*rest.RESTClient).Client.CloseIdleConnections)
	return client
}

// run runs a recorder until the test ends.
func run(t *testing.T, r *Recorder) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

// ended runs a recorder that is told to end at once.
func ended(t *testing.T, r *Recorder) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r.Run(ctx)
}

// object returns a reference to what need not exist.
func object(namespace, name string) kube.ObjectReference {
	return kube.ObjectReference{APIVersion: "vsecm.com/v1alpha1", Kind: "EncryptedSecret", Namespace: namespace, Name: name}
}

// namespace makes a namespace for a test.
func namespace(t *testing.T, client *kube.Client) string {
	t.Helper()
	name := strings.ToLower("events-" + rand.Text())
	body := `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"` + name + `"}}`
	if err := client.Core.Post().Resource("namespaces").SetHeader("Content-Type", "application/json").
		Body([]byte(body)).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	return name
}

// written returns the events that there are in a namespace, of the component that these tests
// are, ordered by reason and message.
func written(t *testing.T, client *kube.Client, namespace string) []kube.Event {
	t.Helper()
	raw, err := client.Core.Get().Namespace(namespace).Resource("events").Do(context.Background()).Raw()
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Items []kube.Event `json:"items"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list.Items, func(a, b kube.Event) int {
		return strings.Compare(a.Reason+" "+a.Message, b.Reason+" "+b.Message)
	})
	return slices.DeleteFunc(list.Items, func(e kube.Event) bool { return e.Source.Component != "vsecm-safe" })
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
