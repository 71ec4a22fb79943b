package gitsource

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unicode/utf8"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// Reasons of condition Ready, beside those of Secrets that cannot be used.
const (
	reasonApplied       = "Applied"
	reasonProgressing   = "Progressing"
	reasonSealed        = "Sealed"
	reasonInvalid       = "Invalid"
	reasonMirror        = "MirrorFailed"
	reasonRewound       = "Rewound"
	reasonUnrecorded    = "Unrecorded"
	reasonUnverified    = "Unverified"
	reasonFaults        = "Faults"
	reasonConflict      = "Conflict"
	reasonDeletionsWait = "DeletionsWait"
	reasonFetchFailed   = "FetchFailed"
	reasonApplyFailed   = "ApplyFailed"
)

var sealedVerdict = condition.Verdict{State: condition.Progressing, Reason: reasonSealed,
	Message: "Safe is sealed: it holds no root key, applies nothing and judges nothing, until operators unseal it (kubectl vsecm unseal)"}

const (
	// maxText bounds, in bytes, each text of others' in a status, and maxMessage that of a condition.
	maxText    = 1024
	maxMessage = 4096
	// maxListed bounds each list of a status: etcd takes a megabyte and a half.
	maxListed = 50
)

// A failure is what an error of a round means to whoever may help.
type failure struct {
	reason string
	state  condition.State
	help   string // what to do; empty where the error says that
}

// failures are by [reconcile.Status.ErrorReason].
var failures = map[string]failure{
	"authentication": {"AuthenticationFailed", condition.Failed, "put credentials that the server takes into the Secret that spec.secretRef names"},
	"host_key":       {"HostKeyUnknown", condition.Failed, "known hosts are key known_hosts of the Secret that spec.secretRef names"},
	"certificate":    {"CertificateInvalid", condition.Failed, "have the server show another certificate, or put the one of who issued it into ca.crt of the Secret that spec.secretRef names"},
	"address":        {"AddressRefused", condition.Failed, ""},
	"no_repository":  {"RepositoryNotFound", condition.Failed, "correct spec.url, or let the credentials see the repository"},
	"no_branch":      {"BranchNotFound", condition.Failed, "push it, or correct spec.ref"},
	"no_commit":      {"CommitNotFound", condition.Failed, "correct spec.ref.commit, or name in spec.ref.branch the branch that has it"},
	"limit":          {"LimitExceeded", condition.Failed, "make the repository smaller, or keep secrets in one of their own"},
	"redirect":       {reasonFetchFailed, condition.Failed, "put the address that the server points to into spec.url"},
	"unsupported":    {reasonFetchFailed, condition.Failed, ""},
	"panic":          {reasonApplyFailed, condition.Progressing, "tell whoever runs Safe"},
	"missing_object": {reasonFetchFailed, condition.Progressing, ""},
	"malformed":      {reasonFetchFailed, condition.Progressing, ""},
	"stalled":        {reasonFetchFailed, condition.Progressing, ""},
	"fetch":          {reasonFetchFailed, condition.Progressing, ""},
	"unverified":     {reasonUnverified, condition.Failed, "nothing is applied until what is followed is signed by a key in the Secret that spec.verify.secretRef names"},
	"rewound":        {reasonRewound, condition.Failed, ""},
	"unrecorded":     {reasonUnrecorded, condition.Failed, ""},
}

// verdictOf says how a source fares after a round.
func verdictOf(key store.Key, set *settings, st *reconcile.Status) condition.Verdict {
	command := func(flag, revision string) string {
		return fmt.Sprintf("kubectl vsecm sync %s --namespace %s --%s %s", key.Name, key.Namespace, flag, revision)
	}
	if st.Error != "" {
		f, ok := failures[st.ErrorReason]
		if !ok {
			f = failure{reasonApplyFailed, condition.Progressing, ""}
		}
		if f.reason == reasonRewound || f.reason == reasonUnrecorded {
			f.help = "if that is meant, " + command("accept-rewrite", st.Rewind.Seen)
		}
		message := cut(st.Error, maxText)
		if f.help != "" {
			message += ": " + f.help
		}
		return condition.Verdict{State: f.state, Reason: f.reason, Message: message}
	}
	if n := st.Faults.Total; n > 0 {
		return verdictOfFaults(st.Faults)
	}
	if st.DeletionsWait == reconcile.WaitsForBrake || st.DeletionsWait == reconcile.WaitsForConfiguration {
		why := "they are too many to be done unasked"
		if st.DeletionsWait == reconcile.WaitsForConfiguration {
			why = "it is spec.path or spec.namespaces that no longer covers them"
		}
		return condition.Verdict{State: condition.Failed, Reason: reasonDeletionsWait, Message: fmt.Sprintf(
			"%s stand that git no longer declares: %s. If they are to be deleted, %s",
			counted(st.PendingDeletions.Total, "object"), why, command("allow-deletions", st.Seen))}
	}
	return condition.Verdict{State: condition.Current, Reason: reasonApplied, Message: "Applied revision " + revisionOf(set, st.Revision)}
}

