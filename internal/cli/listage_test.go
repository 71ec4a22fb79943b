//go:build linux

package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// aged returns an object whose values were sealed so many days ago; less than none are malformed.
func aged(t *testing.T, name string, days map[string]int) *v1alpha1.EncryptedSecret {
	t.Helper()
	key := newKey(t)
	o := &v1alpha1.EncryptedSecret{Spec: v1alpha1.EncryptedSecretSpec{EncryptedData: map[string]string{}}}
	o.APIVersion, o.Kind, o.Namespace, o.Name = v1alpha1.APIVersion, v1alpha1.KindEncryptedSecret, "shop", name
	for k, n := range days {
		o.Spec.EncryptedData[k] = "bm90aGluZw=="
		if n < 0 {
			continue
		}
		sealed, err := encrypt.Seal([]byte(marker), encrypt.BindingOf(o, k), []encrypt.Recipient{key.Recipient()}, time.Now().Add(-time.Duration(n)*24*time.Hour-time.Minute))
		check(t, err)
		o.Spec.EncryptedData[k] = sealed
	}
	return o
}

func TestSecretsThatAreDueAreListedByTheAgeOfTheirValues(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", t.TempDir())
	objects := map[string]*v1alpha1.EncryptedSecret{}
	for _, o := range []*v1alpha1.EncryptedSecret{
		aged(t, "new", map[string]int{"a": 0, "b": 89}),
		aged(t, "old", map[string]int{"a": 10, "b": 90, "c": 200}),
		aged(t, "odd", map[string]int{"a": 1, "b": -1}),
		aged(t, "many", map[string]int{"a": 91, "b": 91, "c": 91, "d": 91, "e": 91}),
		aged(t, "none", nil),
	} {
		objects[o.Name] = o
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, name, one := strings.Cut(r.URL.Path, "/encryptedsecrets/")
		if one {
			_ = json.NewEncoder(w).Encode(objects[name])
			return
		}
		var texts []string
		for _, n := range []string{"new", "old", "odd", "many", "none"} {
			text, _ := json.Marshal(objects[n])
			texts = append(texts, string(text))
		}
		fmt.Fprintf(w, `{"items":[%s]}`, strings.Join(texts, ","))
	}))
	t.Cleanup(srv.Close)
	for _, tt := range []struct {
		args   []string
		stdout []string // its lines, with single blanks
		stderr string
	}{
		{[]string{"-n", "shop", "--older-than", "90d"}, []string{
			"NAME READY REASON SECRET SOURCE AGE EXPIRES SEALED OLD-VALUES",
			"old Unknown Pending <none> <none> <unknown> <none> 200d b,c",
			"odd Unknown Pending <none> <none> <unknown> <none> <unknown> b",
			"many Unknown Pending <none> <none> <unknown> <none> 91d a,b,c,+2",
		}, ""},
		{[]string{"-n", "shop", "--older-than", "4800h", "--no-headers"}, []string{
			"old Unknown Pending <none> <none> <unknown> <none> 200d c",
			"odd Unknown Pending <none> <none> <unknown> <none> <unknown> b",
		}, ""},
		{[]string{"-A", "--older-than", "90d", "-o", "wide"}, []string{
			"NAMESPACE NAME READY REASON SECRET SOURCE AGE EXPIRES SEALED OLD-VALUES STARTS WORKLOADS KEYS KEY-ID REVISION DELIVERED MESSAGE",
			"shop old Unknown Pending <none> <none> <unknown> <none> 200d b,c <none> old 3 <none> <none> <none> Safe has not looked at it yet",
			"shop odd Unknown Pending <none> <none> <unknown> <none> <unknown> b <none> odd 2 <none> <none> <none> Safe has not looked at it yet",
			"shop many Unknown Pending <none> <none> <unknown> <none> 91d a,b,c,d,e <none> many 5 <none> <none> <none> Safe has not looked at it yet",
		}, ""},
		{[]string{"-n", "shop", "--older-than", "201d", "-o", "name"}, []string{"encryptedsecret.vsecm.com/odd"}, ""},
		{[]string{"new", "-n", "shop", "--older-than", "90d"}, nil, "No EncryptedSecrets with values older than 90d found in namespace shop.\n"},
		{[]string{"new", "old", "-n", "shop", "--older-than", "90d", "--no-headers"}, []string{"old Unknown Pending <none> <none> <unknown> <none> 200d b,c"}, ""},
	} {
		code, stdout, stderr := run(t, "", append([]string{"list", "--server", srv.URL}, tt.args...)...)
		var lines []string
		for line := range strings.Lines(stdout) {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		if code != exitOK || stderr != tt.stderr || strings.Join(lines, "\n") != strings.Join(tt.stdout, "\n") {
			t.Errorf("%q: exit code %d:\n%s%s", tt.args, code, stdout, stderr)
		}
	}
	for _, args := range [][]string{{"-A"}, {"new", "-n", "shop"}, {"old", "-n", "shop"}} {
		code, stdout, stderr := run(t, "", append([]string{"list", "--server", srv.URL, "--older-than", "100d", "-o", "json"}, args...)...)
		var got struct {
			Kind  string
			Items []v1alpha1.EncryptedSecret
		}
		check(t, json.Unmarshal([]byte(stdout), &got))
		want := map[string]int{"-A": 2, "new": 0, "old": 1}[args[0]]
		if code != exitOK || got.Kind != "List" || len(got.Items) != want {
			t.Errorf("%q: exit code %d:\n%s%s", args, code, stdout, stderr)
		}
	}
	for _, age := range []string{"", "0d", "-1d", "0h", "-5h", "90", "d", "1.5d", "65536d", "9999999h", "90 d", "90D"} {
		if code, _, stderr := run(t, "", "list", "--server", srv.URL, "-A", "--older-than", age); code != exitError || !strings.Contains(stderr, "error: --older-than: want days, such as 90d") {
			t.Errorf("%q: exit code %d: %s", age, code, stderr)
		}
	}
	if code, _, stderr := run(t, "", "list", "--server", srv.URL, "--sources", "-A", "--older-than", "90d"); code != exitError {
		t.Errorf("sources: exit code %d: %s", code, stderr)
	}
}
