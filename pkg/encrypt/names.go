package encrypt

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

const (
	// MaxKeys bounds the keys of one object.
	MaxKeys = 1000
	// MaxWorkloads bounds the names in one object's spec.workloads.
	MaxWorkloads = 100
	// DefaultSecretType is the type of a Kubernetes Secret that names none.
	DefaultSecretType = "Opaque"
	// RootKeySecret is the name of the Kubernetes Secret that holds the root
	// key; it is never a target of delivery.
	RootKeySecret = "vsecm-root-key"
)

// ValidateNamespace tells whether s can be a namespace's name (RFC 1123 label).
func ValidateNamespace(s string) error { return invalid(s, validation.IsDNS1123Label(s)) }

// ValidateName tells whether s can be an object's name (RFC 1123 subdomain).
func ValidateName(s string) error { return invalid(s, validation.IsDNS1123Subdomain(s)) }

// ValidateKey tells whether s can be a key of a Kubernetes Secret's data.
func ValidateKey(s string) error { return invalid(s, validation.IsConfigMapKey(s)) }

// ValidateWorkloads tells whether ws can be a spec.workloads: names as of
// workloads (RFC 1123 subdomain), none twice, at most [MaxWorkloads].
func ValidateWorkloads(ws []string) error {
	if len(ws) > MaxWorkloads {
		return fmt.Errorf("%d workloads, of at most %d", len(ws), MaxWorkloads)
	}
	sorted := slices.Sorted(slices.Values(ws))
	for i, w := range sorted {
		if err := ValidateName(w); err != nil {
			return err
		}
		if i > 0 && sorted[i-1] == w {
			return fmt.Errorf("workload %s stands there twice", w)
		}
	}
	return nil
}

// ErrForbiddenType is returned for the types of Kubernetes Secret that give
// their holder a way into the cluster: Kubernetes itself makes those.
var ErrForbiddenType = errors.New("secrets of this type are never delivered")

// ValidateSecretType tells whether s can be the type of a Kubernetes Secret
// that is delivered ([ErrForbiddenType]).
func ValidateSecretType(s string) error {
	switch s {
	case "kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token":
		return fmt.Errorf("%s: %w", s, ErrForbiddenType)
	}
	return invalid(s, validation.IsQualifiedName(s))
}

// ReservedMetadata tells whether a label or annotation of that name is Kubernetes' own, or Safe's: no manifest may set it
// on a Secret that is delivered.
func ReservedMetadata(name string) bool {
	domain, _, ok := strings.Cut(strings.ToLower(name), "/")
	if !ok {
		return false
	}
	for _, theirs := range []string{"kubernetes.io", v1alpha1.Group} {
		if domain == theirs || strings.HasSuffix(domain, "."+theirs) {
			return true
		}
	}
	return false
}

func invalid(s string, reasons []string) error {
	if len(reasons) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %s", quoteShort(s), strings.Join(reasons, "; "))
}
