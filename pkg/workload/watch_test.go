package workload

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

// A script is a Safe that answers each request with the next of its steps, and
// holds the one after the last until its client leaves.
type script struct {
	t     *testing.T
	steps []step

	mu       sync.Mutex
	requests []string        // query and If-None-Match of each
	now      time.Time       // the client's clock
	pauses   []time.Duration // what the client slept
	events   []string        // what Watch told
	done     chan struct{}   // is closed when the steps are over
}

// A step is one answer, given after the client's clock has gone on by held.
type step struct {
	answer http.HandlerFunc
	held   time.Duration
}

func newScript(t *testing.T, steps ...step) *script {
	return &script{t: t, steps: steps, now: time.Now(), done: make(chan struct{})}
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.URL.RawQuery+" "+r.Header.Get("If-None-Match"))
	n := len(s.requests)
	if n <= len(s.steps) {
		s.now = s.now.Add(s.steps[n-1].held)
	}
	s.mu.Unlock()
	if n <= len(s.steps) {
		s.steps[n-1].answer(w, r)
		return
	}
	if n == len(s.steps)+1 {
		close(s.done)
	}
	<-r.Context().Done()
}

func (s *script) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf(format, args...))
}

// play runs a watch until the steps are over. It returns what the watch told:
// the secrets of each call, "well", and each failure.
func (s *script) play() []string {
	s.t.Helper()
	w := newWorld(s.t, "spiffe://example.org"+safePath, nil, s.ServeHTTP)
	c := w.client(s.t, WithObserver(func(err error) { s.note("%s", name(err)) }))
	c.now = func() time.Time {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.now
	}
	c.random = func() float64 { return 0.5 }
	c.sleep = func(_ context.Context, d time.Duration) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pauses = append(s.pauses, d)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.Watch(ctx, func(got *Secrets) { s.note("%s", summary(got)) }) }()
	<-s.done
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		s.t.Errorf("the watch ended with %v", err)
	}
	return s.events
}

// name returns an error by what a program decides on.
func name(err error) string {
	for kind, text := range map[error]string{
		ErrNoIdentity: "no identity", ErrUnauthorized: "unauthorized", ErrNotFound: "not found", ErrSealed: "sealed",
		ErrUnavailable: "unavailable", ErrWrongSafe: "wrong safe", ErrBadAnswer: "bad answer",
	} {
		if errors.Is(err, kind) {
			return text
		}
	}
	if err == nil {
		return "well"
	}
	return err.Error()
}

func summary(s *Secrets) string {
	var parts []string
	for _, secret := range s.Secrets {
		parts = append(parts, fmt.Sprintf("%s=%s", secret.Name, secret.Data["k"]))
	}
	return "[" + strings.Join(parts, " ") + "]"
}

// holding is an answer with one secret.
func holding(etag, version, value string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", etag)
		fmt.Fprintf(w, `{"secrets":[{"name":"db","version":%q,"updated":"2026-01-02T03:04:05Z","data":{"k":%q}}]}`,
			version, base64.StdEncoding.EncodeToString([]byte(value)))
	}
}

func answers(steps ...http.HandlerFunc) []step {
	var out []step
	for _, h := range steps {
		out = append(out, step{answer: h})
	}
	return out
}

func refuse(p problem.Type) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { problem.Write(w, p, "a detail", "r1") }
}

func unchanged(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }

