package kubestore

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// StatusManager is the field manager of what Safe writes into the status of objects.
const StatusManager = "vsecm-status"

// A Standing is what the cluster holds of an object beside what is served.
type Standing struct {
	UID types.UID
	// Generation of the newest version, which changes with its spec.
	Generation int64
	// Status is nil if the object has none. It is shared: it is never changed.
	Status *v1alpha1.EncryptedSecretStatus
	// Fault says why the newest version cannot be decoded; nil if it can.
	Fault error
}

// Standing returns how the object of key stands, and false if there is none. A
// status that has changed is no change that Watch tells of.
func (s *Store) Standing(key store.Key) (Standing, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.known[key]
	return Standing{UID: k.uid, Generation: k.generation, Status: k.status, Fault: k.fault}, ok
}

// WriteStatus makes status that of the object of key, which follows from how it stood before. One that is gone, or that
// another one has taken the place of, is [store.ErrNotFound], and one whose status is about a newer generation or another than
// it was before, [ErrBusy]: what somebody else has found out is not to be lost. Its further errors are those of
// [Store.Apply]. To an object that is not as the CRD has it, which an older CRD let through, the API
// server writes no status either.
func (s *Store) WriteStatus(ctx context.Context, key store.Key, before Standing, status *v1alpha1.EncryptedSecretStatus) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	defer s.writing.Lock(key)()
	for range tries {
		now, _ := s.look(key)
		if now.uid != before.UID {
			return fmt.Errorf("status of %s: %w", key, store.ErrNotFound)
		}
		if now.status != nil && now.status.ObservedGeneration > status.ObservedGeneration {
			break // whoever wrote that has seen more
		}
		if now.status != before.Status && !reflect.DeepEqual(now.status, before.Status) {
			break
		}
		if err := s.fence.check(ctx, s, now.seen); err != nil {
			return fmt.Errorf("writing the status of %s: %w", key, err)
		}
		r, err := s.patchStatus(ctx, key, now, status)
		switch {
		case err == nil:
			s.wrote(r, now.seen)
			return nil
		case apierrors.IsNotFound(err):
			return fmt.Errorf("status of %s: %w", key, store.ErrNotFound)
		case !apierrors.IsConflict(err):
			return refusal(ctx, "writing the status of "+key.String(), err)
		}
		if err := s.lookAgain(ctx, key, now); err != nil {
			return fmt.Errorf("writing the status of %s: %w", key, err)
		}
		// What the status follows from may be no longer so.
		if then, _ := s.look(key); then.uid == before.UID && (then.generation != now.generation || !reflect.DeepEqual(then.status, now.status)) {
			return fmt.Errorf("writing the status of %s: %w", key, ErrBusy)
		}
	}
	return fmt.Errorf("writing the status of %s: %w", key, ErrBusy)
}

// patchStatus writes status, if the object is still the one that is known as now. For that its resource version
// has to be named: what is written to a status is not held against the object's UID.
func (s *Store) patchStatus(ctx context.Context, key store.Key, now known, status *v1alpha1.EncryptedSecretStatus) (*received, error) {
	body, err := json.Marshal(map[string]any{
		"apiVersion": v1alpha1.APIVersion,
		"kind":       v1alpha1.KindEncryptedSecret,
		"metadata":   map[string]any{"namespace": key.Namespace, "name": key.Name, "uid": now.uid, "resourceVersion": now.version},
		"status":     status,
	})
	if err != nil {
		return nil, err
	}
	r := &received{}
	err = s.do(ctx, at(s.source.client.Patch(types.ApplyPatchType), key).SubResource("status").
		VersionedParams(&metav1.PatchOptions{FieldManager: StatusManager, Force: new(true)}, kube.ParameterCodec).Body(body), r)
	return r, err
}
