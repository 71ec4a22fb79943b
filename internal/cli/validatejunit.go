package cli

import (
	"encoding/xml"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// formJUnit is the XML in which GitLab and others read the results of tests.
const formJUnit = "junit"

type junitSuites struct {
	XMLName xml.Name     `xml:"testsuites"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	ClassName string        `xml:"classname,attr"`
	Name      string        `xml:"name,attr"`
	File      string        `xml:"file,attr"`
	Failure   *junitFailure `xml:"failure,omitempty"`
}

type junitFailure struct {
	Type    string `xml:"type,attr"`
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// printJUnit writes a test case for each file, with all the faults of the file in its one failure, since readers
// show no more than one.
func printJUnit(w io.Writer, v validation) error {
	const suite = "kubectl vsecm validate"
	byFile := make(map[string][]*encrypt.Fault)
	files := slices.Clone(v.files)
	for _, f := range v.faults {
		byFile[f.File] = append(byFile[f.File], f)
	}
	listed := make(map[string]bool, len(files))
	for _, file := range files {
		listed[file] = true
	}
	for _, f := range v.faults {
		if !listed[f.File] { // such as .vsecm.yaml
			listed[f.File] = true
			files = append(files, f.File)
		}
	}
	s := junitSuite{Name: suite, Tests: len(files)}
	for _, file := range files {
		path := visible(filepath.ToSlash(file))
		c := junitCase{ClassName: suite, Name: path, File: path}
		if faults := byFile[file]; len(faults) > 0 {
			s.Failures++
			c.Failure = &junitFailure{Type: validationRules[ruleOfFault(faults[0])].id, Message: whatIsWrong(faults[0])}
			if more := len(faults) - 1; more > 0 {
				c.Failure.Message += fmt.Sprintf(" (and %d more)", more)
			}
			var text strings.Builder
			for _, f := range faults {
				fmt.Fprintln(&text, visible(f.Error()))
			}
			c.Failure.Text = text.String()
		}
		s.Cases = append(s.Cases, c)
	}
	out, err := xml.MarshalIndent(junitSuites{Suites: []junitSuite{s}}, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, out)
	return err
}
