package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

var (
	// ErrNotKV: what is mounted there is no KV secrets engine.
	ErrNotKV = errors.New("not a KV secrets engine")
	// ErrVersion1: it is a KV secrets engine of version 1, which is not read.
	ErrVersion1 = errors.New("a KV secrets engine of version 1, and only version 2 is read")
	// ErrDeleted: the newest version of a secret was deleted.
	ErrDeleted = errors.New("its newest version is deleted")
	// ErrDestroyed: the newest version of a secret was destroyed.
	ErrDestroyed = errors.New("its newest version is destroyed")
	// ErrPath: a path of which the HTTP API cannot speak.
	ErrPath = errors.New("a part of its path is empty, '.' or '..'")
	// ErrTooMany: there are more paths than are read.
	ErrTooMany = errors.New("more secrets than are imported at once")
)

const (
	// atOnce is how many calls are made at the same time.
	atOnce = 4
	// maxPaths and maxDepth bound what is listed.
	maxPaths = 100_000
	maxDepth = 64
)

// A Mount is a KV version 2 secrets engine.
type Mount struct {
	path string // without slashes around it
}

// Mount finds the secrets engine that a path leads to, and what of the path is below it. Errors: [ErrNotKV], [ErrVersion1], those
// of every call.
func (c *Client) Mount(ctx context.Context, path string) (m Mount, below string, err error) {
	path = strings.Trim(path, "/")
	escaped, err := escape(path)
	if err != nil {
		return Mount{}, "", err
	}
	// As Vault's own command does; whoever may do anything in the mount may ask.
	answer, err := c.get(ctx, false, "sys/internal/ui/mounts/"+escaped)
	if err != nil {
		return Mount{}, "", err
	}
	var said struct {
		Data struct {
			Path, Type string
			Options    map[string]string
		}
	}
	if err := json.Unmarshal(answer, &said); err != nil || said.Data.Path == "" {
		return Mount{}, "", c.notVault()
	}
	m.path = strings.Trim(said.Data.Path, "/")
	rest, within := strings.CutPrefix(path+"/", m.path+"/")
	switch {
	case said.Data.Type != "kv" && said.Data.Type != "generic":
		return Mount{}, "", fmt.Errorf("%s: %w, but one of type %s", m.path, ErrNotKV, said.Data.Type)
	case said.Data.Options["version"] != "2":
		return Mount{}, "", fmt.Errorf("%s: %w", m.path, ErrVersion1)
	case !within:
		return Mount{}, "", c.notVault()
	}
	return m, strings.Trim(rest, "/"), nil
}

func (m Mount) String() string { return m.path }

func (c *Client) notVault() error {
	return fmt.Errorf("%w: what %s answers is not Vault's", ErrUnreachable, c)
}

// escape makes a part of an address of a path.
func escape(path string) (string, error) {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		if part == "" || part == "." || part == ".." {
			return "", ErrPath
		}
		parts[i] = url.PathEscape(part)
	}
	return strings.Join(parts, "/"), nil
}

// address returns the path of a call: what is data or metadata.
func (m Mount) address(what, path string) (string, error) {
	if path == "" {
		path = m.path + "/" + what
	} else {
		path = m.path + "/" + what + "/" + path
	}
	return escape(path)
}

// A Failure is a path that could not be listed or read.
type Failure struct {
	Path string
	Err  error
}

