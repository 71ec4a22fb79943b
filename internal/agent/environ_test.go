package agent

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/shellenv"
)

func TestSecretsBecomeVariablesBesideThoseThatThereAre(t *testing.T) {
	got, err := environment([]string{"PATH=/bin", "ODD"}, secretsOf(map[string]string{"my-db/tls.key": "a=b\n\xff", "my-db/user": ""}))
	if err != nil || !slices.Equal(got, []string{"PATH=/bin", "ODD", "MY_DB_TLS_KEY=a=b\n\xff", "MY_DB_USER="}) {
		t.Errorf("got %q, %v", got, err)
	}
}

// What is like them in a part of its name alone is a secret like any other.
func TestNamesLikeThoseOfLoadersAreTaken(t *testing.T) {
	names := map[string]string{"git/token": "x", "old/preload": "x", "node/options-of-mine": "x", "my/ld-preload": "x", "lua/token": "x"}
	if got, err := environment(nil, secretsOf(names)); err != nil || len(got) != len(names) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWhatCannotBeAVariableIsAnError(t *testing.T) {
	for name, values := range map[string]map[string]string{
		"two of one name":      {"a/b.c": "some-value", "a/b-c": "some-value"},
		"two objects":          {"a-b/c": "some-value", "a/b-c": "some-value"},
		"a NUL byte":           {"db/k": "some-value\x00"},
		"one that is set":      {"my/home": "some-value"},
		"one that loads code":  {"ld/preload": "some-value"},
		"and another":          {"node/options": "some-value"},
		"a loader's, any":      {"ld/debug-output": "some-value"},
		"a library's":          {"openssl/conf": "some-value"},
		"code itself":          {"lua/init-5-4": "some-value"},
		"git's configuration":  {"git/config-global": "some-value"},
		"too long for one":     {"db/k": strings.Repeat("some-value", 13108)},
		"too long all at once": {"a/1": strings.Repeat("x", 100<<10), "a/2": strings.Repeat("x", 100<<10), "a/3": strings.Repeat("x", 100<<10), "a/4": strings.Repeat("x", 100<<10), "a/5": strings.Repeat("x", 100<<10), "a/6": strings.Repeat("x", 100<<10), "a/7": strings.Repeat("x", 100<<10), "a/8": strings.Repeat("x", 100<<10), "a/9": strings.Repeat("x", 100<<10), "b/1": strings.Repeat("x", 100<<10), "b/2": strings.Repeat("x", 100<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := environment([]string{"MY_HOME=/root"}, secretsOf(values))
			if !errors.Is(err, shellenv.ErrNoVariable) || got != nil {
				t.Fatalf("got %d variables, %v", len(got), err)
			}
			if strings.Contains(err.Error(), "some-value") || strings.Contains(err.Error(), "xxx") {
				t.Errorf("the error holds a value: %v", err)
			}
		})
	}
}
