//go:build linux

package cli

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/rekey"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/internal/serve"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A realRekey is what replaces the root key of a real Safe that has objects and no sources.
type realRekey struct {
	*rootkey.Keeper
	gate    *unseal.Gate
	checker *rekey.Checker
}

var _ serve.Rekey = realRekey{}

func (r realRekey) Held() (encrypt.KeyID, []encrypt.KeyID)          { return r.gate.Held() }
func (r realRekey) RetiredText() []byte                             { return r.gate.RetiredText() }
func (r realRekey) Check(ctx context.Context) (rekey.Report, error) { return r.checker.Check(ctx) }

func newRealRekey(s *realSafe, gate *unseal.Gate) realRekey {
	return realRekey{s.seal.Keeper, gate, rekey.New(rekey.Config{
		Keys: gate,
		Stored: func(ctx context.Context) ([]*v1alpha1.EncryptedSecret, []rekey.Need, error) {
			all, err := s.store.List(ctx)
			return all, nil, err
		},
		Heads: func(context.Context, func(string, encrypt.Manifest)) ([]reconcile.Head, error) { return nil, nil },
	})}
}

func (s *realSafe) reveals(t *testing.T, namespace, name, key, want string) {
	t.Helper()
	code, stdout, stderr := run(t, "", "reveal", name, "-n", namespace, "--key", key, "--safe", s.socket)
	if code != exitOK || stdout != want {
		t.Errorf("reveal: exit code %d: %q: %s", code, stdout, stderr)
	}
}

// A whole re-key of a Safe that keeps its key, by the keeper and the API as they are.
func TestARealSafeIsRekeyed(t *testing.T) {
	t.Chdir(t.TempDir())
	old := newKey(t)
	s := startSafe(t, nil, "a", old, safeKind{record: true})
	t.Setenv(safeVariable, s.socket)
	s.apply(t, "shop", "db", "password", marker)
	if code, _, stderr := run(t, string(old.Text()), "unseal"); code != exitOK {
		t.Fatal(stderr)
	}
	r := rekeyer{t: t, keys: []*unseal.RootKey{old}}
	who := newArchivist(t)
	archive := []string{"finish", "--archive", "old.age", "--archive-to", who.to()}
	r.run(exitError, "start", "--backup", "before.age")
	if _, err := os.Stat("before.age"); err == nil {
		t.Fatal("a backup was written")
	}
	stdout, stderr := r.run(exitOK, "start", "--backup", "before.age", "--to", who.to())
	made, err := encrypt.ParseRecipient(strings.TrimSpace(stdout))
	check(t, err)
	says(t, stderr, "before.age: 1 secret, 1 value", "the re-key has begun: from "+string(old.KeyID())+" to "+string(made.KeyID()))
	if code, out, errOut := run(t, "", "backup", "verify", "before.age"); code != exitOK {
		t.Errorf("verify: exit code %d: %s%s", code, out, errOut)
	}
	before := files(t)
	_, stderr = r.run(exitOK, "start", "--backup", "before.age", "--to", who.to())
	says(t, stderr, "is under way; no backup is written for it again")
	s.reveals(t, "shop", "db", "password", marker)
	stdout, _ = r.run(exitSomeLeft, "status")
	says(t, stdout, "stored by test: shop/db key password: ", "test     1\n")
	_, stderr = r.run(exitSomeLeft, archive...)
	says(t, stderr, "stored by test: shop/db key password: ", "nothing was destroyed")
	unchanged(t, before)

	o := &v1alpha1.EncryptedSecret{Spec: v1alpha1.EncryptedSecretSpec{EncryptedData: map[string]string{}}}
	o.APIVersion, o.Kind, o.Namespace, o.Name = v1alpha1.APIVersion, v1alpha1.KindEncryptedSecret, "shop", "db"
	sealed, err := encrypt.Seal([]byte(marker), encrypt.BindingOf(o, "password"), []encrypt.Recipient{made}, time.Now())
	check(t, err)
	o.Spec.EncryptedData["password"] = sealed
	_, err = s.store.Apply(t.Context(), "test", o)
	check(t, err)
	stdout, _ = r.run(exitOK, "status")
	says(t, stdout, "which opens all 1 values")
	r.run(exitOK, archive...)
	if keys := who.opens(t, "old.age"); len(keys) != 1 || keys[0].KeyID() != old.KeyID() {
		t.Errorf("the archive holds %v", keys)
	}
	s.reveals(t, "shop", "db", "password", marker)
	r.run(exitOK, archive...)
	kept, err := os.ReadFile(s.keyFile)
	check(t, err)
	if key, err := unseal.Parse(kept); err != nil || key.KeyID() != made.KeyID() {
		t.Errorf("kept: %v, %v", key, err)
	}
	hidesKeys(t, s.log.String()+s.audit.String(), old)
	if !strings.Contains(s.audit.String(), "root-key rekey finish") {
		t.Errorf("the audit log: %s", s.audit.String())
	}
	// Again, and back.
	r.run(exitOK, "start", "--no-backup")
	stdout, _ = r.run(exitOK, "abort")
	says(t, stdout, "root key "+string(made.KeyID())+" is the active one again")
	r.run(exitOK, "finish", "--no-archive")
}

