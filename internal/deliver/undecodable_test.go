package deliver_test

import (
	"slices"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/deliver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
)

// What an older CRD let through is told of on the object, and harms no other.
func TestPromise06_ObjectThatCannotBeDecodedHarmsNobody(t *testing.T) {
	cluster.Start(t) // counts the test where there are no programs
	w := newWorldOf(t, controlplane.Start(t), "undecodable")
	w.grant(t)
	w.kubectl(t, "", "patch", "crd", "encryptedsecrets.vsecm.com", "--type=json", "-p",
		`[{"op":"replace","path":"/spec/versions/0/schema/openAPIV3Schema","value":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}]`)
	bad := `{"apiVersion":"vsecm.com/v1alpha1","kind":"EncryptedSecret","metadata":{"name":"bad","namespace":"undecodable"},"spec":{"encryptedData":{"a":8123456789}}}`
	until(t, "the loose CRD", func() bool {
		_, _, err := w.Kubectl(t, w.Kubeconfig(), bad, "create", "--validate=false", "-f", "-")
		return err == nil
	})
	w.kubectl(t, "", "apply", "--server-side", "--force-conflicts", "-k", path(t, "crds"))
	s := w.safe(t).lead(t)
	w.put(t, w.object(t, "good", map[string]string{"a": "1"}, delivered))
	w.settled(t, "good", deliver.ReasonDelivered)
	until(t, "told", func() bool { return slices.Equal(s.events.of("bad"), []string{deliver.ReasonUndecodable}) })
	w.put(t, w.object(t, "good", map[string]string{"a": "2"}, delivered))
	w.settled(t, "good", deliver.ReasonDelivered)
}
