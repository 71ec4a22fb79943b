//go:build linux

package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"github.com/btcsuite/btcd/btcutil/bech32"

	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A shared key is one that was split, with its public file in the working directory.
type sharedKey struct {
	*unseal.RootKey
	set    *unseal.ShareSet
	shares []string
}

func shareKey(t *testing.T, n, threshold int) sharedKey {
	t.Helper()
	return shareOut(t, newKey(t), n, threshold)
}

func shareOut(t *testing.T, key *unseal.RootKey, n, threshold int) sharedKey {
	t.Helper()
	set, shares, err := unseal.Split(key, n, threshold)
	check(t, err)
	k := sharedKey{RootKey: key, set: set}
	for _, s := range shares {
		k.shares = append(k.shares, string(s.Text()))
	}
	return k
}

// misspelt returns a share with its nth character, from 1, changed into another of bech32's.
func misspelt(share string, n int) string {
	other := "q"
	if share[n-1] == 'q' {
		other = "p"
	}
	return share[:n-1] + other + share[n:]
}

// hidesShares fails where a text has a part of a share's number.
func hidesShares(t *testing.T, what, text string, shares ...string) {
	t.Helper()
	for _, s := range shares {
		for i := 40; i+12 <= len(s); i += 6 {
			if strings.Contains(strings.ToLower(text), s[i:i+12]) {
				t.Fatalf("%s shows a part of a share", what)
			}
		}
	}
}

