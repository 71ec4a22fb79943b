//go:build linux

package cli

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// manifestOf is an object with one value, as JSON.
func manifestOf(t *testing.T, key *unseal.RootKey, namespace, name string, labels map[string]string) string {
	t.Helper()
	o := &v1alpha1.EncryptedSecret{Spec: v1alpha1.EncryptedSecretSpec{EncryptedData: map[string]string{}}}
	o.APIVersion, o.Kind, o.Namespace, o.Name, o.Labels = v1alpha1.APIVersion, v1alpha1.KindEncryptedSecret, namespace, name, labels
	sealed, err := encrypt.Seal([]byte(marker), encrypt.BindingOf(o, "key"), []encrypt.Recipient{key.Recipient()}, time.Unix(1_700_000_000, 0))
	check(t, err)
	o.Spec.EncryptedData["key"] = sealed
	text, err := json.Marshal(map[string]any{
		"apiVersion": o.APIVersion, "kind": o.Kind, "spec": o.Spec,
		"metadata": map[string]any{"namespace": namespace, "name": name, "labels": labels},
	})
	check(t, err)
	return string(text)
}

// keysOfObject returns what an object in the cluster is sealed to.
func (w *world) keysOfObject(namespace, name string) []encrypt.KeyID {
	w.t.Helper()
	info, err := encrypt.Inspect(w.kubectl("", "get", "encryptedsecrets", "-n", namespace, name, "-o", "jsonpath={.spec.encryptedData.key}"))
	check(w.t, err)
	return info.KeyIDs
}

// Objects that were applied by hand are re-encrypted; what a source or a controller applies is named and left; and
// nobody gets a value back without the right in its namespace.
func TestReencryptInACluster(t *testing.T) {
	old := newKey(t)
	a := startSafe(t, shared.Start(t), "safe-a", old, safeKind{record: true})
	w := install(t, old, a)
	t.Chdir(t.TempDir())
	text := old.Text()
	defer clear(text)
	check(t, a.seal.Unseal(t.Context(), text, ""))
	t.Setenv(safeVariable, a.address)

	for _, namespace := range []string{"renew-shop", "renew-bank"} {
		w.kubectl("", "create", "namespace", namespace)
		t.Cleanup(func() { w.kubectl("", "delete", "encryptedsecrets", "--all", "-n", namespace) })
	}
	w.kubectl(manifestOf(t, old, "renew-shop", "by-apply", nil), "apply", "-f", "-")
	w.kubectl(manifestOf(t, old, "renew-shop", "by-register", nil), "apply", "--server-side", "--field-manager", pluginManager, "-f", "-")
	w.kubectl(manifestOf(t, old, "renew-shop", "by-argo", nil), "apply", "--server-side", "--field-manager", "argocd-controller", "-f", "-")
	w.kubectl(manifestOf(t, old, "renew-shop", "by-source", map[string]string{v1alpha1.LabelSource: "renew-shop.config"}), "apply", "--server-side", "--field-manager", "vsecm-sync", "-f", "-")
	w.kubectl(manifestOf(t, old, "renew-bank", "by-apply", nil), "apply", "-f", "-")
	_, _, err := a.seal.StartRekey(t.Context(), nil, "test")
	check(t, err)
	kept, err := os.ReadFile(a.keyFile)
	check(t, err)
	active, err := unseal.Parse(kept)
	check(t, err)

	admin := w.person("renate", "vsecm-admins")
	w.kubectl("", "create", "clusterrole", "renate", "--verb=get,list,patch", "--resource=encryptedsecrets.vsecm.com")
	w.kubectl("", "create", "clusterrolebinding", "renate", "--clusterrole=renate", "--user=renate")
	t.Cleanup(func() { w.kubectl("", "delete", "clusterrole,clusterrolebinding", "renate") })
	reencrypt := func(code int, args ...string) string {
		t.Helper()
		got, stdout, stderr := w.vsecm(admin, "", append([]string{"reencrypt", "--cluster"}, args...)...)
		if got != code {
			t.Errorf("exit code %d, want %d:\n%s%s", got, code, stdout, stderr)
		}
		return stdout + stderr
	}
	// Anybody may know what is stale.
	says(t, reencrypt(exitError, "-A", "--check"), "renew-shop/by-argo: is applied by argocd-controller",
		"renew-shop/by-apply: spec.encryptedData.key: sealed to the retired key "+string(old.KeyID()),
		"renew-bank/by-apply: spec.encryptedData.key: sealed to the retired key", "error: stale values: 3, in objects: 3")
	// The role is nobody's by default.
	says(t, reencrypt(exitSomeLeft, "-n", "renew-shop"),
		"renew-shop/by-apply: spec.encryptedData.key:", "may not reencrypt encryptedsecrets.vsecm.com in namespace renew-shop",
		"left: 4", "hint: ask for a binding of service account vsecm-system/vsecm-admin to ClusterRole vsecm-reencrypt in renew-shop")
	if ids := w.keysOfObject("renew-shop", "by-apply"); !slices.Equal(ids, []encrypt.KeyID{old.KeyID()}) {
		t.Errorf("it is sealed to %v", ids)
	}
	w.kubectl("", "create", "rolebinding", "vsecm-reencrypt", "-n", "renew-shop", "--clusterrole=vsecm-reencrypt", "--serviceaccount=vsecm-system:vsecm-admin")
	says(t, reencrypt(exitSomeLeft, "-A"),
		"renew-shop/by-source: comes from git source renew-shop/config, and is left",
		"renew-shop/by-argo: is applied by argocd-controller, which would put it back, and is left",
		"renew-bank/by-apply: spec.encryptedData.key:", "in namespace renew-bank", "sealed anew: values: 2, objects: 2; left: 3")
	for name, key := range map[string]*unseal.RootKey{"by-apply": active, "by-register": active, "by-argo": old, "by-source": old} {
		if ids := w.keysOfObject("renew-shop", name); !slices.Equal(ids, []encrypt.KeyID{key.KeyID()}) {
			t.Errorf("%s is sealed to %v", name, ids)
		}
	}
	if ids := w.keysOfObject("renew-bank", "by-apply"); !slices.Equal(ids, []encrypt.KeyID{old.KeyID()}) {
		t.Errorf("without the right it is sealed to %v", ids)
	}
	// What was re-encrypted can be applied and registered over, as before.
	w.kubectl(manifestOf(t, active, "renew-shop", "by-apply", nil), "apply", "-f", "-")
	if code, stdout, stderr := w.vsecm(admin, "", "register", "by-register", "-n", "renew-shop", "--from-literal", "more=1", "--merge", "--wait=false", "--recipient", active.Recipient().String()); code != exitOK {
		t.Errorf("register: %d: %s%s", code, stdout, stderr)
	}
	if strings.Contains(w.auditLog()+a.audit.String()+a.log.String(), marker) {
		t.Error("the value is in a log")
	}
}
