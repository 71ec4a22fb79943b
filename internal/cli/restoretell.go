package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/backup"
)

// A restoreSummary is what 'restore -o json' prints.
type restoreSummary struct {
	Created    time.Time `json:"created"` // the backup
	DryRun     bool      `json:"dryRun,omitempty"`
	Restored   int       `json:"restored"`
	Unchanged  int       `json:"unchanged"`
	Left       int       `json:"left"`
	Unreadable int       `json:"unreadable"`
	Failed     int       `json:"failed"`
	Secrets    []outcome `json:"secrets"`
}

func (r *restoring) count(result string) int {
	n := 0
	for _, said := range r.outcomes {
		if said.Result == result {
			n++
		}
	}
	return n
}

// tell says what was done, and what was not. The error says that it was not all.
func (r *restoring) tell(of backup.Summary) error {
	r.outcomes = slices.DeleteFunc(r.outcomes, func(o outcome) bool { return o.Result == "" })
	s := restoreSummary{
		Created: of.Created, DryRun: r.o.dryRun,
		Restored: r.count(resultRestored), Unchanged: r.count(resultUnchanged), Left: r.count(resultLeft),
		Unreadable: r.count(resultUnreadable), Failed: r.count(resultFailed), Secrets: r.outcomes,
	}
	if err := r.print(s); err != nil {
		return err
	}
	r.note()
	switch {
	case s.Failed > 0:
		return fmt.Errorf("%d of %d secrets could not be restored", s.Failed, len(r.outcomes))
	case s.Left+s.Unreadable > 0:
		return errSomeLeft
	}
	return nil
}

func (r *restoring) print(s restoreSummary) error {
	if r.o.output.value == "json" {
		if s.Secrets == nil {
			s.Secrets = []outcome{}
		}
		return printObject(r.o.streams.Out, "json", s)
	}
	counts := newTable(r.o.streams.Out)
	counts.header([]string{"RESTORED", "UNCHANGED", "LEFT", "UNREADABLE", "FAILED"})
	cells := []string{}
	for _, n := range []int{s.Restored, s.Unchanged, s.Left, s.Unreadable, s.Failed} {
		cells = append(cells, strconv.Itoa(n))
	}
	if r.o.dryRun {
		cells[len(cells)-1] += "   (dry run)"
	}
	if err := counts.row(cells); err != nil {
		return err
	}
	if err := counts.flush(); err != nil {
		return err
	}
	others := newTable(r.o.streams.Out)
	others.header([]string{"NAMESPACE", "NAME", "RESULT", "WHY"})
	others.flows()
	others.may("NAMESPACE")
	for _, said := range s.Secrets {
		// What a dry run is for is to see what would be done.
		if said.Result == resultUnchanged || said.Result == resultRestored && said.Why == "" && !s.DryRun {
			continue
		}
		if err := others.row([]string{said.Namespace, said.Name, said.Result, orNone(said.Why)}); err != nil {
			return err
		}
	}
	return others.flush()
}

// note says what there is to do next.
func (r *restoring) note() {
	hints, sources := map[string]bool{}, map[string]bool{}
	for _, said := range r.outcomes {
		if said.hint != "" && !hints[said.hint] {
			hints[said.hint] = true
			prose(r.o.streams.ErrOut, "note: %s", said.hint)
		}
		if said.source != "" && said.Result == resultRestored {
			sources[said.source] = true
		}
	}
	if r.o.apply && len(sources) > 0 {
		prose(r.o.streams.ErrOut, "note: some came from git: %s. A source takes over no object that somebody applied: once their manifests are restored there, with --to-dir, and pushed, delete these with 'kubectl vsecm delete'",
			visible(strings.Join(slices.Sorted(maps.Keys(sources)), ", ")))
	}
}
