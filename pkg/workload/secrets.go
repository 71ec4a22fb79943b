package workload

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Secrets are all secrets of one workload at one time. They are the caller's,
// who may keep them, change them, and wipe them.
type Secrets struct {
	// Secrets are sorted by name.
	Secrets []Secret `json:"secrets"`
	// ETag names this state; it is not for people.
	ETag string `json:"-"`
}

// A Secret is one object that the workload may read. Its name and its keys are
// valid in Kubernetes, and so as names of files.
type Secret struct {
	Name string `json:"name"`
	// Version names what is in the object; it changes with every change to
	// it, also with one that leaves the values as they are.
	Version string            `json:"version"`
	Updated time.Time         `json:"updated"`
	Data    map[string][]byte `json:"data"` // base64 in JSON
}

// Get returns the value of a key of an object, which is not a copy. ok is
// false where there is none.
func (s *Secrets) Get(object, key string) (value []byte, ok bool) {
	for _, secret := range s.Secrets {
		if secret.Name == object {
			value, ok = secret.Data[key]
			return value, ok
		}
	}
	return nil, false
}

// Wipe overwrites the values.
func (s *Secrets) Wipe() {
	for _, secret := range s.Secrets {
		for _, value := range secret.Data {
			clear(value)
		}
	}
}

// digest tells states apart, without keeping the values.
func (s *Secrets) digest() [sha256.Size]byte {
	h := sha256.New()
	write := func(b []byte) {
		// A hash never fails to take what is written to it.
		_ = binary.Write(h, binary.BigEndian, uint64(len(b)))
		_, _ = h.Write(b)
	}
	for _, secret := range s.Secrets {
		write([]byte(secret.Name))
		write([]byte(secret.Version))
		write([]byte(secret.Updated.UTC().Format(time.RFC3339Nano)))
		_ = binary.Write(h, binary.BigEndian, uint64(len(secret.Data)))
		for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
			write([]byte(key))
			write(secret.Data[key])
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// Fetch asks Safe for all secrets of this workload. A workload without secrets
// gets an empty list. It tries once, for half a minute at most.
//
// Errors: [ErrUnauthorized], [ErrNotFound], [ErrSealed], [ErrUnavailable],
// [ErrWrongSafe], [ErrBadAnswer], [ErrNoIdentity], [ErrClosed]. When it is ctx
// that ended, the error is also that of ctx.
func (c *Client) Fetch(ctx context.Context) (*Secrets, error) {
	return c.secrets(ctx, question{path: "/v1/secrets", wait: c.answerWait})
}

// secrets returns nil where Safe says that nothing has changed.
func (c *Client) secrets(ctx context.Context, q question) (*Secrets, error) {
	var s *Secrets
	etag, changed, err := c.ask(ctx, q, func(body []byte) (err error) {
		s, err = parse(body)
		return err
	})
	if err != nil || !changed {
		return nil, err
	}
	s.ETag = etag
	return s, nil
}

// parse reads and checks an answer. Unknown members are ignored, so that Safe
// may learn to say more. Errors are [ErrBadAnswer] and never hold a value.
func parse(body []byte) (*Secrets, error) {
	if err := bounded(body); err != nil {
		return nil, err
	}
	var s Secrets
	// Not a json.Decoder: Unmarshal refuses what follows the first value.
	if err := json.Unmarshal(body, &s); err != nil {
		s.Wipe()
		return nil, fmt.Errorf("%w: %s", ErrBadAnswer, describe(err))
	}
	if name, found := doubledMember(body); found {
		s.Wipe()
		return nil, fmt.Errorf("%w: two members are named %.100q", ErrBadAnswer, name)
	}
	if s.Secrets == nil {
		return nil, fmt.Errorf("%w: no member \"secrets\"", ErrBadAnswer)
	}
	if err := check(s.Secrets); err != nil {
		s.Wipe()
		return nil, err
	}
	slices.SortFunc(s.Secrets, func(a, b Secret) int {
		return strings.Compare(a.Name, b.Name)
	})
	return &s, nil
}

// check refuses what no Kubernetes object has, which includes everything that
// would climb out of a directory.
func check(secrets []Secret) error {
	seen := make(map[string]bool, len(secrets))
	for _, secret := range secrets {
		if !isObjectName(secret.Name) {
			return fmt.Errorf("%w: %.100q is not the name of a secret", ErrBadAnswer, secret.Name)
		}
		if seen[secret.Name] {
			return fmt.Errorf("%w: two secrets are named %q", ErrBadAnswer, secret.Name)
		}
		seen[secret.Name] = true
		for key := range secret.Data {
			if !isKey(key) {
				return fmt.Errorf("%w: secret %q: %.300q is not a key", ErrBadAnswer, secret.Name, key)
			}
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
