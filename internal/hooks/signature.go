package hooks

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"net/http"
	"strings"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

const (
	// maxSignatures bounds the signatures that one header lists, as while a secret is changed.
	maxSignatures = 4
	// whsec begins the secret of a signing token, as Standard Webhooks has it.
	whsec = "whsec_"
)

// A proof is what a request shows, and what it is compared with. What was signed is written
// to it.
type proof struct {
	mac hash.Hash
	// given are the signatures that were shown.
	given [][]byte
	// token, where one was shown, is compared itself: nothing is signed with it.
	token, secret []byte
}

// proofOf reads a request's signature. Whatever is missing or malformed makes a proof that
// proves nothing, and takes as long.
func proofOf(t Target, h http.Header) *proof {
	p := &proof{mac: hmac.New(sha256.New, t.Secret), secret: t.Secret}
	switch t.Type {
	case v1alpha1.WebhookGitHub:
		p.give(hexSignature(h, "X-Hub-Signature-256", "sha256="))
	case v1alpha1.WebhookBitbucket: // Cloud, and Data Center
		p.give(hexSignature(h, "X-Hub-Signature", "sha256="))
	case v1alpha1.WebhookGitea:
		// Forgejo sends all of them. The first one counts; another does not make up for it.
		for _, form := range []struct{ header, prefix string }{
			{"X-Forgejo-Signature", ""}, {"X-Gitea-Signature", ""}, {"X-Hub-Signature-256", "sha256="},
		} {
			if h.Get(form.header) != "" {
				p.give(hexSignature(h, form.header, form.prefix))
				break
			}
		}
	case v1alpha1.WebhookGitLab:
		// GitLab has a secret token, which it just shows, and, since version 19, a signing token.
		if h.Get("Webhook-Signature") != "" {
			p.signedStandard(t, h)
			break
		}
		if v := h.Values("X-Gitlab-Token"); len(v) == 1 {
			p.token = []byte(v[0])
		}
	case v1alpha1.WebhookGeneric:
		p.give(hexSignature(h, "X-Signature", "sha256="))
	}
	return p
}

func (p *proof) give(signature []byte) {
	if signature != nil {
		p.given = append(p.given, signature)
	}
}

// signedStandard reads the headers of Standard Webhooks: the signature is over
// ID.TIMESTAMP.BODY, with the key that the secret holds in base64. How old the
// timestamp is does not matter: a replayed hint is as harmless as the first.
func (p *proof) signedStandard(t Target, h http.Header) {
	encoded, ok := bytes.CutPrefix(t.Secret, []byte(whsec))
	key, err := base64.StdEncoding.DecodeString(string(encoded))
	id, at, signatures := h.Values("Webhook-Id"), h.Values("Webhook-Timestamp"), h.Values("Webhook-Signature")
	if !ok || err != nil || len(key) == 0 || len(id) != 1 || len(at) != 1 || len(signatures) != 1 {
		return
	}
	p.mac = hmac.New(sha256.New, key)
	p.Write([]byte(id[0] + "." + at[0] + "."))
	for i, s := range strings.Split(signatures[0], " ") {
		encoded, ok := strings.CutPrefix(s, "v1,")
		if i == maxSignatures || !ok {
			continue
		}
		if sum, err := base64.StdEncoding.Strict().DecodeString(encoded); err == nil && len(sum) == sha256.Size {
			p.give(sum)
		}
	}
}

// hexSignature returns the signature that a header holds; nil where it holds none, or there
// are several headers.
func hexSignature(h http.Header, name, prefix string) []byte {
	values := h.Values(name)
	if len(values) != 1 {
		return nil
	}
	digits, ok := strings.CutPrefix(values[0], prefix)
	if !ok || len(digits) != hex.EncodedLen(sha256.Size) {
		return nil
	}
	sum, err := hex.DecodeString(digits)
	if err != nil {
		return nil
	}
	return sum
}

// Write takes what was signed. It does not fail.
func (p *proof) Write(b []byte) (int, error) { return p.mac.Write(b) }

// shown tells whether there was anything to compare.
func (p *proof) shown() bool { return len(p.given) > 0 || p.token != nil }

// holds tells whether the request comes from who knows the secret, in a time that does not
// tell how much of a wrong proof is right.
func (p *proof) holds() bool {
	// Of equal length, whatever they were.
	token, secret := sha256.Sum256(p.token), sha256.Sum256(p.secret)
	same := subtle.ConstantTimeCompare(token[:], secret[:])
	if p.token == nil {
		same = 0
	}
	sum := p.mac.Sum(nil)
	for _, given := range p.given {
		same |= subtle.ConstantTimeCompare(given, sum)
	}
	return same == 1
}
