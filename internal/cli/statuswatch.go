package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

const (
	// watchTimeout bounds one look, where --request-timeout does not.
	watchTimeout = 10 * time.Second
	// watchAnew is how long a watch works with the replicas that it has found, and with its tokens.
	watchAnew = 30 * time.Second
)

// A watch shows the status again and again.
type watch struct {
	o      statusOptions
	screen screen // zero: lines are appended
	now    func() time.Time
	last   *look // the last time that Safe could be looked for at all
	seen   time.Time
	failed error // why it cannot now
	notes  bytes.Buffer
	said   string // last, where lines are appended
}

// watching shows the status until Ctrl-C.
func (o statusOptions) watching(ctx context.Context) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	w := &watch{o: o, now: time.Now}
	if s := screenOf(o.streams.Out); s.columns > 0 {
		if restore, err := obeyEscapes(o.streams.Out.(*os.File)); err == nil {
			defer restore()
			w.screen = s
			o.safe.conn.skew.out = &w.notes // in the page
		}
	}
	err := w.looks(ctx)
	if ctx.Err() == nil {
		return err
	}
	// That is how it is meant to end. The page stays where the command was typed.
	if w.screen.columns > 0 && w.last != nil {
		w.page(painted{o.streams.Out, w.screen})
	}
	return nil
}

// looks looks at Safe again and again, until the end of ctx, or until it cannot be known where Safe is.
func (w *watch) looks(ctx context.Context) error {
	var (
		all   *safes
		found time.Time
	)
	closeAll := func() {
		if all != nil {
			all.close()
			all = nil
		}
	}
	defer closeAll()
	for first := true; ; first = false {
		within, cancel, err := w.o.safe.conn.within(ctx, watchTimeout)
		if err != nil {
			return err
		}
		if all == nil || w.now().Sub(found) > watchAnew {
			closeAll()
			found = w.now()
			all, w.failed = w.o.safe.open(within, viewerAccount)
		}
		if w.failed == nil {
			w.last, w.seen = w.o.look(within, all), w.now()
			if errors.Join(w.last.errs...) != nil {
				closeAll() // there may be others now, and another token may do
			}
		} else {
			all = nil
			if first && ctx.Err() == nil {
				cancel()
				return w.failed // it is the arguments, more likely than not
			}
		}
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if first {
			defer w.begin()()
		}
		if err := w.show(); err != nil {
			return err
		}
		timer := time.NewTimer(w.o.interval)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// Of terminals, as xterm has them.
const (
	otherScreen = "\x1b[?1049h\x1b[?25l" // and no cursor
	firstScreen = "\x1b[?25h\x1b[?1049l"
	clearPage   = "\x1b[H\x1b[J"
)

// begin takes a screen of its own, until the function that it returns is called, or somebody ends the program.
func (w *watch) begin() (end func()) {
	if w.screen.columns == 0 {
		return func() {}
	}
	back := func() { fmt.Fprint(w.o.streams.Out, firstScreen) }
	stopped := onSignals(back, syscall.SIGTERM, syscall.SIGHUP)
	fmt.Fprint(w.o.streams.Out, otherScreen)
	return func() { stopped.end(back) }
}

// show shows what was seen last.
func (w *watch) show() error {
	if w.screen.columns == 0 {
		return w.append()
	}
	w.screen = screenOf(w.o.streams.Out) // it may have another size now
	var page bytes.Buffer
	w.page(painted{&page, w.screen})
	_, err := io.WriteString(w.o.streams.Out, clearPage+fitted(page.String(), w.screen))
	return err
}

// page writes the whole page.
func (w *watch) page(to painted) {
	head := fmt.Sprintf("%s, every %s. Ctrl-C ends.", w.seen.Format(time.TimeOnly), w.o.interval)
	fmt.Fprintln(to, to.show(faint, head))
	if w.failed != nil {
		w.tell(to, w.failed)
		fmt.Fprintf(to, "\nAs it was %s:\n\n", ago(w.seen))
	}
	if err := w.o.print(to, w.last); err != nil {
		w.tell(to, err)
	}
	if err := errors.Join(w.last.errs...); err != nil && w.failed == nil {
		fmt.Fprintln(to)
		w.tell(to, err)
	}
	w.o.safe.tellMissed(to, w.last.all, w.last.names())
	_, _ = to.Write(w.notes.Bytes()) // both are memory
}

// tell writes an error as a command that ends with it would.
func (w *watch) tell(to painted, err error) {
	var text bytes.Buffer
	report(&text, err)
	for line := range strings.Lines(text.String()) {
		p := plain
		if strings.HasPrefix(line, "error:") {
			p = red
		}
		for part := range strings.SplitSeq(wrapped(strings.TrimSuffix(line, "\n"), to.columns), "\n") {
			fmt.Fprintln(to, to.show(p, part))
		}
	}
}

// append adds a line if there is something new to say.
func (w *watch) append() error {
	var said string
	if w.failed != nil {
		said = "Safe cannot be looked for: " + w.failed.Error()
	} else {
		said, _ = w.o.verdict(w.last)
	}
	if said == w.said {
		return nil
	}
	w.said = said
	_, err := fmt.Fprintf(w.o.streams.Out, "%s  %s\n", w.now().UTC().Format(time.RFC3339), visible(said))
	return err
}

// fitted returns as much of a page as fits on a screen, without what would scroll its beginning away.
func fitted(page string, s screen) string {
	lines := strings.Split(strings.TrimSuffix(page, "\n"), "\n")
	rows := func(line string) int { return max(1, (shownWidth(line)+s.columns-1)/s.columns) }
	all := 0
	for _, line := range lines {
		all += rows(line)
	}
	if s.rows == 0 || all <= s.rows {
		return strings.Join(lines, "\r\n")
	}
	left := s.rows - 1 // the last row says that there is more
	for i, line := range lines {
		if left -= rows(line); left < 0 {
			more := "… and " + counted(len(lines)-i, "more line")
			return strings.Join(append(lines[:i:i], s.show(faint, clipped(more, s.columns))), "\r\n")
		}
	}
	return strings.Join(lines, "\r\n")
}

// shownWidth returns how many columns a line takes, which colours do not.
func shownWidth(line string) int {
	n := 0
	for len(line) > 0 {
		if rest, coloured := strings.CutPrefix(line, "\x1b["); coloured {
			_, line, _ = strings.Cut(rest, "m")
			continue
		}
		_, size := utf8.DecodeRuneInString(line)
		line = line[size:]
		n++
	}
	return n
}
