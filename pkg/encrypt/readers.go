package encrypt

import (
	"slices"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// Readers returns the names of the workloads, within o's namespace, that may fetch
// o's values: those in spec.workloads, sorted, or, where there are none, the one that
// bears o's name.
//
// That default is for the scope strict alone. The wider scopes do not bind the name,
// so whoever writes to the repository chooses it: there, nobody is a reader who was
// not named when the value was sealed.
func Readers(o *v1alpha1.EncryptedSecret) []string {
	names := slices.Compact(slices.Sorted(slices.Values(o.Spec.Workloads)))
	// BindingOf would tell the scope as well, but for the time that a template takes.
	if scope := Scope(o.Spec.Scope); len(names) == 0 && (scope == "" || scope == Strict) {
		names = []string{o.Name}
	}
	return names
}
