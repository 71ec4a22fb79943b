// Package fetch brings a workload's secrets to where a program finds them: it
// prints them, or writes them as files. It has them from pkg/workload.
package fetch

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/vsecm/kubectl-vsecm/pkg/workload"
)

// Secrets are all secrets of one workload at one time.
type Secrets workload.Secrets

// A Secret is one object that the workload may read.
type Secret = workload.Secret

// checkNames refuses what no Kubernetes object has, which includes everything
// that would climb out of a directory. Secrets that were made by hand get here
// as well as those that Safe sent.
func checkNames(s Secret) error {
	if len(validation.IsDNS1123Subdomain(s.Name)) > 0 {
		return fmt.Errorf("%w: %q is not the name of a secret", workload.ErrBadAnswer, s.Name)
	}
	for key := range s.Data {
		if len(validation.IsConfigMapKey(key)) > 0 {
			return fmt.Errorf("%w: secret %q: %q is not a key", workload.ErrBadAnswer, s.Name, key)
		}
	}
	return nil
}
