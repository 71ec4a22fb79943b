package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// An overview is how the objects in a cluster fare, as far as the person may see them all. The nil overview is of a
// Safe that is in no cluster.
type overview struct {
	// Sources is nil if they may not be listed.
	Sources []*listedSource
	// Secrets is nil if they may not be listed.
	Secrets *secretCounts
}

// secretCounts counts EncryptedSecrets by their condition Ready.
type secretCounts struct {
	Total    int            `json:"total"`
	Ready    int            `json:"ready"`
	NotReady map[string]int `json:"notReady"` // by reason
}

// overview reads what the person may see. What they may not is left out: Safe tells of the sources, too.
func (o statusOptions) overview(ctx context.Context, all *safes) *overview {
	if all.cluster == nil {
		return nil
	}
	v := &overview{}
	sources := []*listedSource{}
	err := each(ctx, all.cluster, all.cluster.objects(v1alpha1.ResourceGitSources, ""), "", func(s *listedSource) error {
		sources = append(sources, s)
		return nil
	})
	if err == nil {
		v.Sources = sources
	}
	if o.source == "" {
		if counts, err := all.cluster.countSecrets(ctx); err == nil {
			v.Secrets = counts
		}
	}
	return v
}

// some tells whether there is anything to show.
func (v *overview) some() bool {
	return v != nil && (len(v.Sources) > 0 || v.Secrets != nil && v.Secrets.Total > 0)
}

// countSecrets has the API server send the columns that kubectl shows, and no ciphertext.
func (c *cluster) countSecrets(ctx context.Context) (*secretCounts, error) {
	counts := &secretCounts{NotReady: make(map[string]int)}
	query := url.Values{"limit": {"1000"}, "includeObject": {"None"}}
	for {
		path := c.objects(v1alpha1.ResourceEncryptedSecrets, "")
		path.RawQuery = query.Encode()
		var page struct {
			Metadata          struct{ Continue string }
			ColumnDefinitions []struct{ Name string }
			Rows              []struct{ Cells []any }
		}
		if err := c.make(ctx, clusterCall{method: http.MethodGet, path: path, accept: mediaTable}, &page); err != nil {
			return nil, err
		}
		ready := slices.IndexFunc(page.ColumnDefinitions, func(d struct{ Name string }) bool { return d.Name == "Ready" })
		reason := slices.IndexFunc(page.ColumnDefinitions, func(d struct{ Name string }) bool { return d.Name == "Reason" })
		if ready < 0 || reason < 0 {
			return nil, fmt.Errorf("asking %s: %w", c, errNotKubernetes) // those of an older CRD
		}
		for _, row := range page.Rows {
			if max(ready, reason) < len(row.Cells) {
				counts.add(row.Cells[ready], row.Cells[reason])
			}
		}
		if page.Metadata.Continue == "" {
			return counts, nil
		}
		query.Set("continue", page.Metadata.Continue)
	}
}

func (n *secretCounts) add(ready, reason any) {
	n.Total++
	if ready == "True" {
		n.Ready++
		return
	}
	why, _ := reason.(string)
	n.NotReady[cmp.Or(why, reasonPending)]++
}

// well tells whether every EncryptedSecret arrived.
func (v *overview) well() bool {
	return v == nil || v.Secrets == nil || v.Secrets.Ready == v.Secrets.Total
}

// merge returns the sources that there are, by name. What the replica that leads says is newer
// than what stands in the cluster, where one waits for it; it is all that there is where the person may not see
// more.
func (v *overview) merge(told []sourceStatus, leader bool) []sourceStatus {
	all := make(map[string]sourceStatus)
	for _, s := range v.Sources {
		all[s.name()] = s.sourceStatus()
	}
	for _, s := range told {
		if !strings.Contains(s.Source, "/") { // as objects bear it
			s.Source = strings.Replace(s.Source, ".", "/", 1)
		}
		if _, has := all[s.Source]; !has || leader {
			all[s.Source] = s
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b sourceStatus) int { return cmp.Compare(a.Source, b.Source) })
}

func (s *listedSource) name() string { return s.Metadata.Namespace + "/" + s.Metadata.Name }

