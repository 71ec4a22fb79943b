package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

const (
	sourcesFolder   = "sources"
	sourceExtension = ".json"
	maxSourceFile   = 64 << 10
)

// A SourceState is how far a git source was applied.
type SourceState struct {
	// Revision is the commit whose tree stands in the store, in hex; empty if
	// nothing of the source was ever applied.
	Revision string `json:"revision"`
	// AppliedAt is when; zero while applying the first one has only begun.
	AppliedAt time.Time `json:"appliedAt"`
	// Begun is a later commit of which a part may stand in the store; empty if there is none.
	Begun string `json:"begun,omitempty"`
	// Deletions is what the brake on mass deletion has to remember.
	Deletions Deletions `json:"deletions,omitzero"`
	// Verified is what was verified of Revision; zero where nothing is.
	Verified Verified `json:"verified,omitzero"`
}

// Verified says what was verified of a source's commits.
type Verified struct {
	// Mode is head or strict, as a GitSource has them.
	Mode string `json:"mode"`
	// Revision is the newest commit that was verified, and Signer whose signature it bears;
	// nobody's where the commit is Since.
	Revision string `json:"revision"`
	Signer   string `json:"signer,omitempty"`
	// Since is, in mode strict, the commit after which all were verified. Pinned says that it was
	// configured; otherwise it is where the branch was when verification began.
	Since  string `json:"since,omitempty"`
	Pinned bool   `json:"pinned,omitempty"`
}

// Deletions are what a source has deleted within a window of time.
type Deletions struct {
	// Since is when the window began; Owned is what the source owned then.
	Since time.Time `json:"since"`
	Owned int       `json:"owned"`
	// Deleted is how many objects were deleted since.
	Deleted int `json:"deleted"`
	// Waiting says that further deletions wait for somebody's word.
	Waiting bool `json:"waiting,omitempty"`
}

// A Journal remembers the [SourceState] of each source in a data directory:
// what the status of a GitSource is in a cluster. It is safe for concurrent
// use. The lock of the [Dir] on the same data directory covers it too. What it does is over
// at once, so it does not ask whether its caller still wants it.
type Journal struct {
	files *files
}

// OpenJournal opens the journal in data directory dir. Open the [Dir] first.
func OpenJournal(dir string) (*Journal, error) {
	f, err := openFiles(dir, sourcesFolder)
	if err != nil {
		return nil, fmt.Errorf("opening the journal of %s: %w", dir, err)
	}
	return &Journal{files: f}, nil
}

// Close frees what the journal holds open. Everything saved is on disk before.
func (j *Journal) Close() error { return j.files.close() }

// Load returns what was saved last for source, NAMESPACE.NAME; the zero state
// if nothing was. A record that cannot be read is an error and not the zero
// state: a source whose past is unknown must not start over unasked, since
// what it may move to depends on where it stood.
func (j *Journal) Load(_ context.Context, source string) (SourceState, error) {
	path, err := sourcePath(source)
	if err != nil {
		return SourceState{}, err
	}
	data, err := j.files.read(path, maxSourceFile)
	if errors.Is(err, fs.ErrNotExist) {
		return SourceState{}, nil
	}
	if err != nil {
		return SourceState{}, fmt.Errorf("state of source %s: %w", source, err)
	}
	var s SourceState
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return SourceState{}, fmt.Errorf("state of source %s: %w", source, err)
	}
	if s.Revision == "" || d.More() {
		return SourceState{}, fmt.Errorf("state of source %s: damaged", source)
	}
	return s, nil
}

// Save makes s the state of source, NAMESPACE.NAME. It is durable when Save
// returns without an error; a state without a revision is [ErrInvalid].
func (j *Journal) Save(_ context.Context, source string, s SourceState) error {
	path, err := sourcePath(source)
	if err != nil {
		return err
	}
	if s.Revision == "" {
		return fmt.Errorf("a state of %s without a revision %w", source, ErrInvalid)
	}
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("state of source %s: %w", source, err)
	}
	if _, err := j.files.write(path, append(data, '\n')); err != nil {
		return fmt.Errorf("state of source %s: %w", source, err)
	}
	return nil
}

func sourcePath(source string) (string, error) {
	// A namespace holds no dot, so the first one ends it.
	namespace, name, ok := strings.Cut(source, ".")
	if !ok {
		return "", fmt.Errorf("source %.80q %w: want NAMESPACE.NAME", source, ErrInvalid)
	}
	if err := (Key{namespace, name}).Validate(); err != nil {
		return "", fmt.Errorf("source: %w", err)
	}
	return fileName(source, sourceExtension), nil
}
