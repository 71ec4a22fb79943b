package deliver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

const (
	// patience is how long one request to the API server may take.
	patience = 30 * time.Second

	// firstVersion is older than any object: etcd's first revision is its own. Applied with it, a
	// Secret is created where there is none, and is a conflict where there is one.
	firstVersion = "1"
)

var (
	// errNamespaceEnding: the namespace is being deleted, or is gone.
	errNamespaceEnding = errors.New("the namespace is being deleted")
	// errChanged: the Secret is not, or no longer, as it was thought to be.
	errChanged = errors.New("others have changed it")
	// errBehind: there is a newer version of the object than the one that was to be delivered.
	errBehind = errors.New("the object has changed since")
	// errForbidden: Safe may not do that.
	errForbidden = errors.New("forbidden")
	// errImmutable: a Secret cannot be changed in this way, only replaced.
	errImmutable = errors.New("it cannot be changed in place")
	// errAway: the API server cannot serve at the moment.
	errAway = errors.New("the Kubernetes API is unavailable")
	// errInvalid: the API server does not take the Secret as it is.
	errInvalid = errors.New("the API server does not take it")
)

// A target is the Secret that a write replaces; the zero value: none.
type target struct {
	uid     types.UID
	version string
	adopted bool
}

// secrets writes Kubernetes Secrets. It never reads their data.
type secrets struct{ client rest.Interface }

// apply makes the Secret of o hold data, all of it at once, if what stands there is
// still at; errors are those above.
func (s secrets) apply(ctx context.Context, o *v1alpha1.EncryptedSecret, data values, at target) (secretMeta, error) {
	if at.uid == "" {
		at.version = firstVersion
	}
	body, err := secretBody(o, data, at)
	if err != nil {
		return secretMeta{}, err
	}
	defer clear(body)
	force := true
	answer, err := s.do(ctx, s.at(s.client.Patch(types.ApplyPatchType), store.KeyOf(o)).
		VersionedParams(&metav1.PatchOptions{FieldManager: FieldManager, Force: &force, FieldValidation: metav1.FieldValidationStrict}, kube.ParameterCodec).
		Body(body))
	if err != nil {
		return secretMeta{}, writeError(err, o)
	}
	return decodeMeta(answer)
}

// look returns what stands at key; errors are [store.ErrNotFound] and those above.
func (s secrets) look(ctx context.Context, key store.Key) (secretMeta, error) {
	answer, err := s.do(ctx, s.at(s.client.Get(), key))
	if apierrors.IsNotFound(err) {
		return secretMeta{}, store.ErrNotFound
	} else if err != nil {
		return secretMeta{}, writeError(err, nil)
	}
	return decodeMeta(answer)
}

// remove deletes the Secret of key, if it still is as m has it. That it is gone is no error.
func (s secrets) remove(ctx context.Context, key store.Key, m secretMeta) error {
	body, err := json.Marshal(&metav1.DeleteOptions{
		TypeMeta:      metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"},
		Preconditions: &metav1.Preconditions{UID: &m.uid, ResourceVersion: &m.version},
	})
	if err != nil {
		return err
	}
	_, err = s.do(ctx, s.at(s.client.Delete(), key).SetHeader("Content-Type", "application/json").Body(body))
	if apierrors.IsNotFound(err) {
		return nil
	}
	return writeError(err, nil)
}

func (s secrets) at(r *rest.Request, key store.Key) *rest.Request {
	return r.Namespace(key.Namespace).Resource("secrets").Name(key.Name).SetHeader("Accept", metadataOnly)
}

func (s secrets) do(ctx context.Context, r *rest.Request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	result := r.Do(ctx)
	if err := result.Error(); err != nil {
		return nil, err
	}
	return result.Raw()
}

func decodeMeta(answer []byte) (secretMeta, error) {
	var r received
	if json.Unmarshal(answer, &r) != nil || r.UID == "" {
		return secretMeta{}, errMetadata
	}
	return r.meta(), nil
}

// writeError says what err means, in none of the API server's own words: an admission webhook may quote what
// it was shown. o is what was written, if anything was.
func writeError(err error, o *v1alpha1.EncryptedSecret) error {
	if err == nil {
		return nil
	}
	status, answered := asStatus(err)
	plain := kube.Plain(err)
	switch {
	case !answered || status.Code >= http.StatusInternalServerError || status.Code == http.StatusTooManyRequests:
		return fmt.Errorf("%w: %w", errAway, plain)
	case apierrors.HasStatusCause(err, metav1.CauseType("NamespaceTerminating")), apierrors.IsNotFound(err):
		return fmt.Errorf("%w: %w", errNamespaceEnding, plain)
	case status.Code == http.StatusConflict:
		return fmt.Errorf("%w: %w", errChanged, plain)
	case apierrors.IsForbidden(err) && byRBAC(status.Message):
		return fmt.Errorf("%w: %w", errForbidden, plain)
	case status.Code == http.StatusUnprocessableEntity && slices.ContainsFunc(causes(status), cannotChange):
		return fmt.Errorf("%w: %w", errImmutable, plain)
	case status.Code == http.StatusUnprocessableEntity || status.Code == http.StatusBadRequest || status.Code == http.StatusRequestEntityTooLarge:
		if fields := namedFields(status, o); len(fields) > 0 {
			return fmt.Errorf("%w: %w (%s)", errInvalid, plain, strings.Join(fields, ", "))
		}
		return fmt.Errorf("%w: %w", errInvalid, plain)
	}
	return fmt.Errorf("%w: %w, which an admission webhook or a quota may have been the reason for", errInvalid, plain)
}

// byRBAC tells whether the message of a refusal is the authorizer's, and not that of
// admission.
func byRBAC(message string) bool {
	return strings.Contains(message, ` cannot `) && strings.Contains(message, ` resource "secrets" in API group `)
}

func causes(s metav1.Status) []metav1.StatusCause {
	if s.Details == nil {
		return nil
	}
	return s.Details.Causes
}

// cannotChange tells whether c is for a field that only a new Secret can have another value in.
func cannotChange(c metav1.StatusCause) bool {
	switch c.Field {
	case "type":
		return strings.HasSuffix(c.Message, "field is immutable")
	case "data", "immutable":
		return strings.HasSuffix(c.Message, "field is immutable when `immutable` is set")
	}
	return false
}

// namedFields returns the fields that the API server complains of, as far as they are those of a
// Secret: whatever else stands there may be anybody's words.
func namedFields(s metav1.Status, o *v1alpha1.EncryptedSecret) []string {
	may := map[string]bool{
		"type": true, "data": true, "immutable": true, "metadata.name": true, "metadata.labels": true, "metadata.annotations": true,
	}
	for _, key := range []string{
		".dockercfg", ".dockerconfigjson", "tls.crt", "tls.key", "ssh-privatekey", "username", "password",
	} {
		may["data["+key+"]"] = true
	}
	if o != nil {
		for key := range o.Spec.EncryptedData {
			may["data["+key+"]"] = true
		}
	}
	var fields []string
	for _, c := range causes(s) {
		field := c.Field
		switch {
		case !may[field] || slices.Contains(fields, field) || len(fields) > 8:
			continue
		case c.Type == metav1.CauseTypeFieldValueRequired:
			field += " is required"
		}
		fields = append(fields, field)
	}
	return fields
}