func TestHoldersGiveTheirSharesOneByOneToEveryReplica(t *testing.T) {
	t.Chdir(t.TempDir())
	key := shareKey(t, 5, 3)
	check(t, os.WriteFile("public", key.set.Text(), 0o644))
	a, b := newRealSafe(t, nil, "a", key.RootKey), newRealSafe(t, nil, "b", key.RootKey)
	t.Setenv(safeVariable, a.socket+","+b.socket)
	foreign, again := shareKey(t, 3, 2), shareOut(t, key.RootKey, 5, 3)
	check(t, os.WriteFile("foreign", foreign.set.Text(), 0o644))
	check(t, os.WriteFile("malformed", key.set.Text()[:100], 0o644))
	forged := forgedShare(t, key)
	everything := ""
	for _, step := range []struct {
		name  string
		share string
		args  []string
		code  int
		want  []string
	}{
		{"the first without the public file", key.shares[1], nil, exitError, []string{"share 2 is of set " + key.set.ID().String(), "hint: whoever gives the first share of a set names its public file, vsecm-shares.yaml, with --shares"}},
		{"a public file that there is not", key.shares[1], []string{"--shares", "none"}, exitError, []string{"none"}},
		{"a public file that was changed", key.shares[1], []string{"--shares", "malformed"}, exitError, []string{"malformed vsecm-shares.yaml: line ", "take another copy"}},
		{"the first", key.shares[1], []string{"--shares", "public"}, exitSealed, []string{": 1 of 3 shares (2); expires in 15m\n", "the next holder's is needed"}},
		{"the first again", key.shares[1], nil, exitError, []string{"it has share 2 already: 1 of 3 shares (2)", "error: share 2 was given already"}},
		{"one with a typo", misspelt(key.shares[4], 61), nil, exitError, []string{"the share has a typo: most likely in its character 61 of 98", "hint: nothing was sent"}},
		{"one that lacks its end", key.shares[4][:90], nil, exitError, []string{"it has 90 characters, where there should be 98"}},
		{"one of another key", foreign.shares[0], []string{"--shares", "public"}, exitError, []string{"share 1 was not sent: public: the share belongs to another set"}},
		{"one of another key, without its public file", foreign.shares[0], nil, exitError, []string{"of which Safe has no shares yet; it is gathering those of set " + key.set.ID().String()}},
		{"one of another key, with its public file", foreign.shares[0], []string{"--shares", "foreign"}, exitError, []string{"it needs root key " + string(key.KeyID()), "these are shares of " + string(foreign.KeyID()) + ", and none was sent"}},
		{"one of another set of the same key", again.shares[0], []string{"--shares", "public"}, exitError, []string{"another set"}},
		{"one that is forged, noticed here", forged, []string{"--shares", "public"}, exitError, []string{"share 1 was not sent: the share is forged"}},
		{"one that is forged, noticed there", forged, nil, exitError, []string{"share 1: the share is forged", "hint: the shares of others still count"}},
		{"the public file for a share", string(key.set.Text()), nil, exitError, []string{"this is the public file of the shares, and not a share"}},
		{"half a private key", "AGE-SECRET-KEY-1QQQ", nil, exitError, []string{"malformed root key"}},
		{"a key id that is not this key's", key.shares[4], []string{"--shares", "public", "--accept-key-id", strings.Repeat("0", 32)}, exitError, []string{"--accept-key-id"}},
		{"the second, in capitals and with blanks", " " + strings.ToUpper(key.shares[4][:50]) + "\n\t" + strings.ToUpper(key.shares[4][50:]) + "\n", nil, exitSealed, []string{": 2 of 3 shares (2, 5); expires in 15m\n"}},
	} {
		code, stdout, stderr := run(t, step.share, append([]string{"unseal"}, step.args...)...)
		everything += stdout + stderr
		if code != step.code {
			t.Errorf("%s: exit code %d, want %d:\n%s%s", step.name, code, step.code, stdout, stderr)
		}
		for _, want := range step.want {
			if !strings.Contains(stdout+stderr, want) {
				t.Errorf("%s: not told %q:\n%s%s", step.name, want, stdout, stderr)
			}
		}
		if strings.Contains(step.name, "the first") && step.code != exitError && strings.Count(stdout, "1 of 3") != 2 {
			t.Errorf("%s: not to both replicas:\n%s", step.name, stdout)
		}
	}
	for _, s := range []*realSafe{a, b} {
		if p := s.seal.Status().Progress; p.Given != 2 || p.Needed != 3 {
			t.Errorf("the wrong ones count: %+v", p)
		}
	}
	code, stdout, stderr := run(t, "", "status")
	if code != exitSealed || strings.Count(stdout, "2/3") != 2 || !strings.Contains(stdout, "set "+key.set.ID().String()+": 2 of 3 shares (2, 5)") {
		t.Errorf("status: exit code %d:\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr = run(t, key.shares[0], "unseal")
	if code != exitOK || strings.Count(stdout, ": unsealed with key "+string(key.KeyID())) != 2 || a.sealed() || b.sealed() {
		t.Errorf("the third: exit code %d:\n%s%s", code, stdout, stderr)
	}
	if code, out, errOut := run(t, key.shares[3], "unseal"); code != exitOK || strings.Count(out, "unsealed already") != 2 {
		t.Errorf("one more: exit code %d:\n%s%s", code, out, errOut)
	}
	hidesShares(t, "the plugin", everything+stdout+stderr, key.shares...)
	hidesShares(t, "Safe", a.log.String()+a.audit.String(), key.shares...)
}

// forgedShare is one that is written without a mistake, bears the right set, and was never made.
func forgedShare(t *testing.T, key sharedKey) string {
	t.Helper()
	prefix, symbols, err := bech32.DecodeNoLimit(key.shares[0])
	check(t, err)
	symbols[40] ^= 1
	text, err := bech32.EncodeM(prefix, symbols)
	check(t, err)
	return text
}

func TestAReplicaThatStartsInTheMiddleGetsWhatItLacks(t *testing.T) {
	t.Chdir(t.TempDir())
	key := shareKey(t, 3, 2)
	check(t, os.WriteFile(unseal.ShareSetFile, key.set.Text(), 0o644))
	a := newRealSafe(t, nil, "a", key.RootKey)
	give := func(share int, code int, safe ...string) string {
		t.Helper()
		t.Setenv(safeVariable, strings.Join(safe, ","))
		got, stdout, stderr := run(t, key.shares[share-1], "unseal")
		if got != code {
			t.Fatalf("share %d: exit code %d:\n%s%s", share, got, stdout, stderr)
		}
		return stdout + stderr
	}
	give(1, exitSealed, a.socket)
	b := newRealSafe(t, nil, "b", key.RootKey)
	// It goes to those who lack it; that the other has it is no error.
	if said := give(1, exitSealed, a.socket, b.socket); !strings.Contains(said, a.socket+": it has share 1 already: 1 of 2 shares (1)") || !strings.Contains(said, b.socket+": 1 of 2 shares (1)") {
		t.Errorf("it says\n%s", said)
	}
	c := newRealSafe(t, nil, "c", key.RootKey)
	if said := give(3, exitSealed, a.socket, b.socket, c.socket); a.sealed() || b.sealed() || !c.sealed() || !strings.Contains(said, c.socket+": 1 of 2 shares (3)") {
		t.Errorf("it says\n%s", said)
	}
	// One that is not there is named, and the share counts where it arrived.
	if said := give(2, exitError, "unix:///none", c.socket, a.socket); c.sealed() || !strings.Contains(said, "error: reaching Safe at unix:///none") || !strings.Contains(said, c.socket+": unsealed with key") || !strings.Contains(said, a.socket+": unsealed already") {
		t.Errorf("it says\n%s", said)
	}
}

func TestSharesLapseAndAreReset(t *testing.T) {
	t.Chdir(t.TempDir())
	key := shareKey(t, 4, 3)
	other := shareOut(t, key.RootKey, 3, 3)
	check(t, os.WriteFile("public", key.set.Text(), 0o644))
	check(t, os.WriteFile("other", other.set.Text(), 0o644))
	s := newRealSafe(t, nil, "a", key.RootKey)
	t.Setenv(safeVariable, s.socket)
	vsecm := func(code int, stdin string, args ...string) string {
		t.Helper()
		got, stdout, stderr := run(t, stdin, append([]string{"unseal"}, args...)...)
		if got != code {
			t.Fatalf("%q: exit code %d:\n%s%s", args, got, stdout, stderr)
		}
		return stdout + stderr
	}
	vsecm(exitSealed, key.shares[0], "--shares", "public")
	s.now.ahead.Store(int64(rootkey.ShareLifetime + time.Minute))
	said := vsecm(exitSealed, key.shares[1], "--shares", "public")
	if !strings.Contains(said, ": 1 of 3 shares (2); lapsed, to be given again: 1; expires in ") {
		t.Errorf("after a quarter of an hour: %s", said)
	}

	// Two groups at once, who do not disturb each other.
	vsecm(exitSealed, other.shares[0], "--shares", "other")
	if said = vsecm(exitSealed, other.shares[1]); !strings.Contains(said, ": 2 of 3 shares (1, 2); expires in ") {
		t.Errorf("the other set: %s", said)
	}
	if _, stdout, _ := run(t, "", "status"); !strings.Contains(stdout, "set "+key.set.ID().String()+": 1 of 3") || !strings.Contains(stdout, "set "+other.set.ID().String()+": 2 of 3") {
		t.Errorf("status:\n%s", stdout)
	}
	if said = vsecm(exitOK, "", "--reset", "--shares", "other"); !strings.Contains(said, ": dropped 2 of 3 shares (1, 2)\n") {
		t.Errorf("reset of one: %s", said)
	}
	if said = vsecm(exitSealed, key.shares[0]); !strings.Contains(said, ": 2 of 3 shares (1, 2)") {
		t.Errorf("the set that stays: %s", said)
	}
	if said = vsecm(exitOK, "", "--reset"); !strings.Contains(said, ": dropped 2 of 3 shares (1, 2)\n") {
		t.Errorf("reset: %s", said)
	}
	if said = vsecm(exitOK, "", "--reset"); !strings.Contains(said, ": no share to drop\n") {
		t.Errorf("reset again: %s", said)
	}
	vsecm(exitError, "", "--reset", "--file", "x")
	// A holder who gives the whole key instead.
	vsecm(exitSealed, key.shares[0], "--shares", "public")
	if said = vsecm(exitOK, string(key.Text())); s.sealed() || !strings.Contains(said, "unsealed with key") {
		t.Errorf("the whole key: %s", said)
	}
}

// Where its place has lost the root key, giving it again puts it back.
func TestARootKeyThatIsGivenGoesToUnsealedReplicasToo(t *testing.T) {
	key := newKey(t)
	s := startSafe(t, nil, "a", key, safeKind{record: true})
	t.Setenv(safeVariable, s.socket)
	text := string(key.Text())
	if code, stdout, stderr := run(t, text, "unseal"); code != exitOK {
		t.Fatal(stdout, stderr)
	}
	t.Chdir(t.TempDir())
	check(t, os.WriteFile("key", key.Text(), 0o600))
	for _, args := range [][]string{{"unseal"}, {"unseal", "--file", "-"}, {"unseal", "--file", "key"}} {
		check(t, os.Remove(s.keyFile))
		code, stdout, stderr := run(t, text, args...)
		if code != exitOK || !strings.Contains(stdout, "unsealed already") {
			t.Errorf("%q: exit code %d: %s%s", args, code, stdout, stderr)
		}
		if kept, err := os.ReadFile(s.keyFile); err != nil || !bytes.Equal(kept, key.Text()) {
			t.Errorf("%q: it was not put back: %v", args, err)
		}
	}
	before := s.seal.attempts.Load()
	if code, _, stderr := run(t, string(newKey(t).Text()), "unseal"); code != exitError || !strings.Contains(stderr, "was not sent") {
		t.Errorf("another's: exit code %d: %s", code, stderr)
	}
	if code, stdout, stderr := run(t, "", "unseal"); code != exitOK || !strings.Contains(stdout, "unsealed already") {
		t.Errorf("nothing: exit code %d: %s%s", code, stdout, stderr)
	}
	// At a terminal nobody is asked for what is of no use.
	if code, screen := at(t, "unseal").leaves(); code != exitOK || !strings.Contains(screen, "unsealed already") || strings.Contains(screen, keyPrompt) {
		t.Errorf("at a terminal: exit code %d: %s", code, screen)
	}
	if after := s.seal.attempts.Load(); after != before {
		t.Errorf("%d attempts more", after-before)
	}
}

// A share passes through the API server only within the plugin's TLS, and stays nowhere.
func TestPromise01_AShareIsLeftNowhere(t *testing.T) {
	cp := shared.Start(t)
	key := shareKey(t, 2, 2)
	a := newRealSafe(t, cp, "safe-a", key.RootKey)
	w := install(t, key.RootKey, a)
	w.cp.PluginDir = pluginDir(t)
	home := t.TempDir()
	t.Setenv("TMPDIR", home)
	operator := w.person("sven", "vsecm-operators")
	public := filepath.Join(t.TempDir(), "public")
	check(t, os.WriteFile(public, key.set.Text(), 0o644))
	everything := ""
	for i, share := range key.shares {
		stdout, stderr, err := w.cp.Kubectl(t, operator, share, "vsecm", "unseal", "--safe", a.address, "--shares", public)
		if i == 1 && err != nil {
			t.Fatalf("%v: %s%s", err, stdout, stderr)
		}
		everything += stdout + stderr
	}
	if a.sealed() {
		t.Fatalf("sealed still: %s", everything)
	}
	check(t, filepath.WalkDir(home, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			data, e := os.ReadFile(path)
			everything += string(data)
			err = e
		}
		return err
	}))
	hidesShares(t, "the terminal, a temporary file or a log", everything+w.auditLog()+a.audit.String()+a.log.String(), key.shares...)
	if !strings.Contains(a.audit.String(), "share 2 of set "+key.set.ID().String()) {
		t.Errorf("the audit log does not say which share it was: %s", a.audit)
	}
}

