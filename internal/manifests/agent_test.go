package manifests

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
)

// The example of a workload is valid where Pod Security is as strict as it can be, and
// holds its secrets in memory.
func TestTheExampleOfAnAgentApplies(t *testing.T) {
	c := cluster{t, controlplane.Start(t)}
	c.kubectl(`
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {pod-security.kubernetes.io/enforce: baseline, pod-security.kubernetes.io/warn: restricted}}
`, "create", "-f", "-")
	example, err := filepath.Abs(filepath.Join("..", "..", "examples", "workload-agent"))
	if err != nil {
		t.Fatal(err)
	}
	c.kubectl("", "apply", "-k", example, "--server-side=false", "--validate=strict")
	medium := c.kubectl("", "get", "deployment/db", "-n", "shop", "-o", `jsonpath={.spec.template.spec.volumes[?(@.name=="secrets")].emptyDir.medium}`)
	if strings.TrimSpace(medium) != "Memory" {
		t.Errorf("the secrets lie in %q", medium)
	}
}
