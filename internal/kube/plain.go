package kube

import (
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	return fmt.Errorf("the API server answered %d %s", s.Code, s.Reason)
}
