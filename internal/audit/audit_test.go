package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.FixedZone("", 3600))

func newTestLog(t testing.TB, w io.Writer, length int, wait time.Duration) *Log {
	t.Helper()
	l, err := newLog(w, prometheus.NewRegistry(), length, length, wait)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// A stuckWriter blocks until it is released, as a pipe does that nobody reads.
type stuckWriter struct {
	entered chan struct{} // is sent on when a write begins
	release chan struct{}
	mu      sync.Mutex
	got     bytes.Buffer
}

func newStuckWriter() *stuckWriter {
	return &stuckWriter{entered: make(chan struct{}, 100), release: make(chan struct{})}
}

func (w *stuckWriter) Write(b []byte) (int, error) {
	w.entered <- struct{}{}
	<-w.release
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got.Write(b)
}

func TestALineIsOneJSONObject(t *testing.T) {
	var out bytes.Buffer
	l := newTestLog(t, &out, 10, time.Minute)
	e := Entry{
		Time: testTime, RequestID: "r1", Actor: "spiffe://example.org/ns/shop/sa/db",
		Verb: "get", Object: "secrets/shop/db", Outcome: OK,
	}
	if err := l.Record(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	want := `{"time":"2026-01-02T02:04:05.678901Z","request":"r1","actor":"spiffe://example.org/ns/shop/sa/db",` +
		`"verb":"get","object":"secrets/shop/db","outcome":"ok"}` + "\n"
	if out.String() != want {
		t.Errorf("wrote %s\nwant  %s", out.String(), want)
	}
	out.Reset()
	e.Actor, e.Credential = "system:serviceaccount:vsecm-system:vsecm-operator", "JTI=1"
	if err := l.Record(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), `"actor":"system:serviceaccount:vsecm-system:vsecm-operator","credential":"JTI=1","verb":`) {
		t.Errorf("wrote %s", out.String())
	}
}

func TestACallerCannotForgeALine(t *testing.T) {
	var out bytes.Buffer
	l := newTestLog(t, &out, 10, time.Minute)
	for _, evil := range []string{
		"a\n{\"actor\":\"root\"}", "a\r\nb", `a","actor":"root`, "a\x00b", "a\xff\xfe", "a\u2028b", "\x1b[2J", strings.Repeat("é", 100_000),
	} {
		out.Reset()
		if err := l.Record(t.Context(), Entry{Time: testTime, Actor: evil, Credential: evil, Verb: evil, Object: evil, Outcome: evil, RequestID: evil}); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out.String(), "\n"); n != 1 || strings.ContainsAny(out.String(), "\x00\x1b\r") {
			t.Errorf("%.20q: wrote %d lines: %q", evil, n, out.String())
		}
		if out.Len() > 12*(6*maxField+maxObject) {
			t.Errorf("%.20q: line of %d bytes", evil, out.Len())
		}
		var members map[string]string
		if err := json.Unmarshal(out.Bytes(), &members); err != nil || len(members) != 7 {
			t.Errorf("%.20q: %v, %d members", evil, err, len(members))
		}
	}
}

func TestReadsAreServedAndCountedWhenTheLogHangs(t *testing.T) {
	w := newStuckWriter()
	l := newTestLog(t, w, 4, time.Minute)
	l.Note(Entry{Object: "first"})
	<-w.entered
	// The queue holds four lines, and the writer has its first; Note returns
	// from each of these, or the test never ends.
	for range 10 {
		l.Note(Entry{Object: "next"})
	}
	if got := testutil.ToFloat64(l.dropped); got != 6 {
		t.Errorf("%v lines were counted as dropped, want 6", got)
	}
	close(w.release)
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(w.got.String(), "\n"); got != 5 {
		t.Errorf("%d lines were written, want 5", got)
	}
}

func TestRecordFailsWhenTheLogHangs(t *testing.T) {
	w := newStuckWriter()
	l := newTestLog(t, w, 4, time.Millisecond)
	l.Note(Entry{Object: "first"})
	<-w.entered
	if err := l.Record(t.Context(), Entry{Object: "refused"}); !errors.Is(err, ErrNotRecorded) {
		t.Fatalf("got %v", err)
	}
	close(w.release)
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(w.got.String(), "refused") {
		t.Error("a call that was refused is on record as allowed")
	}
}

