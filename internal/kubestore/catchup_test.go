package kubestore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
)

// What the API server has counts, and not what the watch has told of it so far.
func TestCatchingUpWaitsForWhatTheWatchHasNotTold(t *testing.T) {
	var mu sync.Mutex
	items := []string{item("db", "10"), item("api", "12")}
	asked := make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadataList") || r.URL.Query().Get("resourceVersion") != "" {
			t.Errorf("asked for %s with %s", r.Header.Get("Accept"), r.URL.RawQuery)
		}
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		// Two pages.
		next, page := "", items[min(1, len(items)):]
		if r.URL.Query().Get("continue") == "" {
			next, page = "more", items[:min(1, len(items))]
		} else {
			asked <- struct{}{}
		}
		fmt.Fprintf(w, `{"metadata":{"resourceVersion":"20","continue":%q},"items":[%s]}`, next, strings.Join(page, ","))
	}))
	defer server.Close()
	client, err := kube.NewClient(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.VSecM.(*rest.RESTClient).Client.CloseIdleConnections)
	s := New(client, slog.New(slog.DiscardHandler))
	told := func(name, version string) *received {
		meta := metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "1", ResourceVersion: version}
		return &received{ObjectMeta: meta, object: &v1alpha1.EncryptedSecret{ObjectMeta: meta}}
	}
	if err := (*mirror)(s).Replace([]any{told("db", "10"), told("api", "9")}, "10"); err != nil {
		t.Fatal(err)
	}
	begin := func(ctx context.Context) chan error {
		done := make(chan error, 1)
		go func() { done <- s.CatchUp(ctx) }()
		<-asked
		select {
		case err := <-done:
			t.Errorf("it is done with %v, before the watch told", err)
		default:
		}
		return done
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := begin(ctx)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("who goes away: %v", err)
	}

	done = begin(t.Context())
	if err := (*mirror)(s).Update(told("api", "12")); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("told: %v", err)
	}
	if err := s.CatchUp(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}

	// One that is deleted before it was told is never told.
	mu.Lock()
	items = append(items, item("late", "15"))
	mu.Unlock()
	for len(asked) > 0 {
		<-asked
	}
	done = begin(t.Context())
	mu.Lock()
	items = items[:2]
	mu.Unlock()
	if err := <-done; err != nil {
		t.Errorf("deleted meanwhile: %v", err)
	}
	server.Close()
	if err := s.CatchUp(t.Context()); err == nil {
		t.Error("the API server is away, and it is caught up")
	}
}

func item(name, version string) string {
	return fmt.Sprintf(`{"metadata":{"namespace":"shop","name":%q,"resourceVersion":%q}}`, name, version)
}
