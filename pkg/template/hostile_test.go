package template_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

const canary = "hunter2"

// Whatever a template does, it ends, within its bounds, and no error quotes a value.
func TestHostileTemplatesEnd(t *testing.T) {
	big := strings.Repeat("x", 200<<10)
	tests := map[string]struct {
		text   string
		values map[string]string
		want   string
	}{
		"an endless loop":                   {"{{ range 9223372036854775807 }}{{ end }}", nil, "line 1, column 10: {{ range 9223372036854775807 }}: it takes too many steps"},
		"loops within loops":                {"{{ range 1000 }}{{ range 1000 }}{{ $x := 1 }}{{ end }}{{ end }}", nil, "too many steps"},
		"a loop with a long body":           {"{{ range 50 }}" + strings.Repeat("{{ $x := 1 }}", 4000) + "{{ end }}", nil, "too many steps"},
		"a loop that prints":                {"{{ range 90000 }}0123456789{{ end }}", nil, "too large"},
		"a loop that prints 100 MB":         {"{{ range 5000 }}{{ $.v }}{{ end }}", map[string]string{"v": big}, "too large"},
		"a text that doubles":               {"{{ $x := .v }}" + strings.Repeat("{{ $x = print $x $x }}", 40), map[string]string{"v": big}, "too large"},
		"a text that doubles by printf":     {"{{ $x := .v }}" + strings.Repeat(`{{ $x = printf "%s%s" $x $x }}`, 40), map[string]string{"v": big}, "too large"},
		"a text that grows by replacing":    {`{{ $x := .v }}{{ range 20 }}{{ $x = replace "x" "xxxxxxxxxx" $x }}{{ end }}`, map[string]string{"v": "x"}, "too large"},
		"a text that grows by quoting":      {`{{ $x := .v }}{{ range 90 }}{{ $x = quote $x }}{{ end }}`, map[string]string{"v": `"`}, "too"},
		"a text that grows by escaping":     {`{{ $x := .v }}{{ range 90 }}{{ $x = urlquery $x $x }}{{ end }}`, map[string]string{"v": "%%"}, "wrong number of arguments"},
		"a text that grows by urlquery":     {`{{ $x := .v }}{{ range 90 }}{{ $x = urlquery $x }}{{ end }}`, map[string]string{"v": strings.Repeat("%", 9000)}, "too"},
		"a text that grows by indent":       {`{{ $x := .v }}{{ range 90 }}{{ $x = indent 1000 $x }}{{ end }}`, map[string]string{"v": strings.Repeat("\n", 900)}, "too"},
		"a text that grows by base64":       {`{{ $x := .v }}{{ range 90 }}{{ $x = b64enc $x }}{{ end }}`, map[string]string{"v": big}, "too"},
		"a text that grows by JSON":         {`{{ $x := .v }}{{ range 90 }}{{ $x = toJson $x }}{{ end }}`, map[string]string{"v": `"`}, "too"},
		"lists from a large value":          {`{{ range 5000 }}{{ $x := splitList "" $.v }}{{ end }}`, map[string]string{"v": big}, "too much work"},
		"comparisons of large values":       {`{{ range 20000 }}{{ if eq $.v $.w }}{{ end }}{{ end }}`, map[string]string{"v": big, "w": big}, "too much work"},
		"sorting a large mapping":           {`{{ $m := fromJson .v }}{{ range 20000 }}{{ range $m }}{{ break }}{{ end }}{{ end }}`, map[string]string{"v": "{" + strings.Repeat(`"a":1,`, 1) + members(5000) + "}"}, "too much work"},
		"JSON as deep as it is long":        {`{{ fromJson .v | toJson }}`, map[string]string{"v": strings.Repeat("[", 200<<10)}, "the value is not JSON"},
		"large JSON over and over":          {`{{ range $i, $x := splitList "," .n }}{{ $j := fromJson (printf "%s%s" $.v $x) }}{{ end }}`, map[string]string{"v": "[" + strings.Repeat("1,", 90<<10) + "1]", "n": strings.Repeat(" ,  ,   ,", 90)}, "too much work"},
		"a wide format":                     {`{{ printf "%1001d" 1 }}`, nil, "widths and precisions are 1000 at most"},
		"a width as an argument":            {`{{ printf "%*d" 100000000 1 }}`, nil, "* and [ are not supported"},
		"a precise format":                  {`{{ printf "%.99999999f" 1.0 }}`, nil, "widths and precisions"},
		"a format that repeats":             {`{{ printf "%[1]s%[1]s" .v }}`, map[string]string{"v": "x"}, "* and [ are not supported"},
		"a wide format in a value":          {`{{ printf .v 1 }}`, map[string]string{"v": "%999999999d"}, "widths and precisions"},
		"wide formats in a row":             {`{{ printf "` + strings.Repeat("%1000d", 300) + `"` + strings.Repeat(" 1", 300) + ` }}`, nil, "too large"},
		"a format of another kind":          {`{{ printf "%d" .v }}`, map[string]string{"v": canary}, "%d does not print a value of this kind"},
		"too few values":                    {`{{ printf "%s%s" .v }}`, map[string]string{"v": canary}, "more verbs"},
		"too many values":                   {`{{ printf "%s" .v .v }}`, map[string]string{"v": canary}, "fewer verbs"},
		"a missing key":                     {"ab\n  {{ .nothing }}", map[string]string{"v": canary}, "line 2, column 6: {{ .nothing }}: there is no such key"},
		"a missing key, indexed":            {`{{ index . .v }}`, map[string]string{"v": canary}, "{{ index . .v }}: there is no such key"},
		"a missing key in JSON":             {`{{ (fromJson .v).b }}`, map[string]string{"v": `{"a":"` + canary + `"}`}, "there is no such key"},
		"a key of a text":                   {`{{ .v.b }}`, map[string]string{"v": canary}, "this value has no keys"},
		"a key of null":                     {`{{ (fromJson .v).a.b }}`, map[string]string{"v": `{"a":null}`}, "no"},
		"null":                              {`{{ (fromJson .v).a }}`, map[string]string{"v": `{"a":null}`}, "null is no text"},
		"a list":                            {`{{ fromJson .v }}`, map[string]string{"v": `["` + canary + `"]`}, "toJson"},
		"all values":                        {`{{ . }}`, map[string]string{"v": canary}, "toJson"},
		"what is not JSON":                  {`{{ fromJson .v }}`, map[string]string{"v": canary}, "the value is not JSON"},
		"what is not base64":                {`{{ b64dec .v }}`, map[string]string{"v": canary + "!"}, "the value is not base64"},
		"what is not UTF-8 as JSON":         {`{{ toJson .v }}`, map[string]string{"v": canary + "\xff"}, "not UTF-8"},
		"a text that is compared":           {`{{ eq .v 1 }}`, map[string]string{"v": canary}, "compared"},
		"a text that is called":             {`{{ call .v }}`, map[string]string{"v": canary}, "nothing to call"},
		"a text that is ranged over":        {`{{ range .v }}{{ end }}`, map[string]string{"v": canary}, "cannot be carried out"},
		"a text as a number":                {`{{ indent .v "x" }}`, map[string]string{"v": canary}, "cannot be carried out"},
		"an element beyond the end":         {`{{ index (splitList "," .v) 7 }}`, map[string]string{"v": canary}, "no such element"},
		"a part beyond the end":             {`{{ slice .v 3 99 }}`, map[string]string{"v": canary}, "there is no such part"},
		"a method":                          {`{{ (fromJson .v).MarshalJSON }}`, map[string]string{"v": "1.5"}, "this value has no keys"},
		"a function that is hidden":         {`{{ _print .v }}`, nil, `function "_print" not defined`},
		"a definition":                      {"a{{ define \"x\" }}{{ end }}", nil, "line 1, column 2: templates within templates are not supported"},
		"a block":                           {`{{ block "x" . }}{{ end }}`, nil, "templates within templates"},
		"a recursion":                       {`{{ if 1 }}{{ template "p0" . }}{{ end }}`, nil, "templates within templates"},
		"what is not UTF-8":                 {"\xff", nil, "not UTF-8"},
		"a colour":                          {"{{ \x1b[31m }}", nil, "unrecognized character"},
		"parentheses as deep as it is long": {"{{ " + strings.Repeat("(", 60000) + " }}", nil, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			out, err := render(text(tt.text), tt.values)
			var told *template.Error
			if !errors.As(err, &told) || out != "" {
				t.Fatalf("%d bytes, %v", len(out), err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want %q", err, tt.want)
			}
			if told.Key != "out" || strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), "\x1b") || len(err.Error()) > 600 {
				t.Errorf("key %q, %d bytes: %.600q", told.Key, len(err.Error()), err)
			}
		})
	}
}

