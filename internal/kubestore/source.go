package kubestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
)

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
	body, err := s.request(options).Stream(ctx)
	s.reached(ctx, err)
	if err != nil {
		if _, status := asStatus(err); !status && options.SendInitialEvents != nil {
			// The reflector would wait for its next try whether ctx ends or not, if it
			// knew that the connection was refused.
			return nil, errors.New(err.Error())
		}
		return nil, err
	}
	return watch.NewStreamWatcher(&eventDecoder{json: json.NewDecoder(body), body: body}, reporter{}), nil
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

// An eventDecoder reads the events of one watch.
type eventDecoder struct {
	json *json.Decoder
	body io.ReadCloser
}

// Decode implements [watch.Decoder].
func (d *eventDecoder) Decode() (watch.EventType, runtime.Object, error) {
	var event struct {
		Type   watch.EventType `json:"type"`
		Object json.RawMessage `json:"object"`
	}
	if err := d.json.Decode(&event); err != nil {
		return "", nil, err
	}
	if event.Type == watch.Error {
		status := &metav1.Status{}
		err := json.Unmarshal(event.Object, status)
		return event.Type, status, err
	}
	r := &received{}
	err := json.Unmarshal(event.Object, r)
	return event.Type, r, err
}

// Close implements [watch.Decoder].
func (d *eventDecoder) Close() { _ = d.body.Close() }

// reporter implements [watch.Reporter].
type reporter struct{}

// AsObject implements [watch.Reporter].
func (reporter) AsObject(err error) runtime.Object {
	status := apierrors.NewGenericServerResponse(500, "watch", v1alpha1.GroupVersion.WithResource(v1alpha1.ResourceEncryptedSecrets).GroupResource(), "", err.Error(), 0, true).Status()
	return &status
}
