//go:build linux

package cli

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"filippo.io/age/plugin"

	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

const keyPrompt = "(hidden; paste it, then Enter): "

// The root key as a person pastes it: terminals send a carriage return for each line's end.
func TestPromise01_TheHiddenPromptTakesARootKeyOfThreeLines(t *testing.T) {
	key := newKey(t)
	pasted := strings.ReplaceAll(string(key.Text()), "\n", "\r")
	lines := strings.Split(strings.TrimSpace(string(key.Text())), "\n")
	for name, tt := range map[string]struct {
		typed  string
		code   int
		screen string
	}{
		"three lines":                       {pasted, exitOK, "unsealed with key"},
		"three lines, and Enter by hand":    {strings.TrimSuffix(pasted, "\r") + "\r", exitOK, "unsealed with key"},
		"with line feeds":                   {string(key.Text()), exitOK, "unsealed with key"},
		"with both":                         {strings.ReplaceAll(string(key.Text()), "\n", "\r\n"), exitOK, "unsealed with key"},
		"one line, as VSecM shows it":       {strings.Join(lines, `\n`) + "\r", exitOK, "unsealed with key"},
		"VSecM's line before it":            {"VSecM Keygen, App version: 0.28\r\r" + pasted, exitOK, "unsealed with key"},
		"empty lines before it":             {"\r\r" + pasted, exitOK, "Ctrl-C leaves: "},
		"a slip that is taken back":         {"x\x7fy\x15" + pasted, exitOK, "unsealed with key"},
		"more lines than three":             {pasted + pasted, exitOK, "unsealed with key"},
		"with both, both as CR":             {strings.ReplaceAll(string(key.Text()), "\n", "\r\r"), exitOK, "unsealed with key"},
		"with both, both as LF":             {strings.ReplaceAll(string(key.Text()), "\n", "\n\n"), exitOK, "unsealed with key"},
		"half a key":                        {lines[0] + "\r\r\r", exitError, "error: what was typed: malformed root key: 1 lines"},
		"an end of input in the middle":     {lines[0] + "\r\x04", exitError, "malformed root key"},
		"nothing":                           {"\x04", exitError, "malformed root key: it is empty"},
		"another key":                       {strings.ReplaceAll(string(newKey(t).Text()), "\n", "\r"), exitError, "was not sent"},
		"Ctrl-C":                            {lines[0] + "\r\x03", exitInterrupted, keyPrompt},
		"more than a root key can be":       {strings.Repeat("x", unseal.MaxTextSize+1), exitError, "more than 65536 bytes"},
		"more than a terminal takes a line": {strings.Repeat(" ", 5000) + pasted, exitOK, "unsealed with key"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newRealSafe(t, nil, "a", key)
			p := at(t, "unseal", "--safe", s.socket)
			p.typesHidden(keyPrompt, 1, tt.typed)
			code, screen := p.leaves()
			if code != tt.code || !strings.Contains(screen, tt.screen) || s.sealed() == (tt.code == exitOK) {
				t.Errorf("exit code %d, want %d; the screen shows:\n%s", code, tt.code, screen)
			}
			if !strings.Contains(screen, "root key "+string(key.KeyID())) {
				t.Errorf("it does not say which key:\n%s", screen)
			}
			for _, secret := range []string{lines[0][20:40], lines[2][:20]} {
				if strings.Contains(screen, secret) {
					t.Errorf("the screen shows the key:\n%s", screen)
				}
			}
		})
	}
}

