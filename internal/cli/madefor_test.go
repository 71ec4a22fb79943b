//go:build linux

package cli

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"testing"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// encryptedTo is an age file with a text inside.
func encryptedTo(t *testing.T, text string, to ...age.Recipient) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	check(t, err)
	_, err = w.Write([]byte(text))
	check(t, err)
	check(t, w.Close())
	return out.Bytes()
}

func TestWhatSafeEncryptsIsForNobodyElse(t *testing.T) {
	one, other := newArchivist(t), newArchivist(t)
	classic, err := age.GenerateX25519Identity()
	check(t, err)
	phrase, err := age.NewScryptRecipient("correct horse")
	check(t, err)
	phrase.SetWorkFactor(10)
	for name, test := range map[string]struct {
		start      []byte
		passphrase bool
		recipients int
		fits       bool
	}{
		"one":                      {encryptedTo(t, "x", one.Recipient()), false, 1, true},
		"two":                      {encryptedTo(t, "x", one.Recipient(), other.Recipient()), false, 2, true},
		"classic":                  {encryptedTo(t, "x", classic.Recipient()), false, 1, true},
		"a passphrase":             {encryptedTo(t, "x", phrase), true, 1, true},
		"somebody more":            {encryptedTo(t, "x", one.Recipient(), other.Recipient()), false, 1, false},
		"somebody less":            {encryptedTo(t, "x", one.Recipient()), false, 2, false},
		"not the passphrase":       {encryptedTo(t, "x", one.Recipient()), true, 1, false},
		"a passphrase of its own":  {encryptedTo(t, "x", phrase), false, 1, false},
		"in the clear":             {[]byte("x"), false, 1, false},
		"the beginning of nothing": {[]byte("age-encryption.org/v1\n"), false, 0, false},
	} {
		if err := madeFor(test.start, test.passphrase, test.recipients); (err == nil) != test.fits {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnArchiveForSomebodyElseTooEndsAFinish(t *testing.T) {
	t.Chdir(t.TempDir())
	old, made := newKey(t), newKey(t)
	p := newTwins(t, false, old, "a")
	p.generate = func() *unseal.RootKey { return made }
	t.Setenv(safeVariable, p.sockets())
	who, thief := newArchivist(t), newArchivist(t)
	r := rekeyer{t, p, []*unseal.RootKey{old, made}}
	r.run(exitOK, "start", "--no-backup")
	archive := encryptedTo(t, string(old.Text()), who.Recipient(), thief.Recipient())
	p.replicas[0].before = func(do string, w http.ResponseWriter) bool {
		if do != "archive" {
			return false
		}
		fmt.Fprintf(w, `{"archive":%q,"keyIDs":[%q]}`, base64.StdEncoding.EncodeToString(archive), old.KeyID())
		return true
	}
	_, stderr := r.run(exitError, "finish", "--archive", "old.age", "--archive-to", who.to())
	says(t, stderr, "archiving the old key: what Safe sent is not for whom it was to be", "nothing was destroyed")
	if _, err := os.Lstat("old.age"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is an archive: %v", err)
	}
	if p.record == nil {
		t.Error("the re-key has ended")
	}
}
