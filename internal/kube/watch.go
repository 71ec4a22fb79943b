package kube

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
)

// Watch begins a watch of a resource, as request asks for it, whose events hold objects that
// empty makes. Each object is decoded by itself, as JSON: for a codec, one that it cannot decode breaks
// every watch that comes to it. answered, where it is not nil, is told of the answer first.
func Watch(ctx context.Context, request *rest.Request, options metav1.ListOptions, resource schema.GroupResource,
	empty func() runtime.Object, answered func(context.Context, error)) (watch.Interface, error) {
	body, err := request.Stream(ctx)
	if answered != nil {
		answered(ctx, err)
	}
	if err != nil {
		var status apierrors.APIStatus
		if !errors.As(err, &status) && options.SendInitialEvents != nil {
			// The reflector would wait for its next try whether ctx ends or not, if it
			// knew that the connection was refused.
			return nil, errors.New(err.Error())
		}
		return nil, err
	}
	return watch.NewStreamWatcher(&eventDecoder{json.NewDecoder(body), body, empty}, reporter{resource}), nil
}

// An eventDecoder reads the events of one watch.
type eventDecoder struct {
	json  *json.Decoder
	body  io.Closer
	empty func() runtime.Object
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
	o := d.empty()
	err := json.Unmarshal(event.Object, o)
	return event.Type, o, err
}

// Close implements [watch.Decoder].
func (d *eventDecoder) Close() { _ = d.body.Close() }

// A reporter tells of what broke a watch of its resource.
type reporter struct{ resource schema.GroupResource }

// AsObject implements [watch.Reporter].
func (r reporter) AsObject(err error) runtime.Object {
	status := apierrors.NewGenericServerResponse(http.StatusInternalServerError, "watch", r.resource, "", err.Error(), 0, true).Status()
	return &status
}
