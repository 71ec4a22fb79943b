package kubestore

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
)

// resource is what a source follows.
var resource = v1alpha1.GroupVersion.WithResource(v1alpha1.ResourceEncryptedSecrets).GroupResource()

// A source lists and watches all objects. It decodes them itself: for a codec, one object that
// it cannot decode breaks the whole list, and every watch that comes to it.
type source struct {
	client rest.Interface
	log    *slog.Logger

	mu   sync.Mutex
	away bool
}

var _ cache.ListerWatcherWithContext = (*source)(nil)

// List implements [cache.ListerWatcher], of which only the methods with a context are used.
func (s *source) List(options metav1.ListOptions) (runtime.Object, error) {
	return s.ListWithContext(context.Background(), options)
}

// Watch implements [cache.ListerWatcher].
func (s *source) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return s.WatchWithContext(context.Background(), options)
}

// ListWithContext implements [cache.ListerWatcherWithContext].
func (s *source) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	data, err := answer(s.request(options).Do(ctx))
	s.reached(ctx, err)
	if err != nil {
		return nil, err
	}
	var list receivedList
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("decoding the list: %w", undecodable(err))
	}
	return &list, nil
}

// WatchWithContext implements [cache.ListerWatcherWithContext].
func (s *source) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.Watch = true
	return kube.Watch(ctx, s.request(options), options, resource, func() runtime.Object { return &received{} }, s.reached)
}

func (s *source) request(options metav1.ListOptions) *rest.Request {
	return s.client.Get().Resource(v1alpha1.ResourceEncryptedSecrets).VersionedParams(&options, kube.ParameterCodec)
}

// reached says, once, that the API server is away, and once that it is back.
func (s *source) reached(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	away := err != nil && unavailable(err)
	s.mu.Lock()
	changed := s.away != away
	s.away = away
	s.mu.Unlock()
	switch {
	case changed && away:
		s.log.Warn("the Kubernetes API cannot be reached: what is known goes on being served", slog.Any("reason", err))
	case changed:
		s.log.Info("the Kubernetes API is back")
	}
}
