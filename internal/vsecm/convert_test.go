package vsecm

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

const credentials = `{"username":"admin","password":"VSecM, \"rocks\""}`

// delivered returns the keys that a record's object delivers.
func delivered(t *testing.T, r *Record) (map[string]string, Converted) {
	t.Helper()
	all, errs := r.Convert([]string{"shop"}, now)
	if len(errs) > 0 || len(all) != 1 {
		t.Fatalf("%d objects, %v", len(all), errs)
	}
	c := all[0]
	out := c.Values
	if c.Object.Spec.Template != nil {
		var err error
		if out, err = render(c.Object.Spec.Template, c.Values); err != nil {
			t.Fatal(err)
		}
	}
	texts := make(map[string]string)
	for key, value := range out {
		texts[key] = string(value)
	}
	// What is delivered is bound, so it has to be valid in every part.
	c.Object.Spec.EncryptedData = map[string]string{ValueKey: "x"}
	text, err := encrypt.MarshalYAML(c.Object)
	if err != nil {
		t.Fatal(err)
	}
	ms := encrypt.ReadManifests("x.yaml", text, "")
	if len(ms.Faults) > 0 || len(ms.Objects) != 1 {
		t.Fatalf("the manifest is not valid: %v\n%s", ms.Faults, text)
	}
	if got, want := encrypt.BindingOf(ms.Objects[0].Object, ValueKey), encrypt.BindingOf(c.Object, ValueKey); !reflect.DeepEqual(got, want) {
		t.Errorf("what was written is bound otherwise: %+v, want %+v", got, want)
	}
	return texts, c
}

