package docs

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/docpage"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/vaultserver"
)

// playWhole plays a page in a world that holds more than the others.
func playWhole(t *testing.T, w *world, name string) {
	t.Helper()
	page, err := docpage.Read(filepath.Join(checkout, name))
	if err != nil {
		t.Fatal(err)
	}
	played := 0
	for _, b := range page.Blocks {
		if b.Skipped == "" && b.Kind != docpage.Reading {
			w.play(page, b)
			played++
		}
	}
	if played < 3 {
		t.Errorf("%d blocks were played", played)
	}
	if *write {
		if err := page.Write(); err != nil {
			t.Error(err)
		}
	}
}

// The page's reader has SealedSecrets, in a folder and in a cluster with the controller that they are for.
func TestPageFromSealedSecrets(t *testing.T) {
	w := newWorld(t, "cluster")
	for from, to := range map[string]string{
		"strict.json": "deploy/db.json", "template.yaml": "deploy/app.yaml", "namespace.yaml": "deploy/tls.yaml", "keys.yaml": "../controller.yaml",
	} {
		text, err := os.ReadFile(filepath.Join(checkout, "internal/sealedsecrets/testdata", from))
		if err != nil {
			t.Fatal(err)
		}
		w.write("dana/desk/"+to, string(text))
	}
	w.kind("bitnami.com", "v1alpha1", "SealedSecret")
	w.sh.Play("before", `sed -E '/^ +(creationTimestamp|resourceVersion|uid):/d' ~/controller.yaml | kubectl create -f -
kubectl create deployment sealed-secrets-controller -n kube-system --image docker.io/bitnami/sealed-secrets-controller
kubectl create -f deploy/db.json
owner() { kubectl get sealedsecret db -n shop -o jsonpath='{.metadata.uid}'; }
kubectl create -f - <<END
apiVersion: v1
kind: Secret
metadata:
  name: db
  namespace: shop
  ownerReferences: [{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, name: db, uid: $(owner), controller: true}]
stringData: {username: shop_rw, password: correct horse battery staple}
END`)
	// The cluster has no garbage collector, which lets go of an object whose dependents are to stay.
	const path = "/apis/bitnami.com/v1alpha1/namespaces/shop/sealedsecrets/db"
	w.sh.Meanwhile = func() {
		w.node.work()
		var sealed struct {
			Metadata struct{ DeletionTimestamp *time.Time }
		}
		if w.node.call(http.MethodGet, path, nil, &sealed) == http.StatusOK && sealed.Metadata.DeletionTimestamp != nil {
			w.node.call(http.MethodPatch, path, map[string]any{"metadata": map[string]any{"finalizers": nil}}, nil)
		}
	}
	playWhole(t, w, "docs/from-sealed-secrets.md")
	w.sh.Play("after", "kubectl get secret db -n shop")
}

// The page's reader is logged in to a Vault.
func TestPageFromVault(t *testing.T) {
	w := newWorld(t, "local")
	server := vaultserver.Start(t, true)
	at := time.Date(2026, 11, 2, 9, 30, 0, 0, time.UTC)
	for path, data := range map[string]map[string]any{
		"apps/shop/db":          {"username": "shop_rw", "password": "correct horse battery staple", "port": 5432},
		"apps/shop/api":         {"token": "abc"},
		"apps/billing/invoices": {"key": "def"},
	} {
		server.Secrets["secret/"+path] = vaultserver.Secret{Data: data, Created: at}
	}
	w.write("vault-ca.crt", server.CA)
	w.write("dana/.vault-token", vaultserver.Token+"\n")
	w.sh.Play("before", "export VAULT_ADDR="+server.URL+" VAULT_CACERT="+filepath.Join(w.dir, "vault-ca.crt"))
	playWhole(t, w, "docs/from-vault.md")
}
