package gitsource

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// A secretWatch knows of the labelled Secrets of one namespace which there are, and in which versions: so
// a new password counts at once. What they hold never comes here.
type secretWatch struct {
	namespace string
	changed   func() // called with no lock held
	stop      context.CancelFunc

	mu       sync.Mutex
	versions map[string]string // resource versions by name
	heard    string            // up to which everything is known; empty: nothing is
}

var _ cache.ReflectorStore = (*secretWatch)(nil)

// watchSecrets follows the Secrets of a namespace until ctx ends.
func (c *Controller) watchSecrets(ctx context.Context, w *secretWatch) {
	l := &lister[*metav1.PartialObjectMetadata]{
		request:  func() *rest.Request { return c.config.Client.Core.Get().Namespace(w.namespace).Resource("secrets") },
		resource: schema.GroupResource{Resource: "secrets"},
		metadata: true,
		selector: v1alpha1.LabelGitCredentials,
		empty:    func() *metav1.PartialObjectMetadata { return &metav1.PartialObjectMetadata{} },
		answered: func(ctx context.Context, err error) {
			if !apierrors.IsForbidden(err) {
				return
			}
			// The sources of the namespace say so in their status. Asking again and again would change
			// nothing but the API server's load.
			w.forget()
			select {
			case <-ctx.Done():
			case <-time.After(c.config.Retry):
			}
		},
	}
	l.follow(ctx, w, c.config.Log)
}

// outdated tells whether the Secret of that name is another than the one that was read.
func (w *secretWatch) outdated(name string, read secret) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	version, there := w.versions[name]
	switch {
	case w.heard == "":
		return false
	case there:
		return read.version == "" || older(read.version, version)
	}
	return read.labelled && !older(w.heard, read.version)
}

func (w *secretWatch) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.versions, w.heard = nil, ""
}

// Add implements [cache.ReflectorStore].
func (w *secretWatch) Add(o any) error { return w.Update(o) }

// Update implements [cache.ReflectorStore].
func (w *secretWatch) Update(o any) error {
	return w.take(o, func(m *metav1.PartialObjectMetadata) { w.versions[m.Name] = m.ResourceVersion })
}

// Delete implements [cache.ReflectorStore].
func (w *secretWatch) Delete(o any) error {
	return w.take(o, func(m *metav1.PartialObjectMetadata) { delete(w.versions, m.Name) })
}

func (w *secretWatch) take(o any, how func(*metav1.PartialObjectMetadata)) error {
	m, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return fmt.Errorf("the watch told of a %T", o)
	}
	w.mu.Lock()
	if w.versions == nil {
		w.versions = make(map[string]string)
	}
	how(m)
	w.heard = m.ResourceVersion
	w.mu.Unlock()
	w.changed()
	return nil
}

// Replace implements [cache.ReflectorStore].
func (w *secretWatch) Replace(list []any, version string) error {
	versions := make(map[string]string, len(list))
	for _, o := range list {
		m, ok := o.(*metav1.PartialObjectMetadata)
		if !ok {
			return fmt.Errorf("the list has a %T", o)
		}
		versions[m.Name] = m.ResourceVersion
	}
	w.mu.Lock()
	w.versions, w.heard = versions, version
	w.mu.Unlock()
	w.changed()
	return nil
}

// Resync implements [cache.ReflectorStore].
func (w *secretWatch) Resync() error { return nil }
