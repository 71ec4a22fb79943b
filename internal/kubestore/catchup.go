package kubestore

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// ErrBehind says that objects stand in the cluster of which the watch has not told in time.
var ErrBehind = errors.New("what is in memory is behind the cluster")

const (
	// catchUpWait is how long the watch may take to tell of what stands in the cluster.
	catchUpWait = 15 * time.Second
	// catchUpPoll is how often CatchUp looks whether it has, and catchUpAgain after how many looks it asks the API
	// server anew: an object that is gone by then is never told.
	catchUpPoll  = 20 * time.Millisecond
	catchUpAgain = 50
	// catchUpPage is how many objects' metadata are asked for at once.
	catchUpPage = 500
)

// CatchUp returns once every object is in memory as it stands in the cluster when CatchUp is called, or newer. It
// asks the API server, for the metadata alone. Errors: [ErrBehind], [store.ErrClosed], ctx's, and those of asking.
func (s *Store) CatchUp(ctx context.Context) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	ticker := time.NewTicker(catchUpPoll)
	defer ticker.Stop()
	timeout := time.NewTimer(catchUpWait)
	defer timeout.Stop()
	var missing []*metav1.PartialObjectMetadata
	for look := 0; ; look++ {
		if look%catchUpAgain == 0 {
			var err error
			if missing, err = s.listVersions(ctx); err != nil {
				return fmt.Errorf("listing the objects: %w", err)
			}
		}
		if missing = s.notIn(missing); len(missing) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout.C:
			return fmt.Errorf("%w: by %d objects, such as %s/%s", ErrBehind, len(missing), missing[0].Namespace, missing[0].Name)
		case <-ticker.C:
		}
	}
}

// listVersions asks the API server, which may not answer from a cache of its own.
func (s *Store) listVersions(ctx context.Context) ([]*metav1.PartialObjectMetadata, error) {
	var all []*metav1.PartialObjectMetadata
	for next := ""; ; {
		var page struct {
			metav1.ListMeta `json:"metadata"`
			Items           []*metav1.PartialObjectMetadata `json:"items"`
		}
		err := s.do(ctx, s.source.client.Get().Resource(resource.Resource).
			VersionedParams(&metav1.ListOptions{Limit: catchUpPage, Continue: next}, kube.ParameterCodec).
			SetHeader("Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), &page)
		if err != nil {
			return nil, kube.Plain(err)
		}
		for _, m := range page.Items {
			m.ManagedFields, m.Annotations, m.Labels = nil, nil, nil
			if m.DeletionTimestamp == nil { // otherwise it only waits for its finalizers
				all = append(all, m)
			}
		}
		if next = page.Continue; next == "" {
			return all, nil
		}
	}
}

// notIn returns those that are not in memory yet in this version or a newer one.
func (s *Store) notIn(listed []*metav1.PartialObjectMetadata) []*metav1.PartialObjectMetadata {
	s.mu.Lock()
	defer s.mu.Unlock()
	var missing []*metav1.PartialObjectMetadata
	for _, m := range listed {
		now, is := s.known[store.Key{Namespace: m.Namespace, Name: m.Name}]
		if !is || older(now.version, m.ResourceVersion) {
			missing = append(missing, m)
		}
	}
	return missing
}
