package workload

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

// eventually waits for a condition.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !so() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// counted puts a socket before the one at address, and counts who connects.
func counted(t *testing.T, address string) (string, *atomic.Int64) {
	t.Helper()
	path := filepath.Join(shortDir(t), "p")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			out, err := net.Dial("unix", strings.TrimPrefix(address, "unix://"))
			if err != nil {
				_ = in.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				wg.Go(func() {
					_, _ = io.Copy(pair[0], pair[1])
					_, _ = in.Close(), out.Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return "unix://" + path, &n
}

// rotating is a Safe that holds watches, and remembers what each request was
// proved with. Its state is a number.
type rotating struct {
	mu      sync.Mutex
	state   int
	changed chan struct{}
	serials []string
	refused map[string]bool // serials that are not let in any more
}

func (s *rotating) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	serial := r.TLS.PeerCertificates[0].SerialNumber.String()
	s.serials = append(s.serials, serial)
	state, changed, refused := s.state, s.changed, s.refused[serial]
	s.mu.Unlock()
	if refused {
		// As Safe does with who shows an SVID that has expired.
		w.Header().Set("Connection", "close")
		problem.Write(w, problem.Unauthorized, "the X.509-SVID has expired", "r1")
		return
	}
	if r.Header.Get("If-None-Match") == strconv.Quote(strconv.Itoa(state)) {
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
		s.mu.Lock()
		state = s.state
		s.mu.Unlock()
	}
	holding(strconv.Quote(strconv.Itoa(state)), strconv.Itoa(state), strconv.Itoa(state))(w, r)
}

func (s *rotating) change() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state++
	close(s.changed)
	s.changed = make(chan struct{})
}

// asked returns how many requests there were, and what the last was proved with.
func (s *rotating) asked() (n int, serial string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.serials), s.serials[len(s.serials)-1]
}

func (c *Client) serial(t *testing.T) string {
	t.Helper()
	svid, err := c.source.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	return svid.Certificates[0].SerialNumber.String()
}

