package sync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
)

// maxAdvertisement bounds the list of references that a server shows.
const maxAdvertisement = 16 << 20

// An advertised is what a server shows of a repository, and of the one
// reference that counts.
type advertised struct {
	capabilities *capability.List
	// want is what to ask for, tip the commit that it leads to: not the same
	// for a tag that is an object of its own.
	want, tip plumbing.Hash
}

// findRef looks for the branch or tag among what a server shows.
func findRef(refs *packp.AdvRefs, ref plumbing.ReferenceName) (*advertised, error) {
	if refs.IsEmpty() {
		return nil, errEmpty(ref)
	}
	h, ok := refs.References[ref.String()]
	if !ok || h.IsZero() {
		return nil, errNoRef(ref)
	}
	a := &advertised{capabilities: refs.Capabilities, want: h, tip: h}
	if peeled, ok := refs.Peeled[ref.String()]; ok && ref.IsTag() {
		a.tip = peeled
	}
	return a, nil
}

func errNoRef(ref plumbing.ReferenceName) error {
	kind := "branch"
	if ref.IsTag() {
		kind = "tag"
	}
	return fmt.Errorf("%w: %s %s", ErrNoBranch, kind, printable(ref.Short(), 100))
}

func errEmpty(ref plumbing.ReferenceName) error {
	return fmt.Errorf("%w (the repository is empty)", errNoRef(ref))
}

// request asks for what leads from have to the tip.
func (a *advertised) request(have []plumbing.Hash) (*packp.UploadPackRequest, error) {
	req := packp.NewUploadPackRequestFromCapabilities(a.capabilities)
	if a.capabilities.Supports(capability.NoProgress) {
		if err := req.Capabilities.Set(capability.NoProgress); err != nil {
			return nil, err
		}
	}
	req.Wants = []plumbing.Hash{a.want}
	req.Haves = have
	return req, nil
}

// errCut says that a server did not send all that it was about to.
var errCut = errors.New("connection was cut")

// spool receives a pack to its end before the first object is taken over, so
// a connection that is cut leaves nothing behind. The caller discards the file.
func spool(tmp string, caps *capability.List, r io.Reader) (_ *os.File, err error) {
	f, err := os.CreateTemp(tmp, "fetch-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			discard(f)
		}
	}()
	if _, err := io.Copy(f, demux(caps, r)); err != nil {
		if own := (*os.PathError)(nil); errors.As(err, &own) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", errCut, err)
	}
	_, err = f.Seek(0, io.SeekStart)
	return f, err
}

func demux(caps *capability.List, r io.Reader) io.Reader {
	switch {
	case caps.Supports(capability.Sideband64k):
		return sideband.NewDemuxer(sideband.Sideband64k, r)
	case caps.Supports(capability.Sideband):
		return sideband.NewDemuxer(sideband.Sideband, r)
	}
	return r
}

// takeOver reads a pack that was received whole and adds its objects. From
// here on nobody else is to blame for the time it takes: a pack that runs out
// of it would do so again.
func takeOver(ctx context.Context, store *objectStore, f *os.File) error {
	p, err := readPack(ctx, f, store.tmp, store.limits)
	if err == nil {
		err = store.addPack(ctx, p)
	}
	return overtime(err)
}