// members returns the text of n members of a JSON object.
func members(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`"k%d":1`, i))
	}
	return strings.Join(all, ",")
}

func TestStructuresAreWholeWhateverTheValues(t *testing.T) {
	values := map[string]string{"v": "a,b\"'\n: {}[]#&*!|>%@`\t\u2028\u0085\x00é😀", "yes": "yes"}
	const structure = `{"l":["{{ .v }}",1.0,1e21,-0,true,null,[],{}],"m":{"no":"{{ .yes }}","a b":"x{{ upper .yes }}"},"12":"12"}`
	want := `{"12":"12","l":["a,b\"'\n: {}[]#&*!|>%@` + "`" + `\t\u2028` + "\u0085" + `\u0000é😀",1,1e+21,0,true,null,[],{}],"m":{"a b":"xYES","no":"yes"}}`
	got, err := render(asJSON(structure), values)
	if err != nil || got != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
	if got, err := render(asJSON(`"{{ .v }}"`), map[string]string{"v": `"`}); err != nil || got != `"\""` {
		t.Errorf("a text alone: %q, %v", got, err)
	}
	asText, err := render(asYAML(structure), values)
	if err != nil {
		t.Fatal(err)
	}
	checkYAML(t, asText, want)
	for name, tt := range map[string]struct {
		v    v1alpha1.TemplateValue
		want string
	}{
		"JSON that is none":          {asJSON(`{"a":`), "malformed"},
		"a name twice":               {asJSON(`{"a":1,"\u0061":2}`), "name twice"},
		"a number that is too large": {asJSON(`{"a":1e999}`), "out of range"},
		"a number that is not exact": {asJSON(`{"a":[9007199254740993]}`), "a[0]: a whole number beyond 2^53"},
		"half a character":           {asJSON(`"\ud800"`), "malformed"},
		"null":                       {asJSON(`null`), "not null"},
		"33 lists":                   {asJSON(strings.Repeat("[", 33) + strings.Repeat("]", 33)), "more than 32 deep"},
		"a string with a fault":      {asYAML(`{"a b":{"c":["",{"d":"x\n {{ . | }}"}]}}`), `["a b"].c[1].d: line 2, column`},
		"a value that is not UTF-8":  {asJSON(`["{{ .bin }}"]`), "[0]: what it prints is not UTF-8"},
		"more than there is room":    {asJSON(`[` + strings.Repeat(`"{{ .big }}",`, 300) + `1]`), "too large"},
		"control characters":         {asJSON(`["{{ .nul }}"]`), "too large"},
		"two kinds":                  {v1alpha1.TemplateValue{JSON: []byte("1"), YAML: []byte("1")}, "exactly one"},
		"no kind":                    {v1alpha1.TemplateValue{}, "exactly one"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := render(tt.v, map[string]string{"bin": canary + "\xff", "big": strings.Repeat("x", 20<<10), "nul": strings.Repeat("\x00", 200<<10)})
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), canary) {
				t.Errorf("%q, %v; want %s", out, err, tt.want)
			}
		})
	}
}

func TestTemplatesAreBounded(t *testing.T) {
	many := map[string]v1alpha1.TemplateValue{}
	for i := range template.MaxKeys + 1 {
		many[fmt.Sprint(i)] = text("x")
	}
	for name, data := range map[string]map[string]v1alpha1.TemplateValue{
		"no keys":  {},
		"too many": many,
		"too long": {"a": text(strings.Repeat("x", template.MaxText))},
	} {
		if _, err := template.Parse(&v1alpha1.Template{Data: data}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	p, err := template.Parse(one(text("x")))
	if err != nil {
		t.Fatal(err)
	}
	for sealed, want := range map[int]int{0: 64 << 10, 100 << 10: 4 * (100<<10 + len("outx")), 1 << 20: 1 << 20, 1 << 62: 1 << 20} {
		if got := p.MaxSize(sealed); got != want {
			t.Errorf("of %d bytes: %d, want %d", sealed, got, want)
		}
	}
	if out, err := p.Execute(nil, len("outx")-1); err == nil || out != nil {
		t.Errorf("beyond its limit: %q", out)
	}
}
