package deliver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
)

// A secretSource lists and watches the metadata of one namespace's delivered Secrets.
type secretSource struct {
	client    rest.Interface
	namespace string
}

var _ cache.ListerWatcherWithContext = (*secretSource)(nil)

// List implements [cache.ListerWatcher], of which only the methods with a context are used.
func (s *secretSource) List(options metav1.ListOptions) (runtime.Object, error) {
	return s.ListWithContext(context.Background(), options)
}

// Watch implements [cache.ListerWatcher].
func (s *secretSource) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return s.WatchWithContext(context.Background(), options)
}

// ListWithContext implements [cache.ListerWatcherWithContext].
func (s *secretSource) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	result := s.request(options).SetHeader("Accept", metadataListOnly).Do(ctx)
	if err := result.Error(); err != nil {
		return nil, err
	}
	data, err := result.Raw()
	if err != nil {
		return nil, err
	}
	var list receivedList
	if json.Unmarshal(data, &list) != nil {
		return nil, errMetadata
	}
	return &list, nil
}

// WatchWithContext implements [cache.ListerWatcherWithContext].
func (s *secretSource) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.Watch = true
	body, err := s.request(options).SetHeader("Accept", metadataOnly).Stream(ctx)
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

func (s *secretSource) request(options metav1.ListOptions) *rest.Request {
	options.LabelSelector = v1alpha1.LabelDelivered
	return s.client.Get().Namespace(s.namespace).Resource("secrets").VersionedParams(&options, kube.ParameterCodec)
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
	status := apierrors.NewGenericServerResponse(http.StatusInternalServerError, "watch", schema.GroupResource{Resource: "secrets"}, "", err.Error(), 0, true).Status()
	return &status
}

func asStatus(err error) (metav1.Status, bool) {
	var answered apierrors.APIStatus
	if !errors.As(err, &answered) {
		return metav1.Status{}, false
	}
	return answered.Status(), true
}
