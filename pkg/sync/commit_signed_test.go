package sync

import (
	"bytes"
	"crypto"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

const (
	testTree      = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n"
	testParent    = "parent 0123456789012345678901234567890123456789\n"
	testAuthor    = "author A <a@example.com> 1700000000 +0000\n"
	testCommitter = "committer C <c@example.com> 1700000001 +0100\n"
	testSignature = "gpgsig -----BEGIN SSH SIGNATURE-----\n U1NI\n \n -----END SSH SIGNATURE-----\n"
)

func TestSplitCommit(t *testing.T) {
	plain := testTree + testParent + testAuthor + testCommitter
	merge := "mergetag object 0123456789012345678901234567890123456789\n type commit\n \n gpgsig in a tag's message\n"
	for name, test := range map[string]struct {
		raw, payload, signature, says string
	}{
		"unsigned":            {raw: plain + "\nm\n", payload: plain + "\nm\n"},
		"signed":              {raw: plain + testSignature + "\nm\n", payload: plain + "\nm\n", signature: testSignature},
		"headers after":       {raw: plain + testSignature + "encoding x\n\nm\n", payload: plain + "encoding x\n\nm\n", signature: testSignature},
		"headers before":      {raw: plain + merge + testSignature + "\nm\n", payload: plain + merge + "\nm\n", signature: testSignature},
		"no message":          {raw: plain + testSignature + "\n", payload: plain + "\n", signature: testSignature},
		"message as a header": {raw: plain + "\n" + testSignature, payload: plain + "\n" + testSignature},
		"the other kind's":    {raw: plain + strings.Replace(testSignature, "gpgsig", "gpgsig-sha256", 1) + "\nm\n", payload: plain + "\nm\n"},
		"two":                 {raw: plain + testSignature + testSignature + "\nm\n", says: "more than one"},
		"one that is empty":   {raw: plain + "gpgsig \n" + testSignature + "\nm\n", says: "more than one"},
		"before the tree":     {raw: testSignature + plain + "\nm\n", says: "not in order"},
		"before the parents":  {raw: testTree + testSignature + testParent + testAuthor + testCommitter + "\nm\n", says: "not in order"},
		"parent afterwards":   {raw: plain + testParent + "\nm\n", says: "not in order"},
		"two committers":      {raw: plain + testCommitter + "\nm\n", says: "not in order"},
		"no committer":        {raw: testTree + testAuthor + "\nm\n", says: "not in order"},
		"begins with a space": {raw: " x\n" + plain + "\nm\n", says: "without a tree"},
		"NUL":                 {raw: plain + "x a\x00b\n\nm\n", says: "NUL"},
		"no end":              {raw: plain, says: "without an end"},
		"no time":             {raw: testTree + testAuthor + "committer C <c@example.com>\n\nm\n", says: "without a time"},
		"time out of range":   {raw: testTree + testAuthor + "committer C <c@example.com> 99999999999999 +0000\n\nm\n", says: "without a time"},
		"huge signature":      {raw: plain + "gpgsig " + strings.Repeat("x\n ", maxSignature) + "\n\nm\n", says: "signature of more than"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := splitCommit([]byte(test.raw))
			if test.says != "" {
				if err == nil || !strings.Contains(err.Error(), test.says) {
					t.Errorf("split: %v, want %q", err, test.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			signature := strings.ReplaceAll(strings.TrimPrefix(test.signature, "gpgsig "), "\n ", "\n")
			if string(c.payload) != test.payload || string(c.signature) != signature || c.committed.Unix() != 1700000001 {
				t.Errorf("payload %q\nsignature %q\ntime %v", c.payload, c.signature, c.committed)
			}
		})
	}
}

func FuzzSplitCommit(f *testing.F) {
	plain := testTree + testParent + testAuthor + testCommitter
	f.Add([]byte(plain+testSignature+"\nm\n"), []byte("more"))
	f.Add([]byte(plain+"\nm\n"), []byte(testSignature))
	f.Add([]byte(plain+"encoding x\n"+testSignature+"x y\n z\n\nm\n"), []byte("\n"))
	f.Fuzz(func(t *testing.T, raw, other []byte) {
		kept := bytes.Clone(raw)
		c, err := splitCommit(raw)
		if !bytes.Equal(kept, raw) {
			t.Fatal("input was changed")
		}
		if err != nil {
			return
		}
		// What is signed says the same as the whole: no signature can take
		// a tree or a parent away.
		p, err := parseCommit(c.payload)
		if err != nil || p.tree != c.tree || fmt.Sprint(p.parents) != fmt.Sprint(c.parents) {
			t.Fatalf("payload says otherwise: %v", err)
		}
		again, err := splitCommit(c.payload)
		if err != nil || again.signature != nil || !bytes.Equal(again.payload, c.payload) || !again.committed.Equal(c.committed) {
			t.Fatalf("payload is not stable: %v", err)
		}
		if c.signature == nil && !bytes.Contains(raw, []byte("\ngpgsig-sha256")) && !bytes.Equal(c.payload, raw) {
			t.Fatal("an unsigned commit is not its own payload")
		}
	})
}

// pgpCommit is a commit that signs as do says.
func pgpCommit(t *testing.T, do func(w *bytes.Buffer, payload []byte)) []byte {
	t.Helper()
	head, body := testTree+testAuthor+testCommitter, "\nm\n"
	var binary, armored bytes.Buffer
	do(&binary, []byte(head+body))
	w, err := armor.Encode(&armored, openpgp.SignatureType, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(binary.Bytes())
	w.Close()
	return []byte(head + "gpgsig " + strings.ReplaceAll(armored.String(), "\n", "\n ") + "\n" + body)
}

func pgpTrust(t *testing.T, e *openpgp.Entity) *Trust {
	t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err == nil {
		err = e.Serialize(w)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	tr, err := ParseTrust(map[string][]byte{"keys.asc": b.Bytes()})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestPGPSignaturesThatAreRefused(t *testing.T) {
	config := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA}
	e, err := openpgp.NewEntity("Eve", "", "eve@example.com", config)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(w *bytes.Buffer, payload []byte, typ packet.SignatureType, hash crypto.Hash, key *packet.PrivateKey, life *uint32) {
		s := &packet.Signature{Version: key.Version, SigType: typ, PubKeyAlgo: key.PubKeyAlgo, Hash: hash, CreationTime: time.Now(), IssuerKeyId: &key.KeyId, SigLifetimeSecs: life}
		h := hash.New()
		h.Write(payload)
		if err := s.Sign(h, key, config); err != nil {
			t.Fatal(err)
		}
		if err := s.Serialize(w); err != nil {
			t.Fatal(err)
		}
	}
	second := uint32(1)
	tests := map[string]struct {
		raw  []byte
		now  time.Time
		says string
	}{
		"good": {raw: pgpCommit(t, func(w *bytes.Buffer, p []byte) {
			sign(w, p, packet.SigTypeBinary, crypto.SHA256, e.PrivateKey, nil)
		})},
		"SHA-1": {raw: pgpCommit(t, func(w *bytes.Buffer, p []byte) {
			sign(w, p, packet.SigTypeBinary, crypto.SHA256, e.PrivateKey, nil)
			// The library makes none. What is signed is not looked at before.
			packet := w.Bytes()
			const version, sha256, sha1 = 4, 8, 2
			at := bytes.Index(packet, []byte{version, 0, byte(e.PrivateKey.PubKeyAlgo), sha256})
			packet[at+3] = sha1
		}), says: "too weak"},
		"two": {raw: pgpCommit(t, func(w *bytes.Buffer, p []byte) {
			sign(w, p, packet.SigTypeBinary, crypto.SHA256, e.PrivateKey, nil)
			sign(w, p, packet.SigTypeBinary, crypto.SHA256, e.PrivateKey, nil)
		}), says: "more than one"},
		"over a key": {raw: pgpCommit(t, func(w *bytes.Buffer, p []byte) {
			sign(w, p, packet.SigTypeGenericCert, crypto.SHA256, e.PrivateKey, nil)
		}), says: "not one over a file"},
		"has expired": {raw: pgpCommit(t, func(w *bytes.Buffer, p []byte) {
			sign(w, p, packet.SigTypeBinary, crypto.SHA256, e.PrivateKey, &second)
		}), now: time.Now().Add(time.Minute), says: "has expired"},
		"no signature": {raw: pgpCommit(t, func(w *bytes.Buffer, p []byte) { e.PrimaryKey.Serialize(w) }), says: "cannot be read"},
		"nothing":      {raw: pgpCommit(t, func(*bytes.Buffer, []byte) {}), says: "cannot be read"},
		"with a key for encryption": {raw: pgpCommit(t, func(w *bytes.Buffer, p []byte) {
			s := *e.PrivateKey
			s.KeyId, s.Fingerprint = e.Subkeys[0].PublicKey.KeyId, e.Subkeys[0].PublicKey.Fingerprint
			sign(w, p, packet.SigTypeBinary, crypto.SHA256, &s, nil)
		}), says: "not for signing"},
	}
	tr := pgpTrust(t, e)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.now.IsZero() {
				test.now = time.Now()
			}
			signer, kind, err := tr.verify(test.raw, test.now)
			if test.says == "" && (err != nil || kind != KindPGP || !strings.HasPrefix(signer, "Eve <eve@example.com> ")) {
				t.Errorf("verify: %s, %v", signer, err)
			} else if test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("verify: %v, want %q", err, test.says)
			}
		})
	}

	t.Run("by a subkey", func(t *testing.T) {
		if err := e.AddSigningSubkey(config); err != nil {
			t.Fatal(err)
		}
		sub := &e.Subkeys[len(e.Subkeys)-1]
		raw := pgpCommit(t, func(w *bytes.Buffer, p []byte) {
			sign(w, p, packet.SigTypeBinary, crypto.SHA256, sub.PrivateKey, nil)
		})
		if signer, _, err := pgpTrust(t, e).verify(raw, time.Now()); err != nil || !strings.HasSuffix(signer, fmt.Sprintf(" %X", e.PrimaryKey.Fingerprint)) {
			t.Errorf("verify: %s, %v", signer, err)
		}
		if _, _, err := tr.verify(raw, time.Now()); err == nil || !strings.Contains(err.Error(), "not trusted") {
			t.Errorf("before it was published: %v", err)
		}
		if err := e.RevokeSubkey(sub, packet.KeySuperseded, "", config); err != nil {
			t.Fatal(err)
		}
		if _, _, err := pgpTrust(t, e).verify(raw, time.Now()); err == nil || !strings.Contains(err.Error(), "was revoked") {
			t.Errorf("revoked: %v", err)
		}
	})
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte("-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----"))
	f.Add([]byte("-----BEGIN PGP SIGNATURE-----\n\niQEz\n=AAAA\n-----END PGP SIGNATURE-----"))
	e, err := openpgp.NewEntity("Eve", "", "eve@example.com", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		f.Fatal(err)
	}
	tr := &Trust{pgp: openpgp.EntityList{e}}
	f.Fuzz(func(t *testing.T, signature []byte) {
		raw := testTree + testAuthor + testCommitter + "gpgsig " + strings.ReplaceAll(string(signature), "\n", "\n ") + "\n\nm\n"
		if signer, _, err := tr.verify([]byte(raw), time.Unix(1700000002, 0)); err == nil {
			t.Fatalf("verified: %s", signer)
		}
	})
}

