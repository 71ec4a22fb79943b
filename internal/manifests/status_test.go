package manifests

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// declared are the reasons of a package: constants called reason… or event…, and the table of what errors mean.
var declared = regexp.MustCompile(`(?m)^\s+(?:[rR]eason|Event)\w+\s+=\s+"(\w+)"|\{"([A-Z]\w+)", condition\.`)

// Whoever sees a reason finds it in docs/status.md, and nothing there is of long ago.
func TestEveryReasonIsExplained(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "status.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n## Of a GitSource\n")
	source, rest, _ := strings.Cut(rest, "\n## Of an EncryptedSecret\n")
	object, events, _ := strings.Cut(rest, "\n## Events\n")
	first := regexp.MustCompile("(?m)^\\| `([A-Z]\\w+)`(?:, `([A-Z]\\w+)`)? \\|")
	explained := func(section string) []string {
		var names []string
		for _, m := range first.FindAllStringSubmatch(section, -1) {
			names = append(names, m[1:]...)
		}
		return slices.DeleteFunc(names, func(name string) bool { return name == "" })
	}
	// Those that are said without a constant.
	inEvents := append(explained(events), "Fault", "FaultGone", "Restored")
	for pkg, section := range map[string]string{"gitsource": source, "deliver": object} {
		files, err := filepath.Glob(filepath.Join("..", pkg, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		var reasons []string
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			code, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range declared.FindAllStringSubmatch(string(code), -1) {
				reasons = append(reasons, m[1]+m[2])
			}
		}
		if len(reasons) < 10 {
			t.Errorf("package %s has reasons %v only", pkg, reasons)
		}
		told := explained(section)
		for _, reason := range reasons {
			if !slices.Contains(told, reason) && !slices.Contains(inEvents, reason) {
				t.Errorf("docs/status.md does not explain %s, of package %s", reason, pkg)
			}
		}
		for _, reason := range told {
			if !slices.Contains(reasons, reason) {
				t.Errorf("docs/status.md explains %s, which package %s never says", reason, pkg)
			}
		}
	}
}
