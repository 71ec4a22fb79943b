package sync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"golang.org/x/crypto/ssh"
)

// An sshSource speaks git's protocol over ssh. It uses Go's own ssh and not
// go-git's client above it: that one reads the machine's ssh_config and proxy
// settings, and can be stopped neither by a context nor by a size.
type sshSource struct {
	to     *sshAddress
	ref    plumbing.ReferenceName
	limits Limits
	signer ssh.Signer
	hosts  *sshHosts
	dialer *net.Dialer
}

func newSSHSource(r Remote, to *sshAddress, ref plumbing.ReferenceName, tmp string, limits Limits) (*sshSource, error) {
	if len(r.Identity) == 0 || len(r.KnownHosts) == 0 {
		return nil, fmt.Errorf("%s: ssh needs an identity and known hosts", r.URL)
	}
	signer, err := parseIdentity(r.Identity, r.Password)
	if err != nil {
		return nil, err
	}
	hosts, err := parseKnownHosts(r.KnownHosts, tmp)
	if err != nil {
		return nil, err
	}
	return &sshSource{to: to, ref: ref, limits: limits, signer: signer, hosts: hosts, dialer: newDialer(r.Refuse, limits.Stall)}, nil
}

func (s *sshSource) close() {}

// open connects and starts git-upload-pack. Until that has begun to answer,
// all of it may take as long as a server may be silent.
func (s *sshSource) open(ctx context.Context) (_ session, err error) {
	raw, err := s.dialer.DialContext(ctx, "tcp", s.to.dial())
	if err != nil {
		return nil, s.fault(ctx, nil, err)
	}
	conn := newBoundedConn(raw, maxHandshake)
	u := &sshSession{source: s, conn: conn, stderr: new(head)}
	u.stop = context.AfterFunc(ctx, func() { conn.Close() })
	defer func() {
		if err != nil {
			u.close()
			err = s.fault(ctx, u, err)
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(s.limits.Stall)); err != nil {
		return nil, err
	}
	address := s.to.dial()
	c, channels, requests, err := ssh.NewClientConn(conn, address, &ssh.ClientConfig{
		User:              s.to.user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(s.signer)},
		HostKeyCallback:   s.hosts.check,
		HostKeyAlgorithms: s.hosts.algorithms(address),
		ClientVersion:     "SSH-2.0-vsecm",
	})
	if err != nil {
		return nil, err
	}
	u.client = ssh.NewClient(c, channels, requests)
	if err := u.start(); err != nil {
		return nil, err
	}
	// What comes besides the pack, such as keys that are exchanged anew.
	conn.left.Add(maxAdvertisement + s.limits.FetchBytes + s.limits.FetchBytes/8)
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if u.advertised, err = u.look(); err != nil {
		return nil, err
	}
	return u, nil
}

type sshSession struct {
	*advertised
	source *sshSource
	conn   *boundedConn
	client *ssh.Client
	stop   func() bool // ends the watch over the context

	run    *ssh.Session
	stdin  io.WriteCloser
	stdout *boundedBody
	stderr *head
	asked  bool // nothing more is to be written
	ended  bool // the program's end was waited for
}

func (s *sshSession) tip() plumbing.Hash { return s.advertised.tip }

func (s *sshSession) start() (err error) {
	if s.run, err = s.client.NewSession(); err != nil {
		return err
	}
	if s.stdin, err = s.run.StdinPipe(); err != nil {
		return err
	}
	out, err := s.run.StdoutPipe()
	if err != nil {
		return err
	}
	s.run.Stderr = s.stderr
	if err := s.run.Start("git-upload-pack " + shellQuoted(s.source.to.path)); err != nil {
		return err
	}
	limits := s.source.limits
	s.stdout = newBoundedBody(struct {
		io.Reader
		io.Closer
	}{out, s.conn}, min(limits.FetchBytes, maxAdvertisement), limits.Stall)
	return nil
}

// look reads what the server shows of the repository.
func (s *sshSession) look() (*advertised, error) {
	refs := packp.NewAdvRefs()
	err := refs.Decode(s.stdout)
	switch {
	case errors.Is(err, packp.ErrEmptyAdvRefs):
		return nil, errEmpty(s.source.ref)
	case errors.Is(err, packp.ErrEmptyInput):
		return nil, s.complaint()
	case err != nil:
		return nil, err
	}
	transport.FilterUnsupportedCapabilities(refs.Capabilities)
	return findRef(refs, s.source.ref)
}

// complaint says why the server's program ended without an answer.
func (s *sshSession) complaint() error {
	// Its words may come after its end. A server that keeps them waiting is
	// not waited for.
	if err := s.conn.SetDeadline(time.Now().Add(s.source.limits.Stall)); err != nil {
		return err
	}
	s.ended = true
	end := s.run.Wait()
	words := printable(s.stderr.String(), 200)
	if words == "" && end != nil {
		words = printable(end.Error(), 200)
	}
	if isNoRepository(words) {
		return fmt.Errorf("%w: the server says: %s", ErrNoRepository, words)
	}
	return fmt.Errorf("server ended without an answer: %s", words)
}

