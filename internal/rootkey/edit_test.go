package rootkey

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/vsecm/kubectl-vsecm/internal/publication"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// edit changes the Secret's data where it stands.
func (s *secretSite) edit(change func(data map[string][]byte)) {
	s.t.Helper()
	secret := s.secret()
	secret.APIVersion, secret.Kind = "v1", "Secret"
	if secret.Data == nil {
		secret.Data = make(map[string][]byte)
	}
	change(secret.Data)
	if err := s.client.Core.Put().Namespace(s.namespace).Resource("secrets").Name("vsecm-root-key").Body(secret).Do(s.t.Context()).Error(); err != nil {
		s.t.Fatal(err)
	}
}

// setRecord edits the record where it stands, and nothing else. An empty one is taken out.
func setRecord(t *testing.T, s site, record string) {
	t.Helper()
	switch s := s.(type) {
	case *dirSite:
		if record == "" {
			if err := os.Remove(s.file("recipient.txt")); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			return
		}
		// At once: an unsealed Safe that sees none puts its own back.
		if err := encrypt.ReplaceFile(s.file("recipient.txt"), []byte(record+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	case *secretSite:
		data := map[string]any{publication.KeyRecipient: nil, publication.KeyID: nil}
		if record != "" {
			data[publication.KeyRecipient] = record
		}
		body, err := json.Marshal(map[string]any{"data": data})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.client.Core.Patch(types.MergePatchType).Namespace(s.namespace).Resource("configmaps").Name(publication.Name).
			Body(body).Do(t.Context()).Error(); err != nil {
			t.Fatal(err)
		}
	}
}

// setKeys edits the key that is kept and the retired ones, where they stand. An empty text
// takes one out.
func setKeys(t *testing.T, s site, key, retired string) {
	t.Helper()
	switch s := s.(type) {
	case *dirSite:
		for name, text := range map[string]string{"root-key.txt": key, "root-key.txt.retired": retired} {
			if err := os.Remove(s.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if text == "" {
				continue
			}
			if err := os.WriteFile(s.file(name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	case *secretSite:
		s.edit(func(data map[string][]byte) {
			for name, text := range map[string]string{DataKey: key, DataRetired: retired} {
				if data[name] = []byte(text); text == "" {
					delete(data, name)
				}
			}
		})
	}
}

// retiredOf returns the text that is kept of retired keys.
func retiredOf(t *testing.T, s site) string {
	t.Helper()
	switch s := s.(type) {
	case *dirSite:
		return s.read("root-key.txt.retired")
	case *secretSite:
		return string(s.secret().Data[DataRetired])
	}
	t.Fatalf("%T", s)
	return ""
}
