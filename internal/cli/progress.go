package cli

import (
	"strconv"
	"sync"
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
	width, times := barFits(columnsOf(streams), what, pieces)
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
