package kube

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Plain returns err without the API server's own words: an admission webhook or a proxy may
// quote what it was shown, a key or a token. Use it for the error of any call that carries
// one. The result is no error of package apierrors any more.
func Plain(err error) error {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return err
	}
	s := status.Status()
	if slices.Contains(reasons, s.Reason) {
		return fmt.Errorf("the API server answered %d %s", s.Code, s.Reason)
	}
	return fmt.Errorf("the API server answered %d %s", s.Code, http.StatusText(int(s.Code)))
}

// reasons are Kubernetes' own. A webhook chooses its reason itself, and some write a whole
// sentence there.
var reasons = []metav1.StatusReason{
	metav1.StatusReasonUnauthorized, metav1.StatusReasonForbidden, metav1.StatusReasonNotFound, metav1.StatusReasonAlreadyExists,
	metav1.StatusReasonConflict, metav1.StatusReasonGone, metav1.StatusReasonInvalid, metav1.StatusReasonServerTimeout,
	metav1.StatusReasonStoreReadError, metav1.StatusReasonTimeout, metav1.StatusReasonTooManyRequests, metav1.StatusReasonBadRequest,
	metav1.StatusReasonMethodNotAllowed, metav1.StatusReasonNotAcceptable, metav1.StatusReasonRequestEntityTooLarge,
	metav1.StatusReasonUnsupportedMediaType, metav1.StatusReasonInternalError, metav1.StatusReasonExpired,
	metav1.StatusReasonServiceUnavailable,
}