func TestTemplatesDeliverWhatVSecMDid(t *testing.T) {
	for name, c := range map[string]struct {
		value, template, format, transformed string
		kind                                 string // of the template: text, json, yaml or none
		want                                 string
		lossy                                bool
	}{
		"JSON": {
			value: credentials, template: `{"USER":"{{.username}}", "PASS":"{{.password}}"}`, format: "json",
			// The quotation mark breaks VSecM's JSON, so that it gives out the value; the comma would have been lost, too.
			transformed: credentials, kind: "json", want: `{"PASS":"VSecM, \"rocks\"","USER":"admin"}`, lossy: true,
		},
		"JSON without an odd character": {
			value: `{"username":"admin","password":"p"}`, template: `{"USER":"{{.username}}", "PASS":"{{.password}}"}`, format: "json",
			transformed: `{"USER":"admin", "PASS":"p"}`, kind: "json", want: `{"PASS":"p","USER":"admin"}`,
		},
		"nested": {
			value: `{"u":"a"}`, template: `{"x":{"y":["{{ .u }}","<{{.u}}>",7]}}`, format: "json", kind: "json", want: `{"x":{"y":["a","<a>",7]}}`,
			transformed: `{"x":{"y":["a","<a>",7]}}`,
		},
		"YAML": {
			value: `{"username":"admin"}`, template: `{"USER":"{{.username}}"}`, format: "yaml", transformed: "USER: admin\n", kind: "yaml", want: "\"USER\": \"admin\"\n",
		},
		"raw": {
			value: `{"username":"admin"}`, template: `USER:{{.username}}`, format: "raw", transformed: "USER:admin", kind: "text", want: "USER:admin",
		},
		"a template that is no JSON": {
			value: `{"port":5432}`, template: `{"PORT":{{.port}}}`, format: "json", transformed: `{"PORT":5432}`, kind: "text", want: `{"PORT":5432}`,
		},
		"the root": {
			value: `{"a":"x","l":["1","2"]}`, template: `k:{{range .l}}{{.}}{{$.a}};{{end}}`, format: "raw", transformed: "k:1x;2x;", kind: "text", want: "k:1x;2x;",
		},
		"a dollar sign": {
			value: `{"a":"x"}`, template: `cost:$5 {{.a}}{{.a}}`, format: "raw", transformed: "cost:$5 xx", kind: "text", want: "cost:$5 xx",
		},
		"conditions": {
			value: `{"a":"x"}`, template: `k:{{if .a}}yes{{else}}no{{end}}`, format: "raw", transformed: "k:yes", kind: "text", want: "k:yes",
		},
		"a value that is no JSON": {
			value: "hunter2", template: `{"USER":"{{.username}}"}`, format: "json", transformed: "hunter2", kind: "none", want: "hunter2",
		},
		"no template at all": {
			value: `{"a":"x"}`, template: `{{.a`, format: "raw", transformed: `{"a":"x"}`, kind: "none", want: `{"a":"x"}`,
		},
		"a field that is missing": {
			value: `{"username":"admin"}`, template: `{"USER":"{{.username}}","PASS":"{{.password}}"}`, format: "json",
			transformed: `{"USER":"admin"`, kind: "none", want: `{"username":"admin"}`, lossy: true,
		},
		"a function that there is not": {
			value: `{"a":"x"}`, template: `k:{{nosuch .a}}`, format: "raw", transformed: `{"a":"x"}`, kind: "none", want: `{"a":"x"}`,
		},
		"white space": {value: " x \n", format: "raw", transformed: "x", kind: "none", want: " x \n"},
		"YAML without a template": {
			value: `{"a":"x"}`, format: "yaml", transformed: "a: x\n", kind: "none", want: `{"a":"x"}`,
		},
		"another text": {value: "x", format: "raw", transformed: "y", kind: "none", want: "x", lossy: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Record{Name: "db", Values: [][]byte{[]byte(c.value)}, Template: c.template, OutputFormat: c.format, Transformed: []byte(c.transformed)}
			got, is := delivered(t, r)
			if len(got) != 1 || got[ValueKey] != c.want || is.Lossy != c.lossy {
				t.Errorf("got %q, lossy %v, notes %q", got, is.Lossy, is.Notes)
			}
			if string(is.Values[ValueKey]) != c.value {
				t.Errorf("the value is %q", is.Values[ValueKey])
			}
			kind := "none"
			if spec := is.Object.Spec.Template; spec != nil {
				switch v := spec.Data[ValueKey]; {
				case v.Text != nil:
					kind = "text"
				case v.JSON != nil:
					kind = "json"
				case v.YAML != nil:
					kind = "yaml"
				}
			}
			if kind != c.kind {
				t.Errorf("the template is %s, want %s", kind, c.kind)
			}
			if (c.lossy || c.kind == "none") && len(is.Notes) == 0 {
				t.Error("nothing is said of it")
			}
			for _, note := range is.Notes {
				for _, secret := range []string{"hunter2", "rocks", "admin"} {
					if strings.Contains(note, secret) {
						t.Errorf("a note quotes a value: %s", note)
					}
				}
			}
		})
	}
}

// The tables that VSecM has for Kubernetes Secrets: core/entity/v1/data, ToMapForK8s.
func TestKubernetesSecretsHaveTheKeysThatVSecMGaveThem(t *testing.T) {
	for name, c := range map[string]struct {
		value, template string
		want            map[string]string
		lossy           bool
	}{
		"text":               {"hunter2", "", map[string]string{"VALUE": "hunter2"}, false},
		"an object of texts": {credentials, "", map[string]string{"username": "admin", "password": `VSecM, "rocks"`}, false},
		"odd names":          {`{"tls.key":"k","a-b":"c","x":"<>&"}`, "", map[string]string{"tls.key": "k", "a-b": "c", "x": "<>&"}, false},
		"an object of more":  {`{"n":7}`, "", map[string]string{"VALUE": `{"n":7}`}, false},
		"a template":         {credentials, ` {"USER":"{{.username}}", "PASS":"{{.password}}", "fix":"x"}`, map[string]string{"USER": "admin", "PASS": `VSecM, "rocks"`, "fix": "x"}, false},
		"a template of text": {credentials, `USER={{.username}}`, map[string]string{ValueKey: credentials}, true},
		"a missing field":    {credentials, `{"USER":"{{.user}}"}`, map[string]string{ValueKey: credentials}, true},
		"no key of a Secret": {`{"a b":"c"}`, "", map[string]string{ValueKey: `{"a b":"c"}`}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Record{Name: "k8s:db", Values: [][]byte{[]byte(c.value)}, Template: c.template}
			got, is := delivered(t, r)
			if !reflect.DeepEqual(got, c.want) || is.Lossy != c.lossy {
				t.Errorf("got %q, lossy %v, notes %q", got, is.Lossy, is.Notes)
			}
			if is.Object.Name != "db" || is.Object.Spec.Secret == nil || is.Object.Spec.Secret.Type != "Opaque" || string(is.Values[ValueKey]) != c.value {
				t.Errorf("got %+v", is.Object.Spec)
			}
		})
	}
}

