package fetch

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Secrets are all secrets of one workload at one time.
type Secrets struct {
	Secrets []Secret `json:"secrets"`
	// ETag names this state, for [Client.Watch].
	ETag string `json:"-"`
}

// A Secret is one object that the workload may read. Its names are valid in
// Kubernetes, and so as names of files.
type Secret struct {
	Name    string            `json:"name"`
	Version string            `json:"version"`
	Updated time.Time         `json:"updated"`
	Data    map[string][]byte `json:"data"` // base64 in JSON
}

// Wipe overwrites the values.
func (s *Secrets) Wipe() {
	for _, secret := range s.Secrets {
		for _, value := range secret.Data {
			clear(value)
		}
	}
}

// parse reads and checks an answer. Unknown members are ignored, so that Safe
// may learn to say more. Errors are [ErrBadAnswer] and never hold a value.
func parse(body []byte) (*Secrets, error) {
	var s Secrets
	// Not a json.Decoder: Unmarshal refuses what follows the first value.
	if err := json.Unmarshal(body, &s); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrBadAnswer, describe(err))
	}
	if s.Secrets == nil {
		return nil, fmt.Errorf("%w: no member \"secrets\"", ErrBadAnswer)
	}
	seen := make(map[string]bool, len(s.Secrets))
	for _, secret := range s.Secrets {
		if err := checkNames(secret); err != nil {
			return nil, err
		}
		if seen[secret.Name] {
			return nil, fmt.Errorf("%w: two secrets are named %q", ErrBadAnswer, secret.Name)
		}
		seen[secret.Name] = true
	}
	slices.SortFunc(s.Secrets, func(a, b Secret) int {
		return strings.Compare(a.Name, b.Name)
	})
	return &s, nil
}

// checkNames refuses what no Kubernetes object has, which includes everything
// that would climb out of a directory.
func checkNames(s Secret) error {
	if len(validation.IsDNS1123Subdomain(s.Name)) > 0 {
		return fmt.Errorf("%w: %q is not the name of a secret", ErrBadAnswer, s.Name)
	}
	for key := range s.Data {
		if len(validation.IsConfigMapKey(key)) > 0 {
			return fmt.Errorf("%w: secret %q: %q is not a key", ErrBadAnswer, s.Name, key)
		}
	}
	return nil
}

// describe says what is wrong with JSON and where, without the text of
// encoding/json, which quotes what it read.
func describe(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("malformed JSON at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Sprintf("wrong kind of value in %q at byte %d", kind.Field, kind.Offset)
	default:
		return "malformed JSON or base64"
	}
}
