package cli

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// progressAfter is how long work takes before a person is shown how it goes.
const progressAfter = time.Second

// A bar shows a person at a terminal how far work has come, once it takes longer than a second. It is
// safe for concurrent use; a nil one shows nothing.
type bar struct {
	mu    sync.Mutex
	shown *progressbar.ProgressBar
	done  int
	start time.Time
}

// newBar returns a bar for so many pieces of work, nil where nobody would see it.
func newBar(streams genericiooptions.IOStreams, what string, pieces int) *bar {
	if !isTerminal(streams.ErrOut) {
		return nil
	}
	width, times := barFits(screenOf(streams.ErrOut).columns, what, pieces)
	return &bar{start: time.Now(), shown: progressbar.NewOptions(pieces,
		progressbar.OptionSetWriter(streams.ErrOut),
		progressbar.OptionSetDescription(what),
		progressbar.OptionSetWidth(width),
		progressbar.OptionSetPredictTime(times),
		progressbar.OptionSetElapsedTime(times),
		progressbar.OptionShowCount(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)}
}

// barFits returns how wide the bar itself may be in a line of so many columns, and whether there is room for the times.
func barFits(columns int, what string, pieces int) (width int, times bool) {
	const most, spent = 20, len(" [59m59s:59m59s]")
	room := columns - 1 - len(what) - len(" 100% || (/)") - 2*len(strconv.Itoa(pieces))
	if times = room >= most+spent; times {
		room -= spent
	}
	return max(1, min(room, most)), times
}

// add says that more is done.
func (b *bar) add(pieces int) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done += pieces
	if time.Since(b.start) >= progressAfter {
		_ = b.shown.Set(b.done) // what cannot be shown is not missed
	}
}

// end takes the bar away.
func (b *bar) end() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.start) >= progressAfter {
		_ = b.shown.Clear()
	}
}

// tellWaiting tells a person at a terminal what is waited for, once it takes longer than a
// second, until the function that it returns is called.
func tellWaiting(streams genericiooptions.IOStreams, what string) (stop func()) {
	_, stop = tellCounting(streams, what)
	return stop
}

// tellCounting is [tellWaiting] for work of which nobody knows how much there is: it also tells how often the first
// function that it returns was called, which may be done from several goroutines.
func tellCounting(streams genericiooptions.IOStreams, what string) (one, stop func()) {
	if !isTerminal(streams.ErrOut) {
		return func() {}, func() {}
	}
	what = clipped(visible(what), screenOf(streams.ErrOut).columns-len(": 1000000 (59m59s) "))
	var count atomic.Int64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		start, width := time.Now(), 0
		for {
			select {
			case <-done:
				if width > 0 {
					fmt.Fprint(streams.ErrOut, "\r", strings.Repeat(" ", width), "\r")
				}
				return
			case <-ticker.C:
				line := what
				if n := count.Load(); n > 0 {
					line += fmt.Sprintf(": %d", n)
				}
				line += fmt.Sprintf(" (%s)", time.Since(start).Round(time.Second))
				width = max(width, len([]rune(line)))
				fmt.Fprint(streams.ErrOut, "\r", line)
			}
		}
	}()
	return func() { count.Add(1) }, func() {
		close(done)
		<-ended
	}
}
