// Package audit writes Safe's audit log: one JSON line for every call, allowed
// or not, to standard output.
//
//	{"time":"2026-01-02T03:04:05.678901Z","request":"8f0c…","actor":"spiffe://…","verb":"get","object":"secrets shop/db","outcome":"ok"}
//
// A line never holds a secret value: an [Entry] has no place for one.
//
// # When the log cannot be written
//
// What an operator does must be on record: [Log.Record] returns once the line
// is written, and when it returns an error the call has to be refused. What a
// workload reads is served all the same: [Log.Note] never waits, its line is
// written some milliseconds later, and one that could not be written is counted
// in vsecm_audit_dropped_total.
//
// Standard output may be a pipe that nobody empties, and then a write never
// returns. So only one goroutine writes; the callers hand their lines to it
// through queues: one of 4,096 lines for Note, and one of 256 for Record. While
// a write hangs, Note drops what no longer fits, and Record waits two seconds
// before it refuses. Anybody can make lines of [Anonymous] and [Unverified]:
// they may fill half of Note's queue, so that no flood of them takes the place
// of a workload's line, or has an operator refused.
package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	queueLength = 4096
	callsLength = 256
	recordWait  = 2 * time.Second
	// gatherTime is how long the lines of Note wait for others, at most.
	gatherTime = 5 * time.Millisecond

	// maxField bounds, in bytes, each string of an entry but its object. A
	// SPIFFE ID may be 2,048 bytes long.
	maxField = 2048
	// maxObject leaves room for the names of all that one call delivered.
	maxObject = 64 << 10
)

// ErrNotRecorded says that a line was not written, or not in time. The call
// that it is about must be refused.
var ErrNotRecorded = errors.New("audit line was not recorded")

// Outcomes that are not problems. A refused call has its problem's type as
// outcome.
const (
	// OK: the caller got what it asked for.
	OK = "ok"
	// NotModified: the caller already had it.
	NotModified = "not-modified"
	// Allowed: an operator's call was allowed and is about to be done.
	Allowed = "allowed"
	// Failed: an operator's call was allowed and could not be done.
	Failed = "failed"
)

// Anonymous is the actor of a call that anyone may make, made by someone who
// did not say who they are.
const Anonymous = "anonymous"

// Unverified is the actor of a call whose certificate, or whose token, proves
// nothing.
const Unverified = "unverified"

// An Entry is one call.
type Entry struct {
	Time      time.Time // of the call; written in UTC
	RequestID string    // as a problem names it to the caller
	Actor     string    // a SPIFFE ID, a Kubernetes user, [Anonymous], [Unverified], or "uid:" and a number
	// Credential is the id of the Kubernetes token that an operator showed. The
	// API server's audit log has under it to whom that was issued.
	Credential string
	Verb       string // get, watch, sync, unseal, seal, reveal
	Object     string // what the verb was applied to, such as "secrets shop/db shop/api"
	Outcome    string // one of the outcomes above, or a problem's type
}

type wire struct {
	Time       string `json:"time"`
	RequestID  string `json:"request,omitempty"`
	Actor      string `json:"actor"`
	Credential string `json:"credential,omitempty"`
	Verb       string `json:"verb"`
	Object     string `json:"object"`
	Outcome    string `json:"outcome"`
}

// line returns e as it is written, with its newline. Everything that may come
// from a caller is bounded; JSON escapes what could forge another line.
func (e Entry) line() []byte {
	b, err := json.Marshal(wire{
		Time:       e.Time.UTC().Format("2006-01-02T15:04:05.000000Z"),
		RequestID:  bound(e.RequestID, maxField),
		Actor:      bound(e.Actor, maxField),
		Credential: bound(e.Credential, maxField),
		Verb:       bound(e.Verb, maxField),
		Object:     bound(e.Object, maxObject),
		Outcome:    bound(e.Outcome, maxField),
	})
	if err != nil {
		// Strings always marshal.
		panic(err)
	}
	return append(b, '\n')
}

func bound(s string, size int) string {
	if len(s) <= size {
		return s
	}
	return strings.ToValidUTF8(s[:size], "") + "…"
}

// A Log writes entries. It is safe for concurrent use.
type Log struct {
	notes   chan *item // of Note
	calls   chan *item // of Record
	dropped prometheus.Counter

	// mu guards the queues against being closed while a line is put into one.
	mu     sync.RWMutex
	closed bool

	done chan struct{}
	// wait is how long Record waits for its line to be written.
	wait time.Duration
	// gather is the writer's gatherTime.
	gather time.Duration
}

// An item is a line on its way to the writer, which formats it: that is work
// that a caller's goroutine, often a fresh one with a small stack, is spared.
type item struct {
	entry Entry
	// written, of Record, is given the result.
	written chan error
	// state is where the line is. A caller that gave up takes its line back,
	// unless the writer has it already.
	state atomic.Int32
}

const (
	queued int32 = iota
	taken
	withdrawn
)

