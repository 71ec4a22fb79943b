// Package vsecmfiles writes what VMware Secrets Manager (VSecM) writes, byte by byte, for tests of those who read it. It shares no
// code with the reader: types and calls are those of github.com/vmware/secrets-manager, of the files that comments name.
package vsecmfiles

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"filippo.io/age"
)

// A RootKey is VSecM's (core/entity/v1/data/crypto.go, RootKeyCollection).
type RootKey struct{ PrivateKey, PublicKey, AesSeed string }

// NewRootKey makes one (core/crypto/key.go, NewRootKeyCollection).
func NewRootKey() (RootKey, error) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return RootKey{}, err
	}
	seed := make([]byte, 32)
	rand.Read(seed)
	return RootKey{identity.String(), identity.Recipient().String(), hex.EncodeToString(seed)}, nil
}

// Combine returns its text, without a line's end (RootKeyCollection.Combine).
func (k RootKey) Combine() string { return k.PrivateKey + "\n" + k.PublicKey + "\n" + k.AesSeed }

// Keygen returns what VSecM's keygen prints (app/keygen/internal/generate.go).
func (k RootKey) Keygen() string { return "\n" + k.Combine() + "\n\n" }

// SecretYAML returns what 'kubectl get secret vsecm-root-key -o yaml' prints.
func (k RootKey) SecretYAML() string {
	return "apiVersion: v1\ndata:\n  KEY_TXT: " + base64.StdEncoding.EncodeToString([]byte(k.Combine())) + `
kind: Secret
metadata:
  creationTimestamp: "2024-11-02T09:00:00Z"
  labels:
    app.kubernetes.io/operated-by: vsecm
  name: vsecm-root-key
  namespace: vsecm-system
  resourceVersion: "1234"
  uid: 5e1f0c5e-6f0c-4c0e-9d7b-3f8f3c9d2a11
type: Opaque
`
}

// Encrypt returns data encrypted, with AES in FIPS mode and else with age (core/crypto/encrypt.go).
func (k RootKey) Encrypt(data string, fips bool) ([]byte, error) {
	var out bytes.Buffer
	if fips {
		key, err := hex.DecodeString(k.AesSeed)
		if err != nil {
			return nil, err
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		ciphertext := make([]byte, aes.BlockSize+len(data))
		rand.Read(ciphertext[:aes.BlockSize])
		//lint:ignore SA1019 as VSecM does
		cipher.NewCFBEncrypter(block, ciphertext[:aes.BlockSize]).XORKeyStream(ciphertext[aes.BlockSize:], []byte(data))
		return ciphertext, nil
	}
	recipient, err := age.ParseX25519Recipient(k.PublicKey)
	if err != nil {
		return nil, err
	}
	w, err := age.Encrypt(&out, recipient)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(w, data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// EncryptValue returns what 'safe -s … -e' prints (core/crypto/encrypt.go, EncryptValue).
func (k RootKey) EncryptValue(value string, fips bool) (string, error) {
	raw, err := k.Encrypt(value, fips)
	return base64.StdEncoding.EncodeToString(raw), err
}

// A JSONTime is lib/entity's JsonTime.
type JSONTime time.Time

// MarshalJSON is JsonTime's.
func (t JSONTime) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%q", time.Time(t).Format(time.RFC3339)), nil
}

// A Secret is what VSecM is told of one.
type Secret struct {
	Name                                      string
	Values                                    []string
	Transformed                               string
	Namespaces                                []string
	Template, Format                          string
	Created, Updated, NotBefore, ExpiresAfter time.Time
}

// Never is what VSecM writes as ExpiresAfter for "never" (app/safe/internal/server/route/secret).
var Never = time.Date(9999, time.December, 31, 23, 59, 59, 999999999, time.UTC)

// Export returns what 'safe -l -e' prints (app/sentinel/internal/safe/get.go). In versions up to 0.28.0 each value is a list.
func (k RootKey) Export(secrets []Secret, fips, lists bool) (string, error) {
	type encrypted struct { // core/entity/v1/data/secret.go, SecretEncrypted
		Name           string   `json:"name"`
		EncryptedValue any      `json:"value"`
		Created        JSONTime `json:"created"`
		Updated        JSONTime `json:"updated"`
		NotBefore      JSONTime `json:"notBefore"`
		ExpiresAfter   JSONTime `json:"expiresAfter"`
	}
	response := struct { // core/entity/v1/reqres/safe, SecretEncryptedListResponse
		Secrets   []encrypted `json:"secrets"`
		Algorithm string      `json:"algorithm"`
		Err       string      `json:"err,omitempty"`
	}{Secrets: []encrypted{}, Algorithm: "age"}
	if fips {
		response.Algorithm = "aes"
	}
	for _, s := range secrets {
		values := []string{}
		for _, value := range s.Values {
			sealed, err := k.EncryptValue(value, fips)
			if err != nil {
				return "", err
			}
			values = append(values, sealed)
		}
		e := encrypted{s.Name, values, JSONTime(s.Created), JSONTime(s.Updated), JSONTime(s.NotBefore), JSONTime(s.ExpiresAfter)}
		if !lists {
			e.EncryptedValue = values[0]
		}
		response.Secrets = append(response.Secrets, e)
	}
	body, err := json.Marshal(response)
	return "\n" + string(body) + "\n\n", err
}

type meta struct { // core/entity/v1/data/secret.go, SecretMeta
	Namespaces    []string `json:"namespaces"`
	Template      string   `json:"template"`
	Format        string
	CorrelationID string `json:"correlationId"`
}

// Record returns the JSON that a file of the data folder holds (core/entity/v1/data, SecretStored): that of 0.28.1, or, with
// lists, that of versions up to 0.28.0.
func (s Secret) Record(lists bool) ([]byte, error) {
	m := meta{s.Namespaces, s.Template, s.Format, "bX9kLm2q"}
	if lists {
		return json.Marshal(struct {
			Name             string
			Values           []string `json:"values"`
			ValueTransformed string   `json:"valuesTransformed"`
			Meta             meta
			Created          time.Time
			Updated          time.Time
			NotBefore        time.Time `json:"notBefore"`
			ExpiresAfter     time.Time `json:"expiresAfter"`
		}{s.Name, s.Values, s.Transformed, m, s.Created, s.Updated, s.NotBefore, s.ExpiresAfter})
	}
	return json.Marshal(struct {
		Name             string    `json:"name"`
		Value            string    `json:"value"`
		ValueTransformed string    `json:"valueTransformed"`
		Meta             meta      `json:"meta"`
		Created          time.Time `json:"created"`
		Updated          time.Time `json:"updated"`
		NotBefore        time.Time `json:"notBefore"`
		ExpiresAfter     time.Time `json:"expiresAfter"`
	}{s.Name, s.Values[0], s.Transformed, m, s.Created, s.Updated, s.NotBefore, s.ExpiresAfter})
}

// WriteFolder writes a data folder, with a backup of each secret (app/safe/internal/state/io/disk.go, save_disk.go).
func (k RootKey) WriteFolder(dir string, secrets []Secret, fips, lists bool) error {
	for i, s := range secrets {
		record, err := s.Record(lists)
		if err != nil {
			return err
		}
		for _, name := range []string{s.Name + ".age", s.Name + "-" + strconv.Itoa(1+i%2) + "-.age.backup"} {
			raw, err := k.Encrypt(string(record), fips)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, name), raw, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
