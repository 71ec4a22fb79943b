package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type inspectOptions struct {
	streams genericiooptions.IOStreams
	file    string
	output  outputFlag
}

// An inspection is what inspect tells of one sealed value.
type inspection struct {
	File       string        `json:"file,omitempty"`
	Namespace  string        `json:"namespace,omitempty"`
	Name       string        `json:"name,omitempty"`
	Key        string        `json:"key,omitempty"`
	Scope      encrypt.Scope `json:"scope,omitempty"`
	Workloads  []string      `json:"workloads,omitempty"`
	SecretType string        `json:"secretType,omitempty"`
	// Template is the SHA-256 of the template that the value is bound to; Makes are the keys that the manifest's makes.
	Template string   `json:"templateSHA256,omitempty"`
	Makes    []string `json:"templateKeys,omitempty"`
	// NotBefore and ExpiresAt are the manifest's: no value is bound to them.
	NotBefore *metav1.Time    `json:"notBefore,omitempty"`
	ExpiresAt *metav1.Time    `json:"expiresAt,omitempty"`
	KeyIDs    []encrypt.KeyID `json:"keyIDs,omitempty"`
	SealedAt  *time.Time      `json:"sealedAt,omitempty"`
	Size      *int            `json:"size,omitempty"` // bytes
	Hybrid    bool            `json:"hybrid,omitempty"`
	Error     string          `json:"error,omitempty"`
}

func newInspect(streams genericiooptions.IOStreams) *cobra.Command {
	o := inspectOptions{streams: streams, output: outputFlag{forms: []string{"json", "yaml", formJSONPath}}}
	cmd := &cobra.Command{
		Use:   "inspect FILE|-",
		Short: "Show what is sealed, for whom and since when, but no value",
		Long: `Show what a file of manifests holds: each key, what it is bound to, the key
ids that open it, when it was sealed, and the size of the value. No key is
needed, and no value is shown. FILE may hold a bare sealed value too.

Nothing of this is proven: only opening a value proves what it says of itself.

Exit codes: 0 done, 1 error, also if a value may not stand where it stands.`,
		Example: `  kubectl vsecm inspect secrets/db.yaml

  # When was each key sealed?
  kubectl vsecm inspect secrets/db.yaml -o json | jq '.[] | {key, sealedAt}'`,
		Args: exactArgs(1, "one FILE, or -"),
		RunE: func(_ *cobra.Command, args []string) error {
			o.file = args[0]
			return o.run()
		},
	}
	o.output.addTo(cmd, "Form of the output")
	return cmd
}

func (o inspectOptions) run() error {
	data, err := readBounded(o.streams, o.file, encrypt.MaxFileSize)
	if err != nil {
		return err
	}
	if text := strings.TrimSpace(string(data)); looksSealed(text) {
		info, err := encrypt.Inspect(text)
		if err != nil {
			return err
		}
		return o.print([]inspection{inspectionOf(info)}, nil)
	}
	p, err := findProject()
	if err != nil {
		return err
	}
	name := o.file
	if name == "-" {
		name = "standard input"
	}
	ms := encrypt.ReadManifests(name, data, p.rule(o.file).Namespace)
	var (
		rows   []inspection
		faults = ms.Faults
		now    = time.Now()
	)
	for _, m := range ms.Objects {
		place := encrypt.BindingOf(m.Object, "")
		for _, key := range sortedKeys(m.Object.Spec.EncryptedData) {
			place.Key = key
			info, err := encrypt.Inspect(m.Object.Spec.EncryptedData[key])
			row := inspection{File: m.File}
			if err == nil {
				row = inspectionOf(info)
				row.File = m.File
				err = info.Check(place, now)
			}
			// Where it stands is what the reader looks for; where it was sealed for, if
			// elsewhere, is in the error.
			row.setPlace(place)
			row.setDelivery(m.Object)
			if err != nil {
				row.Error = err.Error()
				faults = append(faults, m.Fault(encrypt.DataField(key), err))
			}
			rows = append(rows, row)
		}
	}
	if len(ms.Objects) == 0 && len(faults) == 0 {
		return withHint(fmt.Errorf("%s: no EncryptedSecret in it", name), "want a file of manifests, as 'kubectl vsecm encrypt' writes it, or one sealed value")
	}
	return o.print(rows, faults)
}

