package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

type rekeyStatusOptions struct {
	streams    genericiooptions.IOStreams
	safe       safeFlag
	output     outputFlag
	leaderWait time.Duration
}

func newRekeyStatus(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := rekeyStatusOptions{streams: streams, safe: safeFlag{conn: conn}, output: outputFlag{forms: []string{"json", "yaml", formJSONPath}}, leaderWait: leaderWait}
	cmd := &cobra.Command{
		Use:   "status [flags]",
		Short: "Show what still needs the old root key",
		Long: `Show how far a re-key is: which keys each replica holds, and what still needs
the old one, by source, with file and line. Safe fetches every git source for
it, and opens every value that is stored, and every value at the head of every
source, with the new key alone: it takes a while.

Exit codes: 0 nothing needs the old key, or no re-key is under way; 1 error;
2 something needs it, or a source cannot be read, or a replica has not followed.`,
		Example: `  kubectl vsecm rekey status

  # Files that are still to be rewritten
  kubectl vsecm rekey status -o json | jq -r '.report.needs[].file' | sort -u`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.safe.addTo(cmd)
	o.output.addTo(cmd, "Form of the output")
	return cmd
}

// A shownRekey is what -o json prints.
type shownRekey struct {
	Rekey    *rekeyRecord   `json:"rekey,omitempty"`
	Replicas []shownReplica `json:"replicas"`
	Report   *rekeyReport   `json:"report,omitempty"`
}

type shownReplica struct {
	Replica string   `json:"replica"`
	State   string   `json:"state,omitempty"`
	Active  string   `json:"active,omitempty"`
	Others  []string `json:"others,omitempty"` // kept for what was sealed to them
	Staged  []string `json:"staged,omitempty"`
	Missing []string `json:"missing,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Error   string   `json:"error,omitempty"`
}

func (o rekeyStatusOptions) run(ctx context.Context) error {
	ctx, all, done, err := o.safe.openWithin(ctx, checkTimeout, adminAccount)
	if err != nil {
		return err
	}
	defer done()
	f := survey(ctx, all)
	if err := f.usable(); err != nil {
		return err
	}
	shown := shownRekey{Rekey: f.record(), Replicas: f.shown()}
	var failed error
	if shown.Rekey != nil {
		shown.Report, failed = o.check(ctx, f)
	}
	if o.output.value != "" {
		err = printObject(o.streams.Out, o.output.value, shown)
	} else {
		err = o.print(shown)
	}
	o.safe.tellMissed(o.streams.ErrOut, all, all.shown())
	if err := errors.Join(append(f.errs, failed, err)...); err != nil {
		return err
	}
	if shown.Rekey != nil && (shown.Report.blocked() || f.behind(*shown.Rekey)) {
		return errSomeLeft
	}
	return nil
}

// check has Safe look for what needs the old key.
func (o rekeyStatusOptions) check(ctx context.Context, f *fleet) (*rekeyReport, error) {
	defer tellWaiting(o.streams, "waiting for Safe to open every value with the new key")()
	var answer struct {
		Report *rekeyReport `json:"report"`
	}
	if err := f.leader(ctx, o.leaderWait, rekeyCall{Do: "check"}.text(), &answer); err != nil {
		return nil, err
	}
	if answer.Report == nil {
		return nil, errors.New("the answer of Safe has no report")
	}
	return answer.Report, nil
}

// behind tells whether a replica has not taken the new key, or would have to.
func (f *fleet) behind(now rekeyRecord) bool {
	for i, st := range f.seal {
		if f.errs[i] == nil && st.State == unsealed && f.keys[i].Active.KeyID != now.To {
			return true
		}
	}
	return false
}

func (f *fleet) shown() []shownReplica {
	all := make([]shownReplica, len(f.seal))
	for i, st := range f.seal {
		r := &all[i]
		r.Replica, r.State, r.Reason = cmp.Or(f.keys[i].Replica, f.all.replicas[i].name), st.State, st.Reason
		if f.errs[i] != nil {
			r.Error = f.errs[i].Error()
			continue
		}
		r.Active = string(f.keys[i].Active.KeyID)
		r.Others, r.Staged, r.Missing = textsOf(f.keys[i].Retired), textsOf(f.keys[i].Staged), textsOf(st.Missing)
	}
	return all
}

func textsOf[T ~string](list []T) []string {
	var texts []string
	for _, item := range list {
		texts = append(texts, string(item))
	}
	return texts
}

func (o rekeyStatusOptions) print(shown shownRekey) error {
	w := o.streams.Out
	switch r := shown.Rekey; {
	case r == nil:
		fmt.Fprintln(w, "No re-key is under way.")
	case r.Aborted:
		fmt.Fprintf(w, "%s: aborted, and to be finished. Begun %s by %s.\n", visible(fmt.Sprintf("%s → %s", r.From, r.To)), ago(r.Started), visible(orNone(r.By)))
	default:
		fmt.Fprintf(w, "%s: begun %s by %s.\n", visible(fmt.Sprintf("%s → %s", r.From, r.To)), ago(r.Started), visible(orNone(r.By)))
	}
	fmt.Fprintln(w)
	t := newTable(w)
	t.header([]string{"REPLICA", "STATE", "ACTIVE", "OTHER KEYS", "MISSING"})
	for _, r := range shown.Replicas {
		if r.Error != "" {
			continue // told as an error
		}
		if err := t.row([]string{r.Replica, r.State, orNone(short(r.Active)), shortIDs(append(slices.Clone(r.Others), r.Staged...)), shortIDs(r.Missing)}); err != nil {
			return err
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, r := range shown.Replicas {
		if r.Reason != "" {
			fmt.Fprintf(w, "\n%s: %s\n", visible(r.Replica), visible(r.Reason))
		}
	}
	if shown.Report == nil {
		return nil
	}
	fmt.Fprintln(w)
	return shown.Report.print(w)
}

// noSource is how objects that no source applied are shown.
const noSource = "<none>"

// print shows what needs which key: counts by source, then each.
func (r *rekeyReport) print(w io.Writer) error {
	if !r.blocked() {
		fmt.Fprintf(w, "Nothing needs another key than %s, which opens all %d values.\n", visible(short(string(r.KeyID))), r.Opened)
		return r.printUnreadable(w)
	}
	t := newTable(w)
	t.header([]string{"SOURCE", "NEEDS OLD KEY"})
	rows := make(map[string]string)
	for source, n := range r.BySource {
		rows[source] = strconv.Itoa(n)
	}
	for _, u := range r.Unread {
		rows[u.Source] = "not read"
	}
	for _, source := range slices.Sorted(maps.Keys(rows)) {
		if err := t.row([]string{sourceShown(source), rows[source]}); err != nil {
			return err
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	r.printBlockers(w)
	return r.printUnreadable(w)
}

// printBlockers names every value and source that is in the way, as far as Safe listed them.
func (r *rekeyReport) printBlockers(w io.Writer) {
	for _, u := range r.Unread {
		fmt.Fprintf(w, "%s: not read: %s\n", sourceShown(u.Source), visible(u.Why))
	}
	for _, n := range r.Needs {
		fmt.Fprintln(w, n.String())
	}
	if more := r.NeedCount - len(r.Needs); more > 0 {
		fmt.Fprintf(w, "and %d more\n", more)
	}
}

func (r *rekeyReport) printUnreadable(w io.Writer) error {
	if r.UnreadableCount == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nNo key that is held opens these, and a re-key does not change that:\n")
	for _, n := range r.Unreadable {
		fmt.Fprintln(w, n.String())
	}
	if more := r.UnreadableCount - len(r.Unreadable); more > 0 {
		fmt.Fprintf(w, "and %d more\n", more)
	}
	return nil
}

func sourceShown(source string) string {
	if source == "" {
		return noSource
	}
	return visible(strings.Replace(source, ".", "/", 1))
}

// String says "shop/config db.yaml:12: shop/db key password: why", and of what stands in the cluster alone
// "stored: shop/db key password: why".
func (n rekeyNeed) String() string {
	var b strings.Builder
	if n.File != "" {
		if n.Source != "" {
			b.WriteString(sourceShown(n.Source) + " ")
		}
		b.WriteString(visible(n.File))
		if n.Line > 0 {
			fmt.Fprintf(&b, ":%d", n.Line)
		}
	} else {
		b.WriteString("stored")
		if n.Source != "" {
			b.WriteString(" by " + sourceShown(n.Source))
		}
	}
	b.WriteString(": ")
	if n.Name != "" {
		b.WriteString(visible(strings.TrimPrefix(n.Namespace+"/"+n.Name, "/")))
		if n.Key != "" {
			b.WriteString(" key " + visible(n.Key))
		}
		b.WriteString(": ")
	}
	b.WriteString(visible(n.Why))
	return b.String()
}
