package kubestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

var (
	// ErrUnavailable says that the API server did not answer, or could not serve. Whether
	// the write was done is not known; to repeat it does no harm.
	ErrUnavailable = errors.New("the Kubernetes API is unavailable")
	// ErrBusy says that the object is being changed or deleted by others at the moment.
	ErrBusy = errors.New("others are changing or deleting it")
)

const (
	// patience is how long one request to the API server may take.
	patience = 30 * time.Second
	// tries is how often a write is tried when others write at the same time.
	tries = 5

	// firstVersion is older than any object: etcd's first revision is its own. Applied with it, an
	// object is created where there is none, and is a conflict where there is one.
	firstVersion = "1"
)

// Apply implements [store.Store]. Errors beyond those are [ErrUnavailable], [ErrBusy], [ErrFenced], and
// what the API server said: that Safe may not write there, or that there is no such
// namespace.
func (s *Store) Apply(ctx context.Context, owner string, o *v1alpha1.EncryptedSecret) (bool, error) {
	key := store.KeyOf(o)
	if err := errors.Join(key.Validate(), store.ValidateOwner(owner)); err != nil {
		return false, err
	}
	if err := s.wait(ctx); err != nil {
		return false, err
	}
	want := store.OwnedBy(owner, o)
	delete(want.Annotations, lastApplied)

	defer s.writing.Lock(key)()
	for range tries {
		now, served := s.look(key)
		if now.uid != "" && now.owner != owner {
			return false, fmt.Errorf("%s: %w", key, store.ErrNotOwned)
		}
		if now.fault == nil && served != nil && store.EqualSpec(&served.Spec, &want.Spec) && standsAs(served, want, now.others) {
			return false, ctx.Err()
		}
		if err := s.fence.check(ctx, s, now.seen); err != nil {
			return false, fmt.Errorf("storing %s: %w", key, err)
		}
		write := s.patch
		if now.fault != nil {
			write = s.replace
		}
		r, err := write(ctx, want, now)
		switch {
		case err == nil && r.DeletionTimestamp != nil:
			return false, fmt.Errorf("storing %s: %w", key, ErrBusy)
		case err == nil:
			s.wrote(r, now.seen)
			return r.ResourceVersion != now.version, nil
		case !apierrors.IsConflict(err):
			return false, refusal(ctx, "storing "+key.String(), err)
		}
		if err := s.lookAgain(ctx, key, now); err != nil {
			return false, fmt.Errorf("storing %s: %w", key, err)
		}
	}
	return false, fmt.Errorf("storing %s: %w", key, ErrBusy)
}

// Delete implements [store.Store]. Its further errors are those of Apply.
func (s *Store) Delete(ctx context.Context, owner string, key store.Key) error {
	if err := errors.Join(key.Validate(), store.ValidateOwner(owner)); err != nil {
		return err
	}
	if err := s.wait(ctx); err != nil {
		return err
	}
	defer s.writing.Lock(key)()
	for range tries {
		before, _ := s.look(key)
		now, err := s.metadata(ctx, key)
		if apierrors.IsNotFound(err) {
			s.vanished(key, before.uid, before.version)
			return nil
		} else if err != nil {
			return refusal(ctx, "deleting "+key.String(), err)
		}
		if now.Labels[v1alpha1.LabelSource] != owner {
			return fmt.Errorf("%s: %w", key, store.ErrNotOwned)
		}
		seen := before.seen
		if now.UID != before.uid || now.ResourceVersion != before.version {
			seen = s.moment()
		}
		if err := s.fence.check(ctx, s, seen); err != nil {
			return fmt.Errorf("deleting %s: %w", key, err)
		}
		err = s.remove(ctx, key, now)
		switch {
		case err == nil || apierrors.IsNotFound(err):
			s.vanished(key, now.UID, now.ResourceVersion)
			return nil
		case !apierrors.IsConflict(err):
			return refusal(ctx, "deleting "+key.String(), err)
		}
	}
	return fmt.Errorf("deleting %s: %w", key, ErrBusy)
}

func (s *Store) look(key store.Key) (known, *v1alpha1.EncryptedSecret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.known[key]
	if !ok {
		k.seen = s.lost
	}
	return k, s.memory.Lookup(key)
}

// lookAgain asks the API server for the object of key, of which before is no longer true.
func (s *Store) lookAgain(ctx context.Context, key store.Key, before known) error {
	r := &received{}
	err := s.do(ctx, at(s.source.client.Get(), key), r)
	switch {
	case apierrors.IsNotFound(err):
		s.vanished(key, before.uid, before.version)
	case err != nil:
		return refusal(ctx, "reading it", err)
	case r.DeletionTimestamp != nil:
		return ErrBusy
	default:
		s.saw(r)
	}
	return nil
}