func TestARootKeyIsKeptAsAnAgeFile(t *testing.T) {
	inFolder(t, nil)
	key := newKey(t)
	identity, err := age.GenerateX25519Identity()
	check(t, err)
	t.Setenv("TEST_IDENTITY", identity.String())
	passphrase, err := age.NewScryptRecipient(marker)
	check(t, err)
	passphrase.SetWorkFactor(10)
	write := func(name string, armored bool, plain []byte, to age.Recipient) {
		var out bytes.Buffer
		var sink = struct{ *bytes.Buffer }{&out}
		if !armored {
			w, err := age.Encrypt(sink, to)
			check(t, err)
			_, err = w.Write(plain)
			check(t, err)
			check(t, w.Close())
		} else {
			a := armor.NewWriter(sink)
			w, err := age.Encrypt(a, to)
			check(t, err)
			_, err = w.Write(plain)
			check(t, err)
			check(t, w.Close())
			check(t, a.Close())
		}
		check(t, os.WriteFile(name, out.Bytes(), 0o600))
	}
	write("root.age", false, key.Text(), identity.Recipient())
	write("root.asc", true, key.Text(), identity.Recipient())
	write("locked.age", false, key.Text(), passphrase)
	write("noise.age", false, []byte("no key"), identity.Recipient())
	write("large.age", false, make([]byte, unseal.MaxTextSize+1), identity.Recipient())
	damaged, err := os.ReadFile("root.age")
	check(t, err)
	damaged[len(damaged)-1] ^= 1
	check(t, os.WriteFile("damaged.age", damaged, 0o600))
	check(t, os.WriteFile("identity.txt", []byte("# a comment\n\n"+identity.String()+"\n"), 0o600))
	check(t, os.WriteFile("plugin.txt", []byte(plugin.EncodeIdentity(testPlugin, []byte{1})+"\n"), 0o600))
	check(t, os.WriteFile("ssh.txt", []byte("-----BEGIN OPENSSH PRIVATE KEY-----\n"+marker+"\n"), 0o600))
	locked, err := os.ReadFile("identity.txt")
	check(t, err)
	write("identity.age", false, locked, passphrase)
	for _, tt := range []struct {
		name string
		args []string
		want string // "" succeeds
	}{
		{"with an identity", []string{"--file", "root.age", "-i", "identity.txt"}, ""},
		{"armored", []string{"--file", "root.asc", "-i", "identity.txt"}, ""},
		{"with a plugin", []string{"--file", "root.age", "-i", "plugin.txt"}, ""},
		{"with one of two identities", []string{"--file", "root.age", "-i", "key.txt2", "-i", "identity.txt"}, "key.txt2"},
		{"without an identity", []string{"--file", "root.age"}, "hint: name the file of the identity that it is encrypted to with -i"},
		{"what is no identity", []string{"--file", "root.age", "-i", "ssh.txt"}, "ssh.txt:1: not an age identity"},
		{"an identity for a plain key", []string{"--file", "key.txt", "-i", "identity.txt"}, "-i is for an age file"},
		{"no key inside", []string{"--file", "noise.age", "-i", "identity.txt"}, "malformed root key"},
		{"damaged", []string{"--file", "damaged.age", "-i", "identity.txt"}, "reading damaged.age: failed to decrypt"},
		{"too large", []string{"--file", "large.age", "-i", "identity.txt"}, "larger than"},
		{"no file", []string{"--file", "none"}, "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newRealSafe(t, nil, "a", key)
			code, stdout, stderr := run(t, "", append([]string{"unseal", "--safe", s.socket}, tt.args...)...)
			if tt.want == "" {
				if code != exitOK || s.sealed() {
					t.Errorf("exit code %d: %s%s", code, stdout, stderr)
				}
				return
			}
			if code != exitError || !s.sealed() || !strings.Contains(stderr, tt.want) || strings.Contains(stderr, marker) {
				t.Errorf("exit code %d: %s%s", code, stdout, stderr)
			}
		})
	}
	for _, tt := range []struct {
		name, prompt, typed string
		args                []string
		code                int
		want                string
	}{
		{"with a passphrase", "passphrase of locked.age (hidden): ", marker, []string{"--file", "locked.age"}, exitOK, "unsealed with key"},
		{"with a wrong passphrase", "passphrase of locked.age (hidden): ", "x" + marker, []string{"--file", "locked.age"}, exitError, "the passphrase is wrong"},
		{"with an identity that has a passphrase", "passphrase of identity.age (hidden): ", marker, []string{"--file", "root.age", "-i", "identity.age"}, exitOK, "unsealed with key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newRealSafe(t, nil, "a", key)
			p := at(t, append([]string{"unseal", "--safe", s.socket}, tt.args...)...)
			p.typesHidden(tt.prompt, 1, tt.typed+"\r")
			code, screen := p.leaves()
			if code != tt.code || s.sealed() == (code == exitOK) || !strings.Contains(screen, tt.want) || strings.Contains(screen, marker) {
				t.Errorf("exit code %d; the screen shows:\n%s", code, screen)
			}
		})
	}
	// From a pipe there is still the terminal to ask on, and without one an error.
	cmd := exec.Command("setsid", "-w", "kubectl-vsecm", "unseal", "--safe", newRealSafe(t, nil, "a", key).socket)
	lockedFile, err := os.Open("locked.age")
	check(t, err)
	defer lockedFile.Close()
	cmd.Stdin = lockedFile
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no terminal to ask for a passphrase on") {
		t.Errorf("%v: %s", err, out)
	}
}

