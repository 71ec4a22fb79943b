package docs

import (
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

// The page's reader has SealedSecrets, and the keys of the controller that they are for.
func TestPageFromSealedSecrets(t *testing.T) {
	w := newWorld(t, "local")
	for from, to := range map[string]string{
		"strict.json": "deploy/db.json", "template.yaml": "deploy/app.yaml", "namespace.yaml": "deploy/tls.yaml", "keys.yaml": "keys.yaml",
	} {
		text, err := os.ReadFile(filepath.Join(checkout, "internal/sealedsecrets/testdata", from))
		if err != nil {
			t.Fatal(err)
		}
		w.write("dana/desk/"+to, string(text))
	}
	playWhole(t, w, "docs/from-sealed-secrets.md")
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
