package manifests

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// gitSource is what the cases of the tables below change.
func gitSource() map[string]any {
	return map[string]any{
		"apiVersion": v1alpha1.APIVersion,
		"kind":       v1alpha1.KindGitSource,
		"metadata":   map[string]any{"name": "main", "namespace": "team"},
		"spec":       map[string]any{"url": "https://git.example.com/team/deploy"},
	}
}

// with returns a source with a field of its spec set; what has dots leads further in.
func with(path string, value any) map[string]any {
	source := gitSource()
	at := source["spec"].(map[string]any)
	fields := strings.Split(path, ".")
	for _, field := range fields[:len(fields)-1] {
		next, ok := at[field].(map[string]any)
		if !ok {
			next = map[string]any{}
			at[field] = next
		}
		at = next
	}
	at[fields[len(fields)-1]] = value
	return source
}

func numbered(n int) []any {
	var all []any
	for i := range n {
		all = append(all, "n"+jsonNumber(i))
	}
	return all
}

func jsonNumber(i int) string {
	text, _ := json.Marshal(i) // an int always can be
	return string(text)
}

// withSources starts the shared cluster with the CRDs and a namespace for sources.
func withSources(t *testing.T) cluster {
	t.Helper()
	c := cluster{t, shared.Start(t)}
	c.apply("crds")
	c.kubectl("", "wait", "--for=condition=Established", "crd/gitsources.vsecm.com", "crd/encryptedsecrets.vsecm.com")
	c.kubectl(c.kubectl("", "create", "namespace", "team", "--dry-run=client", "-o", "yaml"), "apply", "-f", "-")
	return c
}

