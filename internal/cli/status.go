package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
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
}

// A status is what a replica answers of itself.
type status struct {
	Version    string         `json:"version"`
	Replica    string         `json:"replica"`
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

type sourceStatus struct {
	Source           string                  `json:"source"`
	URL              string                  `json:"url"`
	Branch           string                  `json:"branch"`
	Revision         string                  `json:"revision,omitempty"`
	Seen             string                  `json:"seen,omitempty"`
	LastSuccess      time.Time               `json:"lastSuccess,omitzero"`
	Error            string                  `json:"error,omitempty"`
	Objects          int                     `json:"objects"`
	Faults           statusList[statusFault] `json:"faults"`
	Warnings         statusList[statusFault] `json:"warnings"`
	Skips            statusList[statusSkip]  `json:"skips"`
	PendingDeletions statusList[string]      `json:"pendingDeletions"`
	DeletionsWait    string                  `json:"deletionsWait,omitempty"`
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
		Long: `Show how each replica of Safe fares: whether it is sealed, which root key it has
or needs, how many shares of it were given, and until when its SVID is valid;
and how its git sources fare: the revision that was applied, and what keeps
manifests from being delivered, with file, line and field.

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
	ctx, cancel, err := o.safe.conn.within(ctx, statusTimeout)
	if err != nil {
		return err
	}
	defer cancel()
	all, err := o.safe.open(ctx, viewerAccount)
	if err != nil {
		return err
	}
	defer all.close()
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
	for i, st := range states {
		if errs[i] == nil {
			answered = append(answered, st)
		}
	}
	var err error
	switch {
	case o.output.value != "":
		err = o.printAll(all, texts, errs)
	case len(answered) > 0:
		err = o.print(answered)
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
	sealed, well := false, true
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
func (o statusOptions) printAll(all *safes, texts [][]byte, errs []error) error {
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
	return printObject(o.streams.Out, o.output.value, map[string]any{"replicas": replicas})
}

func (st *status) keyID() string { return st.KeyID }

// sealed tells whether somebody has to unseal it. A Safe before sealing was built tells
// no state.
func (st status) sealed() bool { return st.State != "" && st.State != unsealed }

func (st status) well() bool {
	if len(st.Unreadable) > 0 || !st.Synced {
		return false
	}
	for _, s := range st.Sources {
		if s.troubled() {
			return false
		}
	}
	return true
}

func (o statusOptions) print(replicas []status) error {
	w := tabwriter.NewWriter(o.streams.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "REPLICA\tSTATE\tMODE\tPROGRESS\tKEY\tSYNCED\tSVID-EXPIRES\tVERSION")
	for _, st := range replicas {
		row := []string{
			st.Replica, orNone(st.State), orNone(strings.Trim(st.Input+"/"+st.Store, "/")),
			fmt.Sprintf("%d/%d", st.Progress.Given, st.Progress.Needed),
			orNone(short(st.KeyID)), yesOrNo(st.Synced), st.svidExpires(), st.Version,
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
	return o.printSources(replicas)
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

// printSources shows the sources of the replicas that have any.
func (o statusOptions) printSources(replicas []status) error {
	having := slices.DeleteFunc(slices.Clone(replicas), func(st status) bool { return len(st.Sources) == 0 })
	if len(having) == 0 {
		return nil
	}
	fmt.Fprintln(o.streams.Out)
	w := tabwriter.NewWriter(o.streams.Out, 0, 0, 3, ' ', 0)
	header := []string{"SOURCE", "READY", "APPLIED", "OBJECTS", "FAULTS", "LAST SUCCESS"}
	if len(having) > 1 {
		header = append(header, "REPLICA")
	}
	fmt.Fprintln(w, visibleRow(header))
	for _, st := range having {
		for _, s := range st.Sources {
			row := []string{
				s.Source, yesOrNo(!s.troubled()), orNone(short(s.Revision)),
				strconv.Itoa(s.Objects), strconv.Itoa(s.Faults.Total), ago(s.LastSuccess),
			}
			if len(having) > 1 {
				row = append(row, st.Replica)
			}
			fmt.Fprintln(w, visibleRow(row))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, st := range having {
		for _, s := range st.Sources {
			s.printTroubles(o.streams.Out)
		}
	}
	return nil
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
