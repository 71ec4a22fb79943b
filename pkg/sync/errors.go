package sync

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	// ErrRewound says that the branch no longer descends from the revision
	// that was applied: a forced push, or a rewritten history. The error is
	// a [*RewoundError].
	ErrRewound = errors.New("branch was rewound or rewritten")
	// ErrMissing says that an object which others refer to is not there.
	ErrMissing = errors.New("object is missing")
	// ErrMalformed says that an object, pack or file of the repository is
	// not what git would write.
	ErrMalformed = errors.New("malformed repository")
	// ErrLimit says that one of the [Limits] was passed.
	ErrLimit = errors.New("repository is over its limit")
	// ErrNoBranch says that the repository has no such branch or tag. An
	// empty repository has none.
	ErrNoBranch = errors.New("repository has no such branch or tag")
	// ErrNoCommit says that the branch's history has no such commit.
	ErrNoCommit = errors.New("history has no such commit")
	// ErrNoRepository says that there is no repository at the address, or
	// none that may be seen with these credentials.
	ErrNoRepository = errors.New("no repository there")
	// ErrAuthentication says that the server refused the credentials.
	ErrAuthentication = errors.New("credentials were refused")
	// ErrStalled says that the server kept silent for longer than
	// [Limits.Stall], or that a fetch took longer than [Limits.Timeout].
	ErrStalled = errors.New("server stopped answering")
	// ErrRedirect says that the server pointed to another host.
	ErrRedirect = errors.New("redirect to another host refused")
	// ErrHostKey says that the key which an ssh server showed is not the one
	// that known_hosts has for it, or that there is none.
	ErrHostKey = errors.New("host key is not trusted")
	// ErrCertificate says that a server's TLS certificate was refused: it has
	// expired, is of an unknown authority, or was made for another host.
	ErrCertificate = errors.New("server's certificate is not trusted")
	// ErrAddress says that [Remote.Refuse] refused a server's address.
	ErrAddress = errors.New("address is refused")
	// ErrTrust says that a file of [ParseTrust] cannot be read.
	ErrTrust = errors.New("trusted keys cannot be read")
	// ErrUnverified says that a commit does not bear a signature of a
	// trusted key. The error is an [*UnverifiedError].
	ErrUnverified = errors.New("commit is not verified")
	// ErrUnsupported says that the repository uses a feature of git that
	// this package does not read.
	ErrUnsupported = errors.New("unsupported repository")

	// errUnreadable says that what is stored under an object's name is not
	// that object. In the mirror, which holds only what was verified, that
	// means damage; a malformed object is malformed wherever it lies.
	errUnreadable = fmt.Errorf("%w: stored object is damaged", ErrMalformed)
	// errOvertime says that a fetch took longer than [Limits.Timeout].
	errOvertime = fmt.Errorf("%w: fetch took too long", ErrStalled)
	// errTooLarge says that an object was not read because of its size.
	errTooLarge = fmt.Errorf("%w: object", ErrLimit)
)

// A RewoundError says that Seen, the branch's tip, does not descend from
// Applied. It is an [ErrRewound].
type RewoundError struct {
	Applied, Seen Revision
}

func (e *RewoundError) Error() string {
	return fmt.Sprintf("%v: %s was applied, and %s does not descend from it", ErrRewound, e.Applied, e.Seen)
}

// Is makes the error an ErrRewound.
func (e *RewoundError) Is(target error) bool { return target == ErrRewound }

// An UnverifiedError names a commit that is not signed as it has to be, and
// says why. It is an [ErrUnverified].
type UnverifiedError struct {
	Revision Revision
	// Reason says in words why the commit was refused, and which key it is
	// about. It holds no control characters.
	Reason string

	passing bool
}

// Passes reports whether time alone may change the verdict: the commit, or its
// signature, is from the future by our clock.
func (e *UnverifiedError) Passes() bool { return e.passing }

func (e *UnverifiedError) Error() string {
	return fmt.Sprintf("%v: %s: %s", ErrUnverified, e.Revision, e.Reason)
}

// Is makes the error an ErrUnverified.
func (e *UnverifiedError) Is(target error) bool { return target == ErrUnverified }

// A damagedError says that the mirror's own copy cannot be relied on, so that
// it has to be built again.
type damagedError struct{ err error }

func (e *damagedError) Error() string { return "mirror is damaged: " + e.err.Error() }
func (e *damagedError) Unwrap() error { return e.err }

// overtime makes an [ErrLimit] of a fetch that took too long by our own work.
func overtime(err error) error {
	if errors.Is(err, errOvertime) {
		return fmt.Errorf("%w: %w", ErrLimit, err)
	}
	return err
}

// A remoteError carries what a server, or go-git on its behalf, said. The
// text is somebody else's, so it is cut and rid of control characters before
// it gets into a log.
type remoteError struct{ err error }

const maxRemoteText = 300

func (e *remoteError) Error() string { return printable(e.err.Error(), maxRemoteText) }
func (e *remoteError) Unwrap() error { return e.err }

// printable returns s fit for one line of a log, at most limit bytes long.
func printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return strings.TrimSpace(s)
}

// contain turns a panic into an error. go-git's readers are fed with hostile
// input; one that gives way must not take the process and everybody else's
// secrets with it. Where it happened is for the log alone: errors are shown to
// whoever may read a source's status.
func contain(err *error) {
	if r := recover(); r != nil {
		what := printable(fmt.Sprint(r), maxRemoteText)
		slog.Error("git reader gave way", "panic", what, "stack", string(debug.Stack()))
		*err = fmt.Errorf("%w: reader gave way: %s", ErrMalformed, what)
	}
}
