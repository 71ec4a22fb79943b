package encrypt

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// steps is n block collections in each other, a line each.
func steps(n, indent int, line string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i*indent) + line + "\n")
	}
	return b.String()
}

// deepShapes stand n deep in each other.
var deepShapes = map[string]func(n int) string{
	"lists on a line":        func(n int) string { return strings.Repeat("- ", n) + "a\n" },
	"lists far apart":        func(n int) string { return strings.Repeat("-    ", n) + "a\n" },
	"keys on a line":         func(n int) string { return strings.Repeat("? ", n) + "a\n" },
	"values on a line":       func(n int) string { return strings.Repeat(": ", n) + "a\n" },
	"all marks on a line":    func(n int) string { return strings.Repeat("- ? : ", n/3+1) + "a\n" },
	"lists by line":          func(n int) string { return steps(n, 1, "-") },
	"keys by line":           func(n int) string { return steps(n, 1, "?") },
	"mappings by line":       func(n int) string { return steps(n, 1, "a:") },
	"mappings, CRLF":         func(n int) string { return strings.ReplaceAll(steps(n, 2, "a:"), "\n", "\r\n") },
	"mappings, CR":           func(n int) string { return strings.ReplaceAll(steps(n, 1, "a:"), "\n", "\r") },
	"quoted keys":            func(n int) string { return steps(n, 1, `"-":`) },
	"keys that are flows":    func(n int) string { return steps(n, 1, "[a]:") },
	"anchors":                func(n int) string { return steps(n, 1, "&a b: &c") },
	"tags":                   func(n int) string { return steps(n, 1, "!!str b: !!map") },
	"byte order marks":       func(n int) string { return strings.ReplaceAll("\n"+steps(n, 1, "a:"), "\n", "\n\ufeff") },
	"behind text of lines":   func(n int) string { return "b: \"\n\n  x\n\"\n" + steps(n, 1, "a:") },
	"with text between":      func(n int) string { return steps(n, 1, "? \"\n\n\"\n:") },
	"with brackets between":  func(n int) string { return steps(n, 1, "? [\n]\n:") },
	"lists of mappings":      func(n int) string { return steps(n, 2, "- a:") },
	"the second document":    func(n int) string { return "a: b\n---\n" + steps(n, 1, "a:") },
	"behind a file of ours":  func(n int) string { return good + "---\n" + steps(n, 1, "-") },
	"with comments between":  func(n int) string { return steps(n, 1, "- # a") },
	"with a line of nothing": func(n int) string { return steps(n, 1, "-\n") },
}

func TestDeepFilesNeverReachTheLibrary(t *testing.T) {
	for name, shape := range deepShapes {
		for _, n := range []int{maxDepth + 3, 1000} {
			for _, text := range []string{shape(n), "# vsecm.com/\n" + shape(n)} {
				ours := strings.Contains(text, "vsecm.com/")
				documents, fault := readDocuments("f", []byte(text))
				if documents != nil || fault == nil || !errors.Is(fault, errDeep) {
					t.Fatalf("%s, %d deep: %v", name, n, fault)
				}
				ms := ReadManifests("f", []byte(text), "")
				if ours && len(ms.Faults) != 1 || !ours && (len(ms.Faults) != 0 || ms.Skipped != 1) || len(ms.Objects) != 0 {
					t.Errorf("%s: %d skipped, faults %v", name, ms.Skipped, ms.Faults)
				}
			}
		}
		if line := deepLine([]byte(shape(40))); line != 0 {
			t.Errorf("%s, 40 deep, is too deep on line %d", name, line)
		}
	}
}

func TestDepthIsExact(t *testing.T) {
	for n, deep := range map[int]bool{maxDepth: false, maxDepth + 1: true} {
		for _, start := range []string{"", "\ufeff", "# a\n", "---\n"} {
			if line := deepLine([]byte(start + steps(n, 1, "a:"))); deep != (line > 0) {
				t.Errorf("%q, then %d deep: line %d", start, n, line)
			}
		}
	}
}