// List returns the paths of all secrets below a path, that of the path itself included, sorted. What may not be listed, or
// cannot be spoken of, is in failures. The error is [ErrTooMany], or one that all calls would have.
func (c *Client) List(ctx context.Context, m Mount, below string) (paths []string, failures []Failure, err error) {
	if below != "" {
		is, err := c.is(ctx, m, below)
		if err != nil {
			return nil, nil, err
		}
		if is {
			paths = append(paths, below)
		}
	}
	folders := []string{below}
	for depth := 0; len(folders) > 0; depth++ {
		if depth > maxDepth {
			return nil, nil, fmt.Errorf("%w: folders stand %d deep in each other", ErrTooMany, depth)
		}
		var next []string
		for found := range c.folders(ctx, m, folders) {
			switch err := found.err; {
			case errors.Is(err, ErrNotFound):
				continue // an empty mount, a secret, or a folder that has gone meanwhile
			case alone(err):
				failures = append(failures, Failure{found.path + "/", err})
				continue
			case err != nil:
				return nil, nil, err
			}
			for _, name := range found.got {
				path := strings.TrimPrefix(found.path+"/"+name, "/")
				if folder, is := strings.CutSuffix(path, "/"); is {
					next = append(next, folder)
				} else {
					paths = append(paths, path)
				}
			}
			if len(paths)+len(next)+len(failures) > maxPaths {
				return nil, nil, fmt.Errorf("%w: more than %d; name a path below the mount", ErrTooMany, maxPaths)
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		folders = next
	}
	slices.Sort(paths)
	return paths, failures, nil
}

// folders lists folders, a few at a time, and yields them in order: all of them would be as much as a server likes.
func (c *Client) folders(ctx context.Context, m Mount, folders []string) iter.Seq[answer[[]string]] {
	return func(yield func(answer[[]string]) bool) {
		for some := range slices.Chunk(folders, atOnce) {
			for _, found := range each(ctx, some, func(folder string) ([]string, error) { return c.names(ctx, m, folder) }) {
				if !yield(found) {
					return
				}
			}
		}
	}
}

// alone tells whether an error is about one path and no more.
func alone(err error) bool { return errors.Is(err, ErrDenied) || errors.Is(err, ErrPath) }

// is tells whether a path is that of a secret. Where that may not be known, it is taken for one if it is no folder.
func (c *Client) is(ctx context.Context, m Mount, path string) (bool, error) {
	address, err := m.address("metadata", path)
	if err != nil {
		return false, err
	}
	_, err = c.get(ctx, false, address)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case errors.Is(err, ErrDenied):
		_, err = c.names(ctx, m, path)
		return errors.Is(err, ErrNotFound) || errors.Is(err, ErrDenied), nil
	}
	return err == nil, err
}

// names lists a folder. Names of folders end with a slash.
func (c *Client) names(ctx context.Context, m Mount, folder string) ([]string, error) {
	address, err := m.address("metadata", folder)
	if err != nil {
		return nil, err
	}
	answer, err := c.get(ctx, true, address)
	if err != nil {
		return nil, err
	}
	var said struct{ Data struct{ Keys []string } }
	if err := json.Unmarshal(answer, &said); err != nil {
		return nil, c.notVault()
	}
	return said.Data.Keys, nil
}

// A Secret is the newest version of one. It holds plaintext: wipe it.
type Secret struct {
	Values map[string][]byte
	// NotText names the values that are no JSON texts, sorted. They are kept as JSON.
	NotText []string
	Version int
	Created time.Time // when this version was written
	// DeletesAt is when Vault deletes this version by itself; zero if it does not.
	DeletesAt time.Time
	// CustomMetadata names what the secret's custom metadata says, sorted.
	CustomMetadata []string
}

// Wipe overwrites the values.
func (s *Secret) Wipe() {
	if s == nil {
		return
	}
	for _, value := range s.Values {
		clear(value)
	}
}

// String keeps the values out of logs and errors.
func (s *Secret) String() string { return fmt.Sprintf("a secret with %d keys", len(s.Values)) }

// Format is as String for every verb.
func (s *Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// Read reads one secret. Errors: [ErrDeleted], [ErrDestroyed], [ErrNotFound], [ErrPath], those of every call.
func (c *Client) Read(ctx context.Context, m Mount, path string) (*Secret, error) {
	address, err := m.address("data", path)
	if err != nil {
		return nil, err
	}
	answer, err := c.get(ctx, false, address)
	defer func() { clear(answer) }()
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	var said struct {
		Data struct {
			Data     map[string]json.RawMessage
			Metadata *struct {
				Version        int
				Created        time.Time      `json:"created_time"`
				Deletion       string         `json:"deletion_time"`
				Destroyed      bool           `json:"destroyed"`
				CustomMetadata map[string]any `json:"custom_metadata"`
			}
		}
	}
	decodeErr := json.Unmarshal(answer, &said)
	defer func() {
		for _, raw := range said.Data.Data {
			clear(raw)
		}
	}()
	meta := said.Data.Metadata
	switch {
	case err != nil && (decodeErr != nil || meta == nil):
		return nil, err // 404
	case decodeErr != nil || meta == nil:
		return nil, c.notVault()
	case meta.Destroyed:
		return nil, ErrDestroyed
	case said.Data.Data == nil && meta.Deletion != "":
		return nil, ErrDeleted
	}
	s := &Secret{
		Version: meta.Version, Created: meta.Created, Values: make(map[string][]byte, len(said.Data.Data)),
		CustomMetadata: slices.Sorted(maps.Keys(meta.CustomMetadata)),
	}
	if s.DeletesAt, err = time.Parse(time.RFC3339Nano, meta.Deletion); err != nil && meta.Deletion != "" {
		return nil, c.notVault()
	}
	for _, key := range slices.Sorted(maps.Keys(said.Data.Data)) {
		value, isText := valueOf(said.Data.Data[key])
		if !isText {
			s.NotText = append(s.NotText, key)
		}
		s.Values[key] = value
	}
	return s, nil
}

// valueOf returns a JSON text's content, or anything else as it was written.
func valueOf(raw json.RawMessage) (value []byte, isText bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return bytes.Clone(raw), false
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return bytes.Clone(raw[1 : len(raw)-1]), true // without a text in between that could not be wiped
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil { // it was valid when it was read
		return bytes.Clone(raw), false
	}
	return []byte(text), true
}

// A Found is a secret that was read, or why it was not.
type Found struct {
	Path   string
	Secret *Secret
	Err    error
}

// ReadAll reads secrets, a few at a time, and yields them in order. They are the caller's to wipe.
func (c *Client) ReadAll(ctx context.Context, m Mount, paths []string) iter.Seq[Found] {
	return func(yield func(Found) bool) {
		for some := range slices.Chunk(paths, atOnce) {
			all := each(ctx, some, func(path string) (*Secret, error) { return c.Read(ctx, m, path) })
			for n, one := range all {
				if !yield(Found{one.path, one.got, one.err}) {
					for _, rest := range all[n+1:] {
						rest.got.Wipe()
					}
					return
				}
			}
		}
	}
}

type answer[T any] struct {
	path string
	got  T
	err  error
}

// each asks for every path, [atOnce] at the same time, and returns the answers in order.
func each[T any](ctx context.Context, paths []string, ask func(string) (T, error)) []answer[T] {
	all := make([]answer[T], len(paths))
	slots := make(chan struct{}, atOnce)
	var asking sync.WaitGroup
	for n, path := range paths {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			all[n].path = path
			if all[n].err = ctx.Err(); all[n].err == nil {
				all[n].got, all[n].err = ask(path)
			}
		})
	}
	asking.Wait()
	return all
}
