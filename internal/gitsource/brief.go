package gitsource

import (
	"cmp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// A Brief is how a GitSource fares as its status in the cluster says.
type Brief struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	URL       string `json:"url"`
	Suspended bool   `json:"suspended,omitempty"`
	// Ready is that condition's status, True, False or Unknown, with its reason and message.
	Ready   string `json:"ready"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// Revision was applied; Seen is where the ref is.
	Revision string `json:"revision,omitempty"`
	Seen     string `json:"seen,omitempty"`
	Objects  int64  `json:"objects"`
	Faults   int64  `json:"faults"`
}

// Sources returns all GitSources, by namespace and name, as the cluster knows them.
func (c *Controller) Sources() []Brief {
	var all []Brief
	for _, key := range c.keys() {
		r := c.lookup(key)
		if r == nil {
			continue
		}
		is := ready(&r.status)
		b := Brief{
			Namespace: key.Namespace, Name: key.Name, URL: shownURL(r), Suspended: r.spec.Suspend,
			Ready: cmp.Or(string(is.Status), "Unknown"), Reason: is.Reason, Message: is.Message,
			Seen: r.status.SeenRevision, Objects: r.status.Objects, Faults: r.status.FaultCount,
		}
		if r.status.AppliedAt != nil { // otherwise it has only begun
			b.Revision = r.status.Revision
		}
		all = append(all, b)
	}
	return all
}

// Statuses tells how every GitSource fares: those that run here, as they know; others, as their status says.
func (c *Controller) Statuses() []reconcile.Status {
	live := make(map[string]*reconcile.Source)
	if sources := c.sources.Load(); sources != nil {
		for _, s := range *sources {
			live[s.Name()] = s
		}
	}
	var all []reconcile.Status
	for _, key := range c.keys() {
		r := c.lookup(key)
		switch s := live[ownerOf(key)]; {
		case r == nil:
		case s != nil && !s.Status().LastAttempt.IsZero():
			all = append(all, inWords(key, s.Status()))
		default:
			all = append(all, statusOf(r))
		}
	}
	return all
}

// Busy tells whether a source that runs here is in its first round, or applies a revision.
func (c *Controller) Busy() bool {
	sources := c.sources.Load()
	if sources == nil {
		return false
	}
	return slices.ContainsFunc(*sources, func(s *reconcile.Source) bool {
		st := s.Status()
		return st.LastAttempt.IsZero() || st.Applying != ""
	})
}

// inWords has a status say an error as the condition Ready does: the documented reason, and what to do. Who may not
// read GitSources has no other place to find that.
func inWords(key store.Key, st reconcile.Status) reconcile.Status {
	if st.Error != "" {
		v := verdictOf(key, nil, &st)
		st.Error, st.ErrorReason = v.Message, v.Reason
	}
	return st
}

// statusOf says what a status in the cluster does as a source would.
func statusOf(r *received) reconcile.Status {
	s := &r.status
	st := reconcile.Status{
		Source: ownerOf(r.key()), URL: shownURL(r), Branch: branchOf(r), Tag: r.spec.Ref.Tag, Commit: r.spec.Ref.Commit,
		Seen: s.SeenRevision, Objects: int(s.Objects), SkippedDocuments: int(s.SkippedDocuments), DeletionsWait: s.DeletionsWait,
		Braked: s.Deletions != nil && s.Deletions.Waiting,
	}
	if s.AppliedAt != nil {
		st.Revision, st.AppliedAt = s.Revision, s.AppliedAt.UTC()
	}
	if is := ready(s); is.Status == metav1.ConditionFalse && is.Reason != reasonFaults && is.Reason != reasonConflict && is.Reason != reasonDeletionsWait {
		st.Error, st.ErrorReason = is.Message, is.Reason
	}
	st.Faults = reconcile.List[reconcile.Fault]{Total: int(s.FaultCount)}
	for _, f := range s.Faults {
		st.Faults.Items = append(st.Faults.Items, reconcile.Fault{
			File: f.File, Line: int(f.Line), Field: f.Field, Namespace: f.Namespace, Name: f.Name, Message: f.Message,
		})
	}
	st.Warnings.Total = int(s.WarningCount)
	st.PendingDeletions = reconcile.List[string]{Total: int(s.PendingDeletionCount), Items: slices.Clone(s.PendingDeletions)}
	return st
}

// shownURL returns the repository's URL, unless there may be a password in it.
func shownURL(r *received) string {
	if checkURL(&settings{url: r.spec.URL}, r, "") != nil {
		return ""
	}
	return r.spec.URL
}

func branchOf(r *received) string {
	if r.spec.Ref.Tag != "" {
		return ""
	}
	return cmp.Or(r.spec.Ref.Branch, defaultBranch)
}