func TestWatchTellsEachStateOnceAndFailuresToTheObserver(t *testing.T) {
	a, b := holding(`"a"`, "v1", "one"), holding(`"b"`, "v2", "two")
	nothing := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"0"`)
		_, _ = io.WriteString(w, `{"secrets":[]}`)
	}
	half := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"b"`)
		_, _ = io.WriteString(w, oneFile[:len(oneFile)/2])
	}
	tooMuch := func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "1073741824") }
	redirect := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://example.org/", http.StatusFound)
	}
	doubled := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"b"`)
		_, _ = io.WriteString(w, strings.Replace(oneFile, "[{", `[{"name":"db"},{`, 1))
	}
	for _, tt := range []struct {
		name  string
		steps []http.HandlerFunc
		want  []string
	}{
		{"the present state comes at once", []http.HandlerFunc{a}, []string{"well", "[db=one]"}},
		{"no secrets are a state as well", []http.HandlerFunc{nothing}, []string{"well", "[]"}},
		{"a change is told", []http.HandlerFunc{a, unchanged, b}, []string{"well", "[db=one]", "[db=two]"}},
		{"a change back is told", []http.HandlerFunc{a, b, a}, []string{"well", "[db=one]", "[db=two]", "[db=one]"}},
		{"secrets that went away are told", []http.HandlerFunc{a, nothing}, []string{"well", "[db=one]", "[]"}},
		{"the same state is not told again", []http.HandlerFunc{a, a, unchanged, a, b, b}, []string{"well", "[db=one]", "[db=two]"}},
		{"nor by another ETag", []http.HandlerFunc{a, holding(`"x"`, "v1", "one"), b}, []string{"well", "[db=one]", "[db=two]"}},
		{"a new version of the same values is told", []http.HandlerFunc{a, holding(`"x"`, "v1b", "one")}, []string{"well", "[db=one]", "[db=one]"}},
		{"other values of the same version are told", []http.HandlerFunc{a, holding(`"x"`, "v1", "uno")}, []string{"well", "[db=one]", "[db=uno]"}},
		{"sealed, then unsealed with the same state", []http.HandlerFunc{a, refuse(problem.Sealed), refuse(problem.Sealed), unchanged, b},
			[]string{"well", "[db=one]", "sealed", "sealed", "well", "[db=two]"}},
		{"sealed, then unsealed with another", []http.HandlerFunc{a, refuse(problem.Sealed), b}, []string{"well", "[db=one]", "sealed", "well", "[db=two]"}},
		{"sealed at the beginning", []http.HandlerFunc{refuse(problem.Sealed), refuse(problem.Unavailable), a}, []string{"sealed", "unavailable", "well", "[db=one]"}},
		{"not let in for a while", []http.HandlerFunc{refuse(problem.Forbidden), a}, []string{"unauthorized", "well", "[db=one]"}},
		{"an older Safe for a while", []http.HandlerFunc{a, refuse(problem.NotFound), b}, []string{"well", "[db=one]", "not found", "well", "[db=two]"}},
		{"half a JSON is no state", []http.HandlerFunc{a, half, b}, []string{"well", "[db=one]", "bad answer", "well", "[db=two]"}},
		{"nor is half a connection", []http.HandlerFunc{a, cutOff, b}, []string{"well", "[db=one]", "bad answer", "well", "[db=two]"}},
		{"nor a gigabyte", []http.HandlerFunc{a, tooMuch, b}, []string{"well", "[db=one]", "bad answer", "well", "[db=two]"}},
		{"nor a redirect", []http.HandlerFunc{a, redirect, b}, []string{"well", "[db=one]", "bad answer", "well", "[db=two]"}},
		{"nor a doubled name", []http.HandlerFunc{a, doubled, b}, []string{"well", "[db=one]", "bad answer", "well", "[db=two]"}},
		{"nor what has no ETag", []http.HandlerFunc{respond(oneFile), a}, []string{"bad answer", "well", "[db=one]"}},
		{"an unasked 304", []http.HandlerFunc{unchanged, a}, []string{"bad answer", "well", "[db=one]"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t, answers(tt.steps...)...)
			if got := s.play(); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// What Safe is asked after each answer: the first time for the state, then to
// hold until it is another one than the last that was good.
func TestWatchAsksForWhatItDoesNotKnow(t *testing.T) {
	s := newScript(t, answers(refuse(problem.Sealed), holding(`"a"`, "1", "x"), unchanged, refuse(problem.Sealed), holding(`"b"`, "1", "x"))...)
	s.play()
	want := []string{" ", " ", `watch=1 "a"`, `watch=1 "a"`, `watch=1 "a"`, `watch=1 "b"`}
	if !slices.Equal(s.requests, want) {
		t.Errorf("asked %q, want %q", s.requests, want)
	}
}

// By a random source that always says a half.
func TestWatchPausesWhereSafeDoesNotHold(t *testing.T) {
	a, b := holding(`"a"`, "v1", "one"), holding(`"b"`, "v2", "two")
	later := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "5")
		problem.Write(w, problem.TooManyRequests, "", "r1")
	}
	muchLater := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "86400")
		problem.Write(w, problem.Unavailable, "", "r1")
	}
	sealed := refuse(problem.Sealed)
	const s = time.Second
	for _, tt := range []struct {
		name  string
		steps []step
		want  []time.Duration
	}{
		{"changes are followed at once", answers(a, b, a, b), nil},
		{"so is a watch that was held", []step{{a, 0}, {unchanged, 50 * s}, {unchanged, 47 * s}, {b, 0}}, nil},
		{"one that was let go early is not", []step{{a, 0}, {unchanged, 3 * s}, {unchanged, 20 * s}, {b, 0}}, []time.Duration{s, s}},
		{"nor one that was not held, ever less often", answers(a, unchanged, a, unchanged, a, b, unchanged), []time.Duration{s, 2 * s, 4 * s, 8 * s, s}},
		{"failures pause ever longer", answers(sealed, sealed, sealed, sealed, sealed, sealed, a, sealed), []time.Duration{s, 2 * s, 4 * s, 8 * s, 15 * s, 15 * s, s}},
		{"Safe says how long at least", answers(later, a), []time.Duration{6 * s}},
		{"a minute at most", answers(muchLater, a), []time.Duration{61 * s}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			script := newScript(t, tt.steps...)
			script.play()
			if !slices.Equal(script.pauses, tt.want) {
				t.Errorf("paused %v, want %v", script.pauses, tt.want)
			}
		})
	}
}

// A Safe that takes the question and says nothing is left; the next try is
// another one.
func TestWatchLeavesASafeThatHangs(t *testing.T) {
	asked := make(chan struct{}, 100)
	w := newWorld(t, "spiffe://example.org"+safePath, nil, func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		// The headers come, and then nothing.
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	told := make(chan error, 100)
	c := w.client(t, WithObserver(func(err error) { told <- err }))
	c.answerWait = 50 * time.Millisecond
	c.sleep = func(context.Context, time.Duration) {}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Watch(ctx, func(s *Secrets) { t.Errorf("told %s", summary(s)) }) }()
	for range 2 {
		if err := <-told; err == nil {
			t.Error("it is said to be well")
		}
	}
	<-asked
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v", err)
	}
}

// A frozen network keeps connections, and lets nothing through those that were
// there when it froze.
type frozenNetwork struct {
	address string

	mu    sync.Mutex
	conns []net.Conn
}

// freezable puts a network before the server at url.
func freezable(t *testing.T, url string) *frozenNetwork {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &frozenNetwork{address: "https://" + l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", strings.TrimPrefix(url, "https://"))
			if err != nil {
				_ = in.Close()
				continue
			}
			f.mu.Lock()
			f.conns = append(f.conns, out)
			f.mu.Unlock()
			// What the client sends is taken, and goes nowhere once the other
			// side is closed: it hears nothing of that.
			wg.Go(func() {
				_, _ = io.Copy(out, in)
				_, _ = io.Copy(io.Discard, in)
			})
			wg.Go(func() { _, _ = io.Copy(in, out) })
			t.Cleanup(func() { _, _ = in.Close(), out.Close() })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return f
}

func (f *frozenNetwork) freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		_ = c.Close()
	}
}

// The node on which Safe ran is gone, and its connections say nothing. The
// client finds the next Safe by itself.
func TestADeadConnectionIsReplaced(t *testing.T) {
	held := make(chan struct{}, 10)
	w := newWorld(t, "spiffe://example.org"+safePath, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "" {
			holding(`"a"`, "1", "one")(w, r)
			return
		}
		select {
		case held <- struct{}{}:
			<-r.Context().Done()
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	})
	network := freezable(t, w.url)
	told := make(chan error, 10)
	c := w.client(t, WithSafe(network.address), WithObserver(func(err error) {
		select {
		case told <- err:
		default:
		}
	}))
	c.watchWait = 100 * time.Millisecond
	c.sleep = func(context.Context, time.Duration) {}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Watch(ctx, func(*Secrets) {})
	}()
	<-held
	network.freeze()
	// It is not told anything else until it is found out, and then it is well
	// at the next try: a watch is held again.
	for err := range told {
		if errors.Is(err, ErrUnavailable) {
			break
		}
	}
	<-held
	cancel()
	<-ended
}

// Its own bound ends a call as well as the caller's, and says so.
func TestFetchLeavesASafeThatHangs(t *testing.T) {
	w := newWorld(t, "spiffe://example.org"+safePath, nil, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		panic(http.ErrAbortHandler) // nothing is answered, not even to who has just gone
	})
	c := w.client(t)
	c.answerWait = 50 * time.Millisecond
	_, err := c.Fetch(t.Context())
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer within 50ms") {
		t.Errorf("got %v", err)
	}
}

// What fn was given stays as it is, whatever comes after.
func TestWatchLeavesTheValuesToWhoeverHasThem(t *testing.T) {
	w := newScript(t, answers(holding(`"a"`, "1", "one"), holding(`"b"`, "2", "two"), holding(`"c"`, "2", "two"), unchanged)...)
	world := newWorld(t, "spiffe://example.org"+safePath, nil, w.ServeHTTP)
	c := world.client(t, WithObserver(func(error) {}))
	c.sleep = func(context.Context, time.Duration) {}
	var kept []*Secrets
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Watch(ctx, func(s *Secrets) { kept = append(kept, s) })
	}()
	<-w.done
	cancel()
	<-ended
	if len(kept) != 2 || summary(kept[0]) != "[db=one]" || summary(kept[1]) != "[db=two]" {
		t.Errorf("kept %v", kept)
	}
}

func TestCloseEndsWatchesAndCalls(t *testing.T) {
	held := make(chan struct{}, 2)
	w := newWorld(t, "spiffe://example.org"+safePath, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "" && r.Header.Get("If-None-Match") == "" && len(held) == 0 {
			holding(`"a"`, "1", "one")(w, r)
			return
		}
		held <- struct{}{}
		<-r.Context().Done()
	})
	c := w.client(t, WithObserver(func(error) {}))
	ended := make(chan error, 1)
	go func() { ended <- c.Watch(t.Context(), func(*Secrets) {}) }()
	<-held
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("the watch ended with %v", err)
	}
	if _, err := c.Fetch(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("fetch: %v", err)
	}
	if _, _, err := c.Identity(); !errors.Is(err, ErrClosed) {
		t.Errorf("identity: %v", err)
	}
	if err := c.Watch(t.Context(), func(*Secrets) { t.Error("called") }); !errors.Is(err, ErrClosed) {
		t.Errorf("watch: %v", err)
	}
}

// A pause, too, ends with the client.
func TestCloseEndsAPause(t *testing.T) {
	w := newWorld(t, "spiffe://example.org"+safePath, nil, refuse(problem.Sealed))
	c := w.client(t, WithObserver(func(error) {}))
	resting := make(chan struct{}, 1)
	c.sleep = func(ctx context.Context, _ time.Duration) {
		select {
		case resting <- struct{}{}:
		default:
		}
		<-ctx.Done()
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Watch(t.Context(), func(*Secrets) {}) }()
	<-resting
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("the watch ended with %v", err)
	}
}

func TestAWatchThatNobodyObservesIsLogged(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)
	s := newScript(t, answers(refuse(problem.Sealed), holding(`"a"`, "v1", "a-secret-value"))...)
	w := newWorld(t, "spiffe://example.org"+safePath, nil, s.ServeHTTP)
	c := w.client(t)
	c.sleep = func(context.Context, time.Duration) {}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Watch(ctx, func(*Secrets) {})
	}()
	<-s.done
	cancel()
	<-ended
	if got := log.String(); !strings.Contains(got, "safe is sealed: 503: a detail (request r1)") || !strings.Contains(got, "watching") || strings.Contains(got, "a-secret-value") {
		t.Errorf("logged %s", got)
	}
}

// Of a Safe that says something else each time, without end, a workload hears once a second.
func TestWatchRestsFromASafeThatChangesItsMindAllTheTime(t *testing.T) {
	var n atomic.Int64
	world := newWorld(t, "spiffe://example.org"+safePath, nil, func(w http.ResponseWriter, r *http.Request) {
		now := strconv.FormatInt(n.Add(1), 10)
		holding(`"`+now+`"`, now, now)(w, r)
	})
	c := world.client(t, WithObserver(func(error) {}))
	c.now = func() time.Time { return time.Unix(0, 0) }
	ctx, cancel := context.WithCancel(t.Context())
	heard := 0
	var rests []int
	c.sleep = func(_ context.Context, d time.Duration) {
		if rests = append(rests, heard); len(rests) == 3 {
			cancel()
		}
		if d != brief {
			t.Errorf("it rests for %v", d)
		}
	}
	_ = c.Watch(ctx, func(*Secrets) { heard++ })
	if want := []int{hasty + 1, hasty + 2, hasty + 3}; !slices.Equal(rests, want) {
		t.Errorf("it rests after %v changes, want %v", rests, want)
	}
}

func TestALongProblemIsToldInShort(t *testing.T) {
	r := refusal{status: 503, detail: strings.Repeat("é", maxTold), requestID: strings.Repeat("x", 1<<20)}
	if text := r.Error(); len(text) > 3*maxTold || !utf8.ValidString(text) {
		t.Errorf("%d bytes: %.100q", len(text), text)
	}
}
