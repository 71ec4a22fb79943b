package kubestore_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// manifest is what the cases of the tables below change.
func manifest() map[string]any {
	return map[string]any{
		"apiVersion": v1alpha1.APIVersion,
		"kind":       v1alpha1.KindEncryptedSecret,
		"metadata":   map[string]any{"name": "db", "namespace": "shop"},
		"spec": map[string]any{
			"encryptedData": map[string]any{"password": sealed},
		},
	}
}

func spec(m map[string]any) map[string]any { return m["spec"].(map[string]any) }

func data(m map[string]any) map[string]any { return spec(m)["encryptedData"].(map[string]any) }

func secret(m map[string]any, fields map[string]any) { spec(m)["secret"] = fields }

func made(m map[string]any, keys map[string]any) { spec(m)["template"] = map[string]any{"data": keys} }

func many(n int, format string, value any) map[string]any {
	all := make(map[string]any, n)
	for i := range n {
		all[fmt.Sprintf(format, i)] = value
	}
	return all
}

func list(n int, format string) []any {
	var all []any
	for i := range n {
		all = append(all, fmt.Sprintf(format, i))
	}
	return all
}

// What the plugin refuses, the cluster refuses too, and says why; what has been put
// where a sealed value belongs is not quoted.
func TestCRDRefuses(t *testing.T) {
	const canary = "hunter2-not-sealed"
	w := shared(t)
	tests := map[string]struct {
		change func(m map[string]any)
		want   []string
		// onlyHere: a manifest is read without looking into its values.
		onlyHere bool
	}{
		"no spec":                    {change: func(m map[string]any) { delete(m, "spec") }, want: []string{"spec: Required"}},
		"no values":                  {change: func(m map[string]any) { delete(spec(m), "encryptedData") }, want: []string{"spec.encryptedData: Required"}},
		"an unknown field":           {change: func(m map[string]any) { spec(m)["surprise"] = "x" }, want: []string{`unknown field "spec.surprise"`}},
		"an unknown scope":           {change: func(m map[string]any) { spec(m)["scope"] = "galaxy" }, want: []string{"spec.scope", "strict", "namespace", "cluster"}},
		"scope namespace and nobody": {change: func(m map[string]any) { spec(m)["scope"] = "namespace" }, want: []string{"spec", "needs workloads or delivery"}},
		"scope cluster and nobody":   {change: func(m map[string]any) { spec(m)["scope"] = "cluster"; spec(m)["workloads"] = []any{} }, want: []string{"spec", "needs workloads or delivery"}},
		"a workload in upper case":   {change: func(m map[string]any) { spec(m)["workloads"] = []any{"api", "API"} }, want: []string{"spec.workloads", "RFC 1123"}},
		"a workload without a name":  {change: func(m map[string]any) { spec(m)["workloads"] = []any{""} }, want: []string{"spec.workloads", "RFC 1123"}},
		"a workload with a comma":    {change: func(m map[string]any) { spec(m)["workloads"] = []any{"a,b"} }, want: []string{"spec.workloads", "RFC 1123"}},
		"a workload of 254 bytes":    {change: func(m map[string]any) { spec(m)["workloads"] = []any{strings.Repeat("a", 254)} }, want: []string{"spec.workloads[0]", "253"}},
		"a workload twice":           {change: func(m map[string]any) { spec(m)["workloads"] = []any{"api", "api"} }, want: []string{"spec.workloads[1]", "Duplicate"}},
		"101 workloads":              {change: func(m map[string]any) { spec(m)["workloads"] = list(101, "w%d") }, want: []string{"spec.workloads", "100"}},
		"a key with a slash":         {change: func(m map[string]any) { data(m)["a/b"] = sealed }, want: []string{"spec.encryptedData", "a key is as in a Kubernetes Secret"}},
		"an empty key":               {change: func(m map[string]any) { data(m)[""] = sealed }, want: []string{"spec.encryptedData", "a key is as"}},
		"a key .":                    {change: func(m map[string]any) { data(m)["."] = sealed }, want: []string{"spec.encryptedData", "a key is as"}},
		"a key that begins with ..":  {change: func(m map[string]any) { data(m)["..data"] = sealed }, want: []string{"spec.encryptedData", "a key is as"}},
		"a key with a line break":    {change: func(m map[string]any) { data(m)["a\n"] = sealed }, want: []string{"spec.encryptedData", "a key is as"}},
		"a key of 254 bytes":         {change: func(m map[string]any) { data(m)[strings.Repeat("k", 254)] = sealed }, want: []string{"spec.encryptedData", "a key is as"}},
		"1001 keys":                  {change: func(m map[string]any) { spec(m)["encryptedData"] = many(1001, "k%d", sealed) }, want: []string{"spec.encryptedData", "1000"}},
		"a value in the clear":       {change: func(m map[string]any) { data(m)["password"] = canary }, want: []string{"spec.encryptedData", "a value is not sealed"}, onlyHere: true},
		"a value that is a number":   {change: func(m map[string]any) { data(m)["password"] = 12345678 }, want: []string{"spec.encryptedData.password", "string"}},
		"more than 1 MiB in one":     {change: func(m map[string]any) { data(m)["password"] = sealed + strings.Repeat("A", 1<<20) }, want: []string{"spec.encryptedData.password", "1048576"}},
		"more than 1 MiB in all":     {change: func(m map[string]any) { spec(m)["encryptedData"] = many(3, "k%d", sealed+strings.Repeat("A", 350_000)) }, want: []string{"spec.encryptedData", "1048576 bytes at most"}},
		"a type that lets in":        {change: func(m map[string]any) { secret(m, map[string]any{"type": "kubernetes.io/service-account-token"}) }, want: []string{"spec.secret.type", "never delivered"}},
		"a bootstrap token":          {change: func(m map[string]any) { secret(m, map[string]any{"type": "bootstrap.kubernetes.io/token"}) }, want: []string{"spec.secret.type", "never delivered"}},
		"a type with a space":        {change: func(m map[string]any) { secret(m, map[string]any{"type": "a b"}) }, want: []string{"spec.secret.type", "want the type"}},
		"an empty type":              {change: func(m map[string]any) { secret(m, map[string]any{"type": ""}) }, want: []string{"spec.secret.type", "want the type"}},
		"the root key's Secret": {change: func(m map[string]any) {
			m["metadata"].(map[string]any)["name"] = encrypt.RootKeySecret
			secret(m, map[string]any{})
		}, want: []string{"vsecm-root-key is never delivered"}},
		"an unknown deletion policy":   {change: func(m map[string]any) { secret(m, map[string]any{"deletionPolicy": "Keep"}) }, want: []string{"spec.secret.deletionPolicy", "Delete", "Retain"}},
		"an empty deletion policy":     {change: func(m map[string]any) { secret(m, map[string]any{"deletionPolicy": ""}) }, want: []string{"spec.secret.deletionPolicy", "Delete", "Retain"}},
		"immutable, said in words":     {change: func(m map[string]any) { secret(m, map[string]any{"immutable": "true"}) }, want: []string{"spec.secret.immutable", "boolean"}},
		"a name for the Secret":        {change: func(m map[string]any) { secret(m, map[string]any{"metadata": map[string]any{"name": "other"}}) }, want: []string{`unknown field "spec.secret.metadata.name"`}},
		"a label that is none":         {change: func(m map[string]any) { secret(m, meta("labels", map[string]any{"a b": "c"})) }, want: []string{"spec.secret.metadata.labels", "want labels"}},
		"a label's value that is none": {change: func(m map[string]any) { secret(m, meta("labels", map[string]any{"a": "b c"})) }, want: []string{"spec.secret.metadata.labels", "want labels"}},
		"1001 labels":                  {change: func(m map[string]any) { secret(m, meta("labels", many(1001, "l%d", "x"))) }, want: []string{"spec.secret.metadata.labels", "1000"}},
		"an annotation that is none":   {change: func(m map[string]any) { secret(m, meta("annotations", map[string]any{"a b": "c"})) }, want: []string{"spec.secret.metadata.annotations", "want the names"}},
		"too long annotations":         {change: func(m map[string]any) { secret(m, meta("annotations", many(3, "a%d", strings.Repeat("x", 90_000)))) }, want: []string{"spec.secret.metadata.annotations", "262144 bytes at most"}},
		"a template without keys":      {change: func(m map[string]any) { spec(m)["template"] = map[string]any{"data": map[string]any{}} }, want: []string{"spec.template.data", "at least 1"}},
		"a template without data":      {change: func(m map[string]any) { spec(m)["template"] = map[string]any{} }, want: []string{"spec.template.data", "Required"}},
		"101 keys of a template":       {change: func(m map[string]any) { made(m, many(101, "k%d", map[string]any{"text": "x"})) }, want: []string{"spec.template.data", "100"}},
		"a template for no key":        {change: func(m map[string]any) { made(m, map[string]any{"a/b": map[string]any{"text": "x"}}) }, want: []string{"spec.template.data", "a key is as in a Kubernetes Secret"}},
		"a template of two kinds":      {change: func(m map[string]any) { made(m, map[string]any{"a": map[string]any{"text": "x", "json": "y"}}) }, want: []string{"spec.template.data.a", "oneOf"}},
		"a template of no kind":        {change: func(m map[string]any) { made(m, map[string]any{"a": map[string]any{}}) }, want: []string{"spec.template.data.a", "oneOf"}},
		"a template of another kind":   {change: func(m map[string]any) { made(m, map[string]any{"a": map[string]any{"toml": "x"}}) }, want: []string{`unknown field "spec.template.data.a.toml"`}},
		"a template that is a number":  {change: func(m map[string]any) { made(m, map[string]any{"a": map[string]any{"text": 1}}) }, want: []string{"spec.template.data.a.text", "string"}},
		"a template that is null":      {change: func(m map[string]any) { made(m, map[string]any{"a": map[string]any{"json": nil}}) }, want: []string{"spec.template.data.a"}},
		"a start without a zone":       {change: func(m map[string]any) { spec(m)["notBefore"] = "2026-01-02T03:04:05" }, want: []string{"spec.notBefore", "RFC 3339"}},
		"an end in words":              {change: func(m map[string]any) { spec(m)["expiresAt"] = "tomorrow" }, want: []string{"spec.expiresAt", "RFC 3339"}},
		"an end on the 30th February":  {change: func(m map[string]any) { spec(m)["expiresAt"] = "2027-02-30T00:00:00Z" }, want: []string{"spec.expiresAt"}},
		"an end with parts of seconds": {change: func(m map[string]any) { spec(m)["expiresAt"] = "2027-02-20T00:00:00.5Z" }, want: []string{"spec.expiresAt", "whole seconds"}},
		"an end in year 1":             {change: func(m map[string]any) { spec(m)["expiresAt"] = "0001-01-01T00:00:00Z" }, want: []string{"spec.expiresAt", "RFC 3339"}},
		"an end before the start": {change: func(m map[string]any) {
			spec(m)["notBefore"], spec(m)["expiresAt"] = "2027-01-02T00:00:00Z", "2027-01-02T01:00:00+01:00"
		}, want: []string{"spec.expiresAt", "not after notBefore"}},
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		tt := tests[name]
		t.Run(name, func(t *testing.T) {
			m := manifest()
			tt.change(m)
			text := toJSON(t, m)
			_, errOut, err := w.Kubectl(t, w.Kubeconfig(), text, "create", "-f", "-")
			if err == nil {
				t.Fatal("it was taken")
			}
			for _, want := range tt.want {
				if !strings.Contains(errOut, want) {
					t.Errorf("%q is missing in: %.600s", want, errOut)
				}
			}
			if strings.Contains(errOut, canary) || strings.Contains(errOut, "12345678") {
				t.Errorf("it quotes the value: %s", errOut)
			}
			if ms := encrypt.ReadManifests("x", []byte(text), ""); len(ms.Faults) == 0 && !tt.onlyHere {
				t.Error("the plugin takes it")
			}
		})
	}
}

