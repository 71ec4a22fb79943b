package gitsource

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
)

const metadataOnly = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
const metadataListOnly = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

// An object is one of those that are listed and watched here.
type object interface {
	runtime.Object
	metav1.Object
}

// A lister lists and watches a resource. It decodes each object by itself: for a codec, one that
// it cannot decode breaks the whole list, and every watch that comes to it.
type lister[T object] struct {
	request  func() *rest.Request // of the collection
	resource schema.GroupResource
	// metadata asks for nothing else.
	metadata bool
	selector string
	empty    func() T
	// answered is told of each answer, before it is used. It may wait.
	answered func(ctx context.Context, err error)
}

func (l *lister[T]) follow(ctx context.Context, to cache.ReflectorStore, log *slog.Logger) {
	logger := logr.FromSlogHandler(log.Handler())
	reflector := cache.NewReflectorWithOptions(l, nil, to, cache.ReflectorOptions{
		Name: l.resource.Resource, TypeDescription: l.resource.Resource, Logger: &logger,
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 8, Cap: 5 * time.Second},
	})
	reflector.RunWithContext(klog.NewContext(ctx, logger))
}

// List implements [cache.ListerWatcher], of which only the methods with a context are used.
func (l *lister[T]) List(options metav1.ListOptions) (runtime.Object, error) {
	return l.ListWithContext(context.Background(), options)
}

// Watch implements [cache.ListerWatcher].
func (l *lister[T]) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return l.WatchWithContext(context.Background(), options)
}

// ListWithContext implements [cache.ListerWatcherWithContext].
func (l *lister[T]) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	options.LabelSelector = l.selector
	request := l.request().VersionedParams(&options, kube.ParameterCodec)
	if l.metadata {
		request = request.SetHeader("Accept", metadataListOnly)
	}
	data, err := answerOf(request.Do(ctx))
	l.answered(ctx, err)
	if err != nil {
		return nil, err
	}
	var list struct {
		metav1.ListMeta `json:"metadata"`
		Items           []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("decoding a list of %s: %w", l.resource, undecodable(err))
	}
	decoded := &objects{ListMeta: list.ListMeta, Items: make([]runtime.Object, len(list.Items))}
	for i, item := range list.Items {
		o := l.empty()
		if err := json.Unmarshal(item, o); err != nil {
			return nil, fmt.Errorf("decoding a list of %s: %w", l.resource, undecodable(err))
		}
		decoded.Items[i] = o
	}
	return decoded, nil
}

// WatchWithContext implements [cache.ListerWatcherWithContext].
func (l *lister[T]) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.Watch, options.LabelSelector = true, l.selector
	request := l.request().VersionedParams(&options, kube.ParameterCodec)
	if l.metadata {
		request = request.SetHeader("Accept", metadataOnly)
	}
	return kube.Watch(ctx, request, options, l.resource, func() runtime.Object { return l.empty() }, l.answered)
}

// objects are a list, or a page of one.
type objects struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []runtime.Object
}

// DeepCopyObject implements [runtime.Object].
func (l *objects) DeepCopyObject() runtime.Object {
	c := &objects{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy(), Items: make([]runtime.Object, len(l.Items))}
	for i, o := range l.Items {
		c.Items[i] = o.DeepCopyObject()
	}
	return c
}

// answerOf returns the body of an answer, or what the API server said in it. (The error of
// Raw alone is what the status code means in general.)
func answerOf(result rest.Result) ([]byte, error) {
	if err := result.Error(); err != nil {
		return nil, err
	}
	return result.Raw()
}

// older tells whether resource version a is older than b. What cannot be compared is not.
func older(a, b string) bool {
	c, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && c < 0
}