func TestIdentityThatTakesForever(t *testing.T) {
	// As ssh-keygen -a 1000000 writes it.
	data := []byte("-----BEGIN OPENSSH PRIVATE KEY-----\n" +
		"b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABAAAAAAAA\n" +
		"AAAAAAAAAAAAAAAA9CQAAAAAEAAAAAAAAAAA==\n-----END OPENSSH PRIVATE KEY-----\n")
	if n := bcryptRounds(data); n != 1_000_000 {
		t.Fatalf("%d rounds", n)
	}
	if _, err := parseIdentity(data, "x"); err == nil {
		t.Error("accepted")
	}
}

func TestParseSSH(t *testing.T) {
	for s, want := range map[string]string{
		"git@example.com:org/r.git":        "git example.com:22 org/r.git",
		"example.com:/srv/r.git":           "git example.com:22 /srv/r.git",
		"bot@[2001:db8::1]:r.git":          "bot [2001:db8::1]:22 r.git",
		"ssh://example.com/r.git":          "git example.com:22 /r.git",
		"ssh://bot@Example.com:2222/r.git": "bot example.com:2222 /r.git",
		"ssh://bot@[::1]:22/r%20r.git":     "bot [::1]:22 /r r.git",
		"ssh://bot@example.com/~bot/r.git": "bot example.com:22 ~bot/r.git",
		"https://example.com/r.git":        "",
		"ext::sh -c id":                    "",
		"r.git":                            "",
		"./r:x":                            "",
	} {
		a, ok, err := parseSSH(s)
		got := ""
		if ok && err == nil {
			got = a.user + " " + a.dial() + " " + a.path
		}
		if got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", s, got, err, want)
		}
	}
}
