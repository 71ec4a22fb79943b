package cli

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/term"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// What a terminal is told. What stands on its alternate screen is, on most, not kept for
// scrolling back; on others clearing includes that.
const (
	alternateScreen = "\x1b[?1049h"
	usualScreen     = "\x1b[?1049l"
	clearScreen     = "\x1b[H\x1b[2J\x1b[3J"
)

// A shareScreen shows shares to their holders, one after the other, on the terminal that
// standard output is, and nowhere else.
type shareScreen struct {
	keyboard *terminal
	done     func() // with the keyboard
	out      *os.File
	usual    func() // how the terminal was

	mu sync.Mutex // held while something is shown, and forever once it ends
}

func openShareScreen(streams genericiooptions.IOStreams) (*shareScreen, error) {
	const hint = "give each to its holder with --share-to NAME=RECIPIENT, or run this on a terminal"
	out, ok := streams.Out.(*os.File)
	if !ok || !term.IsTerminal(int(out.Fd())) {
		return nil, withHint(errors.New("shares are shown on a terminal only, and standard output is none"), hint)
	}
	usual, err := obeyEscapes(out)
	if err != nil {
		return nil, withHint(fmt.Errorf("shares are shown only where they can be cleared away: %w", err), hint)
	}
	keyboard, done, err := anyTerminal(streams)
	if err != nil {
		usual()
		return nil, withHint(errors.New("shares are shown to somebody who presses Enter, and there is no terminal to do it on"), hint)
	}
	return &shareScreen{keyboard: keyboard, done: done, out: out, usual: usual}, nil
}

func (s *shareScreen) close() {
	s.usual()
	s.done()
}

// show shows every share, once. Where it does not come to its end, all traces that it can reach
// are cleared away, and so is what else the interruption undoes: then the shares are of no use.
func (s *shareScreen) show(set *unseal.ShareSet, shares []unseal.Share, interrupted *interruption) error {
	state, err := term.GetState(s.keyboard.fd)
	if err != nil {
		return fmt.Errorf("reading from the terminal: %w", err)
	}
	end := func() {
		// Cleared before it goes, for the terminals that keep what was on it, and after.
		fmt.Fprint(s.out, clearScreen+usualScreen)
		_ = term.Restore(s.keyboard.fd, state)
	}
	interrupted.push(func() {
		s.mu.Lock() // nothing is shown any more
		end()
		fmt.Fprintln(s.keyboard.out, "note: given up: the shares that were shown are of no use")
	})
	fmt.Fprint(s.out, alternateScreen)
	for i, share := range shares {
		if err = s.showOne(set, share, len(shares)-i-1); err != nil {
			break
		}
	}
	if errors.Is(err, errInterrupted) {
		interrupted.leave(exitInterrupted)
	}
	interrupted.pop(end)
	if err != nil {
		return fmt.Errorf("on the terminal: %w", err)
	}
	return nil
}

func (s *shareScreen) showOne(set *unseal.ShareSet, share unseal.Share, more int) error {
	err := s.page(fmt.Sprintf("Share %d of %d. Any %d of them open root key %s.\r\n\r\n"+
		"Next it is shown, once. Nobody but its holder is to see this screen.\r\n\r\n"+
		"Press Enter to show share %[1]d; Ctrl-C gives up all shares. ",
		share.Index(), set.Size(), set.Threshold(), set.Recipient().KeyID()), nil, "")
	if err != nil {
		return err
	}
	text := share.Text()
	defer clear(text)
	rows := inRows(text)
	defer clear(rows)
	next := "this was the last one"
	if more > 0 {
		next = "the next holder may come"
	}
	return s.page(fmt.Sprintf("Share %d of %d, set %s:\r\n\r\n", share.Index(), set.Size(), set.ID()), rows, fmt.Sprintf("\r\n"+
		"Write it down, %d characters a line, or copy it into a password manager. Blanks\r\n"+
		"and where the lines end do not matter; every other character does. But for the\r\n"+
		"1 in the first line, there is no 1 in it, and no b, i or o.\r\n\r\n"+
		"Press Enter when that is done: the screen is cleared; %s. ", shareGroup*shareRow, next))
}

// page shows a page on an empty screen, waits for Enter, and clears it away.
func (s *shareScreen) page(before string, rows []byte, after string) error {
	if err := s.wait(func() error {
		for _, part := range [][]byte{[]byte(clearScreen), []byte(before), rows, []byte(after)} {
			if _, err := s.out.Write(part); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := fmt.Fprint(s.out, clearScreen)
	return err
}

// wait shows something and waits for Enter, one that was pressed after.
func (s *shareScreen) wait(show func() error) error {
	s.mu.Lock()
	// Raw, so that no key suspends it with a share on the screen.
	_, err := term.MakeRaw(s.keyboard.fd)
	if err == nil {
		discardInput(s.keyboard.file)
		_, err = term.MakeRaw(s.keyboard.fd)
	}
	if err == nil {
		err = show()
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	var key [1]byte
	for {
		if _, err := s.keyboard.file.Read(key[:]); err != nil {
			return err
		}
		switch key[0] {
		case '\r', '\n':
			return nil
		case ctrlC, ctrlD:
			return errInterrupted
		}
	}
}

const (
	shareGroup = 4 // characters
	shareRow   = 5 // groups: 20 characters, by which a typo's place is counted
)

// inRows lays a share out so that it can be copied by hand. Whoever selects it with the mouse gets
// nothing that does not belong to it.
func inRows(text []byte) []byte {
	rows := make([]byte, 0, 2*len(text)) // enough: nothing of it is left behind where it grows
	for i, c := range text {
		switch {
		case i%(shareGroup*shareRow) == 0:
			rows = append(rows, "    "...)
		case i%shareGroup == 0:
			rows = append(rows, ' ')
		}
		rows = append(rows, c)
		if (i+1)%(shareGroup*shareRow) == 0 || i == len(text)-1 {
			rows = append(rows, '\r', '\n')
		}
	}
	return rows
}
