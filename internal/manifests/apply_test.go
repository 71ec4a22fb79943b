package manifests

import (
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
)

// precious is what Safe, operators and developers have made, and what must not be lost. The
// values are not real ones: nothing here opens them.
const precious = `
apiVersion: v1
kind: Secret
metadata: {name: vsecm-root-key, namespace: vsecm-system}
stringData: {KEY_TXT: planted}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: vsecm-safe, namespace: vsecm-system}
data: {recipient: planted, keyID: planted}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: vsecm.com/v1alpha1
kind: EncryptedSecret
metadata: {name: db, namespace: shop}
spec: {encryptedData: {password: YWdlLWVuY3J5cHRpb24ub3JnL3Yx}}
`

// witness returns what would differ if anything precious had been touched: whoever deletes
// and makes anew changes the uid, whoever writes the resource version.
func (c cluster) witness() string {
	c.Helper()
	return c.kubectl("", "get", "-o",
		`jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.uid} {.metadata.resourceVersion}{"\n"}{end}`,
		"-n", "vsecm-system", "secret/vsecm-root-key", "configmap/vsecm-safe") +
		c.kubectl("", "get", "-o", "jsonpath={.metadata.uid} {.metadata.resourceVersion}\n", "-n", "shop", "encryptedsecret/db") +
		c.kubectl("", "get", "-o", "jsonpath={.metadata.uid} {.status.phase}\n", "namespace/vsecm-system") +
		c.kubectl("", "get", "-o", "jsonpath={.metadata.uid} {.metadata.generation}\n", "crd/encryptedsecrets.vsecm.com")
}

func TestPromise07_ApplyingAgainAndDeletingLoseNothing(t *testing.T) {
	c := cluster{t, controlplane.Start(t)}
	c.apply("crds")
	c.kubectl(precious, "create", "-f", "-")
	before := c.witness()
	check := func(t *testing.T, after string) {
		t.Helper()
		if now := c.witness(); now != before {
			t.Fatalf("%s:\n%s\nbefore it was:\n%s", after, now, before)
		}
	}
	for _, overlay := range overlays {
		t.Run(overlay, func(t *testing.T) {
			for range 2 {
				c.apply("crds")
				c.apply(overlay)
			}
			check(t, "after it was applied twice")
		})
	}
	// Each mode over each other was just tried, too. Now they go, the overlays with the base.
	c.kubectl("", "delete", "-k", c.path("deliver-all"))
	c.kubectl("", "delete", "-k", c.path("spire"))
	check(t, "after Safe was deleted")
	for _, kind := range []string{"deployments", "services", "serviceaccounts", "roles", "rolebindings", "networkpolicies", "poddisruptionbudgets"} {
		if left := c.kubectl("", "get", kind, "-n", "vsecm-system", "-o", "name"); left != "" {
			t.Errorf("deleting Safe left %s", left)
		}
	}
	for _, kind := range []string{"clusterroles", "clusterrolebindings"} {
		if left := c.kubectl("", "get", kind, "-l", "app.kubernetes.io/part-of=vsecm-system", "-o", "name"); left != "" {
			t.Errorf("deleting Safe left %s", left)
		}
	}

	// The search above is one that finds: it sees what a placeholder would do.
	c.kubectl("", "patch", "secret/vsecm-root-key", "-n", "vsecm-system", "--type=merge", "-p", `{"stringData":{"KEY_TXT":"{}"}}`)
	if c.witness() == before {
		t.Error("a placeholder in the root key's place went unnoticed")
	}
}