// New returns a log that writes to w, and registers its counter with reg. It
// owns a goroutine, which Close ends.
func New(w io.Writer, reg prometheus.Registerer) (*Log, error) {
	return newLog(w, reg, queueLength, callsLength, recordWait)
}

func newLog(w io.Writer, reg prometheus.Registerer, notes, calls int, wait time.Duration) (*Log, error) {
	l := &Log{
		notes: make(chan *item, notes),
		calls: make(chan *item, calls),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vsecm_audit_dropped_total",
			Help: "Audit lines of calls to the workload API that could not be written.",
		}),
		done: make(chan struct{}),
		wait: wait, gather: gatherTime,
	}
	if err := reg.Register(l.dropped); err != nil {
		return nil, fmt.Errorf("register audit metrics: %w", err)
	}
	go l.write(w)
	return l, nil
}

// Note logs a call that is answered whether or not it could be logged. It
// never waits.
func (l *Log) Note(e Entry) {
	room := cap(l.notes)
	if e.Actor == Anonymous || e.Actor == Unverified {
		room /= 2
	}
	if !l.put(l.notes, room, &item{entry: e}) {
		l.dropped.Inc()
	}
}

// Record logs a call that must not be done unless it is logged, and returns
// when the line is written. It waits at most two seconds; its error is always
// [ErrNotRecorded]. A line whose Record failed may still appear in the log: too
// much is on record rather than too little.
func (l *Log) Record(ctx context.Context, e Entry) error {
	ctx, cancel := context.WithTimeout(ctx, l.wait)
	defer cancel()
	it := &item{entry: e, written: make(chan error, 1)}
	if !l.put(l.calls, cap(l.calls), it) {
		return fmt.Errorf("%w: the log is full or closed", ErrNotRecorded)
	}
	select {
	case err := <-it.written:
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNotRecorded, err)
		}
		return nil
	case <-ctx.Done():
		it.state.CompareAndSwap(queued, withdrawn)
		return fmt.Errorf("%w: %w", ErrNotRecorded, ctx.Err())
	}
}

// put queues it, and reports whether there was room, among the first places of
// the queue. Those who come at once may take a few places more.
func (l *Log) put(queue chan<- *item, places int, it *item) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed || len(queue) >= places {
		return false
	}
	select {
	case queue <- it:
		return true
	default:
		return false
	}
}

// Close writes what is queued and ends the log's goroutine. Where the writer
// hangs, it gives up when ctx ends: that goroutine can only end with the
// process.
func (l *Log) Close(ctx context.Context) error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.notes)
		close(l.calls)
	}
	l.mu.Unlock()
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("write the last audit lines: %w", ctx.Err())
	}
}

// write writes lines until the queues are closed and empty. Lines that wait
// together are written together, and those of Note are left to gather for a
// moment: to wake a goroutine and to write for each of them would be half the
// cost of a workload's call.
func (l *Log) write(w io.Writer) {
	defer close(l.done)
	buf := bufio.NewWriterSize(w, 64<<10)
	var batch []*item
	notes, calls := l.notes, l.calls
	pause := time.NewTimer(time.Hour)
	pause.Stop()
	defer pause.Stop()
	pausing := false
	for notes != nil || calls != nil {
		ready := notes
		if pausing {
			ready = nil
		}
		var first *item
		select {
		case <-pause.C:
			pausing = false
			continue
		case first = <-calls:
			if first == nil {
				// The log is being closed; nothing is to gather.
				calls, pausing, l.gather = nil, false, 0
				continue
			}
		case first = <-ready:
			if first == nil {
				notes = nil
				continue
			}
		}
		batch = gather(append(batch[:0], first), calls)
		batch = gather(batch, notes)
		l.flush(buf, w, batch)
		clear(batch)
		if l.gather > 0 {
			pausing = true
			pause.Reset(l.gather)
		}
	}
}

// gather adds to batch what waits in queue, and no more than it has room for:
// who goes on filling it must not hold up the batch.
func gather(batch []*item, queue <-chan *item) []*item {
	for range cap(queue) {
		select {
		case it := <-queue:
			if it == nil {
				return batch // it was closed
			}
			batch = append(batch, it)
		default:
			return batch
		}
	}
	return batch
}

// flush writes a batch, and tells each of its callers the result. Which lines
// of a failed batch reached the log is not known, so all of them count as lost.
func (l *Log) flush(buf *bufio.Writer, w io.Writer, batch []*item) {
	var err error
	live := batch[:0]
	for _, it := range batch {
		if !it.state.CompareAndSwap(queued, taken) {
			continue
		}
		live = append(live, it)
		if _, e := buf.Write(it.entry.line()); e != nil {
			err = e
		}
	}
	if e := buf.Flush(); e != nil {
		err = e
		// A bufio.Writer keeps its error for ever; the next batch may fare
		// better.
		buf.Reset(w)
	}
	for _, it := range live {
		switch {
		case it.written != nil:
			it.written <- err
		case err != nil:
			l.dropped.Inc()
		}
	}
}