func TestNamesNamespacesAndReaders(t *testing.T) {
	for name, c := range map[string]struct {
		name             string
		own, given, want []string
		errs             int
		workloads        []string
	}{
		"as it is":             {name: "db", own: []string{"a", "b", "a", ""}, want: []string{"a/db", "b/db", "default/db"}},
		"none":                 {name: "db", want: []string{"default/db"}},
		"those that are given": {name: "db", own: []string{"a"}, given: []string{"shop"}, want: []string{"shop/db"}},
		"raw":                  {name: "raw:db", own: []string{"a"}, want: []string{"a/db"}, workloads: []string{"vsecm-scout"}},
		"a bad namespace":      {name: "db", own: []string{"No", "a"}, want: []string{"a/db"}, errs: 1},
		"a bad name":           {name: "My_Secret", own: []string{"a", "b"}, errs: 1},
		"a path":               {name: "../../etc/passwd", errs: 1},
		"a prefix alone":       {name: "k8s:", errs: 1},
		"both prefixes":        {name: "raw:k8s:db", errs: 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Record{Name: c.name, Namespaces: c.own, Values: [][]byte{[]byte("x")}}
			all, errs := r.Convert(c.given, now)
			var got []string
			for _, one := range all {
				got = append(got, one.Object.Namespace+"/"+one.Object.Name)
				if !reflect.DeepEqual(one.Object.Spec.Workloads, c.workloads) {
					t.Errorf("workloads %q", one.Object.Spec.Workloads)
				}
			}
			if !reflect.DeepEqual(got, c.want) || len(errs) != c.errs {
				t.Errorf("got %q, %v", got, errs)
			}
			for _, err := range errs {
				if !errors.Is(err, ErrName) {
					t.Error(err)
				}
			}
		})
	}
}

func TestSeveralValuesAreKeptAsTheListThatVSecMGaveOut(t *testing.T) {
	r := &Record{Name: "db", Values: [][]byte{[]byte("a"), []byte(" <b>\n"), []byte("☃")}}
	got, is := delivered(t, r)
	var list []string
	if err := json.Unmarshal([]byte(got[ValueKey]), &list); err != nil || !reflect.DeepEqual(list, []string{"a", " <b>\n", "☃"}) {
		t.Errorf("got %q, %v", got, err)
	}
	if is.Lossy || len(is.Notes) != 1 {
		t.Errorf("lossy %v, notes %q", is.Lossy, is.Notes)
	}
	r.Template = "{{.a}}"
	if _, is := delivered(t, r); !is.Lossy || is.Object.Spec.Template != nil {
		t.Errorf("lossy %v", is.Lossy)
	}
}