func TestGitSourcesThatAreRefused(t *testing.T) {
	const canary = "hunter2-in-the-url"
	c := withSources(t)
	long := strings.Repeat("a", 300)
	const credentials, form, git = "credentials do not belong in a URL", "want https://HOST/PATH", "want a name that git takes"
	tests := map[string]struct {
		source map[string]any
		want   []string
	}{
		"no url":                      {with("url", nil), []string{"spec.url: Required"}},
		"an empty url":                {with("url", ""), []string{"spec.url"}},
		"a password in https":         {with("url", "https://me:"+canary+"@git.example.com/a"), []string{"spec.url", credentials}},
		"a token in https":            {with("url", "https://"+canary+"@git.example.com/a"), []string{"spec.url", credentials}},
		"a token in HTTPS":            {with("url", "HTTPS://"+canary+"@git.example.com/a"), []string{"spec.url", credentials}},
		"a password in ssh":           {with("url", "ssh://git:"+canary+"@git.example.com/a"), []string{"spec.url", credentials}},
		"a password before USER@HOST": {with("url", "git:"+canary+"@git.example.com:a"), []string{"spec.url", credentials}},
		"a token in the query":        {with("url", "https://git.example.com/a?token="+canary), []string{"spec.url", form}},
		"a fragment":                  {with("url", "https://git.example.com/a#"+canary), []string{"spec.url", form}},
		"plain http":                  {with("url", "http://git.example.com/a"), []string{"spec.url", form}},
		"a file":                      {with("url", "file:///etc"), []string{"spec.url", form}},
		"a path":                      {with("url", "/etc"), []string{"spec.url", form}},
		"the git protocol":            {with("url", "git://git.example.com/a"), []string{"spec.url", form}},
		"ssh without a user":          {with("url", "ssh://git.example.com/a"), []string{"spec.url", form}},
		"an option for a host":        {with("url", "ssh://git@host -oProxyCommand=x/a"), []string{"spec.url", form}},
		"a line break":                {with("url", "https://git.example.com/a\nb"), []string{"spec.url", form}},
		"a url of 2049 bytes":         {with("url", "https://git.example.com/"+strings.Repeat("a", 2025)), []string{"spec.url", "2048"}},
		"a url that is a number":      {with("url", 12345678), []string{"spec.url", "string"}},
		"a tag and a branch": {func() map[string]any {
			s := with("ref.tag", "v1")
			s["spec"].(map[string]any)["ref"].(map[string]any)["branch"] = "main"
			return s
		}(), []string{"spec.ref", "a tag excludes"}},
		"a tag and a commit": {func() map[string]any {
			s := with("ref.tag", "v1")
			s["spec"].(map[string]any)["ref"].(map[string]any)["commit"] = strings.Repeat("a", 40)
			return s
		}(), []string{"spec.ref", "a tag excludes"}},
		"an empty branch":                 {with("ref.branch", ""), []string{"spec.ref.branch"}},
		"a branch with a space":           {with("ref.branch", "a b"), []string{"spec.ref.branch", git}},
		"a branch that looks like a flag": {with("ref.branch", "--upload-pack=x"), []string{"spec.ref.branch", git}},
		"a branch with ..":                {with("ref.branch", "a..b"), []string{"spec.ref.branch", git}},
		"a branch with a wildcard":        {with("ref.branch", "release/*"), []string{"spec.ref.branch", git}},
		"a whole reference":               {with("ref.branch", "refs/heads/main"), []string{"spec.ref.branch", "want the name alone"}},
		"a tag that locks":                {with("ref.tag", "v1.lock"), []string{"spec.ref.tag", git}},
		"a short commit":                  {with("ref.commit", "abcdef1"), []string{"spec.ref.commit", "40 hex digits"}},
		"a commit that is none":           {with("ref.commit", strings.Repeat("g", 40)), []string{"spec.ref.commit", "40 hex digits"}},
		"a path out of the repository":    {with("path", "a/../../b"), []string{"spec.path", "no .. in it"}},
		"an absolute path":                {with("path", "/secrets"), []string{"spec.path", "no / in front"}},
		"a path with a backslash":         {with("path", `a\b`), []string{"spec.path", "no backslash"}},
		"an interval of 9 seconds":        {with("interval", "9s"), []string{"spec.interval", "10s at least"}},
		"a negative interval":             {with("interval", "-1m"), []string{"spec.interval"}},
		"a number for an interval":        {with("interval", 60), []string{"spec.interval", "string"}},
		"an interval without a unit":      {with("interval", "60"), []string{"spec.interval"}},
		"an interval of days":             {with("interval", "1d"), []string{"spec.interval"}},
		"an interval past all clocks":     {with("interval", "99999999999h"), []string{"spec.interval"}},
		"a secret with a bad name":        {with("secretRef.name", "A_b"), []string{"spec.secretRef.name", "want the name of a Secret"}},
		"a secret with no name":           {with("secretRef", map[string]any{}), []string{"spec.secretRef.name: Required"}},
		"a secret elsewhere":              {with("secretRef", map[string]any{"name": "a", "namespace": "kube-system"}), []string{`unknown field "spec.secretRef.namespace"`}},
		"an unknown way to verify":        {with("verify.mode", "tail"), []string{"spec.verify.mode", "head", "strict"}},
		"head without keys":               {with("verify.mode", "head"), []string{"spec.verify.secretRef", "keys that are trusted"}},
		"strict without keys":             {with("verify.mode", "strict"), []string{"spec.verify.secretRef", "keys that are trusted"}},
		"since, and nothing verified":     {with("verify.since", strings.Repeat("a", 40)), []string{"spec.verify.since", "mode is none"}},
		"a namespace that is none":        {with("namespaces", []any{"Shop"}), []string{"spec.namespaces", "RFC 1123"}},
		"every namespace":                 {with("namespaces", []any{"*"}), []string{"spec.namespaces", "RFC 1123"}},
		"a namespace twice":               {with("namespaces", []any{"a", "a"}), []string{"spec.namespaces[1]", "Duplicate"}},
		"1001 namespaces":                 {with("namespaces", numbered(1001)), []string{"spec.namespaces", "1000"}},
		"an unknown forge":                {with("webhook", map[string]any{"type": "sourceforge", "secretRef": map[string]any{"name": "a"}}), []string{"spec.webhook.type", "generic"}},
		"a webhook without a secret":      {with("webhook", map[string]any{"type": "github"}), []string{"spec.webhook.secretRef: Required"}},
		"a webhook without a type":        {with("webhook", map[string]any{"secretRef": map[string]any{"name": "a"}}), []string{"spec.webhook.type: Required"}},
		"an unknown field":                {with("verfiy", map[string]any{}), []string{`unknown field "spec.verfiy"`}},
		"a name of 62 bytes":              {func() map[string]any { s := gitSource(); s["metadata"].(map[string]any)["name"] = long[:62]; return s }(), []string{"62 characters"}},
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		t.Run(name, func(t *testing.T) {
			_, stderr, err := c.Kubectl(t, c.Kubeconfig(), jsonText(t, tests[name].source), "create", "-f", "-", "--validate=strict")
			if err == nil {
				t.Fatal("it was taken")
			}
			for _, want := range tests[name].want {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q is missing in: %.600s", want, stderr)
				}
			}
			if strings.Contains(stderr, canary) || strings.Contains(stderr, "12345678") {
				t.Errorf("it quotes what may be a password: %s", stderr)
			}
		})
	}
}

