package reconcile

import (
	"errors"

	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// A reason is a label's value for an error.
type reason struct {
	err  error
	name string
}

// A stepError says in which step of a round it came about, for a label.
type stepError struct {
	step string
	err  error
}

func (e *stepError) Error() string { return e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

// reasons name the errors of a round. One that is none of these is named by the step that it came
// about in.
var reasons = []reason{
	{sync.ErrRewound, "rewound"},
	{sync.ErrUnverified, "unverified"},
	{ErrUnrecorded, "unrecorded"},
	{ErrPanic, "panic"},
	{sync.ErrNoBranch, "no_branch"},
	{sync.ErrNoCommit, "no_commit"},
	{sync.ErrNoRepository, "no_repository"},
	{sync.ErrAuthentication, "authentication"},
	{sync.ErrHostKey, "host_key"},
	{sync.ErrCertificate, "certificate"},
	{sync.ErrAddress, "address"},
	{sync.ErrLimit, "limit"},
	{sync.ErrStalled, "stalled"},
	{sync.ErrRedirect, "redirect"},
	{sync.ErrUnsupported, "unsupported"},
	{sync.ErrMissing, "missing_object"},
	{sync.ErrMalformed, "malformed"},
}

// reasonOf names an error of a round: one of reasons; fetch, journal, apply or delete; or other.
func reasonOf(err error) string {
	if name, ok := nameOf(reasons, err); ok {
		return name
	}
	if step, ok := errors.AsType[*stepError](err); ok {
		return step.step
	}
	return "other"
}

// refusals name what keeps a manifest from being applied. What is none of these is malformed: that alone can
// be wrong in more ways than one.
var refusals = []reason{
	{store.ErrNotOwned, "not_owned"},
	{ErrContested, "contested"},
	{ErrNamespace, "namespace"},
	{ErrRefusedByAPI, "api"},
	{ErrPanic, "panic"},
	{encrypt.ErrFuture, "future"},
	{encrypt.ErrElsewhere, "elsewhere"},
	{encrypt.ErrKeyNotHeld, "key_not_held"},
	{sync.ErrDisputed, "disputed"},
	{sync.ErrEmptied, "emptied"},
}

func refusalOf(f *encrypt.Fault) string {
	if name, ok := nameOf(refusals, f); ok {
		return name
	}
	return "malformed"
}

func nameOf(names []reason, err error) (string, bool) {
	for _, r := range names {
		if errors.Is(err, r.err) {
			return r.name, true
		}
	}
	return "", false
}
