package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// An importSummary is what 'import -o json' prints.
type importSummary struct {
	DryRun     bool       `json:"dryRun,omitempty"`
	Imported   int        `json:"imported"`
	Unchanged  int        `json:"unchanged"`
	Left       int        `json:"left"`
	Failed     int        `json:"failed"`
	Backups    int        `json:"backups,omitempty"` // files of a data folder that were left out
	OtherFiles []string   `json:"otherFiles,omitempty"`
	Secrets    []imported `json:"secrets"`
}

func (i *importing) count(result string) int {
	n := 0
	for _, said := range i.outcomes {
		if said.Result == result {
			n++
		}
	}
	return n
}

// tell says what became of every secret. The error says that something was left, or is not as VSecM made it.
func (i *importing) tell() error {
	s := importSummary{
		DryRun: i.o.dryRun, Imported: i.count(resultImported), Unchanged: i.count(resultUnchanged),
		Left: i.count(resultLeft), Failed: i.count(resultFailed), Secrets: i.outcomes,
	}
	s.Backups, s.OtherFiles = i.source.besides()
	if s.Secrets == nil {
		s.Secrets = []imported{}
	}
	if i.o.output.value != "" {
		if err := printObject(i.o.streams.Out, i.o.output.value, s); err != nil {
			return err
		}
	} else if err := i.table(s); err != nil {
		return err
	}
	lossy := slices.ContainsFunc(s.Secrets, func(said imported) bool { return said.Lossy })
	if lossy || s.Left+s.Failed > 0 {
		return errSomeLeft
	}
	return nil
}

func (i *importing) table(s importSummary) error {
	var out io.Writer = i.o.streams.Out
	if i.to == nil && !i.o.dryRun {
		out = i.o.streams.ErrOut // the manifests went to the other one
	}
	counts := newTable(out)
	counts.header([]string{"IMPORTED", "UNCHANGED", "LEFT", "FAILED"})
	cells := []string{strconv.Itoa(s.Imported), strconv.Itoa(s.Unchanged), strconv.Itoa(s.Left), strconv.Itoa(s.Failed)}
	if s.DryRun {
		cells[len(cells)-1] += "   (dry run)"
	}
	if err := counts.row(cells); err != nil {
		return err
	}
	if err := counts.flush(); err != nil {
		return err
	}
	often := oftenSaid(s.Secrets)
	rows := newTable(out)
	rows.header([]string{"SECRET", "NAMESPACE", "NAME", "RESULT", "WHY"})
	for _, said := range s.Secrets {
		why := slices.DeleteFunc(slices.Clone(said.Notes), func(note string) bool { return often[note] > 0 })
		if said.Why != "" {
			why = append([]string{said.Why}, why...)
		}
		if len(why) == 0 && !s.DryRun {
			continue
		}
		secret := said.Secret
		if secret == "" {
			secret = said.Source
		}
		if err := rows.row([]string{secret, orNone(said.Namespace), orNone(said.Name), said.Result, orNone(strings.Join(why, "; "))}); err != nil {
			return err
		}
	}
	if err := rows.flush(); err != nil {
		return err
	}
	i.notes(s, often)
	return nil
}

// oftenSaid counts the notes that many secrets have. They are told once.
func oftenSaid(all []imported) map[string]int {
	const few = 3
	times := make(map[string]int)
	for _, said := range all {
		for _, note := range said.Notes {
			times[note]++
		}
	}
	for note, n := range times {
		if n <= few {
			delete(times, note)
		}
	}
	return times
}

func (i *importing) notes(s importSummary, often map[string]int) {
	tell := func(format string, args ...any) {
		fmt.Fprintln(i.o.streams.ErrOut, "note:", visible(fmt.Sprintf(format, args...)))
	}
	for _, note := range slices.Sorted(maps.Keys(often)) {
		tell("of %d secrets: %s", often[note], note)
	}
	if s.Backups > 0 {
		tell("copies that VSecM kept of what its secrets were, and that were left out: %d", s.Backups)
	}
	if len(s.OtherFiles) > 0 {
		tell("not VSecM's, and left out: %s", someOf(s.OtherFiles))
	}
	if s.Imported > 0 {
		tell("when VSecM created a secret has no place in an object, nor has the correlation ID of its log; -o json lists the former")
	}
}
