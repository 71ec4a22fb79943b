package template_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// What costs more than the bytes that it gives away is paid for as well.
func TestWhatCostsMoreThanItShowsIsPaidFor(t *testing.T) {
	long := strings.Repeat("x", 200<<10)
	var names []string
	for i := range 8 {
		names = append(names, fmt.Sprintf("%q:1", long[:20<<10]+fmt.Sprint(i)))
	}
	tests := map[string]struct {
		text   string
		values map[string]string
		want   string
	}{
		"looking up long names":       {`{{ $m := fromJson .v }}{{ range 10000 }}{{ if hasKey $m $.k }}{{ end }}{{ end }}`, map[string]string{"v": `{"a":1}`, "k": long}, "too much work"},
		"getting long names":          {`{{ $m := fromJson .v }}{{ range 10000 }}{{ get $m $.k }}{{ end }}`, map[string]string{"v": `{"a":1}`, "k": long}, "too much work"},
		"indexing by long names":      {`{{ range 10000 }}{{ if index $ $.k }}{{ end }}{{ end }}`, map[string]string{long: "", "k": long}, "too much work"},
		"sorting long names":          {`{{ $m := fromJson .v }}{{ range 300 }}{{ range $m }}{{ break }}{{ end }}{{ end }}`, map[string]string{"v": "{" + strings.Join(names, ",") + "}"}, "too much work"},
		"33 ranges in each other":     {strings.Repeat("{{ range 9 }}\n", 33) + strings.Repeat("{{ end }}", 33), nil, "line 33, column 10: more than 32 ranges stand in each other"},
		"a range in an else, 33 deep": {strings.Repeat("{{ range 0 }}{{ else }}", 33) + strings.Repeat("{{ end }}", 33), nil, "more than 32 ranges"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := render(text(tt.text), tt.values); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want %s", err, tt.want)
			}
		})
	}
	if out, err := render(text(strings.Repeat("{{ range 1 }}", 32)+"x"+strings.Repeat("{{ end }}", 32)), nil); err != nil || out != "x" {
		t.Errorf("32 ranges: %q, %v", out, err)
	}
}

// It took a minute where every character was looked for in all of the set.
func TestTrimAllGoesThroughBothTextsOnce(t *testing.T) {
	tests := map[string]struct{ cut, in, want string }{
		"letters":                 {"ab", "abcba", "c"},
		"nothing to trim by":      {"", " a ", " a "},
		"characters":              {"é☃", "☃éaé☃é", "a"},
		"what is not UTF-8":       {"\xff", "\xfea\xff", "a"},
		"a large set, large text": {strings.Repeat("é", 50<<10) + "\xff", strings.Repeat("\xff", 200<<10), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := render(text(`{{ trimAll .cut .in }}`), map[string]string{"cut": tt.cut, "in": tt.in})
			if err != nil || got != tt.want || got != strings.Trim(tt.in[:min(len(tt.in), 100)], tt.cut) {
				t.Errorf("%.100q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestNullIsEmpty(t *testing.T) {
	got, err := render(text(`{{ default "none" (fromJson .v).a }} {{ empty (fromJson .v).a }} {{ (fromJson .v).a | default "x" | upper }}`), map[string]string{"v": `{"a":null}`})
	if err != nil || got != "none true X" {
		t.Errorf("%q, %v", got, err)
	}
}

// Each string keeps its path for errors.
func TestPathsOfAStructureAreShort(t *testing.T) {
	deep := "[" + strings.Repeat(`"",`, 15000) + `"{{ nothing }}"]`
	for range 31 {
		deep = `{"` + strings.Repeat("\x7f", 101) + `":` + deep + "}"
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := template.Parse(one(asJSON(deep)))
	runtime.ReadMemStats(&after)
	if err == nil || len(err.Error()) > 1000 {
		t.Errorf("got %.1000v", err)
	}
	if made := (after.TotalAlloc - before.TotalAlloc) >> 20; made > 100 {
		t.Errorf("%d MiB", made)
	}
}

// An API server keeps numbers as a double or 64 bits, and writes them in its own way.
func TestNumbersSurviveAnAPIServer(t *testing.T) {
	for _, number := range []string{"0", "-0", "-0.0", "1.0", "1E5", "1e-7", "5e-324", "123456789.123456789", "9007199254740991", "1e21", "-1e300", "0.1e1"} {
		is := one(asJSON(`[` + number + `]`))
		was := one(asJSON(string(asStored(t, is.Data["out"].JSON))))
		a, errA := render(is.Data["out"], nil)
		b, errB := render(was.Data["out"], nil)
		if errA != nil || errB != nil || a != b || template.Hash(is) != template.Hash(was) {
			t.Errorf("%s: %s, %v, and then %s, %v", number, a, errA, b, errB)
		}
	}
	for _, number := range []string{"9007199254740992", "9007199254740992.0", "1e20", "-1e20", "100000000000000000000", "1000000000000000000000"} {
		if _, err := render(asJSON(number), nil); err == nil || !strings.Contains(err.Error(), "beyond 2^53") {
			t.Errorf("%s: %v", number, err)
		}
	}
}

// asStored returns JSON as an API server gives it back.
func asStored(t *testing.T, text []byte) []byte {
	t.Helper()
	var list []json.Number
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&list); err != nil {
		t.Fatal(err)
	}
	stored := make([]any, len(list))
	for i, n := range list {
		whole, err := n.Int64()
		stored[i] = whole
		if err != nil {
			double, err := n.Float64()
			if err != nil {
				t.Fatal(err)
			}
			stored[i] = double
		}
	}
	text, err := json.Marshal(stored)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// They go to terminals, logs and an object's status.
func TestErrorsAreShortHoweverLongNamesAre(t *testing.T) {
	long := strings.Repeat("é", 25_000)
	for _, source := range []string{"{{ " + long + " }}", "{{ $" + long + " }}", "{{ '" + long + "' }}", "{{ ." + long + " }}", `{{ index . "` + long + `" }}`, "{{ ." + long + ".x }}"} {
		_, err := render(text(source), nil)
		if err == nil || len(err.Error()) > 400 {
			t.Errorf("%.60s: %d bytes", source, len(err.Error()))
		}
	}
}
