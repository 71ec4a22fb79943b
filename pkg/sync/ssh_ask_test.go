package sync

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
)

// An asked is a server's side, and what closing it comes to.
type asked struct {
	bytes.Buffer
	closed error
}

func (a *asked) Close() error { return a.closed }

func TestServerMayBeDoneBeforeItIsToldThatNoMoreComes(t *testing.T) {
	broken := errors.New("broken")
	for closed, want := range map[error]error{nil: nil, io.EOF: nil, broken: broken} {
		a := &advertised{capabilities: capability.NewList(), want: plumbing.NewHash(strings.Repeat("a", 40))}
		req, err := a.request(nil)
		if err != nil {
			t.Fatal(err)
		}
		server := &asked{closed: closed}
		if err := (&sshSession{stdin: server}).ask(req); !errors.Is(err, want) {
			t.Errorf("%v: got %v", closed, err)
		}
		if !strings.HasSuffix(server.String(), "done\n") {
			t.Errorf("it was asked %q", server.String())
		}
	}
}
