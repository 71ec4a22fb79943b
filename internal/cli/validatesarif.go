package cli

import (
	"io"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/vsecm/kubectl-vsecm/internal/version"
)

// formSARIF is the Static Analysis Results Interchange Format, version 2.1.0, by OASIS.
const formSARIF = "sarif"

type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool struct {
		Driver sarifDriver `json:"driver"`
	} `json:"tool"`
	Results    []sarifResult `json:"results"`
	ColumnKind string        `json:"columnKind"`
}

type sarifDriver struct {
	Name           string      `json:"name"`
	Version        string      `json:"version"`
	InformationURI string      `json:"informationUri"`
	Rules          []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID               string    `json:"id"`
	ShortDescription sarifText `json:"shortDescription"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifResult struct {
	RuleID    string          `json:"ruleId"`
	RuleIndex int             `json:"ruleIndex"`
	Level     string          `json:"level"`
	Message   sarifText       `json:"message"`
	Locations []sarifLocation `json:"locations"`
}

type sarifLocation struct {
	PhysicalLocation struct {
		ArtifactLocation struct {
			URI string `json:"uri"`
		} `json:"artifactLocation"`
		Region *sarifRegion `json:"region,omitempty"`
	} `json:"physicalLocation"`
}

type sarifRegion struct {
	StartLine int `json:"startLine"`
}

// printSARIF writes the faults as the results of one run.
func printSARIF(w io.Writer, v validation) error {
	run := sarifRun{Results: []sarifResult{}, ColumnKind: "unicodeCodePoints"}
	run.Tool.Driver = sarifDriver{Name: "kubectl-vsecm", Version: version.Get().Version, InformationURI: "https://github.com/vsecm/kubectl-vsecm"}
	for _, rule := range validationRules {
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{rule.id, sarifText{rule.short}})
	}
	for _, f := range v.faults {
		var at sarifLocation
		at.PhysicalLocation.ArtifactLocation.URI = uriOf(f.File)
		if f.Line > 0 {
			at.PhysicalLocation.Region = &sarifRegion{f.Line}
		}
		rule := ruleOfFault(f)
		run.Results = append(run.Results, sarifResult{
			RuleID: validationRules[rule].id, RuleIndex: rule, Level: "error",
			Message: sarifText{unlinked.Replace(whatIsWrong(f))}, Locations: []sarifLocation{at},
		})
	}
	return printObject(w, "json", sarifLog{
		Schema:  "https://json.schemastore.org/sarif-2.1.0.json",
		Version: "2.1.0",
		Runs:    []sarifRun{run},
	})
}

// unlinked leaves no link in a message, in which [text](address) is one: what is quoted may be anybody's.
var unlinked = strings.NewReplacer("](", "] (")

// uriOf returns a path as a URI: relative to the working directory, as it is printed, or a file's URI
// where it is absolute.
func uriOf(path string) string {
	absolute := filepath.IsAbs(path)
	path = filepath.ToSlash(path)
	if !absolute {
		return (&url.URL{Path: path}).String()
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // a drive of Windows'
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}
