package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/procfs"
	"go.uber.org/goleak"

	"github.com/vsecm/kubectl-vsecm/internal/fetch"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/logs"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/workload"
)

// role names what a process of this binary does instead of testing.
const role = "AGENT_TEST_ROLE"

func TestMain(m *testing.M) {
	if name := os.Getenv(role); name != "" {
		play, ok := roles[name]
		if !ok {
			fmt.Fprintln(os.Stderr, "no such role:", name)
			os.Exit(1)
		}
		play()
		return
	}
	goleak.VerifyTestMain(m)
}

var roles = map[string]func(){
	"writer":    playWriter,
	"signalled": playSignalled,
	"init":      playInit,
	"beside":    playBeside,
}

// A feed is a Safe whose answers the test gives.
type feed struct {
	answers chan func(func(*workload.Secrets), func(error))
	observe func(error)
}

func (f *feed) Watch(ctx context.Context, fn func(*workload.Secrets)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case answer := <-f.answers:
			answer(fn, f.observe)
		}
	}
}

func (f *feed) Close() error { return nil }

// A running is an agent that runs.
type running struct {
	t    testing.TB
	feed *feed
	log  *logs.Buffer
	stop context.CancelFunc
	done chan struct{}
	code int // once done is closed
	err  error
}

// start runs an agent until the test ends.
func start(t testing.TB, c Config) *running {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	return startWith(t, ctx, stop, c)
}

func startWith(t testing.TB, ctx context.Context, stop context.CancelFunc, c Config) *running {
	r := &running{
		t: t, log: &logs.Buffer{}, stop: stop, done: make(chan struct{}),
		feed: &feed{answers: make(chan func(func(*workload.Secrets), func(error)))},
	}
	c.Log = slog.New(slog.NewTextHandler(r.log, nil))
	c.Dial = func(_ context.Context, observe func(error)) (Client, error) {
		r.feed.observe = observe
		return r.feed, nil
	}
	go func() {
		defer close(r.done)
		r.code, r.err = Run(ctx, c)
	}()
	t.Cleanup(r.end)
	return r
}

// end stops the agent and waits for its end.
func (r *running) end() {
	r.stop()
	<-r.done
}

// safe says what Safe answers next: an object's keys and values, by OBJECT/KEY.
func (r *running) safe(values map[string]string) {
	r.feed.answers <- func(fn func(*workload.Secrets), observe func(error)) {
		observe(nil)
		fn(secretsOf(values))
	}
}

// fails says with what the next try fails.
func (r *running) fails(err error) {
	r.feed.answers <- func(_ func(*workload.Secrets), observe func(error)) { observe(err) }
}

func (r *running) logs(text string) {
	r.t.Helper()
	wait.For(r.t, "the log", func() error {
		if !strings.Contains(r.log.String(), text) {
			return fmt.Errorf("%q is not in\n%s", text, r.log)
		}
		return nil
	})
}

func secretsOf(values map[string]string) *workload.Secrets {
	objects := map[string]map[string][]byte{}
	for path, value := range values {
		object, key, _ := strings.Cut(path, "/")
		if objects[object] == nil {
			objects[object] = map[string][]byte{}
		}
		objects[object][key] = []byte(value)
	}
	s := &workload.Secrets{Secrets: []workload.Secret{}}
	for name, data := range objects {
		s.Secrets = append(s.Secrets, workload.Secret{Name: name, Version: "v", Data: data})
	}
	return s
}

func holds(t testing.TB, file, want string) {
	t.Helper()
	wait.For(t, file, func() error {
		got, err := os.ReadFile(file)
		if err == nil && string(got) != want {
			err = fmt.Errorf("it holds %q, want %q", got, want)
		}
		return err
	})
}

func write(t testing.TB, file, content string) string {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func targetIn(t testing.TB) (*fetch.Target, string) {
	dir := filepath.Join(t.TempDir(), "secrets")
	return &fetch.Target{Dir: dir}, filepath.Join(dir, "db", "password")
}

var errOdd = errors.New("odd")

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (f *feed) dial(_ context.Context, observe func(error)) (Client, error) {
	f.observe = observe
	return f, nil
}

func notifyContext() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

// childrenOf returns the children of a process, also those that wait to be reaped.
func childrenOf(t testing.TB, pid int) (children []int) {
	t.Helper()
	all, err := procfs.AllProcs()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if stat, err := p.Stat(); err == nil && stat.PPID == pid {
			children = append(children, p.PID)
		}
	}
	return children
}