// isNoRepository tells the words in which servers say that there is nothing,
// or nothing to be seen. The protocol has none.
func isNoRepository(words string) bool {
	words = strings.ToLower(words)
	for _, w := range []string{
		"not a git repository", "does not appear to be a git repository", "repository not found", "no such repository",
		"does not exist", "could not be found", "no such project", "access denied", "cannot find repository",
	} {
		if strings.Contains(words, w) {
			return true
		}
	}
	return false
}

// bring asks for the pack that leads from what is there to the tip.
func (s *sshSession) bring(ctx context.Context, store *objectStore, have []plumbing.Hash) error {
	if slices.Contains(have, s.tip()) {
		return nil // a rewind to what is there already
	}
	if s.asked {
		return s.bringAgain(ctx, store, have)
	}
	req, err := s.request(have)
	if err != nil {
		return err
	}
	s.stdout.left = s.source.limits.FetchBytes
	if err := s.ask(req); err != nil {
		return s.source.fault(ctx, s, err)
	}
	res := packp.NewUploadPackResponse(req)
	if err := res.Decode(io.NopCloser(s.stdout)); err != nil {
		return s.source.fault(ctx, s, fmt.Errorf("%w: %w", errCut, err))
	}
	f, err := spool(store.tmp, req.Capabilities, res)
	if errors.Is(err, errCut) {
		return s.source.fault(ctx, s, err)
	} else if err != nil {
		return err
	}
	defer discard(f)
	s.close() // reading the pack takes its time, and the server is free to go
	return takeOver(ctx, store, f)
}

// bringAgain is bring on a connection of its own: one serves one request.
func (s *sshSession) bringAgain(ctx context.Context, store *objectStore, have []plumbing.Hash) error {
	again, err := s.source.open(ctx)
	if err != nil {
		return err
	}
	defer again.close()
	if again.tip() != s.tip() {
		return fmt.Errorf("%s moved while it was fetched", s.source.ref)
	}
	return again.bring(ctx, store, have)
}

// ask sends the request, all of it at once: there is nothing to negotiate.
func (s *sshSession) ask(req *packp.UploadPackRequest) error {
	s.asked = true
	if err := req.UploadRequest.Encode(s.stdin); err != nil {
		return err
	}
	if err := req.UploadHaves.Encode(s.stdin, false); err != nil {
		return err
	}
	if err := pktline.NewEncoder(s.stdin).EncodeString("done\n"); err != nil {
		return err
	}
	// A server that answers at once may be gone by now, and then there is nobody to tell that no more
	// comes (go-git/go-git issue 1685). What it sent says whether it had enough.
	if err := s.stdin.Close(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// close ends the connection, and what waits for it. It may be called again.
func (s *sshSession) close() {
	s.stop()
	if s.stdout != nil {
		if !s.asked && s.advertised != nil {
			// Leave as git does, so that the server has nothing to log. It
			// is a few bytes; whether they arrive is not waited for long.
			_ = s.conn.SetDeadline(time.Now().Add(time.Second))
			_, _ = s.stdin.Write(pktline.FlushPkt)
			s.asked = true
		}
		s.stdout.Close()
	}
	s.conn.Close()
	if s.client != nil {
		s.client.Wait()
	}
	if s.run != nil && !s.ended {
		s.ended = true
		s.run.Wait()
	}
}

// fault says in our own words what an error means. What the libraries say of
// a connection that has ended hides why it did.
func (s *sshSource) fault(ctx context.Context, u *sshSession, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if u != nil {
		if why := u.conn.why(); errors.Is(why, ErrLimit) {
			return why
		} else if timeout := net.Error(nil); errors.As(why, &timeout) && timeout.Timeout() {
			err = errors.Join(err, why)
		}
		if u.stdout != nil && u.stdout.stalled() {
			err = errors.Join(err, ErrStalled)
		}
	}
	var (
		kinds   *ssh.AlgorithmNegotiationError
		said    *pktline.ErrorLine
		timeout net.Error
	)
	switch {
	case errors.Is(err, ErrHostKey):
		return err
	case errors.Is(err, ErrNoBranch), errors.Is(err, ErrNoRepository):
		return err
	case errors.Is(err, ErrLimit), errors.Is(err, ErrAddress):
		return &remoteError{err}
	case errors.As(err, &kinds) && kinds.What == "host key":
		return otherKinds(s.to.dial(), kinds)
	case errors.As(err, &said) && isNoRepository(said.Text):
		return fmt.Errorf("%w: the server says: %s", ErrNoRepository, printable(said.Text, 200))
	case errors.Is(err, ErrStalled), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %s kept silent for %v", ErrStalled, s.to.dial(), s.limits.Stall)
	case isRefusal(err):
		return fmt.Errorf("%w: %s does not let %s in with the key %s", ErrAuthentication, s.to.dial(), s.to.user, ssh.FingerprintSHA256(s.signer.PublicKey()))
	}
	return &remoteError{err}
}

// isRefusal tells that a server did not take the key. There is no error type
// for it, and a server may disconnect where it should answer.
func isRefusal(err error) bool {
	text := err.Error()
	return strings.Contains(text, "unable to authenticate") || strings.Contains(text, "Too many authentication failures")
}