func meta(field string, values map[string]any) map[string]any {
	return map[string]any{"metadata": map[string]any{field: values}}
}

// What the plugin takes, the cluster takes too.
func TestCRDTakes(t *testing.T) {
	w := shared(t)
	longest := strings.Repeat("a", 253)
	tests := map[string]func(m map[string]any){
		"the least":                func(map[string]any) {},
		"no keys yet":              func(m map[string]any) { spec(m)["encryptedData"] = map[string]any{} },
		"an empty scope":           func(m map[string]any) { spec(m)["scope"] = "" },
		"scope strict":             func(m map[string]any) { spec(m)["scope"] = "strict" },
		"a wide scope with names":  func(m map[string]any) { spec(m)["scope"] = "cluster"; spec(m)["workloads"] = []any{"api"} },
		"a wide scope, delivered":  func(m map[string]any) { spec(m)["scope"] = "namespace"; secret(m, map[string]any{}) },
		"100 of the longest names": func(m map[string]any) { spec(m)["workloads"] = list(100, longest[:250]+"%03d") },
		"1,000 keys": func(m map[string]any) {
			spec(m)["encryptedData"] = many(encrypt.MaxKeys, longest[:249]+"%04d", sealed+strings.Repeat("A", 700))
		},
		"1 MiB in one value": func(m map[string]any) {
			data(m)["password"] = sealed + strings.Repeat("A", encrypt.MaxObjectSize-len("password"+sealed))
		},
		"odd keys": func(m map[string]any) {
			spec(m)["encryptedData"] = map[string]any{".a": sealed, "A_b-c.d": sealed, "a..b": sealed, "-": sealed}
		},
		"everything about the Secret": func(m map[string]any) {
			secret(m, map[string]any{
				"type": "example.com/Odd_type", "immutable": true, "deletionPolicy": "Retain",
				"metadata": map[string]any{
					"labels": many(100, "example.com/l%d", "x_Y.z"), "annotations": many(4, "Example.com/a%d", strings.Repeat("ü", 25_000)),
				},
			})
		},
		"1,000 labels and annotations": func(m map[string]any) {
			secret(m, map[string]any{"metadata": map[string]any{"labels": many(1000, "l%d", ""), "annotations": many(1000, "a%d", "")}})
		},
		"a template of every kind": func(m map[string]any) {
			made(m, map[string]any{
				"url":    map[string]any{"text": "postgres://u:{{ urlquery .password }}@db"},
				"empty":  map[string]any{"text": ""},
				"a.json": map[string]any{"json": map[string]any{"password": "{{ .password }}", "port": 5432, "of": []any{1.5, nil, true}}},
				"a.yaml": map[string]any{"yaml": []any{"{{ .password }}"}},
				"scalar": map[string]any{"json": "{{ .password }}"},
			})
		},
		"100 keys of a template": func(m map[string]any) { made(m, many(100, longest[:250]+"%03d", map[string]any{"text": "x"})) },
		"64 KiB of a template": func(m map[string]any) {
			made(m, map[string]any{"a": map[string]any{"text": strings.Repeat("x", 65535)}})
		},
		"a start and an end": func(m map[string]any) {
			spec(m)["notBefore"], spec(m)["expiresAt"] = "2027-01-02T00:00:00Z", "2027-01-02T01:00:01+01:00"
		},
		"the root key's name, not delivered": func(m map[string]any) { m["metadata"].(map[string]any)["name"] = encrypt.RootKeySecret },
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		t.Run(name, func(t *testing.T) {
			m := manifest()
			tests[name](m)
			text := toJSON(t, m)
			for _, f := range encrypt.ReadManifests("x", []byte(text), "").Faults {
				t.Errorf("the plugin refuses it: %v", f)
			}
			_, errOut, err := w.Kubectl(t, w.Kubeconfig(), text, "create", "-f", "-")
			if err != nil {
				t.Fatalf("the cluster refuses it: %.600s", errOut)
			}
			w.kubectl(t, "", "delete", "-n", "shop", "encryptedsecrets", "--all")
		})
	}
}
