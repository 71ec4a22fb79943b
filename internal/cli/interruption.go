package cli

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// An interruption has a program that is interrupted undo what it has begun, before it ends.
type interruption struct {
	mu   sync.Mutex // held forever once it leaves
	undo []func()
	over bool

	signals     chan os.Signal
	done, ended chan struct{}
}

// onInterruption begins one, which undoes this. It has to be ended.
func onInterruption(undo func()) *interruption {
	// A pipe that nobody reads counts: it would end the program too.
	return onSignals(undo, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
}

// onSignals is onInterruption by these signals. SIGPIPE is none for what talks over the network: a connection that the
// other side has closed is one, too.
func onSignals(undo func(), signals ...os.Signal) *interruption {
	i := &interruption{undo: []func(){undo}, signals: make(chan os.Signal, 1), done: make(chan struct{}), ended: make(chan struct{})}
	for _, s := range signals {
		if !signal.Ignored(s) { // as nohup has it
			signal.Notify(i.signals, s)
		}
	}
	go func() {
		defer close(i.ended)
		select {
		case received := <-i.signals:
			number, _ := received.(syscall.Signal)
			i.leave(exitInterrupted - int(syscall.SIGINT) + int(number))
		case <-i.done:
		}
	}()
	return i
}

// leave undoes everything, the last first, and ends the program; unless the interruption is over.
func (i *interruption) leave(code int) {
	i.mu.Lock()
	if i.over {
		i.mu.Unlock()
		return
	}
	for n := len(i.undo) - 1; n >= 0; n-- {
		i.undo[n]()
	}
	os.Exit(code)
}

// push adds what is to be undone first.
func (i *interruption) push(undo func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.undo = append(i.undo, undo)
}

// pop does something in place of what was pushed last.
func (i *interruption) pop(instead func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	instead()
	i.undo = i.undo[:len(i.undo)-1]
}

// end has nothing undone any more, and does this last. To end it twice does no harm.
func (i *interruption) end(last func()) {
	i.mu.Lock()
	over := i.over
	if !over {
		last()
		i.over = true
	}
	i.mu.Unlock()
	if over {
		return
	}
	signal.Stop(i.signals)
	close(i.done)
	<-i.ended
}
