//go:build linux

package cli

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/internal/backup"
)

func mustIdentity(t *testing.T) *age.X25519Identity {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	check(t, err)
	return identity
}

// encrypted returns an age file.
func encrypted(t *testing.T, to age.Recipient, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	check(t, err)
	_, err = w.Write([]byte(text))
	check(t, err)
	check(t, w.Close())
	return out.Bytes()
}

// hostileTars are what somebody makes who has the recipient, to have it written somewhere.
func hostileTars(t *testing.T) []string {
	t.Helper()
	manifest := "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata: {name: db, namespace: shop}\nspec: {encryptedData: {a: x}}\n"
	file := func(name, text string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(text)), Mode: 0o600, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	}
	var all []string
	for _, hostile := range []tar.Header{
		file("../../evil/encryptedsecret.yaml", manifest), file("/etc/evil/encryptedsecret.yaml", manifest),
		file("shop/../encryptedsecret.yaml", manifest), file("shop/db/other.yaml", manifest), file("backup.json", manifest),
		{Name: "shop/db/encryptedsecret.yaml", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd", Mode: 0o600},
		{Name: "shop", Typeflag: tar.TypeDir, Mode: 0o700},
		{Name: "shop/db/encryptedsecret.yaml", Typeflag: tar.TypeReg, Size: 10 << 30, Mode: 0o600, Format: tar.FormatPAX},
	} {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		format := backup.Format + "\n"
		header := file("FORMAT", format)
		check(t, w.WriteHeader(&header))
		_, err := w.Write([]byte(format))
		check(t, err)
		check(t, w.WriteHeader(&hostile))
		if hostile.Size > 0 {
			_, err = w.Write([]byte(manifest))
			check(t, err)
		}
		all = append(all, out.String()+strings.Repeat("\x00", 1024))
	}
	return all
}