func TestGitSourcesThatAreTaken(t *testing.T) {
	c := withSources(t)
	tests := map[string]map[string]any{
		"the least":                  gitSource(),
		"a port":                     with("url", "https://git.example.com:8443/a/b.git"),
		"an address":                 with("url", "https://[2001:db8::1]:8443/a"),
		"an @ in the path":           with("url", "https://git.example.com/a@b/c"),
		"http on loopback":           with("url", "http://127.0.0.1:3000/a.git"),
		"http on localhost":          with("url", "http://localhost:3000/a.git"),
		"ssh":                        with("url", "ssh://git@git.example.com/a.git"),
		"ssh with a port":            with("url", "ssh://git@git.example.com:2222/~me/a.git"),
		"as scp writes it":           with("url", "git@git.example.com:team/deploy.git"),
		"a branch in a folder":       with("ref.branch", "release/2026-01"),
		"a branch of another script": with("ref.branch", "größer"),
		"a tag":                      with("ref.tag", "v1.2.3"),
		"a commit":                   with("ref.commit", strings.Repeat("0123456789", 4)),
		"the root":                   with("path", ""),
		"a folder":                   with("path", "clusters/prod..eu/"),
		"ten seconds":                with("interval", "10s"),
		"an hour and a half":         with("interval", "1h30m"),
		"more than a day":            with("interval", "2400h0m0.5s"),
		"verification that is off":   with("verify.mode", "none"),
		"an empty mode":              with("verify.mode", ""),
		"1,000 namespaces":           with("namespaces", numbered(1000)),
		"the longest name": func() map[string]any {
			s := gitSource()
			s["metadata"].(map[string]any)["name"] = strings.Repeat("a", 58)
			return s
		}(),
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		t.Run(name, func(t *testing.T) {
			if _, stderr, err := c.Kubectl(t, c.Kubeconfig(), jsonText(t, tests[name]), "create", "--dry-run=server", "-f", "-", "--validate=strict"); err != nil {
				t.Errorf("the cluster refuses it: %.600s", stderr)
			}
		})
	}
}

// What Safe waits for and what people wait for must not be current before Safe has looked at it (kstatus).
func TestNothingIsReadyBeforeSafeHasLookedAtIt(t *testing.T) {
	c := withSources(t)
	c.kubectl(jsonText(t, gitSource()), "create", "-f", "-")
	c.kubectl(`{"apiVersion":"vsecm.com/v1alpha1","kind":"EncryptedSecret","metadata":{"name":"unseen","namespace":"team"},`+
		`"spec":{"encryptedData":{}}}`, "create", "-f", "-")
	t.Cleanup(func() {
		cluster{t, c.ControlPlane}.kubectl("", "delete", "-n", "team", "gitsrc,encryptedsecrets", "--all")
	})
	for _, object := range []string{"gitsource/main", "encryptedsecret/unseen"} {
		if got := c.kubectl("", "get", "-n", "team", object, "-o", "jsonpath={.status.observedGeneration}"); got != "-1" {
			t.Errorf("%s: observedGeneration is %q, want -1", object, got)
		}
	}
	// Both kinds, by the category, in a namespace.
	if got := c.kubectl("", "get", "-n", "team", "vsecm", "-o", "name"); got != "encryptedsecret.vsecm.com/unseen\ngitsource.vsecm.com/main\n" {
		t.Errorf("kubectl get vsecm says %q", got)
	}
}

