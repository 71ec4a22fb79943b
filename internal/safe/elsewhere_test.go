package safe_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// TestPromise04_ACopiedValueIsRefused has somebody who may push copy a value
// to each place that it was not sealed for.
func TestPromise04_ACopiedValueIsRefused(t *testing.T) {
	w := local(t)
	original := w.seal("db", map[string]string{"password": "the value"}, readers("api", "db"))
	w.push(map[string]string{
		"db.yaml":    original,
		"other.yaml": w.seal("other", map[string]string{"token": "one"}),
	})
	w.start()
	w.applied(0)
	db, other, thief := w.workload("db"), w.workload("other"), w.workload("thief")
	db.wants(map[string]string{"db/password": "the value"})

	replace := func(old, new string) string {
		t.Helper()
		copied := strings.Replace(original, old, new, 1)
		if copied == original {
			t.Fatalf("%q is not in\n%s", old, original)
		}
		return copied
	}
	rename := func(s string) string { return strings.Replace(s, "name: db", "name: thief", 1) }
	for i, tt := range []struct {
		name, manifest string
		at             string // the field with the fault
	}{
		{"another namespace", replace("namespace: shop", "namespace: bank"), "spec.encryptedData.password"},
		{"another name", rename(original), "spec.encryptedData.password"},
		{"another key", rename(replace("password:", "user:")), "spec.encryptedData.user"},
		{"another reader", rename(replace("    - db\n", "    - thief\n")), "spec.encryptedData.password"},
		{"one more reader", replace("    - db\n", "    - db\n    - thief\n"), "spec.encryptedData.password"},
		{"one reader less", replace("    - api\n", ""), "spec.encryptedData.password"},
		{"no readers named", replace("  workloads:\n    - api\n    - db\n", ""), "spec.encryptedData.password"},
		{"another key of the same object", replace("    password:", "    other:"), "spec.encryptedData.other"},
		{"a wider scope", replace("scope: strict", "scope: namespace"), "spec.encryptedData.password"},
		{"the widest scope", replace("scope: strict", "scope: cluster"), "spec.encryptedData.password"},
		{"a Kubernetes Secret", replace("spec:\n", "spec:\n  secret: {}\n"), "spec.encryptedData.password"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.t = t
			file := "db.yaml" // in its place; where it keeps its name, that is
			if !strings.Contains(tt.manifest, "name: db\n") || strings.Contains(tt.manifest, "namespace: bank") {
				file = "thief.yaml"
			}
			token := fmt.Sprint("token ", i)
			logged := len(w.process.stderr.String())
			w.push(map[string]string{file: tt.manifest, "other.yaml": w.seal("other", map[string]string{"token": token})})
			src := w.applied(1)
			if f := src.Faults.Items[0]; f.File != file || f.Line == 0 || f.Field != tt.at || !strings.Contains(f.Message, encrypt.ErrElsewhere.Error()) {
				t.Errorf("status has %+v", f)
			}
			w.logs(logged, `"file":"`+file+`"`, encrypt.ErrElsewhere.Error())
			w.measures(`vsecm_sync_faults{source="local.shop"}`, "1")
			thief.has(map[string]string{})
			db.has(map[string]string{"db/password": "the value"})
			w.workload("api").has(map[string]string{"db/password": "the value"})
			w.workloadOf("/ns/bank/sa/db").has(map[string]string{})
			other.wants(map[string]string{"other/token": token})

			repaired := map[string]string{"db.yaml": original}
			if file != "db.yaml" {
				repaired[file] = ""
			}
			w.push(repaired)
			w.applied(0)
			w.measures(`vsecm_sync_faults{source="local.shop"}`, "0")
		})
	}
}
