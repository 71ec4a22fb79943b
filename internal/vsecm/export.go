package vsecm

import (
	"bytes"
	"encoding/json"
	"fmt"
)

const (
	// MaxExportSize bounds an export, in bytes.
	MaxExportSize = 64 << 20
	// MaxRecords bounds the secrets of an export or a folder.
	MaxRecords = 100_000
)

// An Item is one secret as VSecM keeps it, not yet opened.
type Item struct {
	// Where it stands: in which entry, or which file.
	Where string
	// Name of the secret, as far as it shows without a key.
	Name string

	open func(*Key) (*Record, error)
}

// Open opens the secret, which is the caller's to wipe. Errors: [ErrMalformed], [ErrWrongKey],
// [ErrImplausible], [ErrBound], [ErrTooLarge], [ErrNoValue]. What is wrong with one says nothing of the others.
func (i Item) Open(key *Key) (*Record, error) { return i.open(key) }

// Prefix returns k8s: or raw: where the name has it.
func (i Item) Prefix() string {
	_, prefix := splitName(i.Name)
	return prefix
}

// What an export says of a secret, core/entity/v1/data/secret.go: SecretEncrypted.
var exportFields = []string{"name", "value", "created", "updated", "notbefore", "expiresafter"}

// ReadExport reads what 'safe -l -e' printed (core/entity/v1/reqres/safe, SecretEncryptedListResponse).
func ReadExport(data []byte) ([]Item, error) {
	if len(data) > MaxExportSize {
		return nil, fmt.Errorf("%w: an export has at most %d bytes", ErrTooLarge, MaxExportSize)
	}
	fields, err := members(bytes.TrimSpace(data))
	if err != nil {
		return nil, err
	}
	said, err := text(fields["algorithm"], "algorithm")
	if err != nil {
		return nil, err
	}
	algorithm := Algorithm(said)
	switch algorithm {
	case Age, AES, "":
	default:
		return nil, fmt.Errorf("%w: its algorithm is neither age nor aes", ErrMalformed)
	}
	var secrets []json.RawMessage
	if raw, has := fields["secrets"]; !has {
		return nil, fmt.Errorf("%w: it has no secrets; an export is what 'safe -l -e' prints", ErrMalformed)
	} else if err := json.Unmarshal(raw, &secrets); err != nil {
		return nil, fmt.Errorf("%w: secrets is not a list", ErrMalformed)
	}
	if len(secrets) > MaxRecords {
		return nil, fmt.Errorf("%w: an export has at most %d secrets", ErrTooLarge, MaxRecords)
	}
	items := make([]Item, len(secrets))
	for i, raw := range secrets {
		items[i] = exported(i, raw, algorithm)
	}
	return items, nil
}

func exported(i int, raw json.RawMessage, algorithm Algorithm) Item {
	item := Item{Where: fmt.Sprintf("secrets[%d]", i)}
	fields, err := members(raw)
	if err == nil {
		item.Name, err = text(fields["name"], "name")
	}
	item.open = func(key *Key) (*Record, error) {
		if err != nil {
			return nil, err
		}
		return openExported(item.Name, fields, key, algorithm)
	}
	return item
}

func openExported(name string, fields map[string]json.RawMessage, key *Key, algorithm Algorithm) (*Record, error) {
	sealed, err := texts(fields["value"], "value")
	if err != nil {
		return nil, err
	}
	if len(sealed) == 0 || len(sealed) == 1 && sealed[0] == "" {
		// VSecM writes "" where it could not encrypt (collection/read.go, AllSecretsEncrypted).
		return nil, ErrNoValue
	}
	r := &Record{Name: name}
	if err := r.openValues(sealed, key, algorithm); err != nil {
		r.Wipe()
		return nil, err
	}
	if err := r.readTimes(fields); err != nil {
		r.Wipe()
		return nil, err
	}
	r.noteUnknown("", fields, exportFields...)
	return r, nil
}

func (r *Record) openValues(sealed []string, key *Key, want Algorithm) error {
	for _, one := range sealed {
		value, algorithm, err := key.OpenText(one, want)
		if err != nil {
			return err
		}
		r.Values = append(r.Values, value)
		r.Algorithm = algorithm
		if algorithm != AES {
			continue
		}
		if err := r.plausible(value); err != nil {
			return err
		}
	}
	return nil
}

// ReadCiphertext reads what 'safe -s … -e' printed: one value without a name, which is given one.
func ReadCiphertext(name string, data []byte) Item {
	return Item{Where: "the ciphertext", Name: name, open: func(key *Key) (*Record, error) {
		if len(data) > maxPlaintext {
			return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, maxPlaintext)
		}
		r := &Record{Name: name}
		if err := r.openValues([]string{string(data)}, key, ""); err != nil {
			r.Wipe()
			return nil, err
		}
		return r, nil
	}}
}