// A holder may keep their key on a token.
func TestAShareGoesToAHolderWithAnAgePlugin(t *testing.T) {
	inFolder(t, nil)
	identity, err := age.GenerateX25519Identity()
	check(t, err)
	t.Setenv("TEST_IDENTITY", identity.String())
	t.Setenv("TEST_RECIPIENT", identity.Recipient().String())
	check(t, os.WriteFile("plugin.txt", []byte(plugin.EncodeIdentity(testPlugin, []byte{1})+"\n"), 0o600))
	key := newKey(t)
	check(t, os.WriteFile("root.txt", key.Text(), 0o600))
	args := []string{"keygen", "--shares", "2", "--threshold", "2", "--out-dir", ".", "--root-key", "root.txt",
		"--share-to", "alice=" + plugin.EncodeRecipient(testPlugin, []byte{1}), "--share-to"}
	if code, _, stderr := run(t, "", append(args, "bob="+plugin.EncodeRecipient("nosuchplugin", []byte{1}))...); code != exitError || !strings.Contains(stderr, "encrypting the share of bob: ") {
		t.Errorf("a plugin that there is not: exit code %d: %s", code, stderr)
	}
	if _, err := os.Stat("alice.share.age"); err == nil {
		t.Error("it left a share behind")
	}
	if code, _, stderr := run(t, "", append(args, "bob="+newKey(t).Recipient().String())...); code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	s := newRealSafe(t, nil, "a", key)
	code, stdout, stderr := run(t, "", "unseal", "--safe", s.socket, "--file", "alice.share.age", "-i", "plugin.txt")
	if code != exitSealed || !strings.Contains(stdout, ": 1 of 2 shares (1)") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

// What a holder is sent as their share may be somebody's own key.
func TestAWholeKeyThatIsNotTheSharesIsNotSent(t *testing.T) {
	key, foreign := shareKey(t, 3, 2), newKey(t)
	for name, tt := range map[string]struct {
		key  *unseal.RootKey
		args []string
		file string // of the set
		want string // "" unseals
	}{
		"with --shares":                 {foreign, []string{"--shares", "public"}, "public", "nothing was sent: this is no share but a whole root key, " + string(foreign.KeyID()) + ", and public is of root key " + string(key.KeyID())},
		"in the file's folder":          {foreign, nil, unseal.ShareSetFile, "hint: ask whoever made it where it comes from; if that key is really meant, say --accept-key-id " + string(foreign.KeyID())},
		"the shares' own key":           {key.RootKey, []string{"--shares", "public"}, "public", ""},
		"one that is really meant":      {foreign, []string{"--accept-key-id", string(foreign.KeyID())}, unseal.ShareSetFile, ""},
		"another than the one accepted": {foreign, []string{"--accept-key-id", string(key.KeyID())}, unseal.ShareSetFile, "--accept-key-id: the key given is " + string(foreign.KeyID())},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			s := startSafe(t, nil, "a", tt.key, safeKind{memory: true, record: tt.key == key.RootKey})
			check(t, os.WriteFile(tt.file, key.set.Text(), 0o644))
			code, stdout, stderr := run(t, string(tt.key.Text()), append([]string{"unseal", "--safe", s.socket}, tt.args...)...)
			if tt.want == "" {
				if code != exitOK || s.sealed() {
					t.Errorf("exit code %d: %s%s", code, stdout, stderr)
				}
				return
			}
			if code != exitError || !strings.Contains(stderr, tt.want) || !s.sealed() || s.seal.attempts.Load() != 0 {
				t.Errorf("exit code %d, %d attempts: %s%s", code, s.seal.attempts.Load(), stdout, stderr)
			}
		})
	}
}