func TestValidityIsTakenOver(t *testing.T) {
	past, future := now.Add(-time.Hour), now.Add(time.Hour)
	for name, c := range map[string]struct {
		notBefore, expires time.Time
		spec               string
		notes              int
		lossy              bool
	}{
		"none":        {spec: ""},
		"valid":       {past, future, "notBefore: \"2026-03-04T04:06:07Z\"\nexpiresAt: \"2026-03-04T06:06:07Z\"\n", 0, false},
		"expired":     {time.Time{}, past, "expiresAt: \"2026-03-04T04:06:07Z\"\n", 1, false},
		"not yet":     {future, time.Time{}, "notBefore: \"2026-03-04T06:06:07Z\"\n", 1, false},
		"out of turn": {future, past, "expiresAt: \"2026-03-04T04:06:07Z\"\n", 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Record{Name: "db", Values: [][]byte{[]byte("x")}, NotBefore: c.notBefore, ExpiresAfter: c.expires}
			_, is := delivered(t, r)
			text, err := yaml.Marshal(struct {
				NotBefore any `json:"notBefore,omitempty"`
				ExpiresAt any `json:"expiresAt,omitempty"`
			}{nilOr(is.Object.Spec.NotBefore == nil, is.Object.Spec.NotBefore), nilOr(is.Object.Spec.ExpiresAt == nil, is.Object.Spec.ExpiresAt)})
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(c.spec) {
				if !strings.Contains(string(text), line) {
					t.Errorf("got %s, want %s", text, line)
				}
			}
			if strings.Count(string(text), ":0") != strings.Count(c.spec, ":0") || len(is.Notes) != c.notes || is.Lossy != c.lossy {
				t.Errorf("got %s, notes %q, lossy %v", text, is.Notes, is.Lossy)
			}
		})
	}
}

func nilOr(isNil bool, v any) any {
	if isNil {
		return nil
	}
	return v
}

func TestTheTimeOfAnUpdateIsThatOfTheSealing(t *testing.T) {
	for _, c := range []struct{ updated, want time.Time }{{time.Time{}, time.Time{}}, {updated, updated.Truncate(time.Second)}, {now.Add(time.Hour), time.Time{}}} {
		r := &Record{Name: "db", Values: [][]byte{[]byte("x")}, Updated: c.updated}
		if _, is := delivered(t, r); !is.SealedAt.Equal(c.want) || (c.updated.After(now) != (len(is.Notes) > 0)) {
			t.Errorf("%s: got %s, notes %q", c.updated, is.SealedAt, is.Notes)
		}
	}
}

// A template of a megabyte in one record would end the process, as deep as it goes.
func TestTemplatesThatAreTooLongAreNotParsed(t *testing.T) {
	const deep = 200_000
	long := strings.Repeat("{{if 1}}", deep) + strings.Repeat("{{end}}", deep)
	for name, r := range map[string]*Record{
		"a workload's":        {Name: "db", Values: [][]byte{[]byte(credentials)}, Template: long},
		"in JSON":             {Name: "db", Values: [][]byte{[]byte(credentials)}, Template: `{"a":"` + long + `"}`, OutputFormat: "json"},
		"a Kubernetes Secret": {Name: "k8s:db", Values: [][]byte{[]byte(credentials)}, Template: `{"a":"` + long + `"}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, c := delivered(t, r)
			if !c.Lossy || c.Object.Spec.Template != nil || got[ValueKey] != credentials || !strings.Contains(strings.Join(c.Notes, "\n"), "too large") {
				t.Errorf("lossy %v: %.500q", c.Lossy, c.Notes)
			}
		})
	}
}

// The names of a JSON value's members are a part of the value.
func TestNamesThatNoSecretMayHaveAreNotQuoted(t *testing.T) {
	_, c := delivered(t, &Record{Name: "k8s:db", Values: [][]byte{[]byte(`{"hunter2 is it":"x"}`)}})
	if !c.Lossy || strings.Contains(strings.Join(c.Notes, "\n"), "hunter2") {
		t.Errorf("lossy %v: %q", c.Lossy, c.Notes)
	}
}