// A field that the schema does not have is dropped without a word.
func TestCRDsKeepEveryFieldOfTheTypes(t *testing.T) {
	c := withSources(t)
	meta := metav1.ObjectMeta{Namespace: "team", Name: "whole"}
	source := &v1alpha1.GitSource{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindGitSource}, ObjectMeta: meta}
	fill(t, reflect.ValueOf(&source.Spec).Elem())
	fill(t, reflect.ValueOf(&source.Status).Elem())
	// Where not everything goes.
	source.Spec.URL, source.Spec.Path = "https://git.example.com/a", "secrets"
	source.Spec.Ref = v1alpha1.GitRef{Branch: "main", Commit: strings.Repeat("a", 40)}
	source.Spec.Verify.Mode, source.Spec.Verify.Since = v1alpha1.VerifyStrict, strings.Repeat("b", 40)
	source.Spec.Webhook.Type = v1alpha1.WebhookGitHub
	c.roundTrip(source, new(v1alpha1.GitSource), func(got any) (any, any) {
		g := got.(*v1alpha1.GitSource)
		return []any{g.Spec, g.Status}, []any{source.Spec, source.Status}
	})
	tag := source.DeepCopy()
	tag.Name, tag.Spec.Ref = "tag", v1alpha1.GitRef{Tag: "v1"}
	c.roundTrip(tag, new(v1alpha1.GitSource), func(got any) (any, any) { return got.(*v1alpha1.GitSource).Spec, tag.Spec })

	secret := &v1alpha1.EncryptedSecret{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret}, ObjectMeta: meta}
	fill(t, reflect.ValueOf(&secret.Spec).Elem())
	fill(t, reflect.ValueOf(&secret.Status).Elem())
	secret.Spec.Scope, secret.Spec.Secret.DeletionPolicy = "namespace", "Retain"
	secret.Spec.EncryptedData = map[string]string{"password": "YWdlLWVuY3J5cHRpb24ub3JnL3Yx"}
	// One of the three, in each.
	whole := secret.Spec.Template.Data["x"]
	secret.Spec.Template.Data = map[string]v1alpha1.TemplateValue{"text": {Text: whole.Text}, "json": {JSON: whole.JSON}, "yaml": {YAML: whole.YAML}}
	later := metav1.NewTime(secret.Spec.NotBefore.Add(time.Hour))
	secret.Spec.ExpiresAt = &later
	c.roundTrip(secret, new(v1alpha1.EncryptedSecret), func(got any) (any, any) {
		s := got.(*v1alpha1.EncryptedSecret)
		return []any{s.Spec, s.Status}, []any{secret.Spec, secret.Status}
	})
}

// roundTrip writes an object and its status, and reads both into got.
func (c cluster) roundTrip(object, got any, parts func(got any) (any, any)) {
	c.Helper()
	text := jsonText(c.T, object)
	c.kubectl(text, "create", "-f", "-", "--validate=strict")
	stored := c.kubectl(text, "apply", "--server-side", "--subresource=status", "-f", "-", "-o", "json", "--validate=strict")
	if err := json.Unmarshal([]byte(stored), got); err != nil {
		c.Fatal(err)
	}
	have, want := parts(got)
	if a, b := jsonText(c.T, have), jsonText(c.T, want); a != b {
		c.Errorf("the cluster has\n%s\nof\n%s", a, b)
	}
	c.kubectl(text, "delete", "-f", "-")
}

// fill sets every field to something that is not its zero value, so that a field that is new is in the test too.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Interface().(type) {
	case metav1.Time:
		v.Set(reflect.ValueOf(metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))))
		return
	case metav1.Duration:
		v.Set(reflect.ValueOf(metav1.Duration{Duration: time.Minute}))
		return
	case []metav1.Condition:
		v.Set(reflect.ValueOf([]metav1.Condition{{
			Type: "Ready", Status: metav1.ConditionTrue, ObservedGeneration: 1, Reason: "Applied", Message: "m",
			LastTransitionTime: metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)),
		}}))
		return
	case json.RawMessage:
		v.Set(reflect.ValueOf(json.RawMessage(`{"a":["{{ .password }}",1]}`)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int64:
		v.SetInt(7)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(t, key)
		fill(t, value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	default:
		t.Fatalf("a field is a %s", v.Type())
	}
}