// A file that has scrypt work without end is not worked on.
func TestTheWorkOfAPassphraseIsBounded(t *testing.T) {
	t.Chdir(t.TempDir())
	s := newRealSafe(t, nil, "a", newKey(t))
	blank := strings.Repeat("A", 43)
	header := ageIntro + "v1\n-> scrypt " + blank[:22] + " 21\n" + blank + "\n--- " + blank + "\n"
	check(t, os.WriteFile("slow.age", append([]byte(header), make([]byte, 64)...), 0o600))
	p := at(t, "unseal", "--safe", s.socket, "--file", "slow.age")
	p.typesHidden("passphrase of slow.age (hidden): ", 1, marker+"\r")
	if code, screen := p.leaves(); code != exitError || !strings.Contains(screen, "work factor too large") {
		t.Errorf("exit code %d; the screen shows:\n%s", code, screen)
	}
}

// Wherever a root key comes from standard input, a terminal does not show it.
func TestPromise01_ARootKeyThatIsTypedIsNotShown(t *testing.T) {
	inFolder(t, nil)
	kept, err := os.ReadFile("key.txt")
	check(t, err)
	key, err := unseal.Parse(kept)
	check(t, err)
	code, _, stderr := run(t, marker, "encrypt", "demo", "-n", "shop", "--from-file", "key=-", "-w", "secret.yaml")
	if code != exitOK {
		t.Fatal(stderr)
	}
	lines := strings.Split(strings.TrimSpace(string(key.Text())), "\n")
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"recipient": {[]string{"recipient", "--root-key", "-"}, key.Recipient().String()},
		"keygen":    {append(dealtTo(t, "shares"), "--root-key", "-"), string(key.KeyID())},
		"reveal":    {[]string{"reveal", "-f", "secret.yaml", "--root-key", "-"}, marker},
	} {
		t.Run(name, func(t *testing.T) {
			p := at(t, tt.args...)
			p.typesHidden("root key "+keyPrompt, 1, strings.ReplaceAll(string(key.Text()), "\n", "\r"))
			code, screen := p.leaves()
			if code != exitOK || !strings.Contains(screen, tt.want) {
				t.Errorf("exit code %d; the screen shows:\n%s", code, screen)
			}
			for _, secret := range []string{lines[0][20:40], lines[2][:20]} {
				if strings.Contains(screen, secret) {
					t.Errorf("the screen shows the key:\n%s", screen)
				}
			}
		})
	}
	p := at(t, "recipient", "--root-key", "-")
	p.typesHidden(keyPrompt, 1, lines[0]+"\r\x03")
	if code, screen := p.leaves(); code != exitInterrupted || strings.Contains(screen, lines[0][20:40]) {
		t.Errorf("exit code %d; the screen shows:\n%s", code, screen)
	}
}

func TestKeyLinesAreCountedAsTheyAreParsed(t *testing.T) {
	for text, want := range map[string]int{
		"": 0, "\n \r\n": 0, "a": 1, "a\nb": 2, `a\nb\nc`: 3, "a\\nb\nc\n": 3, "x App version: y\n\na\n": 1, `\n\na`: 1,
	} {
		if got := countKeyLines([]byte(text)); got != want {
			t.Errorf("%q: %d lines, want %d", text, got, want)
		}
	}
}