// patch applies want, if the object is still the one that is known as now.
func (s *Store) patch(ctx context.Context, want *v1alpha1.EncryptedSecret, now known) (*received, error) {
	version := now.version
	if version == "" {
		version = firstVersion
	}
	body, err := json.Marshal(map[string]any{
		"apiVersion": want.APIVersion,
		"kind":       want.Kind,
		"metadata": metav1.ObjectMeta{
			Namespace: want.Namespace, Name: want.Name, Labels: want.Labels, Annotations: want.Annotations,
			UID: now.uid, ResourceVersion: version,
		},
		"spec": want.Spec,
	})
	if err != nil {
		return nil, err
	}
	force := true
	r := &received{}
	err = s.do(ctx, at(s.source.client.Patch(types.ApplyPatchType), store.KeyOf(want)).
		VersionedParams(&metav1.PatchOptions{
			FieldManager: FieldManager, Force: &force, FieldValidation: metav1.FieldValidationStrict,
		}, kube.ParameterCodec).Body(body), r)
	return r, err
}

// replace writes want over an object that cannot be decoded, if it is still the one that is
// known as now: the API server cannot apply anything to it either.
func (s *Store) replace(ctx context.Context, want *v1alpha1.EncryptedSecret, now known) (*received, error) {
	key := store.KeyOf(want)
	before, err := s.metadata(ctx, key)
	if err != nil {
		if apierrors.IsNotFound(err) {
			return nil, apierrors.NewConflict(resource, want.Name, err)
		}
		return nil, err
	}
	next := *want
	next.UID, next.ResourceVersion = now.uid, now.version
	next.Finalizers, next.OwnerReferences = before.Finalizers, before.OwnerReferences
	body, err := json.Marshal(&next)
	if err != nil {
		return nil, err
	}
	r := &received{}
	err = s.do(ctx, at(s.source.client.Put(), key).
		VersionedParams(&metav1.UpdateOptions{FieldManager: FieldManager, FieldValidation: metav1.FieldValidationStrict}, kube.ParameterCodec).
		SetHeader("Content-Type", "application/json").Body(body), r)
	return r, err
}

// metadata returns the metadata of an object, which may be large as a whole.
func (s *Store) metadata(ctx context.Context, key store.Key) (*metav1.PartialObjectMetadata, error) {
	m := &metav1.PartialObjectMetadata{}
	err := s.do(ctx, at(s.source.client.Get(), key).
		SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"), m)
	return m, err
}

// remove deletes the object, if it is still as now has it.
func (s *Store) remove(ctx context.Context, key store.Key, now *metav1.PartialObjectMetadata) error {
	body, err := json.Marshal(&metav1.DeleteOptions{
		TypeMeta:      metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"},
		Preconditions: &metav1.Preconditions{UID: &now.UID, ResourceVersion: &now.ResourceVersion},
	})
	if err != nil {
		return err
	}
	return s.do(ctx, at(s.source.client.Delete(), key).SetHeader("Content-Type", "application/json").Body(body), nil)
}

func at(r *rest.Request, key store.Key) *rest.Request {
	return r.Namespace(key.Namespace).Resource(v1alpha1.ResourceEncryptedSecrets).Name(key.Name)
}

// do sends a request and decodes the answer into to, unless that is nil.
func (s *Store) do(ctx context.Context, request *rest.Request, to any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	data, err := answer(request.Do(ctx))
	if err != nil || to == nil {
		return err
	}
	if err := json.Unmarshal(data, to); err != nil {
		return undecodable(err)
	}
	return nil
}

// answer returns the body of an answer, or what the API server said in it. (The error of
// Raw alone is what the status code means in general.)
func answer(result rest.Result) ([]byte, error) {
	if err := result.Error(); err != nil {
		return nil, err
	}
	return result.Raw()
}

// refusal says what err means to the caller of a method.
func refusal(ctx context.Context, doing string, err error) error {
	status, ok := asStatus(err)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	case unavailable(err):
		return fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, err)
	case ok && (status.Code == http.StatusUnprocessableEntity || status.Code == http.StatusBadRequest || status.Code == http.StatusRequestEntityTooLarge):
		return fmt.Errorf("%s: %w: %s", doing, store.ErrInvalid, status.Message)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// unavailable tells whether err is for want of an API server that can serve.
func unavailable(err error) bool {
	status, ok := asStatus(err)
	return !ok || status.Code >= http.StatusInternalServerError || status.Code == http.StatusTooManyRequests
}

func asStatus(err error) (metav1.Status, bool) {
	var answered apierrors.APIStatus
	if !errors.As(err, &answered) {
		return metav1.Status{}, false
	}
	return answered.Status(), true
}
