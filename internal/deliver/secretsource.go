package deliver

import (
	"context"
	"encoding/json"
	"errors"

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
	return kube.Watch(ctx, s.request(options).SetHeader("Accept", metadataOnly), options, schema.GroupResource{Resource: "secrets"},
		func() runtime.Object { return &received{} }, nil)
}

func (s *secretSource) request(options metav1.ListOptions) *rest.Request {
	options.LabelSelector = v1alpha1.LabelDelivered
	return s.client.Get().Namespace(s.namespace).Resource("secrets").VersionedParams(&options, kube.ParameterCodec)
}

func asStatus(err error) (metav1.Status, bool) {
	var answered apierrors.APIStatus
	if !errors.As(err, &answered) {
		return metav1.Status{}, false
	}
	return answered.Status(), true
}
