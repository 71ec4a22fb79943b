package template

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"unicode/utf8"

	"github.com/gowebpki/jcs"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// invalidHash is no SHA-256: no value was ever sealed for it.
const invalidHash = "invalid"

// Hash returns what binds a template: the SHA-256, in lower-case hex, of its canonical JSON (RFC 8785). It is "invalid" where
// the template has none, which no valid one lacks.
func Hash(t *v1alpha1.Template) string {
	for key, v := range t.Data {
		// Encoding would put the same character in the place of any other bytes.
		if !utf8.ValidString(key) || v.Text != nil && !utf8.ValidString(*v.Text) || !utf8.Valid(v.JSON) || !utf8.Valid(v.YAML) {
			return invalidHash
		}
	}
	text, err := json.Marshal(t)
	if err != nil {
		return invalidHash
	}
	canonical, err := jcs.Transform(text)
	if err != nil {
		return invalidHash
	}
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:])
}
