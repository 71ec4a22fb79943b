package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

const statusTimeout = 30 * time.Second

type statusOptions struct {
	streams genericiooptions.IOStreams
	safe    safeFlag
	output  outputFlag

	source  string // show this one alone: NAMESPACE/NAME
	leaders bool   // of sources, show what the replica that leads says
}

// A status is what a replica answers of itself.
type status struct {
	Version    string         `json:"version"`
	Replica    string         `json:"replica"`
	Leader     string         `json:"leader"`
	Leads      bool           `json:"leads"`
	State      string         `json:"state"`
	Input      string         `json:"input"`
	Store      string         `json:"store"`
	KeyID      string         `json:"keyID"`
	Reason     string         `json:"reason"`
	Progress   progress       `json:"progress"`
	Ceremonies []progress     `json:"ceremonies"`
	Synced     bool           `json:"synced"`
	Unreadable []string       `json:"unreadable"`
	SVID       *statusSVID    `json:"svid"`
	Sources    []sourceStatus `json:"sources"`
}

type statusSVID struct {
	NotAfter time.Time `json:"notAfter"`
}

// A sourceStatus is how a replica, or a GitSource's own status, says that a source fares.
type sourceStatus struct {
	Source           string                  `json:"source"`
	URL              string                  `json:"url"`
	Branch           string                  `json:"branch"`
	Revision         string                  `json:"revision,omitempty"`
	AppliedAt        time.Time               `json:"appliedAt,omitzero"`
	Seen             string                  `json:"seen,omitempty"`
	LastSuccess      time.Time               `json:"lastSuccess,omitzero"`
	Error            string                  `json:"error,omitempty"`
	ErrorReason      string                  `json:"errorReason,omitempty"`
	Objects          int                     `json:"objects"`
	Faults           statusList[statusFault] `json:"faults"`
	Warnings         statusList[statusFault] `json:"warnings"`
	Skips            statusList[statusSkip]  `json:"skips"`
	PendingDeletions statusList[string]      `json:"pendingDeletions"`
	DeletionsWait    string                  `json:"deletionsWait,omitempty"`

	// object is the GitSource that this is of; nil if it is what a replica says.
	object *listedSource
}

// A statusList is the beginning of a list and how long all of it is.
type statusList[T any] struct {
	Total int `json:"total"`
	Items []T `json:"items,omitempty"`
}

// A statusSkip is a path that is not read.
type statusSkip struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

type statusFault struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
}

// errSealed says that a replica is sealed, which its status has shown already.
var errSealed = errors.New("sealed")

