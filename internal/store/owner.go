package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"

	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// ErrExposed says that somebody else than this process's user may change what is in the
// data directory: what they put there would be served.
var ErrExposed = errors.New("data directory is not safe from other users")

// checkFolder demands that folder belongs to user uid, and that nobody else
// may write to it.
func checkFolder(folder string, uid int) error {
	var st unix.Stat_t
	if err := unix.Stat(folder, &st); err != nil {
		return &os.PathError{Op: "stat", Path: folder, Err: err}
	}
	if int(st.Uid) != uid {
		return fmt.Errorf("%s: %w: it belongs to user %d, and this is user %d", folder, ErrExposed, st.Uid, uid)
	}
	if mode := uint32(st.Mode) & 0o7777; mode&0o022 != 0 {
		return fmt.Errorf("%s: %w: its mode is %04o; chmod 700 it, and look at what is in it", folder, ErrExposed, mode)
	}
	return nil
}

// A fault is a file that is not served.
type fault struct {
	err error
	// claimed tells whether the file can still be recognised as somebody's
	// object: owner's, or, where that is empty, one that no source may write.
	claimed bool
	owner   string
}

// allows tells whether owner may replace or remove the file.
func (f *fault) allows(owner string) bool { return !f.claimed || f.owner == owner && owner != "" }

// ownerLine finds the label of an object's owner in its file.
var ownerLine = regexp.MustCompile(`(?m)^[ \t]+["']?` + regexp.QuoteMeta(v1alpha1.LabelSource) + `["']?:[ \t]*["']?([A-Za-z0-9._-]*)["']?[ \t\r]*$`)

// newFault returns the fault err of a file that holds data. A file that cannot
// be decoded is not torn, since files are replaced whole: its disk is damaged, or somebody
// edited it. What it says of its owner is believed, so that its source puts
// right what is damaged, and no other one takes it over. A manifest without an
// owner is somebody's own. What is left of neither is nobody's.
func newFault(err error, data []byte) *fault {
	f := &fault{err: err}
	owners := ownerLine.FindAllSubmatch(data, -1)
	f.claimed = len(owners) > 0 || bytes.Contains(data, []byte(v1alpha1.Group+"/"))
	for i, o := range owners {
		if owner := string(o[1]); i == 0 || owner == f.owner {
			f.owner = owner
			continue
		}
		f.owner = ""
		break
	}
	return f
}
