package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"golang.org/x/term"

	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// errInterrupted says that Ctrl-C was typed where the terminal makes no signal of it.
var errInterrupted = errors.New("interrupted")

// readKey takes a root key, or a share of one, as it is pasted: the key's three lines, or one with
// \n spelled out; the share, in as many lines as it was written down in. It ends where the key or
// the share does, or at two empty lines; the text is the caller's to wipe. The caller gives the
// terminal its state back.
func (t *terminal) readKey() ([]byte, error) {
	// Between two lines the echo must stay off, and a line may be longer than
	// what a terminal keeps: so each byte is taken as it comes.
	if _, err := term.MakeRaw(t.fd); err != nil {
		return nil, err
	}
	// What else was pasted is not to become commands for the shell.
	defer discardInput(t.file)
	return readKeyLines(t.file, func(note string) { fmt.Fprint(t.out, "\r\n"+note) })
}

const (
	ctrlC     = 0x03
	ctrlD     = 0x04
	ctrlU     = 0x15
	backspace = 0x08
	del       = 0x7f
)

// shareCharacters is how long a share is (docs/formats.md).
const shareCharacters = 98

// readKeyLines reads what is typed on a terminal in raw mode.
func readKeyLines(in io.Reader, note func(string)) ([]byte, error) {
	// Of the size that it may have: nothing of it is left behind where it grows.
	text := make([]byte, 0, unseal.MaxTextSize)
	buf := make([]byte, 4096)
	defer clear(buf)
	var (
		line   int // where the last line begins
		last   byte
		parted bool // the last line is empty, and the one before was not
	)
	for {
		n, err := in.Read(buf)
		for _, b := range buf[:n] {
			before := last
			last = b
			switch {
			case b == '\n' && before == '\r': // a line end of two bytes
			case b == '\r' || b == '\n' || b == ctrlD:
				empty := len(bytes.TrimSpace(text[line:])) == 0
				// Of what has CR and LF at its lines' ends, terminals make two CRs, or two LFs.
				if parted = empty && !parted && line > 0 && b != ctrlD; parted {
					continue
				}
				lines := countKeyLines(text)
				share, missing := lacksOfShare(text)
				switch {
				case b == ctrlD, empty && lines > 0, share && missing <= 0, !share && lines >= 3:
					return text, nil
				case share:
					note(fmt.Sprintf("%d characters to go, or two empty lines to end: ", missing))
				}
				if empty && lines == 0 {
					note("paste the root key, then press Enter; Ctrl-C leaves: ")
				}
				text = append(text, '\n')
				line = len(text)
			case b == ctrlC:
				clear(text)
				return nil, errInterrupted
			case b == backspace || b == del:
				if len(text) > line {
					text = text[:len(text)-1]
				}
			case b == ctrlU:
				text = text[:line]
			case len(text) >= unseal.MaxTextSize-1: // room is left for the line's end
				clear(text)
				return nil, fmt.Errorf("more than %d bytes", unseal.MaxTextSize)
			default:
				text = append(text, b)
			}
		}
		if errors.Is(err, io.EOF) {
			return text, nil
		}
		if err != nil {
			clear(text)
			return nil, err
		}
	}
}

// lacksOfShare tells whether a text begins as a share does, and how many characters it lacks of
// one's length.
func lacksOfShare(text []byte) (share bool, missing int) {
	const begins = "vsecm-share1"
	n := 0
	share = true
	for _, c := range text {
		if c == ' ' || c == '\t' || c == '\r' || c == '\n' {
			continue
		}
		if n < len(begins) && c|0x20 != begins[n] {
			share = false
		}
		n++
	}
	// With a mistake at its beginning, too, it is nothing else.
	return share && n >= len(begins) || n == shareCharacters && !bytes.Contains(text, []byte("AGE-")), shareCharacters - n
}

// countKeyLines counts a root key's lines as [unseal.Parse] does.
func countKeyLines(text []byte) int {
	n := 0
	for len(text) > 0 {
		end, next := len(text), len(text)
		for _, separator := range []string{"\n", `\n`} {
			if i := bytes.Index(text[:end], []byte(separator)); i >= 0 {
				end, next = i, i+len(separator)
			}
		}
		line := bytes.TrimSpace(text[:end])
		if len(line) > 0 && !bytes.Contains(line, []byte("App version:")) {
			n++
		}
		text = text[next:]
	}
	return n
}
