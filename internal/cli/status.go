package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
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

// A status is what Safe answers of itself.
type status struct {
	Version    string         `json:"version"`
	KeyID      string         `json:"keyID"`
	Synced     bool           `json:"synced"`
	Unreadable []string       `json:"unreadable,omitempty"`
	Sources    []sourceStatus `json:"sources"`
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

func newStatus(streams genericiooptions.IOStreams) *cobra.Command {
	o := statusOptions{streams: streams, output: outputFlag{forms: []string{"json", "yaml"}}}
	cmd := &cobra.Command{
		Use:   "status [--safe unix://SOCKET]",
		Short: "Show how Safe and its git sources fare",
		Long: `Show how Safe and its git sources fare: the revision that was applied, and what
keeps manifests from being delivered, with file, line and field. Safe is asked
at its operator's socket, unix:///PATH, from --safe or $VSECM_SAFE.

Exit codes: 0 all is well, 1 faults or another error.`,
		Example: `  kubectl vsecm status --safe unix:///var/lib/vsecm/operator.sock`,
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.safe.addTo(cmd)
	o.output.addTo(cmd, "Form of the output")
	return cmd
}

func (o statusOptions) run(ctx context.Context) error {
	text, err := o.safe.call(ctx, statusTimeout, http.MethodGet, "/v1/status")
	if err != nil {
		return err
	}
	var st status
	if err := json.Unmarshal(text, &st); err != nil {
		return fmt.Errorf("reading Safe's answer: %w", err)
	}
	if o.output.value != "" {
		// What a newer Safe tells beyond what this plugin knows is kept.
		var all any
		if err := json.Unmarshal(text, &all); err != nil {
			return fmt.Errorf("reading Safe's answer: %w", err)
		}
		if err := printObject(o.streams.Out, o.output.value, all); err != nil {
			return err
		}
	} else if err := o.print(st); err != nil {
		return err
	}
	if !st.well() {
		return errors.New("not all is well")
	}
	return nil
}

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

func (o statusOptions) print(st status) error {
	fmt.Fprintf(o.streams.Out, "Safe %s, key %s\n", st.Version, st.KeyID)
	if !st.Synced {
		fmt.Fprintln(o.streams.Out, "Not all stored objects are served yet.")
	}
	for _, line := range st.Unreadable {
		fmt.Fprintf(o.streams.Out, "Unreadable: %s\n", line)
	}
	if len(st.Sources) > 0 {
		fmt.Fprintln(o.streams.Out)
	}
	w := tabwriter.NewWriter(o.streams.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "SOURCE\tREADY\tAPPLIED\tOBJECTS\tFAULTS\tLAST SUCCESS")
	for _, s := range st.Sources {
		ready := "True"
		if s.troubled() {
			ready = "False"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\n", s.Source, ready, orNone(short(s.Revision)), s.Objects, s.Faults.Total, ago(s.LastSuccess))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, s := range st.Sources {
		s.printTroubles(o.streams.Out)
	}
	return nil
}

// troubled tells whether somebody has to do something about the source.
func (s sourceStatus) troubled() bool {
	return s.Error != "" || s.Faults.Total > 0 || s.DeletionsWait != ""
}

func (s sourceStatus) printTroubles(w io.Writer) {
	line := func(format string, args ...any) {
		fmt.Fprintf(w, "\n%s: %s", visible(s.Source), visible(fmt.Sprintf(format, args...)))
		fmt.Fprintln(w)
	}
	if s.Error != "" {
		line("%s", s.Error)
	}
	if s.Faults.Total > 0 {
		line("%s; what is concerned keeps its last good version", counted(s.Faults.Total, "fault"))
		for _, f := range s.Faults.Items {
			fmt.Fprintf(w, "  %s\n", visible(f.String()))
		}
	}
	if s.Warnings.Total > 0 {
		line("%s", counted(s.Warnings.Total, "warning"))
		for _, f := range s.Warnings.Items {
			fmt.Fprintf(w, "  %s\n", visible(f.String()))
		}
	}
	if s.Skips.Total > 0 {
		line("%s not read", counted(s.Skips.Total, "path"))
		for _, skip := range s.Skips.Items {
			fmt.Fprintf(w, "  %s: %s\n", visible(skip.Path), visible(skip.Reason))
		}
	}
	if why := s.deletionsWait(); why != "" {
		line("%s held back, %s; if they are meant:", counted(s.PendingDeletions.Total, "deletion"), why)
		fmt.Fprintf(w, "  kubectl vsecm sync --allow-deletions %s\n", visible(s.Revision))
	}
}

// deletionsWait says why what is gone from git still stands; empty where
// nothing waits.
func (s sourceStatus) deletionsWait() string {
	switch s.DeletionsWait {
	case "":
		return ""
	case "brake":
		return "too many to be done unasked"
	case "faults":
		return "until the faults and skips above are gone"
	case "configuration":
		return "since it is not git that let go of them, but Safe's configuration"
	}
	return s.DeletionsWait // of a newer Safe
}

// String is FILE:LINE: FIELD: what is wrong.
func (f statusFault) String() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		b.WriteString(": ")
	}
	if f.Field != "" {
		b.WriteString(f.Field + ": ")
	}
	b.WriteString(f.Message)
	return b.String()
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
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