// One long watch, through many SVIDs: no change is missed, nothing fails, and
// each request is proved by the newest SVID. All on one connection to the
// Workload API.
func TestALongWatchFollowsRotation(t *testing.T) {
	safe := &rotating{changed: make(chan struct{})}
	w := newWorld(t, "spiffe://example.org"+safePath, nil, safe.ServeHTTP)
	socket, connections := counted(t, w.socket.Addr())
	var told []error
	c := w.client(t, WithSocket(socket), WithObserver(func(err error) { told = append(told, err) }))
	seen := make(chan string, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Watch(ctx, func(s *Secrets) { seen <- summary(s) }) }()
	if got := <-seen; got != "[db=0]" {
		t.Fatalf("at first %s", got)
	}
	used := map[string]bool{}
	for i := 1; i <= 5; i++ {

		eventually(t, "the watch is held", func() bool { asked, _ := safe.asked(); return asked >= i+1 })
		before := c.serial(t)
		used[before] = true
		if err := w.socket.Rotate(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the client has the new SVID", func() bool { return c.serial(t) != before })
		safe.change()
		if got := <-seen; got != "[db="+strconv.Itoa(i)+"]" {
			t.Fatalf("change %d: got %s", i, got)
		}
		eventually(t, "the next watch proves the new SVID", func() bool {
			asked, serial := safe.asked()
			return asked == i+2 && serial == c.serial(t)
		})
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v", err)
	}
	if len(told) != 1 || told[0] != nil {
		t.Errorf("the observer was told %v", told)
	}
	if len(used) != 5 || connections.Load() != 1 {
		t.Errorf("%d SVIDs on %d connections to the Workload API", len(used), connections.Load())
	}
}

// Several calls share a connection, so one may be refused on it when the SVID
// that opened it expires. It is tried again with the new one, and fails for
// nobody.
func TestACallIsNotRefusedForAnSVIDThatWasReplaced(t *testing.T) {
	safe := &rotating{changed: make(chan struct{})}
	w := newWorld(t, "spiffe://example.org"+safePath, nil, safe.ServeHTTP)
	c := w.client(t, WithObserver(func(err error) {
		if err != nil {
			t.Errorf("the watch failed: %v", err)
		}
	}))
	seen := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Watch(ctx, func(*Secrets) { seen <- struct{}{} })
	}()
	<-seen
	eventually(t, "the watch is held", func() bool { n, _ := safe.asked(); return n == 2 })
	before := c.serial(t)
	if err := w.socket.Rotate(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client has the new SVID", func() bool { return c.serial(t) != before })
	safe.mu.Lock()
	safe.refused = map[string]bool{before: true}
	safe.mu.Unlock()
	// The watch keeps the old connection open.
	if _, err := c.Fetch(t.Context()); err != nil {
		t.Errorf("got %v", err)
	}
	if _, serial := safe.asked(); serial == before {
		t.Error("the old SVID was shown")
	}
	cancel()
	<-ended
}

// What several calls had open when the SVID or the bundle changed, none of them uses again: it proved what may
// not be true any more.
func TestNoCallStaysOnAConnectionThatProvedTheOldSVID(t *testing.T) {
	const watches = 3
	safe := &rotating{changed: make(chan struct{})}
	w := newWorld(t, "spiffe://example.org"+safePath, nil, safe.ServeHTTP)
	c := w.client(t, WithObserver(func(err error) {
		if err != nil {
			t.Errorf("a watch failed: %v", err)
		}
	}))
	ctx, cancel := context.WithCancel(t.Context())
	var calls, ended sync.WaitGroup
	calls.Add(watches)
	for range watches {
		ended.Go(func() { _ = c.Watch(ctx, func(*Secrets) { calls.Done() }) })
	}
	calls.Wait()
	eventually(t, "the watches are held", func() bool { n, _ := safe.asked(); return n == 2*watches })
	before := c.serial(t)
	if err := w.socket.Rotate(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client has the new SVID", func() bool { return c.serial(t) != before })
	// One call hears of it, while all others have theirs under way.
	if _, err := c.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	calls.Add(watches)
	safe.change()
	calls.Wait()
	eventually(t, "the watches are held again", func() bool { n, _ := safe.asked(); return n == 3*watches+1 })
	safe.mu.Lock()
	for _, serial := range safe.serials[2*watches:] {
		if serial == before {
			t.Error("the old SVID was shown")
		}
	}
	safe.mu.Unlock()
	cancel()
	ended.Wait()
}

// Who is refused by name is not asked about twice.
func TestARefusalIsTakenAtItsWord(t *testing.T) {
	var asked atomic.Int64
	w := newWorld(t, "spiffe://example.org"+safePath, nil, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		refuse(problem.Forbidden)(w, r)
	})
	c := w.client(t)
	for range 3 {
		if _, err := c.Fetch(t.Context()); !errors.Is(err, ErrUnauthorized) {
			t.Errorf("got %v", err)
		}
	}
	if asked.Load() != 3 {
		t.Errorf("asked %d times", asked.Load())
	}
}

// The Workload API takes the identity away, and the last SVID expires. The
// error says where to look; with a new SVID all is well again.
func TestAnExpiredSVIDIsToldAndHeals(t *testing.T) {
	w := newWorld(t, "spiffe://example.org"+safePath, nil, holding(`"a"`, "1", "x"))
	short, err := w.ca.Listen(filepath.Join(shortDir(t), "s"), spiffeid.RequireFromString("spiffe://example.org/ns/shop/sa/db"), 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	c := w.client(t, WithSocket(short.Addr()))
	short.Revoke()
	var expires time.Time
	eventually(t, "the last SVID has expired, and why there is no new one is known", func() bool {
		id, until, err := c.Identity()
		if err != nil || id != "spiffe://example.org/ns/shop/sa/db" {
			t.Fatalf("identity %q, %v", id, err)
		}
		expires = until
		return time.Now().After(until) && c.lastErr.get() != ""
	})
	_, err = c.Fetch(t.Context())
	if !errors.Is(err, ErrNoIdentity) || errors.Is(err, ErrUnauthorized) {
		t.Errorf("got %v", err)
	}
	if err != nil && (!strings.Contains(err.Error(), expires.UTC().Format(time.RFC3339)) || !strings.Contains(err.Error(), "no identity issued")) {
		t.Errorf("it does not say why: %v", err)
	}
	if err := short.Rotate(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is served again", func() bool {
		_, err := c.Fetch(t.Context())
		// The new SVID may come while the old one is being refused.
		if err != nil && !errors.Is(err, ErrNoIdentity) && !errors.Is(err, ErrUnauthorized) && !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		return err == nil
	})
}

// The three-line use: nothing to configure but the environment, and however
// many calls there are, one client.
func TestTheSharedClient(t *testing.T) {
	before := shared
	shared = newSharedClient()
	defer func() {
		if err := shared.client.Close(); err != nil {
			t.Error(err)
		}
		shared = before
	}()
	w := newWorld(t, "spiffe://example.org"+safePath, nil, holding(`"a"`, "1", "x"))
	socket, connections := counted(t, w.socket.Addr())
	t.Setenv("VSECM_SAFE_ENDPOINT_URL", w.url+"/")

	// A failure is not kept.
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "unix://"+filepath.Join(shortDir(t), "none"))
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Fetch(soon); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("fetch without an identity: %v", err)
	}
	if err := Watch(soon, func(*Secrets) { t.Error("called") }); !errors.Is(err, ErrNoIdentity) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("watch without an identity: %v", err)
	}

	t.Setenv("SPIFFE_ENDPOINT_SOCKET", socket)
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			s, err := Fetch(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			if value, ok := s.Get("db", "k"); !ok || string(value) != "x" {
				t.Errorf("got %q, %v", value, ok)
			}
			if _, ok := s.Get("db", "none"); ok {
				t.Error("there is a key that is not there")
			}
			if _, ok := s.Get("none", "k"); ok {
				t.Error("there is an object that is not there")
			}
		})
	}
	calls.Wait()
	ctx, stop := context.WithCancel(t.Context())
	err := Watch(ctx, func(s *Secrets) { stop() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v", err)
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections to the Workload API", n)
	}
}
