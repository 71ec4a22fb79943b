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
	Backups    int        `json:"backups,omitempty"`    // copies that the other tool kept, and that were left out
	OtherFiles []string   `json:"otherFiles,omitempty"` // that hold nothing to import
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

// tell says what became of every secret. The error says that something was left, or is not as the other tool made it.
func (i *importing) tell() error {
	s := importSummary{
		DryRun: i.dryRun, Imported: i.count(resultImported), Unchanged: i.count(resultUnchanged),
		Left: i.count(resultLeft), Failed: i.count(resultFailed), Secrets: i.outcomes,
	}
	var besides []string
	if i.besides != nil {
		besides = i.besides(&s)
	}
	if s.Secrets == nil {
		s.Secrets = []imported{}
	}
	if i.output.value != "" {
		if err := printObject(i.streams.Out, i.output.value, s); err != nil {
			return err
		}
	} else if err := i.table(s, besides); err != nil {
		return err
	}
	lossy := slices.ContainsFunc(s.Secrets, func(said imported) bool { return said.Lossy })
	if lossy || s.Left+s.Failed > 0 {
		return errSomeLeft
	}
	return nil
}

func (i *importing) table(s importSummary, besides []string) error {
	var out io.Writer = i.streams.Out
	if i.to == nil && !i.dryRun {
		out = i.streams.ErrOut // the manifests went to the other one
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
	rows.flows()
	rows.may("NAMESPACE")
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
	i.tellNotes(often, besides)
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

func (i *importing) tellNotes(often map[string]int, besides []string) {
	tell := func(note string) { prose(i.streams.ErrOut, "note: %s", note) }
	for _, note := range slices.Sorted(maps.Keys(often)) {
		tell(fmt.Sprintf("of %d secrets: %s", often[note], note))
	}
	for _, note := range besides {
		tell(note)
	}
}
