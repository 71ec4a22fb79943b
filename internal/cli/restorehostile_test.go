//go:build linux

package cli

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// Whoever knows the recipient can write a backup. That it is whole says nothing of what is in it.
func TestRestoreReplacesNothingByWhatSafeWouldRefuse(t *testing.T) {
	inFolder(t, nil)
	a := newArchiver(t)
	future := time.Now().Add(24 * time.Hour).Truncate(time.Second)
	values := map[string]string{"password": "theirs"}
	a.write(t, "safe.backup", a.object(t, "shop", "db", values))
	forge(t, "safe.backup", sealedFor(t, a.key.Recipient(), future, "shop", "db", values))
	is, err := encrypt.MarshalYAML(sealedFor(t, ownKey(t).Recipient(), archivedAt, "shop", "db", map[string]string{"password": "ours"}))
	check(t, err)
	check(t, os.Mkdir("out", 0o755))
	check(t, os.WriteFile("out/db.yaml", is, 0o644))

	for _, more := range [][]string{{"--dry-run"}, nil, {"--overwrite"}} {
		s := restoreJSON(t, exitError, append([]string{"--to-dir", "out"}, more...)...)
		if said := s.Secrets[0]; said.Result != resultFailed || !strings.Contains(said.Why, "key password: in the backup: sealed in the future") {
			t.Errorf("%v: got %+v", more, said)
		}
	}
	if now, err := os.ReadFile("out/db.yaml"); err != nil || !bytes.Equal(now, is) {
		t.Errorf("the file has changed: %v", err)
	}
}

// forge has an archive hold another manifest in place of the one of its name, as whoever knows the recipient can.
func forge(t *testing.T, path string, o *v1alpha1.EncryptedSecret) {
	t.Helper()
	text, err := os.ReadFile(backupKey)
	check(t, err)
	identity, err := age.ParseX25519Identity(strings.TrimSpace(string(text)))
	check(t, err)
	file, err := os.ReadFile(path)
	check(t, err)
	plain, err := age.Decrypt(bytes.NewReader(file), identity)
	check(t, err)
	forged, err := encrypt.MarshalYAML(o)
	check(t, err)
	var out bytes.Buffer
	w, err := age.Encrypt(&out, identity.Recipient())
	check(t, err)
	var was []byte
	in, entries := tar.NewReader(plain), tar.NewWriter(w)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
		text, err := io.ReadAll(in)
		check(t, err)
		switch h.Name {
		case o.Namespace + "/" + o.Name + "/encryptedsecret.yaml":
			was, text = text, forged
		case "backup.json":
			text = bytes.ReplaceAll(text, fmt.Appendf(nil, "%x", sha256.Sum256(was)), fmt.Appendf(nil, "%x", sha256.Sum256(forged)))
		}
		h.Size = int64(len(text))
		check(t, entries.WriteHeader(h))
		_, err = entries.Write(text)
		check(t, err)
	}
	check(t, entries.Close())
	check(t, w.Close())
	check(t, os.WriteFile(path, out.Bytes(), 0o600))
}

func TestADryRunShowsWhatWouldBeRestoredAndWhoseItWouldBe(t *testing.T) {
	inFolder(t, nil)
	a := newArchiver(t)
	values := map[string]string{"password": marker}
	a.write(t, "safe.backup", a.object(t, "shop", "new", values), a.object(t, "shop", "wider", values, func(o *v1alpha1.EncryptedSecret) {
		o.Spec.Workloads = []string{"thief", "wider"}
	}))
	is, err := encrypt.MarshalYAML(sealedFor(t, ownKey(t).Recipient(), archivedAt.Add(-time.Hour), "shop", "wider", values))
	check(t, err)
	check(t, os.Mkdir("out", 0o755))
	check(t, os.WriteFile("out/wider.yaml", is, 0o644))

	const readers = "its readers or its delivery are those of the backup, and were others"
	code, stdout, stderr := run(t, "", "restore", "safe.backup", "-i", backupKey, "--to-dir", "out", "--dry-run")
	lines := strings.Split(stdout, "\n")
	if code != exitOK || stderr != "" || len(lines) != 6 ||
		strings.Join(strings.Fields(lines[3]), " ") != "shop new restored <none>" ||
		strings.Join(strings.Fields(lines[4]), " ") != "shop wider restored "+readers {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	// What changes hands is named then, too.
	code, stdout, stderr = run(t, "", "restore", "safe.backup", "-i", backupKey, "--to-dir", "out")
	if code != exitOK || stderr != "" || strings.Count(stdout, "\n") != 4 || !strings.Contains(stdout, readers) {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}