// sourceStatus is what the object's status says, as a replica would.
func (s *listedSource) sourceStatus() sourceStatus {
	st := s.Status
	all := sourceStatus{
		Source: s.name(), URL: s.Spec.URL, Branch: refOf(s.Spec.Ref), Revision: st.Revision, Seen: st.SeenRevision,
		Objects: int(st.Objects), Faults: faultList(st.FaultCount, st.Faults), Warnings: faultList(st.WarningCount, st.Warnings),
		PendingDeletions: statusList[string]{int(st.PendingDeletionCount), st.PendingDeletions}, DeletionsWait: st.DeletionsWait,
		object: s,
	}
	if st.AppliedAt != nil {
		all.AppliedAt = st.AppliedAt.Time
	}
	// Faults and deletions that wait are shown in full.
	if r := s.ready(); r.status != "True" && !(st.FaultCount > 0 && r.reason == "Faults") && !(st.DeletionsWait != "" && r.reason == "DeletionsWait") {
		all.Error = r.message
	}
	return all
}

func faultList(total int64, faults []v1alpha1.GitFault) statusList[statusFault] {
	list := statusList[statusFault]{Total: int(total)}
	for _, f := range faults {
		list.Items = append(list.Items, statusFault{f.File, int(f.Line), f.Field, f.Message})
	}
	return list
}

// printSources shows the sources in a cluster.
func (o statusOptions) printSources(w io.Writer, sources []sourceStatus) error {
	fmt.Fprintln(w)
	if len(sources) == 0 {
		_, err := fmt.Fprintln(w, "No git sources.")
		return err
	}
	t := newTable(w)
	header, wide := []string{"NAMESPACE", "NAME", "READY", "REASON", "REVISION", "OBJECTS", "FAULTS", "LAST APPLIED"}, o.output.value == "wide"
	if wide {
		header = append(header, "URL", "REF", "MESSAGE")
	} else {
		t.may("OBJECTS", "FAULTS", "REVISION", "LAST APPLIED", "REASON")
	}
	t.header(header)
	for _, s := range sources {
		namespace, name, _ := strings.Cut(s.Source, "/")
		ready, reason := s.ready()
		row := []string{
			namespace, name, ready, orNone(reason), orNone(short(s.Revision)),
			strconv.Itoa(s.Objects), strconv.Itoa(s.Faults.Total), ago(s.AppliedAt),
		}
		if wide {
			row = append(row, orNone(bareURL(s.URL)), orNone(s.Branch), orNone(s.Error))
		}
		if err := t.row(row); err != nil {
			return err
		}
	}
	return t.flush()
}

// ready returns the condition Ready of a GitSource, or what comes closest to it of what a replica says.
func (s sourceStatus) ready() (status, reason string) {
	switch {
	case s.object != nil:
		r := s.object.ready()
		return r.status, r.reason
	case s.Error != "":
		return "False", s.ErrorReason
	case s.Faults.Total > 0:
		return "False", "Faults"
	case s.DeletionsWait != "":
		return "False", "DeletionsWait"
	}
	return "True", "Applied"
}

// printSecrets counts the EncryptedSecrets that did not arrive.
func (v *overview) printSecrets(w io.Writer) {
	if v == nil || v.Secrets == nil {
		return
	}
	n := v.Secrets
	if n.Total == 0 {
		fmt.Fprint(w, "\nNo EncryptedSecrets.\n")
		return
	}
	said := fmt.Sprintf("EncryptedSecrets: %d of %d ready", n.Ready, n.Total)
	reasons := slices.SortedFunc(maps.Keys(n.NotReady), func(a, b string) int {
		return cmp.Or(n.NotReady[b]-n.NotReady[a], cmp.Compare(a, b))
	})
	for i, reason := range reasons {
		separator := ", "
		if i == 0 {
			separator = "; "
		}
		said += fmt.Sprintf("%s%d %s", separator, n.NotReady[reason], reason)
	}
	fmt.Fprintln(w)
	prose(w, "%s", said)
	if len(reasons) > 0 {
		prose(w, "  kubectl vsecm list -A -o wide shows which, and why")
	}
}
