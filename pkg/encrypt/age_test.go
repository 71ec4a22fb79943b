package encrypt

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// ageCommand returns the path of the real age command, built from the version
// in go.mod.
var ageCommand = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "tool", "-n", "age").Output()
	return strings.TrimSpace(string(out)), err
})

// ageDecrypt is base64 -d | age -d -i key.txt.
func ageDecrypt(t *testing.T, sealed, identity string) []byte {
	t.Helper()
	command, err := ageCommand()
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key.txt")
	if err := os.WriteFile(key, []byte(identity+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(command, "-d", "-i", key)
	cmd.Stdin = bytes.NewReader(raw)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("age: %v: %s", err, stderr.String())
	}
	return stdout.Bytes()
}

func TestPromise03_AgeOpensEveryValidVector(t *testing.T) {
	opened := 0
	for name, v := range readVectors(t) {
		if v.open != "ok" {
			continue
		}
		opened++
		t.Run(name, func(t *testing.T) {
			for _, identity := range v.identities {
				value := ageDecrypt(t, v.sealed, identity)
				sum := sha256.Sum256(value)
				if len(value) != v.valueSize || hex.EncodeToString(sum[:]) != v.valueSum {
					t.Errorf("age found %d bytes, of %d", len(value), v.valueSize)
				}
			}
		})
	}
	if opened < 15 {
		t.Errorf("only %d valid vectors", opened)
	}
}

func TestPromise03_AgeOpensWhatWasJustSealed(t *testing.T) {
	for name, secrets := range map[string][]string{
		"classic":         {classicSecret},
		"hybrid":          {hybridSecret},
		"several classic": {classicSecret, otherClassicSecret},
		"several hybrid":  {hybridSecret, otherHybridSecret},
	} {
		for size, value := range map[string][]byte{
			"empty": {}, "text": []byte("correct horse\n"), "binary": {0, 255, 10, 13, 0},
			"a chunk": bytes.Repeat([]byte("x"), chunkSize), "more than a chunk": bytes.Repeat([]byte("x"), chunkSize+1),
		} {
			t.Run(name+", "+size, func(t *testing.T) {
				sealed, err := Seal(value, aBinding, recipientsOf(t, secrets...), time.Now())
				if err != nil {
					t.Fatal(err)
				}
				for _, secret := range secrets {
					if got := ageDecrypt(t, sealed, secret); !bytes.Equal(got, value) {
						t.Errorf("age found %d bytes, of %d", len(got), len(value))
					}
				}
			})
		}
	}
}

// TestPromise02_SealingNeedsThePublicKeyOnly seals with nothing at hand but a
// recipient's text: an empty environment and a working directory without a file.
func TestPromise02_SealingNeedsThePublicKeyOnly(t *testing.T) {
	if os.Getenv("VSECM_TEST_SEAL") == "1" {
		to, err := ParseRecipient(os.Args[len(os.Args)-1])
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := Seal([]byte("correct horse"), aBinding, []Recipient{to}, time.Unix(1767225600, 0))
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("SEALED " + sealed + "\n")
		return
	}
	for _, secret := range []string{hybridSecret, classicSecret} {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "-test.run=^TestPromise02_SealingNeedsThePublicKeyOnly$", "-test.v", recipientsOf(t, secret)[0].String())
		cmd.Dir = t.TempDir()
		cmd.Env = []string{"VSECM_TEST_SEAL=1"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_, rest, _ := strings.Cut(string(out), "SEALED ")
		sealed, _, _ := strings.Cut(rest, "\n")
		value, err := Open(sealed, aBinding, keysOf(t, secret), time.Unix(1767225600, 0))
		if err != nil || string(value) != "correct horse" {
			t.Errorf("opened %q: %v", value, err)
		}
		if left, err := os.ReadDir(cmd.Dir); err != nil || len(left) != 0 {
			t.Errorf("sealing left %v: %v", left, err)
		}
	}
}
