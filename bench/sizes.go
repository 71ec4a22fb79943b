package main

import (
	"os"
	"path/filepath"
)

// sizes compares how large the programs are, all of them stripped and static.
func (p *programs) sizes(bin string) ([]row, error) {
	var rows []row
	add := func(work, ours, beside, theirs string) error {
		a, err := os.Stat(ours)
		if err != nil {
			return err
		}
		b, err := os.Stat(theirs)
		if err != nil {
			return err
		}
		rows = append(rows, row{work: work, beside: beside, ours: size(a.Size()), theirs: size(b.Size())})
		return nil
	}
	for _, other := range []struct{ name, file string }{{"kubeseal", p.kubeseal}, {"sops", p.sops}, {"age", p.age}} {
		if err := add("the plugin's program", p.vsecm, other.name, other.file); err != nil {
			return nil, err
		}
	}
	return rows, add("Safe's program", filepath.Join(bin, "safe"), "sops", p.sops)
}
