package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// What stands between these lines of README.md is what the last whole run has measured.
const (
	measuredBegin = "<!-- measured: make bench writes what is between these lines -->\n"
	measuredEnd   = "<!-- measured: end -->\n"

	chartFile = "aims.svg"
)

// table returns the rows as Markdown, below a line that says on what they were measured.
func table(rows []row, at time.Time) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s, %s, %s/%s, %d cores\n\n", at.UTC().Format(time.DateOnly), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	b.WriteString("| work | beside | ours | theirs | ratio | aim | |\n")
	b.WriteString("| --- | --- | ---: | ---: | ---: | --- | --- |\n")
	for _, r := range rows {
		fmt.Fprintln(&b, strings.TrimSuffix(r.String(), " "))
	}
	return b.Bytes()
}

// record puts the table of a whole run into README.md of a folder, in the place of the last one, and the chart beside it.
func record(folder string, table []byte, rows []row) error {
	file := filepath.Join(folder, "README.md")
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, begins := bytes.Cut(page, []byte(measuredBegin))
	_, after, ends := bytes.Cut(rest, []byte(measuredEnd))
	if !begins || !ends {
		return fmt.Errorf("%s has no lines %q and %q", file, strings.TrimSpace(measuredBegin), strings.TrimSpace(measuredEnd))
	}
	chartLink := fmt.Sprintf("![A bar for each aim](%s)\n\n", chartFile)
	page = bytes.Join([][]byte{before, []byte(measuredBegin), []byte("\n"), []byte(chartLink), table, []byte("\n"), []byte(measuredEnd), after}, nil)
	if err := os.WriteFile(filepath.Join(folder, chartFile), chart(rows), 0o644); err != nil {
		return err
	}
	return os.WriteFile(file, page, 0o644)
}