func TestRecordFailsWhenTheQueueIsFull(t *testing.T) {
	w := newStuckWriter()
	l := newTestLog(t, w, 1, time.Hour)
	l.Note(Entry{})
	<-w.entered
	first := make(chan error, 1)
	go func() { first <- l.Record(t.Context(), Entry{}) }()
	for len(l.calls) == 0 {
		runtime.Gosched()
	}
	if err := l.Record(t.Context(), Entry{}); !errors.Is(err, ErrNotRecorded) {
		t.Errorf("got %v", err)
	}
	close(w.release)
	if err := <-first; err != nil {
		t.Errorf("the one before: %v", err)
	}
}

// Anybody can make calls that need no name, and as many as they like.
func TestAFloodOfStrangersTakesNobodysPlace(t *testing.T) {
	for _, stranger := range []string{Anonymous, Unverified} {
		t.Run(stranger, func(t *testing.T) {
			w := newStuckWriter()
			l := newTestLog(t, w, 8, time.Minute)
			l.Note(Entry{Object: "first"})
			<-w.entered
			for range 100 {
				l.Note(Entry{Actor: stranger, Object: "flood"})
			}
			if got := testutil.ToFloat64(l.dropped); got != 96 {
				t.Errorf("%v lines were counted as dropped, want 96", got)
			}
			for range 4 {
				l.Note(Entry{Actor: "spiffe://example.org/ns/shop/sa/db", Object: "workload"})
			}
			if got := testutil.ToFloat64(l.dropped); got != 96 {
				t.Errorf("%v workload lines were dropped", got-96)
			}
			recorded := make(chan error, 1)
			go func() { recorded <- l.Record(t.Context(), Entry{Actor: "uid:0", Object: "operator"}) }()
			for len(l.calls) == 0 {
				runtime.Gosched()
			}
			close(w.release)
			if err := <-recorded; err != nil {
				t.Errorf("the operator was refused: %v", err)
			}
			if err := l.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			text := w.got.String()
			for object, want := range map[string]int{"first": 1, "flood": 4, "workload": 4, "operator": 1} {
				if got := strings.Count(text, `"`+object+`"`); got != want {
					t.Errorf("%d lines of %s, want %d", got, object, want)
				}
			}
		})
	}
}

type failingWriter struct {
	mu   sync.Mutex
	err  error
	good bytes.Buffer
}

func (w *failingWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	return w.good.Write(b)
}

func (w *failingWriter) set(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

func TestALogThatFailsIsToldAndRecovers(t *testing.T) {
	broken := errors.New("no space left on device")
	w := &failingWriter{err: broken}
	l := newTestLog(t, w, 10, time.Minute)
	if err := l.Record(t.Context(), Entry{}); !errors.Is(err, ErrNotRecorded) || !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	w.set(nil)
	if err := l.Record(t.Context(), Entry{Object: "after"}); err != nil {
		t.Errorf("after the fault: %v", err)
	}
	w.set(broken)
	l.Note(Entry{})
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := testutil.ToFloat64(l.dropped); got != 1 {
		t.Errorf("%v lines were counted as dropped, want 1", got)
	}
	if !strings.Contains(w.good.String(), "after") {
		t.Errorf("wrote %q", w.good.String())
	}
}

func TestCloseWritesWhatIsQueuedAndThenNothing(t *testing.T) {
	var out bytes.Buffer
	l := newTestLog(t, &out, 1000, time.Minute)
	for range 500 {
		l.Note(Entry{})
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), "\n"); got != 500 {
		t.Errorf("%d lines were written, want 500", got)
	}
	l.Note(Entry{})
	if err := l.Record(t.Context(), Entry{}); !errors.Is(err, ErrNotRecorded) {
		t.Errorf("a closed log recorded: %v", err)
	}
	if got := testutil.ToFloat64(l.dropped); got != 1 {
		t.Errorf("%v lines were counted as dropped, want 1", got)
	}
}

func TestCloseGivesUpOnAWriterThatHangs(t *testing.T) {
	w := newStuckWriter()
	l := newTestLog(t, w, 4, time.Minute)
	l.Note(Entry{})
	<-w.entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(w.release)
}

func BenchmarkNote(b *testing.B) {
	l := newTestLog(b, io.Discard, queueLength, recordWait)
	e := Entry{Time: testTime, RequestID: "0123456789abcdef", Actor: "spiffe://example.org/ns/shop/sa/db", Verb: "get", Object: "secrets/shop/db", Outcome: OK}
	for b.Loop() {
		l.Note(e)
	}
}
