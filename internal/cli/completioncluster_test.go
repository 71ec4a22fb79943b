//go:build linux

package cli

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/publication"
)

// Names of namespaces, objects and keys come from the cluster, in the person's own name.
func TestCompletionFromTheCluster(t *testing.T) {
	key := newKey(t)
	w := install(t, key)
	w.create("completion")
	w.create("completion-other")
	for _, namespace := range []string{"completion", "completion-other"} {
		t.Cleanup(func() { w.empty(namespace) })
	}
	inFolder(t, nil)
	kubeconfig, err := os.ReadFile(w.cp.Kubeconfig())
	check(t, err)
	check(t, os.WriteFile("config", []byte(strings.Replace(string(kubeconfig), "    user: ", "    namespace: completion\n    user: ", 1)), 0o600))
	t.Setenv("KUBECONFIG", "config")
	t.Setenv(recipientsVariable, key.Recipient().String())
	for _, args := range [][]string{
		{"db", "-n", "completion", "--from-literal", "password=a", "--from-literal", "user=b"},
		{"cache", "-n", "completion", "--from-literal", "token=c"},
		{"elsewhere", "-n", "completion-other", "--from-literal", "pin=d"},
	} {
		if code, _, stderr := run(t, "", append([]string{"register", "--wait=false"}, args...)...); code != exitOK {
			t.Fatal(stderr)
		}
	}
	for _, namespace := range []string{"completion", "completion-other"} {
		w.kubectl(`{"apiVersion":"vsecm.com/v1alpha1","kind":"GitSource","metadata":{"name":"config","namespace":"`+namespace+`"},
			"spec":{"url":"https://git.example.com/config.git","suspend":true}}`, "apply", "-f", "-")
	}

	for _, tc := range []struct {
		args    string // what was typed before the Tab, a ? where it comes
		offered string
	}{
		{"list ?", "cache db"},
		{"list db ?", "cache"},
		{"list -n completion-other ?", "elsewhere"},
		{"list --sources ?", "config"},
		{"delete ?", "cache db"},
		{"delete cache ?", "db"},
		{"delete -n completion-other ?", "elsewhere"},
		{"reveal ?", "cache db"},
		{"reveal db ?", "cache"},
		{"reveal db --key ?", "password user"},
		{"reveal --all ?", ""},
		{"register ?", "cache db"},
		{"register db ?", ""},
		{"register db --key ?", "password user"},
		{"register elsewhere -n completion-other --key ?", "pin"},
		{"register nothing --key ?", ""},
		{"sync -n completion ?", "config"},
		{"status --context ?", "test"},
		{"status --cluster ?", "test"},
		{"status --user ?", "test"},
	} {
		offered, then := completed(t, append(strings.Fields(strings.TrimSuffix(tc.args, "?")), "")...)
		if !slices.Equal(offered, strings.Fields(tc.offered)) || then != thenNothing {
			t.Errorf("%s: %q, then %s; want %s", tc.args, offered, then, tc.offered)
		}
	}

	// What is edited is a file, or an object.
	if offered, then := completed(t, "edit", ""); !slices.Equal(offered, []string{"cache", "db"}) || then != thenFiles {
		t.Errorf("edit: %q, then %s", offered, then)
	}

	// Other tests have namespaces and sources of their own.
	for args, want := range map[string][]string{
		"sync ?":                         {"completion/config", "completion-other/config"},
		"list -n ?":                      {"completion", "completion-other", publication.DefaultNamespace},
		"delete -n ?":                    {"completion", "completion-other"},
		"reveal -n ?":                    {"completion", "completion-other"},
		"register -n ?":                  {"completion", "completion-other"},
		"edit -n ?":                      {"completion", "completion-other"},
		"edit db -n ?":                   {"completion", "completion-other"},
		"encrypt -n ?":                   {"completion", "completion-other"},
		"sync -n ?":                      {"completion", "completion-other"},
		"backup -n ?":                    {"completion", "completion-other"},
		"restore -n ?":                   {"completion", "completion-other"},
		"reencrypt -n ?":                 {"completion", "completion-other"},
		"status --safe-namespace ?":      {publication.DefaultNamespace},
		"rekey start --safe-namespace ?": {publication.DefaultNamespace},
	} {
		offered, then := completed(t, append(strings.Fields(strings.TrimSuffix(args, "?")), "")...)
		for _, name := range want {
			if !slices.Contains(offered, name) || then != thenNothing {
				t.Errorf("%s: %q is not among %q, then %s", args, name, offered, then)
			}
		}
	}
}
