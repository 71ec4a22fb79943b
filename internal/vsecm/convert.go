package vsecm

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// ValueKey is the key of every object's value. What VSecM gives out is one text without a key.
const ValueKey = "value"

const (
	// Prefixes of names, as VSecM has them unless it is told otherwise (core/constants/env/env.go).
	kubernetesPrefix = "k8s:"
	rawPrefix        = "raw:"

	// scout is the workload that reads every secret of the prefix raw:, and nobody else does
	// (app/safe/internal/server/route/fetch).
	scout = "vsecm-scout"

	// defaultNamespace is VSecM's for a secret that names none (app/safe/internal/server/route/secret).
	defaultNamespace = "default"
)

// ErrName: a secret has a name, or a namespace, that no Kubernetes object may have.
var ErrName = errors.New("no object may be named so")

// A Converted is what becomes of a record in one namespace: an object without values, and the value that it is to
// have. The value is the record's.
type Converted struct {
	Object *v1alpha1.EncryptedSecret
	Values map[string][]byte
	// SealedAt is when the value became what it is, in whole seconds; zero where VSecM does not tell.
	SealedAt time.Time
	// Notes say what of the record has no place in the object, and what is to be known of it.
	Notes []string
	// Lossy says that something which VSecM did for the workload is not done any more.
	Lossy bool
}

// Convert makes an object for each namespace of a record: for those that are given, for its own, or for default, in this
// order. Each has an error of its own ([ErrName]), in the order of the namespaces.
func (r *Record) Convert(namespaces []string, now time.Time) ([]Converted, []error) {
	name, kind := splitName(r.Name)
	if err := encrypt.ValidateName(name); err != nil {
		return nil, []error{fmt.Errorf("%w: %w", ErrName, err)}
	}
	if len(namespaces) == 0 {
		namespaces = r.Namespaces
	}
	if len(namespaces) == 0 {
		namespaces = []string{defaultNamespace}
	}
	base := r.convert(name, kind, now)
	var (
		all  []Converted
		errs []error
		seen []string
	)
	for _, namespace := range namespaces {
		if namespace == "" {
			namespace = defaultNamespace
		}
		if slices.Contains(seen, namespace) {
			continue
		}
		seen = append(seen, namespace)
		if err := encrypt.ValidateNamespace(namespace); err != nil {
			errs = append(errs, fmt.Errorf("%w: namespace: %w", ErrName, err))
			continue
		}
		one := base
		one.Object = base.Object.DeepCopy()
		one.Object.Namespace = namespace
		all = append(all, one)
	}
	return all, errs
}

// splitName takes the prefix off a name. Both may stand there; then VSecM goes by the first.
func splitName(name string) (rest, prefix string) {
	for _, prefix := range []string{rawPrefix, kubernetesPrefix} {
		if rest, has := strings.CutPrefix(name, prefix); has {
			return rest, prefix
		}
	}
	return name, ""
}

func (r *Record) convert(name, prefix string, now time.Time) Converted {
	c := Converted{Object: &v1alpha1.EncryptedSecret{}, Notes: slices.Clone(r.Notes)}
	c.Object.APIVersion, c.Object.Kind = v1alpha1.APIVersion, v1alpha1.KindEncryptedSecret
	c.Object.Name = name
	c.Object.Spec.Scope = string(encrypt.Strict)
	c.Values = map[string][]byte{ValueKey: r.value(&c)}
	c.seal(r.Updated, now)
	c.validity(r.NotBefore, r.ExpiresAfter, now)
	if r.Algorithm == AES {
		c.note("it was encrypted with AES-CFB, which shows no change: nothing tells that it is what VSecM stored")
	}
	switch prefix {
	case kubernetesPrefix:
		c.Object.Spec.Secret = &v1alpha1.SecretDelivery{Type: encrypt.DefaultSecretType}
		c.kubernetes(r)
	case rawPrefix:
		c.Object.Spec.Workloads = []string{scout}
		c.note("with the prefix %s only %s could read it, and so it is here, in the namespace of the object", rawPrefix, scout)
	default:
		c.transform(r)
	}
	return c
}

func (c *Converted) note(format string, args ...any) {
	c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
}

// lose is note for what is not done any more.
func (c *Converted) lose(format string, args ...any) {
	c.Lossy = true
	c.note(format, args...)
}

// value returns the value to seal: of several, the JSON list that VSecM gave to workloads.
func (r *Record) value(c *Converted) []byte {
	if len(r.Values) == 1 {
		return r.Values[0]
	}
	list := make([]string, len(r.Values))
	for i, value := range r.Values {
		list[i] = string(value)
	}
	text, err := json.Marshal(list)
	if err != nil { // texts are always JSON
		panic(err)
	}
	c.note("it has %d values: they are kept as one JSON list, as VSecM gave them to workloads", len(list))
	return text
}

// seal takes over when VSecM was given the value: so it shows how old a password is.
func (c *Converted) seal(updated, now time.Time) {
	switch {
	case updated.IsZero():
	case updated.After(now):
		c.note("it was updated in the future, on %s: the time of the import takes its place", updated.Format(time.RFC3339))
	default:
		c.SealedAt = updated.Truncate(time.Second)
	}
}

// validity takes over what VSecM stores and never enforces. Safe does.
func (c *Converted) validity(notBefore, expires, now time.Time) {
	// Whole seconds are what an object has.
	notBefore, expires = notBefore.Truncate(time.Second), expires.Truncate(time.Second)
	if !notBefore.IsZero() && !expires.IsZero() && !expires.After(notBefore) {
		c.lose("it expires, on %s, before it becomes valid, on %s: the second was left out", expires.Format(time.RFC3339), notBefore.Format(time.RFC3339))
		notBefore = time.Time{}
	}
	if !notBefore.IsZero() {
		c.Object.Spec.NotBefore = &metav1.Time{Time: notBefore}
		if notBefore.After(now) {
			c.note("it is not valid before %s, which VSecM did not enforce, and Safe does", notBefore.Format(time.RFC3339))
		}
	}
	if !expires.IsZero() {
		c.Object.Spec.ExpiresAt = &metav1.Time{Time: expires}
		if !expires.After(now) {
			c.note("it expired on %s: VSecM gave it out all the same, and Safe does not", expires.Format(time.RFC3339))
		}
	}
}
