package cli

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// troubled tells whether somebody has to do something about the source.
func (s sourceStatus) troubled() bool {
	if s.object != nil && s.object.Spec.Suspend {
		return false // as it was wished
	}
	if s.object != nil && s.object.ready().status != "True" {
		return true
	}
	return s.Error != "" || s.Faults.Total > 0 || s.DeletionsWait != ""
}

func (s sourceStatus) printTroubles(w io.Writer) {
	line := func(format string, args ...any) {
		fmt.Fprintln(w)
		prose(w, "%s: %s", s.Source, fmt.Sprintf(format, args...))
	}
	if s.Error != "" {
		line("%s", s.Error)
	}
	if s.Faults.Total > 0 {
		line("%s; what is concerned keeps its last good version", counted(s.Faults.Total, "fault"))
		for _, f := range s.Faults.Items {
			prose(w, "  %s", f)
		}
	}
	if s.Warnings.Total > 0 {
		line("%s", counted(s.Warnings.Total, "warning"))
		for _, f := range s.Warnings.Items {
			prose(w, "  %s", f)
		}
	}
	if s.Skips.Total > 0 {
		line("%s not read", counted(s.Skips.Total, "path"))
		for _, skip := range s.Skips.Items {
			prose(w, "  %s: %s", skip.Path, skip.Reason)
		}
	}
	if why := s.deletionsWait(); why != "" {
		line("%s held back, %s; if they are meant:", counted(s.PendingDeletions.Total, "deletion"), why)
		fmt.Fprintf(w, "  kubectl vsecm sync%s --allow-deletions %s\n", s.argument(), visible(s.Revision)) // to be copied
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

// argument is how 'sync' is told this source, behind a space; empty for those of a Safe on one machine.
func (s sourceStatus) argument() string {
	if !strings.Contains(s.Source, "/") {
		return ""
	}
	return " " + visible(s.Source)
}

// printLocalSources shows the sources of the replicas that have any, each its own.
func (o statusOptions) printLocalSources(w io.Writer, replicas []status) error {
	having := slices.DeleteFunc(slices.Clone(replicas), func(st status) bool { return len(st.Sources) == 0 })
	if len(having) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable(w)
	header := []string{"SOURCE", "READY", "APPLIED", "OBJECTS", "FAULTS", "LAST SUCCESS"}
	if len(having) > 1 {
		header = append(header, "REPLICA")
	}
	t.header(header)
	if o.output.value != "wide" {
		t.may("LAST SUCCESS", "APPLIED", "OBJECTS", "FAULTS", "REPLICA")
	}
	for _, st := range having {
		for _, s := range st.Sources {
			row := []string{
				s.Source, yesOrNo(!s.troubled()), orNone(short(s.Revision)),
				strconv.Itoa(s.Objects), strconv.Itoa(s.Faults.Total), ago(s.LastSuccess),
			}
			if len(having) > 1 {
				row = append(row, st.Replica)
			}
			if err := t.row(row); err != nil {
				return err
			}
		}
	}
	return t.flush()
}