func TestDeepJSONIsRefused(t *testing.T) {
	for n, deep := range map[int]bool{maxDepth: false, maxDepth + 1: true, 5000: true} {
		for _, text := range []string{
			strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n),
			`{"a":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + "}",
		} {
			_, fault := readDocuments("f", []byte(text))
			if deep != (fault != nil && errors.Is(fault, errDeep)) {
				t.Errorf("%d deep: %v", n, fault)
			}
		}
	}
}

// What manifests and the files beside them look like is no reason to count.
func TestWhatPeopleWriteIsNotTooDeep(t *testing.T) {
	for name, text := range map[string]string{
		"base64":            good + strings.Repeat("    k: "+strings.Repeat("YWdl+/:-", 10_000)+"\n", 20),
		"base64 over lines": good + "    k: |\n" + strings.Repeat("      "+strings.Repeat("YWdl+/==", 10)+"\n", 20_000),
		"text of all kinds": "a: |\n" + strings.Repeat("  - - - - - - - -\n   case a: b\n      switch: {\n          x: y\n # c: d\n"+strings.Repeat(" ", 300)+"words\n", 1000),
		"a wide list":       strings.Repeat("- a: b\n  c:\n  - d\n", 10_000),
		"dashed lines":      "a: |\n" + strings.Repeat("  "+strings.Repeat("-", 200)+"\n", 1000),
	} {
		if line := deepLine([]byte(text)); line != 0 {
			t.Errorf("%s is too deep on line %d", name, line)
		}
	}
}

// eachBlock calls f with every block collection of a document.
func eachBlock(n *yaml.Node, f func(n *yaml.Node)) {
	if (n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode) && n.Style&yaml.FlowStyle == 0 {
		f(n)
	}
	for _, c := range n.Content {
		eachBlock(c, f)
	}
}

// checkColumns is what the bound stands on: no block collection begins where none could.
// For the library one with an anchor or tag begins there, maybe lines before.
func checkColumns(t *testing.T, data []byte) {
	t.Helper()
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // as deepLine does
	lines := strings.FieldsFunc(strings.NewReplacer("\r\n", "\n.", "\n", "\n.", "\r", "\n.").Replace("."+string(data)), func(r rune) bool { return r == '\n' })
	seen := make(map[int]bool)
	for _, line := range lines {
		eachStart([]byte(line[1:]), func(column int) bool { seen[column] = true; return true })
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		if decode1(d, &doc) != nil {
			return
		}
		eachBlock(&doc, func(n *yaml.Node) {
			if first := []rune(lines[n.Line-1])[n.Column]; !seen[n.Column-1] && first != '&' && first != '!' {
				t.Errorf("%q: a block collection begins in column %d, which is not counted", data, n.Column-1)
			}
		})
	}
}

func TestEveryBlockCollectionIsCounted(t *testing.T) {
	for _, shape := range deepShapes {
		checkColumns(t, []byte(shape(10)))
	}
}

func FuzzDepth(f *testing.F) {
	for _, shape := range deepShapes {
		f.Add([]byte(shape(5)))
	}
	addManifests(f, func(data []byte) { f.Add(data) })
	f.Fuzz(func(t *testing.T, data []byte) {
		if strayBreak(data) == 0 && len(data) < 10_000 {
			checkColumns(t, data)
		}
	})
}

func TestCharactersThatOnlySomeTakeForLineBreaks(t *testing.T) {
	for _, c := range []string{"\u0085", "\u2028", "\u2029"} {
		text := good + "#" + c + "\n"
		ms := ReadManifests("f", []byte(text), "")
		if len(ms.Faults) != 1 || ms.Faults[0].Line != 7 || !strings.Contains(ms.Faults[0].Error(), "U+0085, U+2028 or U+2029") {
			t.Errorf("%q: faults %v", c, ms.Faults)
		}
		if ms := ReadManifests("f", []byte("a: "+c+"\n"), ""); len(ms.Faults) != 0 || ms.Skipped != 1 {
			t.Errorf("%q, of others: faults %v", c, ms.Faults)
		}
		if documents, _ := readDocuments("f", []byte(strings.Repeat("- ", 50)+"a\n"+strings.Repeat("#"+c, 500_000))); documents != nil {
			t.Errorf("%q reaches the library", c)
		}
		// Written as an escape it stands in nobody's way.
		text = strings.Replace(good, "metadata: {", `metadata: {annotations: {a: "\N\L\P"}, `, 1)
		ms = ReadManifests("f", []byte(text), "")
		if len(ms.Objects) != 1 {
			t.Fatal(ms.Faults)
		}
		for _, marshal := range []func(...*v1alpha1.EncryptedSecret) ([]byte, error){MarshalYAML, MarshalJSON} {
			written, err := marshal(ms.Objects[0].Object)
			if err != nil {
				t.Fatal(err)
			}
			again := ReadManifests("f", written, "")
			if len(again.Objects) != 1 || again.Objects[0].Object.Annotations["a"] != "\u0085\u2028\u2029" {
				t.Errorf("%q: %v", written, again.Faults)
			}
		}
	}
}
