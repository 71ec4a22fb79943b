package cli

import (
	"fmt"
	"io"
	"strings"
)

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
