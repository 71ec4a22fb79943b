package events

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
)

// timing is how long the recorder tries to write one event.
type timing struct {
	call     time.Duration // one request
	pause    time.Duration // after the first that failed; each further one is twice as long
	patience time.Duration // from the event to the last try
}

var defaultTiming = timing{call: 10 * time.Second, pause: time.Second, patience: time.Minute}

// A version is a series as it is at one time.
type version struct {
	name        string
	first, last time.Time
	count       int32
}

// write writes a series that was queued, or drops it.
func (r *Recorder) write(ctx context.Context, s *series) {
	r.mu.Lock()
	v := version{s.name, s.first, s.last, s.count}
	s.queued = false
	r.mu.Unlock()
	for pause := r.timing.pause; ; pause *= 2 {
		name, err := r.send(ctx, s, v)
		if err == nil {
			r.wrote(s, name)
			return
		}
		if ctx.Err() != nil {
			r.drop(s)
			return
		}
		r.report(s, err)
		if !mayPass(err) || r.now().Add(pause).Sub(v.last) > r.timing.patience {
			r.drop(s)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// wrote notes that the API server has a series, under this name.
func (r *Recorder) wrote(s *series, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.name = name
	r.failing.Remove(s.object.namespace)
}

// report says that writing fails: once for each namespace, until it succeeds there.
func (r *Recorder) report(s *series, err error) {
	r.mu.Lock()
	_, known := r.failing.Get(s.object.namespace)
	r.failing.Add(s.object.namespace, nil)
	r.mu.Unlock()
	if !known {
		r.log.Warn("Kubernetes Events cannot be written; some will be missing",
			"namespace", s.object.namespace, "error", kube.Plain(err))
	}
}

// mayPass says whether a failure may be gone in a moment.
func mayPass(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true // no answer
	}
	code := status.Status().Code
	return code == http.StatusTooManyRequests || code >= http.StatusInternalServerError
}

// send makes the API server have this version of a series, and returns the Event's name.
func (r *Recorder) send(ctx context.Context, s *series, v version) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timing.call)
	defer cancel()
	if v.name != "" {
		err := r.countUp(ctx, s, v)
		// The API server forgets events, after an hour by default.
		if !apierrors.IsNotFound(err) {
			return v.name, err
		}
	}
	e := r.event(s, v)
	return e.Name, r.client.Core.Post().Namespace(e.Namespace).Resource("events").Body(e).Do(ctx).Error()
}

// countUp says in the Event that is there how often it has come.
func (r *Recorder) countUp(ctx context.Context, s *series, v version) error {
	patch, err := json.Marshal(struct {
		Count int32       `json:"count"`
		Last  metav1.Time `json:"lastTimestamp"`
	}{v.count, metav1.NewTime(v.last)})
	if err != nil {
		return err
	}
	return r.client.Core.Patch(types.MergePatchType).Namespace(namespaceOf(s.object)).Resource("events").Name(v.name).
		Body(patch).Do(ctx).Error()
}

// event returns the Event that tells of a series.
func (r *Recorder) event(s *series, v version) *kube.Event {
	kind := "Normal"
	if s.warning {
		kind = "Warning"
	}
	return &kube.Event{
		TypeMeta:       metav1.TypeMeta{APIVersion: kube.CoreVersion.String(), Kind: "Event"},
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespaceOf(s.object), Name: newName(s.object.name)},
		InvolvedObject: s.about,
		Type:           kind,
		Reason:         s.reason,
		Message:        s.message,
		Source:         kube.EventSource{Component: r.component},
		FirstTimestamp: metav1.NewTime(v.first),
		LastTimestamp:  metav1.NewTime(v.last),
		Count:          v.count,

		ReportingController: r.component,
		ReportingInstance:   r.instance,
	}
}

// namespaceOf returns where an object's events are: beside it, and those of what is in no
// namespace where Kubernetes wants them.
func namespaceOf(object objectKey) string {
	if object.namespace == "" {
		return metav1.NamespaceDefault
	}
	return object.namespace
}

// newName returns a name that no other event has: the object's, as is the custom, and 64
// random bits.
func newName(object string) string {
	const longest = 253 // of any object's name
	random := make([]byte, 8)
	_, _ = rand.Read(random) // never fails
	suffix := "." + hex.EncodeToString(random)
	if len(object) > longest-len(suffix) {
		object = strings.TrimRight(object[:longest-len(suffix)], ".-")
	}
	return object + suffix
}