// revisionOf says a revision as Flux does.
func revisionOf(set *settings, revision string) string { return set.ref() + "@sha1:" + revision }

func verdictOfFaults(faults reconcile.List[reconcile.Fault]) condition.Verdict {
	reason := reasonConflict
	for _, f := range faults.Items {
		if !isConflict(f) {
			reason = reasonFaults
		}
	}
	message := counted(faults.Total, "fault") + " keep"
	if faults.Total == 1 {
		message += "s"
	}
	message += " objects from being delivered, which stay as they were"
	if len(faults.Items) > 0 {
		message += "; " + describe(faultOf(faults.Items[0]))
	}
	return condition.Verdict{State: condition.Failed, Reason: reason, Message: message}
}

// isConflict tells whether somebody else claims the object.
func isConflict(f reconcile.Fault) bool {
	return strings.Contains(f.Message, store.ErrNotOwned.Error()) || strings.Contains(f.Message, reconcile.ErrContested.Error())
}

// verdictOfBuild says why a source could not be started.
func verdictOfBuild(err error, wanted *settings) condition.Verdict {
	var unusable *secretError
	var file *fs.PathError
	switch {
	case errors.As(err, &unusable):
		return unusable.verdict()
	case errors.As(err, &file):
		return condition.Verdict{State: condition.Progressing, Reason: reasonMirror, Message: cut(err.Error(), maxText)}
	case len(wanted.secrets()) > 0:
		// The spec was found good, so it is what the Secrets hold.
		return condition.Verdict{State: condition.Failed, Reason: reasonBad, Message: cut(err.Error(), maxText)}
	}
	return condition.Verdict{State: condition.Failed, Reason: reasonInvalid, Message: cut(err.Error(), maxText)}
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// describe says a fault in one line.
func describe(f v1alpha1.GitFault) string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	for _, part := range []string{f.Field, f.Message} {
		if part != "" && b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(part)
	}
	return b.String()
}

func faultOf(f reconcile.Fault) v1alpha1.GitFault {
	return v1alpha1.GitFault{
		File: cut(f.File, maxText), Line: int64(f.Line), Field: cut(f.Field, maxText),
		Namespace: cut(f.Namespace, 253), Name: cut(f.Name, 253), Message: cut(f.Message, maxText),
	}
}

func faultsOf(all []reconcile.Fault) []v1alpha1.GitFault {
	var faults []v1alpha1.GitFault
	for _, f := range all[:min(len(all), maxListed)] {
		faults = append(faults, faultOf(f))
	}
	return faults
}

// fill brings what a round found into a status.
func fill(s *v1alpha1.GitSourceStatus, st *reconcile.Status) {
	if st.Seen != "" {
		s.SeenRevision = st.Seen
	}
	s.Objects, s.SkippedDocuments = int64(st.Objects), int64(st.SkippedDocuments)
	s.FaultCount, s.Faults = int64(st.Faults.Total), faultsOf(st.Faults.Items)
	s.WarningCount, s.Warnings = int64(st.Warnings.Total), faultsOf(st.Warnings.Items)
	s.PendingDeletionCount, s.PendingDeletions = int64(st.PendingDeletions.Total), nil
	for _, name := range st.PendingDeletions.Items[:min(len(st.PendingDeletions.Items), maxListed)] {
		s.PendingDeletions = append(s.PendingDeletions, cut(name, maxText/2))
	}
	s.DeletionsWait = st.DeletionsWait
}

// cut returns the beginning of s, of at most so many bytes.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	s = s[:most-len("…")]
	for len(s) > 0 {
		if r, size := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || size != 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s + "…"
}