// In the middle of a re-key, a replica that has nothing but its memory needs both keys, in any order, whole or in
// shares.
func TestUnsealGivesBothKeysOfARekey(t *testing.T) {
	for name, tt := range map[string]struct {
		newFirst, shares bool
	}{
		"the old one first":            {},
		"the new one first":            {newFirst: true},
		"the new one first, in shares": {newFirst: true, shares: true},
		"the new one last, in shares":  {shares: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			old, own := newKey(t), shareKey(t, 3, 2)
			check(t, os.WriteFile("public", own.set.Text(), 0o644))
			s := newRealSafe(t, nil, "a", old)
			t.Setenv(safeVariable, s.socket)
			s.apply(t, "shop", "db", "password", marker)
			everything := ""
			vsecm := func(code int, stdin string, args ...string) string {
				t.Helper()
				got, stdout, stderr := run(t, stdin, args...)
				if everything += stdout + stderr; got != code {
					t.Fatalf("%q: exit code %d, want %d:\n%s%s", args, got, code, stdout, stderr)
				}
				return stdout + stderr
			}
			vsecm(exitOK, string(old.Text()), "unseal")
			says(t, vsecm(exitError, "", "rekey", "start", "--no-backup"), "keeps its root key in memory alone")
			vsecm(exitOK, "", "rekey", "start", "--no-backup", "--root-key", keyFile(t, own.RootKey))
			s.reveals(t, "shop", "db", "password", marker)
			vsecm(exitOK, "", "seal")

			stranger := newKey(t)
			says(t, vsecm(exitError, string(stranger.Text()), "unseal"), "and was not sent", string(old.KeyID()), string(own.KeyID()))
			giveOld := func(last bool) {
				t.Helper()
				if last {
					says(t, vsecm(exitOK, string(old.Text()), "unseal"), "unsealed with key "+string(own.KeyID()))
					return
				}
				says(t, vsecm(exitSealed, string(old.Text()), "unseal"), "it has key "+string(old.KeyID())+"; one more key is needed: "+string(own.KeyID()), "note: the key is kept for 15 minutes")
				says(t, vsecm(exitError, string(old.Text()), "unseal"), "it needs root key "+string(own.KeyID()))
			}
			giveNew := func(last bool) {
				t.Helper()
				code, want := exitSealed, "it has key "+string(own.KeyID())+"; one more key is needed: "+string(old.KeyID())
				if last {
					code, want = exitOK, "unsealed with key "+string(own.KeyID())
				}
				if !tt.shares {
					says(t, vsecm(code, string(own.Text()), "unseal"), want)
					return
				}
				says(t, vsecm(exitSealed, own.shares[0], "unseal", "--shares", "public"), ": 1 of 2 shares (1)", "the next holder's is needed")
				// The others need no public file.
				says(t, vsecm(code, own.shares[2], "unseal"), want)
			}
			if tt.newFirst {
				giveNew(false)
			} else {
				giveOld(false)
			}
			if !s.sealed() {
				t.Fatal("one key opened it")
			}
			says(t, vsecm(exitSealed, "", "status"), "sealed")
			// The prompt names what is needed.
			needed := own.KeyID()
			if tt.newFirst {
				needed = old.KeyID()
			}
			p := at(t, "unseal")
			p.sees("note: "+s.socket+" has 1 of 2 keys", 1)
			p.typesHidden("root key "+string(needed)+", or a share of it "+keyPrompt, 1, "\x03")
			if code, screen := p.leaves(); code != exitInterrupted {
				t.Errorf("exit code %d; the screen shows:\n%s", code, screen)
			}
			if tt.newFirst {
				giveOld(true)
			} else {
				giveNew(true)
			}
			s.reveals(t, "shop", "db", "password", marker)
			stdout := vsecm(exitSomeLeft, "", "rekey", "status", "-o", "json")
			var shown shownRekey
			check(t, json.Unmarshal([]byte(stdout), &shown))
			if shown.Rekey == nil || shown.Rekey.To != own.KeyID() || shown.Replicas[0].Active != string(own.KeyID()) || shown.Report.NeedCount != 1 {
				t.Errorf("status: %s", stdout)
			}
			says(t, vsecm(exitOK, "", "rekey", "finish", "--no-archive", "--force-key-id", string(old.KeyID())), "root key "+string(old.KeyID())+" is destroyed")
			hidesKeys(t, everything+s.log.String()+s.audit.String(), old, own.RootKey)
			hidesShares(t, "it", everything+s.log.String()+s.audit.String(), own.shares...)
		})
	}
}
