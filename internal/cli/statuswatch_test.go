//go:build linux

package cli

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// saidAlways answers alike.
func saidAlways(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}

// saying answers with what it holds; with nothing at all if that is empty.
func saying(said *atomic.Value) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		text := said.Load().(string)
		if text == "" {
			panic(http.ErrAbortHandler) // the connection is broken off
		}
		fmt.Fprint(w, text)
	}
}

func TestWatchingGoesOnWhileSafeIsAway(t *testing.T) {
	var said atomic.Value
	said.Store(`{"state":"unsealed","synced":true,"sources":[]}`)
	out := &syncBuffer{}
	o := statusOptions{
		streams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: out, ErrOut: &syncBuffer{}},
		safe:    safeFlag{conn: newConnection(), address: onSocket(t, saying(&said)), namespace: "vsecm-system"},
		watch:   true, interval: time.Millisecond,
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- o.watching(ctx) }()
	lines := []string{"  Safe is unsealed: 1 of 1 replica ready."}
	for _, next := range []struct{ says, seen string }{
		{`{"state":"sealed","synced":true,"sources":[]}`, "Safe is sealed: 0 of 1 replica ready."},
		{"", "Safe is away: 0 of 1 replica ready, 1 without an answer."},
		{`{"state":"unsealed","synced":true,"sources":[{"source":"config","error":"gone"}]}`, "Safe is unsealed: 1 of 1 replica ready; 0 of 1 source in sync."},
	} {
		last := lines[len(lines)-1]
		waitFor(t, last, func() bool { return strings.HasSuffix(out.String(), last+"\n") })
		said.Store(next.says)
		lines = append(lines, "  "+next.seen)
	}
	last := lines[len(lines)-1]
	waitFor(t, last, func() bool { return strings.HasSuffix(out.String(), last+"\n") })
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(got) != len(lines) {
		t.Fatalf("a line for each change, and no others; got %q", got)
	}
	for i, line := range got {
		if _, err := time.Parse(time.RFC3339, strings.TrimSuffix(line, lines[i])); err != nil {
			t.Errorf("line %d: %q: %v", i, line, err)
		}
	}
}

// On a terminal it takes a screen of its own, in which nothing is wider or longer than it, and leaves the last page
// behind.
func TestWatchingOnATerminal(t *testing.T) {
	for _, columns := range []uint16{120, 40} {
		var said atomic.Value
		said.Store(`{"state":"unsealed","synced":true,"keyID":"` + strings.Repeat("ab", 16) + `","sources":[]}`)
		t.Setenv("TERM", "xterm")
		t.Setenv("NO_COLOR", "")
		p := at(t, "status", "--watch", "--interval", "1s", "--safe", onSocket(t, saying(&said)))
		check(t, pty.Setsize(p.tty, &pty.Winsize{Cols: columns, Rows: 20}))
		p.sees("Safe is unsealed: 1 of 1 replica ready.", 1)
		if screen := p.screen(); !strings.Contains(screen, otherScreen+clearPage) || !strings.Contains(screen, "\x1b[32mSafe is unsealed") {
			t.Errorf("got %q", screen)
		}
		said.Store("")
		p.sees("error: reaching Safe", 1)
		said.Store(`{"state":"sealed","synced":true,"sources":[]}`)
		p.sees("Safe is sealed", 1)
		p.types("\x03")
		code, screen := p.leaves()
		_, behind, left := strings.Cut(screen, firstScreen)
		if code != exitOK || !left || !strings.Contains(behind, "Safe is sealed: 0 of 1 replica ready.") || strings.Contains(behind, clearPage) {
			t.Errorf("exit code %d: %q", code, screen)
		}
		if columns == 40 && !strings.Contains(screen, "(too narrow for ") {
			t.Errorf("got %q", screen)
		}
	}
}

func TestATerminatedWatchGivesTheScreenBack(t *testing.T) {
	var said atomic.Value
	said.Store(`{"state":"unsealed","synced":true,"sources":[]}`)
	t.Setenv("TERM", "xterm")
	p := at(t, "status", "--watch", "--safe", onSocket(t, saying(&said)))
	p.sees("Safe is unsealed", 1)
	check(t, p.cmd.Process.Signal(unix.SIGTERM))
	if code, screen := p.leaves(); code != exitTerminated || !strings.HasSuffix(screen, firstScreen) {
		t.Errorf("exit code %d: %q", code, screen)
	}
}

// Nobody is shown colours, or has the screen taken, who does not want that.
func TestNoColourWhereNobodyWantsIt(t *testing.T) {
	var said atomic.Value
	said.Store(`{"state":"sealed","synced":true,"sources":[]}`)
	for _, env := range [][2]string{{"NO_COLOR", "1"}, {"TERM", "dumb"}, {"TERM", ""}} {
		t.Run(env[0], func(t *testing.T) {
			t.Setenv("TERM", "xterm")
			t.Setenv("NO_COLOR", "")
			t.Setenv(env[0], env[1])
			if code, screen := at(t, "status", "--safe", onSocket(t, saying(&said))).leaves(); code != exitSealed || strings.Contains(screen, "\x1b") || !strings.Contains(screen, "Safe is sealed") {
				t.Errorf("exit code %d: %q", code, screen)
			}
		})
	}
}

func TestWatchingIsForPeople(t *testing.T) {
	for _, args := range [][]string{{"-o", "json"}, {"-o", "jsonpath={.replicas}"}, {"--interval", "10ms"}} {
		code, stdout, stderr := run(t, "", append([]string{"status", "--watch", "--safe", "unix:///none"}, args...)...)
		if code != exitError || stdout != "" || !strings.Contains(stderr, "--watch") && !strings.Contains(stderr, "--interval") {
			t.Errorf("%q: exit code %d: %s%s", args, code, stdout, stderr)
		}
	}
	// What was wrong from the beginning ends it.
	if code, _, stderr := run(t, "", "status", "--watch", "--safe", "http://example.com"); code != exitError || !strings.Contains(stderr, "not an address of Safe") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if code, _, stderr := run(t, "", "status", "--watch", "--request-timeout", "soon", "--safe", "unix:///none"); code != exitError || !strings.Contains(stderr, "--request-timeout") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// Where Safe cannot be looked for any more, the page says so, and what it was like before.
func TestAWatchWithoutAClusterShowsWhatItWasLike(t *testing.T) {
	seen := time.Now().Add(-3 * time.Minute)
	w := &watch{
		o:      statusOptions{interval: 2 * time.Second},
		screen: screen{columns: 60},
		last:   &look{all: &safes{replicas: make([]*replica, 1)}, errs: make([]error, 1), replicas: []status{{Replica: "a", State: unsealed, Synced: true}}},
		seen:   seen,
		failed: withHint(os.ErrDeadlineExceeded, "wait"),
	}
	var page bytes.Buffer
	w.page(painted{&page, w.screen})
	for _, want := range []string{"error: i/o timeout\nhint: wait\n", "\nAs it was 3m ago:\n\nSafe is unsealed: 1 of 1 replica ready.\n"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("lacks %q:\n%s", want, page.String())
		}
	}
}