func newStatus(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := statusOptions{streams: streams, safe: safeFlag{conn: conn}, output: outputFlag{forms: []string{"json", "yaml"}}}
	cmd := &cobra.Command{
		Use:   "status [flags]",
		Short: "Show how Safe and its git sources fare",
		Long: `Show how each replica of Safe fares: whether it is sealed, whether it leads the
others, which root key it has or needs, how many shares of it were given, and
until when its SVID is valid; how the git sources fare: the revision that was
applied, and what keeps manifests from being delivered, with file, line and
field; and how many EncryptedSecrets did not arrive, and why.

Sources and EncryptedSecrets are read in your own name where you may list those
of all namespaces; else Safe tells of the sources.

Exit codes: 0 all is well, 1 faults or another error, 2 a replica is sealed.`,
		Example: `  kubectl vsecm status

  # Is it sealed?
  kubectl vsecm status >/dev/null; [ $? -eq 2 ] && kubectl vsecm unseal

  # A Safe on this machine
  kubectl vsecm status --safe unix:///var/lib/vsecm/operator.sock`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.safe.addTo(cmd)
	o.output.addTo(cmd, "Form of the output")
	return cmd
}

func (o statusOptions) run(ctx context.Context) error {
	ctx, all, done, err := o.safe.openWithin(ctx, statusTimeout, viewerAccount)
	if err != nil {
		return err
	}
	defer done()
	return o.show(ctx, all)
}

// show asks every replica, and shows what those answered that did.
func (o statusOptions) show(ctx context.Context, all *safes) error {
	texts := make([][]byte, len(all.replicas))
	states := make([]status, len(all.replicas))
	errs := all.each(func(i int, r *replica) (err error) {
		if texts[i], err = r.act(ctx, http.MethodGet, "/v1/status", nil, ""); err != nil {
			return err
		}
		if err := decode(r, texts[i], &states[i]); err != nil {
			return err
		}
		if states[i].Replica == "" {
			states[i].Replica = r.name
		}
		return nil
	})
	var answered []status
	overview := o.overview(ctx, all)
	for i, st := range states {
		if errs[i] == nil {
			answered = append(answered, st)
		}
	}
	var err error
	switch {
	case o.output.value != "":
		err = o.printAll(all, texts, errs, overview)
	case len(answered) > 0 || overview.some():
		err = o.print(answered, overview)
	}
	if err != nil {
		return err
	}
	names := make([]string, len(answered))
	for i, st := range answered {
		names[i] = st.Replica
	}
	o.safe.tellMissed(o.streams.ErrOut, all, names)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	sealed, well := false, overview.well()
	for _, s := range o.shown(answered, overview) {
		well = well && !s.troubled()
	}
	for _, st := range answered {
		sealed = sealed || st.sealed()
		well = well && st.well()
	}
	switch {
	case sealed:
		return errSealed
	case !well:
		return errors.New("not all is well")
	}
	return nil
}

// printAll prints what the replicas answered, with what a newer Safe tells beyond what this
// plugin knows.
func (o statusOptions) printAll(all *safes, texts [][]byte, errs []error, overview *overview) error {
	replicas := make([]map[string]any, len(all.replicas))
	for i, r := range all.replicas {
		answer := make(map[string]any)
		if errs[i] != nil {
			answer["error"] = visible(errs[i].Error())
		} else if err := json.Unmarshal(texts[i], &answer); err != nil {
			return fmt.Errorf("%s: its answer is not Safe's", r.name)
		}
		if _, has := answer["replica"]; !has {
			answer["replica"] = r.name
		}
		replicas[i] = answer
	}
	whole := map[string]any{"replicas": replicas}
	if overview != nil {
		if overview.Sources != nil {
			whole["gitSources"] = slices.DeleteFunc(overview.Sources, func(s *listedSource) bool { return o.source != "" && s.name() != o.source })
		}
		if overview.Secrets != nil {
			whole["encryptedSecrets"] = overview.Secrets
		}
	}
	return printObject(o.streams.Out, o.output.value, whole)
}

func (st *status) misshapen() bool { return !isKeyID(st.KeyID) }

// sealed tells whether somebody has to unseal it. A Safe before sealing was built tells
// no state.
func (st status) sealed() bool { return st.State != "" && st.State != unsealed }

// well tells of the replica alone, not of the sources that it knows.
func (st status) well() bool { return len(st.Unreadable) == 0 && st.Synced }

func (o statusOptions) print(replicas []status, overview *overview) error {
	if err := o.printReplicas(replicas, overview != nil); err != nil {
		return err
	}
	sources := o.shown(replicas, overview)
	if o.source != "" && len(sources) == 0 {
		return withHint(fmt.Errorf("how %s fares is not known", o.source), "'kubectl vsecm list --sources' may tell")
	}
	var err error
	if overview != nil || o.source != "" {
		if len(sources) > 0 || overview == nil || overview.Sources != nil {
			err = printSources(o.streams.Out, sources)
		}
	} else {
		err = o.printLocalSources(replicas)
	}
	if err != nil {
		return err
	}
	for _, s := range sources {
		s.printTroubles(o.streams.Out)
	}
	overview.printSecrets(o.streams.Out)
	return nil
}

// printReplicas shows the replicas; in a cluster also which of them leads.
func (o statusOptions) printReplicas(replicas []status, inCluster bool) error {
	if len(replicas) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(o.streams.Out, 0, 0, 2, ' ', 0)
	header := []string{"REPLICA", "STATE", "MODE", "PROGRESS", "KEY", "SYNCED", "SVID-EXPIRES", "VERSION"}
	if inCluster {
		header = slices.Insert(header, 2, "LEADS")
	}
	fmt.Fprintln(w, visibleRow(header))
	for _, st := range replicas {
		row := []string{
			st.Replica, orNone(st.State), orNone(strings.Trim(st.Input+"/"+st.Store, "/")),
			fmt.Sprintf("%d/%d", st.Progress.Given, st.Progress.Needed),
			orNone(short(st.KeyID)), yesOrNo(st.Synced), st.svidExpires(), st.Version,
		}
		if inCluster {
			row = slices.Insert(row, 2, yesOrNo(st.Leads))
		}
		fmt.Fprintln(w, visibleRow(row))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	printReasons(o.streams.Out, replicas)
	printCeremonies(o.streams.Out, replicas)
	for _, st := range replicas {
		st.printTroubles(o.streams.Out)
	}
	return nil
}

// shown returns the sources that are shown: those of the cluster, or what replicas say of theirs.
func (o statusOptions) shown(replicas []status, overview *overview) []sourceStatus {
	var told []sourceStatus
	led := slices.ContainsFunc(replicas, func(st status) bool { return st.Leads })
	for _, st := range replicas {
		if !led || st.Leads { // the others say what they have heard
			told = append(told, st.Sources...)
		}
	}
	if overview != nil {
		told = overview.merge(told, o.leaders)
	}
	return slices.DeleteFunc(told, func(s sourceStatus) bool { return o.source != "" && s.Source != o.source })
}

func (st status) svidExpires() string {
	switch {
	case st.SVID == nil:
		return "<none>"
	case st.SVID.NotAfter.Before(time.Now()):
		return "expired"
	}
	return "in " + duration.HumanDuration(time.Until(st.SVID.NotAfter))
}

// printReasons says why replicas are sealed, and what is amiss with the root key of those that
// are not.
func printReasons(w io.Writer, replicas []status) {
	printOnce(w, replicas, func(st status) []string {
		if st.Reason == "" {
			return nil
		}
		return []string{st.Reason}
	})
}

// printCeremonies says which shares of the root key were given. Two sets at once may be a
// mistake that somebody has to see.
func printCeremonies(w io.Writer, replicas []status) {
	printOnce(w, replicas, func(st status) (said []string) {
		for _, p := range ceremonies(st.Progress, st.Ceremonies) {
			said = append(said, fmt.Sprintf("set %s: %s", p.Set, p))
		}
		return said
	})
}

// printOnce prints what is to be said of each replica, once where it is the same.
func printOnce(w io.Writer, replicas []status, of func(status) []string) {
	names := make(map[string][]string)
	var all []string
	for _, st := range replicas {
		for _, said := range of(st) {
			if names[said] == nil {
				all = append(all, said)
			}
			names[said] = append(names[said], visible(st.Replica))
		}
	}
	for _, said := range all {
		fmt.Fprintf(w, "\n%s: %s\n", strings.Join(names[said], ", "), visible(said))
	}
}

func (st status) printTroubles(w io.Writer) {
	if !st.sealed() && !st.Synced {
		fmt.Fprintf(w, "\n%s: not all stored objects are served yet\n", visible(st.Replica))
	}
	for _, line := range st.Unreadable {
		fmt.Fprintf(w, "\n%s: unreadable: %s\n", visible(st.Replica), visible(line))
	}
}

// visibleRow joins the cells of a table's row.
func visibleRow(cells []string) string {
	shown := make([]string, len(cells))
	for i, c := range cells {
		shown[i] = visible(c)
	}
	return strings.Join(shown, "\t")
}

func yesOrNo(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

func short(revision string) string { return revision[:min(len(revision), 12)] }

func ago(t time.Time) string {
	if t.IsZero() {
		return "<never>"
	}
	return duration.HumanDuration(time.Since(t)) + " ago"
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}
