package sync_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func TestParseTrust(t *testing.T) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICgHa2FYUxngQiHBXXpHmeMS76JGd8qbooKN61Ldzopy"
	const small = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQCXuSdN0we65SSJa8XxW6vvVjX6ZjVBW5c6+zvbbZV8becbmNqEZ7ItiRy9Odk0wlsvueF2tscT2ZgwiGRyzC6pnk1a43MlGrVMyHhCuFPHV+g01grDMZrZm9EcTC7nT+QjHGdtQ7gyAEvZSEzh1zp9dNUT7aefGbwuzwquT89SRQ=="
	pgp := string(gitserver.NewPGPKey(t, "Carol <carol@example.com>", "0").Public)
	for name, test := range map[string]struct{ file, says string }{
		"a line":               {"ann@example.com " + key + "\n", ""},
		"comments and blanks":  {"# ours\n\n  \n*@example.com " + key + " ann's\r\n", ""},
		"quoted principals":    {`"ann smith" ` + key, ""},
		"several principals":   {"ann@example.com,bob@example.com " + key, ""},
		"options":              {`ann namespaces="git",valid-after="20240101",valid-before="203001011200Z" ` + key, ""},
		"options in capitals":  {`ann Namespaces="git" ` + key, ""},
		"PGP":                  {pgp, ""},
		"PGP twice, with text": {"Carol's:\n" + pgp + "\nand again:\n" + pgp, ""},
		"nothing":              {"", "no key"},
		"comments alone":       {"# none\n", "no key"},
		"authority":            {"\nann cert-authority " + key, "f:2: cert-authority is not supported"},
		"unknown option":       {"ann no-touch-required " + key, "f:1: option no-touch-required is not supported"},
		"empty namespaces":     {`ann namespaces="" ` + key, "not supported"},
		"option twice":         {`ann namespaces="git",namespaces="file" ` + key, "stands twice"},
		"bare value":           {`ann namespaces=git ` + key, "double quotes"},
		"bad time":             {`ann valid-after="2024-01-01" ` + key, "is no time"},
		"no such day":          {`ann valid-after="20240231" ` + key, "is no time"},
		"never valid":          {`ann valid-after="20240101",valid-before="20230101" ` + key, "not after"},
		"no principals":        {key, "f:1: want PRINCIPALS"},
		"no key":               {"ann", "f:1: want PRINCIPALS"},
		"open quote":           {`"ann ` + key, "not closed"},
		"broken key":           {"ann ssh-ed25519 AAAA", "holds no SSH public key"},
		"private key":          {"-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", "f:1: "},
		"small RSA key":        {"ann " + small, "f:1: RSA key of 1024 bits is too weak"},
		"PGP that is cut":      {pgp[:len(pgp)/2], "f:1: armored block does not end"},
		"PGP that is damaged":  {strings.Replace(pgp, "\n\nm", "\n\nn", 1), "f:1: "},
		"PGP signature":        {"\n\n-----BEGIN PGP SIGNATURE-----\n\nx\n-----END PGP SIGNATURE-----\n", "f:3: want a PGP PUBLIC KEY BLOCK"},
		"PGP private key":      {strings.ReplaceAll(pgp, "PUBLIC", "PRIVATE"), "f:1: want a PGP PUBLIC KEY BLOCK"},
		"too much":             {strings.Repeat("#", 3<<20), "more than"},
		"too many":             {strings.Repeat("ann "+key+"\n", 1001), "more than 1000 keys"},
	} {
		t.Run(name, func(t *testing.T) {
			tr, err := sync.ParseTrust(map[string][]byte{"f": []byte(test.file)})
			if test.says == "" {
				if err != nil || len(tr.Digest()) != 64 {
					t.Errorf("parse: %v", err)
				}
				return
			}
			if !errors.Is(err, sync.ErrTrust) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("parse: %v, want %q", err, test.says)
			}
		})
	}
}

func TestDigestOfTrust(t *testing.T) {
	ann, bob := gitserver.NewSSHKey(t, "ann").Public, gitserver.NewSSHKey(t, "bob").Public
	digest := func(files ...string) string {
		t.Helper()
		m := map[string][]byte{}
		for i, f := range files {
			m[string(rune('a'+i))] = []byte(f)
		}
		tr, err := sync.ParseTrust(m)
		if err != nil {
			t.Fatal(err)
		}
		return tr.Digest()
	}
	a, b := string(ann), string(bob)
	both := digest(a + b)
	for name, other := range map[string]string{"order": digest(b + a), "files": digest(b, a), "comments": digest("# x\n" + a + b), "twice": digest(a+b, a)} {
		if other != both {
			t.Errorf("%s makes another digest", name)
		}
	}
	restricted := strings.Replace(a, " ", ` namespaces="git" `, 1)
	seen := map[string]string{both: "both"}
	for name, other := range map[string]string{"one": digest(a), "the other": digest(b), "option": digest(restricted, b), "principal": digest("x"+a, b)} {
		if as, twice := seen[other]; twice {
			t.Errorf("%s has the digest of %s", name, as)
		}
		seen[other] = name
	}
}

func FuzzParseTrust(f *testing.F) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICgHa2FYUxngQiHBXXpHmeMS76JGd8qbooKN61Ldzopy"
	f.Add([]byte("ann@example.com " + key + "\n"))
	f.Add([]byte(`"a b" namespaces="git,!file",valid-after="20240101Z" ` + key))
	f.Add([]byte("ann cert-authority " + key))
	if pgp, err := os.ReadFile("testdata/carol.asc"); err == nil {
		f.Add(pgp)
	} else {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tr, err := sync.ParseTrust(map[string][]byte{"f": data})
		if (err == nil) == (tr == nil) {
			t.Fatalf("%v, %v", tr, err)
		}
		if err != nil && !errors.Is(err, sync.ErrTrust) {
			t.Errorf("error is no ErrTrust: %v", err)
		}
	})
}
