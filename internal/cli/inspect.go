package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type inspectOptions struct {
	streams genericiooptions.IOStreams
	file    string
	output  outputFlag
}

// An inspection is what inspect tells of one sealed value.
type inspection struct {
	File       string          `json:"file,omitempty"`
	Namespace  string          `json:"namespace,omitempty"`
	Name       string          `json:"name,omitempty"`
	Key        string          `json:"key,omitempty"`
	Scope      encrypt.Scope   `json:"scope,omitempty"`
	Workloads  []string        `json:"workloads,omitempty"`
	SecretType string          `json:"secretType,omitempty"`
	KeyIDs     []encrypt.KeyID `json:"keyIDs,omitempty"`
	SealedAt   *time.Time      `json:"sealedAt,omitempty"`
	Size       *int            `json:"size,omitempty"` // bytes
	Hybrid     bool            `json:"hybrid,omitempty"`
	Error      string          `json:"error,omitempty"`
}

func newInspect(streams genericiooptions.IOStreams) *cobra.Command {
	o := inspectOptions{streams: streams, output: outputFlag{forms: []string{"json", "yaml"}}}
	cmd := &cobra.Command{
		Use:   "inspect FILE|-",
		Short: "Show what is sealed, for whom and since when, but no value",
		Long: `Show what a file of manifests holds: each key, what it is bound to, the key ids
that open it, when it was sealed, and the size of the value. No key is needed, and
no value is shown. Standard input may be a bare sealed value too.

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
		for _, key := range sortedKeys(m.Object.Spec.EncryptedData) {
			info, err := encrypt.Inspect(m.Object.Spec.EncryptedData[key])
			row := inspection{File: m.File}
			if err == nil {
				row = inspectionOf(info)
				row.File = m.File
				err = info.Check(encrypt.BindingOf(m.Object, key), now)
			}
			// Where it stands is what the reader looks for; where it was sealed for, if
			// elsewhere, is in the error.
			row.Namespace, row.Name, row.Key = m.Object.Namespace, m.Object.Name, key
			if err != nil {
				row.Error = err.Error()
				faults = append(faults, m.Fault(encrypt.DataField(key), err))
			}
			rows = append(rows, row)
		}
	}
	if len(ms.Objects) == 0 && len(faults) == 0 {
		return fmt.Errorf("%s: no EncryptedSecret in it", name)
	}
	return o.print(rows, faults)
}

// looksSealed tells a bare sealed value from a manifest: base64 of age's first words.
func looksSealed(text string) bool { return strings.HasPrefix(text, "YWdlLWVuY3J5cHRpb24u") }

func inspectionOf(info encrypt.Info) inspection {
	b := info.Binding
	return inspection{
		Namespace: b.Namespace, Name: b.Name, Key: b.Key,
		Scope: b.Scope, Workloads: b.Workloads, SecretType: b.SecretType,
		KeyIDs: info.KeyIDs, SealedAt: &info.SealedAt, Size: &info.Size, Hybrid: info.Hybrid,
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

func (o inspectOptions) printTable(rows []inspection) error {
	w := tabwriter.NewWriter(o.streams.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NAMESPACE\tNAME\tKEY\tSCOPE\tREADERS\tSECRET\tSEALED\tBYTES\tKEY ID")
	for _, r := range rows {
		if r.SealedAt == nil {
			fmt.Fprintf(w, "%s\t%s\t%s\t<unreadable>\n", r.Namespace, r.Name, r.Key)
			continue
		}
		ids := make([]string, len(r.KeyIDs))
		for i, id := range r.KeyIDs {
			ids[i] = string(id)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			star(r.Namespace), star(r.Name), star(r.Key), r.Scope, readers(r), none(r.SecretType),
			r.SealedAt.Format(time.RFC3339), strconv.Itoa(*r.Size), strings.Join(ids, ","))
	}
	return w.Flush()
}

func readers(r inspection) string {
	switch {
	case len(r.Workloads) > 0:
		return strings.Join(slices.Sorted(slices.Values(r.Workloads)), ",")
	case r.Name != "":
		return r.Name
	}
	return none("")
}

func star(s string) string {
	if s == "" {
		return "*"
	}
	return s
}

func none(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}
