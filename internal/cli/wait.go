package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/term"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// The pauses between two looks at what is waited for.
const (
	firstPause = 100 * time.Millisecond
	mostPause  = 2 * time.Second
)

// poll asks until there is an answer, an error, or the end of ctx, whose error it returns then.
func poll(ctx context.Context, done func() (bool, error)) error {
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// columnsOf returns how wide the terminal is that standard error is. What is wider than it would begin a new line each
// time that it is written anew.
func columnsOf(streams genericiooptions.IOStreams) int {
	if f, ok := streams.ErrOut.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
			return columns
		}
	}
	return 80
}

// clipped returns text of so many characters at most, of 60 in any case and 10 at least.
func clipped(text string, most int) string {
	most = max(10, min(most, 60))
	if letters := []rune(text); len(letters) > most {
		return string(letters[:most-1]) + "…"
	}
	return text
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
	what = clipped(visible(what), columnsOf(streams)-len(": 1000000 (59m59s) "))
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
