package sync

import "time"

// Limits bound what a repository may cost. A field that is zero takes the
// value that [DefaultLimits] has.
type Limits struct {
	// FetchBytes bounds the bytes that one fetch may bring, and the inflated
	// size of any single object. Beyond it the fetch is refused: [ErrLimit].
	FetchBytes int64
	// InflatedBytes bounds what the objects of one fetch may inflate to, all
	// together, and what is inflated to find out: [ErrLimit]. It bounds the
	// time that a small pack of large objects costs.
	InflatedBytes int64
	// MirrorBytes bounds what the mirror may take on disk. One that has grown
	// beyond it, by history that was refused or rewritten, is built again
	// from the remote; a branch that alone takes more is refused: [ErrLimit].
	// Twice as much, and some FetchBytes, are in use while that is done.
	MirrorBytes int64
	// ObjectBytes bounds the objects that are held in memory. A larger file
	// is kept out of memory and reported as a skip; a larger commit or
	// directory is refused.
	ObjectBytes int64
	// Objects bounds the number of objects that one fetch may bring.
	Objects int
	// Entries bounds the directory entries that one comparison looks at.
	Entries int
	// PlanBytes bounds the bytes of files that one [Plan] reads, each content
	// counted once. Beyond it there is no plan: [ErrLimit].
	PlanBytes int64
	// Documents bounds the documents that are declared in one revision.
	Documents int
	// Commits bounds the commits that are walked to tell whether one
	// revision descends from another.
	Commits int
	// Depth bounds how deep directories may nest below the root. What lies
	// deeper is reported as a skip.
	Depth int
	// Timeout bounds a whole fetch. A revision that took that long once it
	// had been downloaded is not tried again: [ErrLimit].
	Timeout time.Duration
	// Stall bounds how long a server may stay silent during a fetch.
	Stall time.Duration
}

// DefaultLimits returns the limits that suit a repository of some ten
// thousands of manifests.
func DefaultLimits() Limits {
	return Limits{
		FetchBytes:    512 << 20,
		InflatedBytes: 8 << 30,
		MirrorBytes:   2 << 30,
		ObjectBytes:   16 << 20,
		Objects:       1_000_000,
		Entries:       1_000_000,
		PlanBytes:     512 << 20,
		Documents:     250_000,
		Commits:       1_000_000,
		Depth:         32,
		Timeout:       10 * time.Minute,
		Stall:         30 * time.Second,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	if l.FetchBytes == 0 {
		l.FetchBytes = d.FetchBytes
	}
	if l.InflatedBytes == 0 {
		l.InflatedBytes = d.InflatedBytes
	}
	if l.MirrorBytes == 0 {
		l.MirrorBytes = d.MirrorBytes
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
	if l.PlanBytes == 0 {
		l.PlanBytes = d.PlanBytes
	}
	if l.Documents == 0 {
		l.Documents = d.Documents
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
