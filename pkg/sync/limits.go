package sync

import "time"

// Limits bound what a repository may cost. A field that is zero takes the
// value that [DefaultLimits] has.
type Limits struct {
	// FetchBytes bounds the bytes that one fetch may bring, and the inflated
	// size of any single object. Beyond it the fetch is refused: [ErrLimit].
	FetchBytes int64
	// ObjectBytes bounds the objects that are held in memory. A larger file
	// is kept out of memory and reported as a skip; a larger commit or
	// directory is refused.
	ObjectBytes int64
	// Objects bounds the number of objects that one fetch may bring.
	Objects int
	// Entries bounds the directory entries that one comparison looks at.
	Entries int
	// Commits bounds the commits that are walked to tell whether one
	// revision descends from another.
	Commits int
	// Depth bounds how deep directories may nest below the root. What lies
	// deeper is reported as a skip.
	Depth int
	// Timeout bounds a whole fetch.
	Timeout time.Duration
	// Stall bounds how long a server may stay silent during a fetch.
	Stall time.Duration
}

// DefaultLimits returns the limits that suit a repository of some ten
// thousands of manifests.
func DefaultLimits() Limits {
	return Limits{
		FetchBytes:  512 << 20,
		ObjectBytes: 16 << 20,
		Objects:     1_000_000,
		Entries:     1_000_000,
		Commits:     1_000_000,
		Depth:       32,
		Timeout:     10 * time.Minute,
		Stall:       30 * time.Second,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	if l.FetchBytes == 0 {
		l.FetchBytes = d.FetchBytes
	}
	if l.ObjectBytes == 0 {
		l.ObjectBytes = d.ObjectBytes
	}
	if l.Objects == 0 {
		l.Objects = d.Objects
	}
	if l.Entries == 0 {
		l.Entries = d.Entries
	}
	if l.Commits == 0 {
		l.Commits = d.Commits
	}
	if l.Depth == 0 {
		l.Depth = d.Depth
	}
	if l.Timeout == 0 {
		l.Timeout = d.Timeout
	}
	if l.Stall == 0 {
		l.Stall = d.Stall
	}
	return l
}