// looksSealed tells a bare sealed value from a manifest: base64 of age's first words.
func looksSealed(text string) bool { return strings.HasPrefix(text, "YWdlLWVuY3J5cHRpb24u") }

func inspectionOf(info encrypt.Info) inspection {
	r := inspection{KeyIDs: info.KeyIDs, SealedAt: &info.SealedAt, Size: &info.Size, Hybrid: info.Hybrid}
	r.setPlace(info.Binding)
	return r
}

func (r *inspection) setPlace(b encrypt.Binding) {
	r.Namespace, r.Name, r.Key = b.Namespace, b.Name, b.Key
	r.Scope, r.Workloads, r.SecretType, r.Template = b.Scope, b.Workloads, b.SecretType, b.TemplateSHA256
}

// setDelivery notes what else the manifest says of the delivery.
func (r *inspection) setDelivery(o *v1alpha1.EncryptedSecret) {
	r.NotBefore, r.ExpiresAt = o.Spec.NotBefore, o.Spec.ExpiresAt
	if t := o.Spec.Template; t != nil {
		r.Makes = slices.Sorted(maps.Keys(t.Data))
	}
}

func (o inspectOptions) print(rows []inspection, faults []*encrypt.Fault) error {
	if o.output.value != "" {
		if err := printObject(o.streams.Out, o.output.value, rows); err != nil {
			return err
		}
	} else if len(rows) > 0 {
		if err := o.printTable(rows); err != nil {
			return err
		}
	}
	if len(faults) > 0 {
		return faultsError(faults)
	}
	return nil
}

// printTable prints a paragraph for each object: what its values share would make
// every line of one table too long for a terminal.
func (o inspectOptions) printTable(rows []inspection) error {
	w := tabwriter.NewWriter(o.streams.Out, 0, 0, 2, ' ', 0)
	for i, r := range rows {
		if i == 0 || !sameObject(r, rows[i-1]) {
			if i > 0 {
				fmt.Fprintln(w)
			}
			columns := screenOf(o.streams.Out).columns
			say := func(format string, args ...any) { fmt.Fprintln(w, wrapped(fmt.Sprintf(format, args...), columns)) }
			say("%s/%s: scope %s, readers %s, %s", star(r.Namespace), star(r.Name), r.Scope, readers(r), delivery(r))
			if len(r.Makes) > 0 {
				say("  its template delivers %s", strings.Join(r.Makes, ", "))
			}
			if times := validity(r); times != "" {
				say("  delivered %s", times)
			}
			fmt.Fprintln(w, "  KEY\tBYTES\tSEALED\tKEY ID")
		}
		if r.SealedAt == nil {
			fmt.Fprintf(w, "  %s\t<unreadable>\n", star(r.Key))
			continue
		}
		fmt.Fprintf(w, "  %s\t%d\t%s\t%s\n", star(r.Key), *r.Size, r.SealedAt.Format(time.RFC3339), r.KeyIDs[0])
		for _, id := range r.KeyIDs[1:] {
			fmt.Fprintf(w, "\t\t\t%s\n", id)
		}
	}
	return w.Flush()
}

func sameObject(a, b inspection) bool {
	return a.File == b.File && a.Namespace == b.Namespace && a.Name == b.Name
}

func readers(r inspection) string {
	switch {
	case len(r.Workloads) > 0:
		return strings.Join(slices.Sorted(slices.Values(r.Workloads)), ", ")
	case r.Scope == encrypt.Strict:
		return r.Name
	}
	return "<none>"
}

func delivery(r inspection) string {
	if r.SecretType == "" {
		return "no Kubernetes Secret"
	}
	return "Kubernetes Secret " + r.SecretType
}

// validity says when an object is delivered; empty if always.
func validity(r inspection) string {
	var times []string
	if r.NotBefore != nil {
		times = append(times, "from "+r.NotBefore.UTC().Format(time.RFC3339)+" on")
	}
	if r.ExpiresAt != nil {
		times = append(times, "until "+r.ExpiresAt.UTC().Format(time.RFC3339))
	}
	return strings.Join(times, ", ")
}

func star(s string) string {
	if s == "" {
		return "*"
	}
	return s
}