// On a Safe that has no record yet, --accept-key-id decides which key becomes its own.
func TestSharesOfAnotherKeyThanTheAcceptedOneUnsealNoNewSafe(t *testing.T) {
	t.Chdir(t.TempDir())
	key, other := shareKey(t, 3, 2), newKey(t)
	s := startSafe(t, nil, "a", key.RootKey, safeKind{memory: true})
	t.Setenv(safeVariable, s.socket)
	check(t, os.WriteFile("public", key.set.Text(), 0o644))
	give := func(share int, code int, want string, args ...string) {
		t.Helper()
		got, stdout, stderr := run(t, key.shares[share-1], append([]string{"unseal"}, args...)...)
		if got != code || !strings.Contains(stdout+stderr, want) {
			t.Errorf("share %d: exit code %d, want %d and %q:\n%s%s", share, got, code, want, stdout, stderr)
		}
	}
	// With the public file it is noticed here, and without it by Safe.
	give(1, exitError, "--accept-key-id: the key given is "+string(key.KeyID()), "--shares", "public", "--accept-key-id", string(other.KeyID()))
	if p := s.seal.Status().Progress; p.Given != 0 {
		t.Errorf("the share was sent: %+v", p)
	}
	give(1, exitSealed, "1 of 2 shares (1)", "--shares", "public", "--accept-key-id", string(key.KeyID()))
	give(2, exitError, "key "+string(other.KeyID())+" was accepted, but this is key "+string(key.KeyID()), "--accept-key-id", string(other.KeyID()))
	if !s.sealed() {
		t.Fatal("another key than the accepted one is Safe's")
	}
	give(2, exitOK, "unsealed with key "+string(key.KeyID()), "--accept-key-id", string(key.KeyID()))
}
