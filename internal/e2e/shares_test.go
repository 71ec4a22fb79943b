//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// A holder is one of the people who hold a share of the root key.
type holder struct {
	name, kubeconfig string
	share            string
	public           string // the set's public file
}

// holders splits the root key in a file among people.
func holders(t *testing.T, key string, threshold int, names ...string) map[string]*holder {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "shares")
	args := []string{"keygen", "--shares", fmt.Sprint(len(names)), "--threshold", fmt.Sprint(threshold), "--out-dir", dir, "--root-key", key}
	identities := map[string]*age.X25519Identity{}
	for _, name := range names {
		identity, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		identities[name] = identity
		args = append(args, "--share-to", name+"="+identity.Recipient().String())
	}
	plugin(t, args...)
	all := map[string]*holder{}
	for name, identity := range identities {
		file, err := os.ReadFile(filepath.Join(dir, name+".share.age"))
		if err != nil {
			t.Fatal(err)
		}
		plaintext, err := age.Decrypt(armor.NewReader(bytes.NewReader(file)), identity)
		if err != nil {
			t.Fatal(err)
		}
		share, err := io.ReadAll(plaintext)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = &holder{name, person(t, name, "vsecm-operators"), strings.TrimSpace(string(share)), filepath.Join(dir, "vsecm-shares.yaml")}
	}
	return all
}

// give has a holder give a share, their own or another, or a key. It has to exit
// with a code, and to say something.
func (h *holder) give(t *testing.T, share string, code int, says string) {
	t.Helper()
	stdout, stderr, err := cluster.Kubectl(t, h.kubeconfig, share, "vsecm", "unseal", "--file", "-", "--shares", h.public)
	if got := exitCode(err); got != code || !strings.Contains(stdout+stderr, says) {
		t.Errorf("%s's unseal exits %d, not %d with %q:\n%s%s", h.name, got, code, says, stdout, stderr)
	}
}

func TestSharesOfTheRootKey(t *testing.T) {
	const taken, failed = 2, 1
	install(t, "memory")
	key := rootKey(t)
	people := holders(t, key, 3, "alice", "bob", "carol", "dave", "erin")
	await(t, 2, "are sealed", sealed)
	alice, bob, carol, dave := people["alice"], people["bob"], people["carol"], people["dave"]

	alice.give(t, alice.share, taken, "")
	wrong := []byte(bob.share)
	if wrong[len(wrong)-9] == 'q' {
		wrong[len(wrong)-9] = 'p'
	} else {
		wrong[len(wrong)-9] = 'q'
	}
	bob.give(t, string(wrong), failed, "typo")
	wantStates(t, "sealed sealed")
	bob.give(t, bob.share, taken, "")
	wantStates(t, "sealed sealed")
	carol.give(t, carol.share, 0, "unsealed")
	await(t, 2, "are ready", ready)
	wantStates(t, "unsealed unsealed")

	t.Run("a replica that restarts in the middle takes one more", func(t *testing.T) {
		if _, stderr, err := cluster.Kubectl(t, alice.kubeconfig, "", "vsecm", "seal"); err != nil {
			t.Fatalf("seal: %v: %s", err, stderr)
		}
		before := await(t, 2, "are sealed", sealed)
		alice.give(t, alice.share, taken, "")
		kubectl(t, "-n", system, "delete", "pod", before[0].Name, "--grace-period=0", "--force")
		await(t, 2, "are sealed", sealed)
		bob.give(t, bob.share, taken, "")
		carol.give(t, carol.share, taken, "")
		wantStates(t, "sealed unsealed")
		dave.give(t, dave.share, 0, "unsealed")
		await(t, 2, "are ready", ready)
		wantStates(t, "unsealed unsealed")
	})
	t.Run("a holder who gives a whole key instead", func(t *testing.T) {
		again := func() {
			t.Helper()
			if _, stderr, err := cluster.Kubectl(t, alice.kubeconfig, "", "vsecm", "seal"); err != nil {
				t.Fatalf("seal: %v: %s", err, stderr)
			}
			await(t, 2, "are sealed", sealed)
			alice.give(t, alice.share, taken, ": 1 of 3 shares (")
		}
		again()
		// One of another cluster is named, stays where it is, and costs nobody their progress.
		erin := people["erin"]
		erin.give(t, text(t, rootKey(t)), failed, "nothing was sent")
		wantStates(t, "sealed sealed")
		bob.give(t, bob.share, taken, ": 2 of 3 shares (")
		// The right one unseals, whoever has it.
		erin.give(t, text(t, key), 0, ": unsealed with key ")
		await(t, 2, "are ready", ready)
		wantStates(t, "unsealed unsealed")
		carol.give(t, carol.share, 0, ": unsealed already")
		// The shares that were given are gone.
		again()
	})
	noRestarts(t)
}
