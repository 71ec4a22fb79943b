package safecmd

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/workload"
)

type inspectOptions struct {
	streams genericiooptions.IOStreams
	client  clientFlags
	now     func() time.Time
	output  string
	show    bool
}

// newInspect returns "safe inspect".
func newInspect(streams genericiooptions.IOStreams) *cobra.Command {
	o := inspectOptions{streams: streams, now: time.Now}
	return o.command()
}

func (o *inspectOptions) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect",
		Short: "Show who this workload is to Safe, and which secrets it has",
		Long: `Show who this workload is to Safe, and which secrets it has: for each object
that names this workload whether it is served, its version and how old its
values are; and if it is not served, why not. Values are shown with --show
alone: as text, in quotes where a terminal would not print them as they are, or
in base64 after "base64:" where they are no text.

Where Safe does not answer, what the SPIFFE Workload API says is shown all the
same.

Exit codes: 0 done; 1 error; 2 try again later: there is no SVID, or Safe is
sealed or cannot be reached; 3 refused: Safe does not let this workload in, or
the server is not Safe.`,
		Example: `  # In a pod
  kubectl exec -n shop deploy/db -c agent -- /safe inspect

  # What is not served, for a program
  safe inspect -o json | jq '.objects[] | select(.state != "served")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.show, "show", false, "show the values, too, in the clear")
	f.StringVarP(&o.output, "output", "o", "", "`FORMAT` to print: json, with values in base64; by default a table")
	o.client.addTo(f)
	// The flag is there: it was just added.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o *inspectOptions) run(ctx context.Context) error {
	if o.output != "" && o.output != "json" {
		return fmt.Errorf("unknown format %q: want json", o.output)
	}
	client, err := workload.New(ctx, o.client.options()...)
	if err != nil {
		return explainFetch(err)
	}
	defer client.Close()
	if o.output == "" {
		if err := o.printIdentity(client); err != nil {
			return err
		}
	}
	seen, err := client.Inspect(ctx)
	if errors.Is(err, workload.ErrNotFound) {
		return withHint(err, "this Safe is older than 'safe inspect'; 'safe fetch' may work with it")
	}
	if err != nil {
		return explainFetch(err)
	}
	values := &workload.Secrets{}
	if o.show {
		if values, err = client.Fetch(ctx); err != nil {
			return explainFetch(err)
		}
		defer values.Wipe()
	}
	if o.output == "json" {
		return o.printJSON(client.URL(), seen, values)
	}
	return o.printTable(seen, values)
}

// printIdentity prints what is known without Safe.
func (o *inspectOptions) printIdentity(client *workload.Client) error {
	id, expires, err := client.Identity()
	if err != nil {
		return err
	}
	when := "expires in " + duration.HumanDuration(expires.Sub(o.now()))
	if !o.now().Before(expires) {
		when = "expired " + duration.HumanDuration(o.now().Sub(expires)) + " ago"
	}
	_, err = fmt.Fprintf(o.streams.Out, "SPIFFE ID   %s\nSVID        %s, at %s\nSafe        %s\n",
		id, when, expires.UTC().Format(time.RFC3339), client.URL())
	return err
}

func (o *inspectOptions) printTable(seen *workload.Inspection, values *workload.Secrets) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Workload    %s\n\n", plain(seen.Namespace+"/"+seen.Name))
	if len(seen.Objects) == 0 {
		fmt.Fprintf(&b, "It has no secrets: no EncryptedSecret in namespace %[1]s names it.\n"+
			"One does with %[2]s in its spec.workloads, or with the name %[2]s and no spec.workloads.\n", plain(seen.Namespace), plain(seen.Name))
	} else {
		o.tabulate(&b, seen.Objects)
	}
	if o.show && len(values.Secrets) > 0 {
		b.WriteByte('\n')
	}
	if _, err := io.WriteString(o.streams.Out, b.String()); err != nil {
		return err
	}
	return printValues(o.streams.Out, values)
}

// tabulate writes a row for each object, without columns that all of them
// leave empty.
func (o *inspectOptions) tabulate(w io.Writer, objects []workload.Standing) {
	rows := [][]string{{"SECRET", "STATE", "VERSION", "SEALED", "VALID", "REASON"}}
	for _, object := range objects {
		sealed := ""
		if !object.Updated.IsZero() {
			sealed = duration.HumanDuration(o.now().Sub(object.Updated)) + " ago"
		}
		rows = append(rows, []string{
			object.Name, stateText(object.State), shortVersion(object.Version), sealed, o.validity(object), plain(object.Reason),
		})
	}
	for column := len(rows[0]) - 1; column > 0; column-- {
		if !slices.ContainsFunc(rows[1:], func(row []string) bool { return row[column] != "" }) {
			for i := range rows {
				rows[i] = slices.Delete(rows[i], column, column+1)
			}
		}
	}
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = cmp.Or(row[i], "-")
		}
		fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	// It writes to memory.
	_ = table.Flush()
}

// validity says what of an object's times matters now.
func (o *inspectOptions) validity(object workload.Standing) string {
	now := o.now()
	switch from, until := object.NotBefore, object.ExpiresAt; {
	case now.Before(from):
		return "in " + duration.HumanDuration(from.Sub(now))
	case until.IsZero():
		return ""
	case now.Before(until):
		return "for " + duration.HumanDuration(until.Sub(now))
	default:
		return "until " + duration.HumanDuration(now.Sub(until)) + " ago"
	}
}

// stateText is a state for people; one that a newer Safe has stays as it is.
func stateText(s workload.State) string {
	switch s {
	case workload.NotYetValid:
		return "not yet valid"
	case workload.LeftOut:
		return "left out"
	}
	return plain(string(s))
}

// shortVersion is enough of a version to compare it by eye.
func shortVersion(version string) string {
	const enough = 12
	if version = plain(version); len(version) > enough {
		return version[:enough]
	}
	return version
}

// plain returns s, in quotes where it holds what a terminal would obey.
func plain(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) || !utf8.ValidString(s) {
		return strconv.Quote(s)
	}
	return s
}

// printValues writes a line for each value.
func printValues(w io.Writer, s *workload.Secrets) error {
	var out []byte
	defer func() { clear(out) }()
	for _, secret := range s.Secrets {
		for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
			out = fmt.Appendf(out, "%s/%s: ", secret.Name, key)
			switch value := secret.Data[key]; {
			case !utf8.Valid(value):
				out = append(out, "base64:"...)
				out = base64.StdEncoding.AppendEncode(out, value)
			case needsQuotes(value):
				out = strconv.AppendQuote(out, string(value))
			default:
				out = append(out, value...)
			}
			out = append(out, '\n')
		}
	}
	_, err := w.Write(out)
	return err
}

// needsQuotes tells of a text whether it would not be seen as it is, or be
// taken for one of the other forms.
func needsQuotes(value []byte) bool {
	return len(value) == 0 || len(bytes.TrimSpace(value)) != len(value) || value[0] == '"' || bytes.HasPrefix(value, []byte("base64:")) ||
		bytes.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) })
}

// printJSON writes what Safe said, with its address, and with --show the
// values in base64.
func (o *inspectOptions) printJSON(url string, seen *workload.Inspection, values *workload.Secrets) error {
	type object struct {
		workload.Standing
		Data map[string][]byte `json:"data,omitempty"`
	}
	out := struct {
		Safe string `json:"safe"`
		*workload.Inspection
		Objects []object `json:"objects"` // in the place of Inspection's
	}{Safe: url, Inspection: seen, Objects: []object{}}
	data := make(map[string]map[string][]byte, len(values.Secrets))
	for _, secret := range values.Secrets {
		data[secret.Name] = secret.Data
	}
	for _, standing := range seen.Objects {
		out.Objects = append(out.Objects, object{standing, data[standing.Name]})
	}
	text, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	defer clear(text)
	_, err = fmt.Fprintf(o.streams.Out, "%s\n", text)
	return err
}
