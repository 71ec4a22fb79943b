package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/internal/fetch"
	"github.com/vsecm/kubectl-vsecm/internal/shellenv"
	"github.com/vsecm/kubectl-vsecm/pkg/workload"
)

func password(value string) map[string]string { return map[string]string{"db/password": value} }

// Whatever goes wrong, the last version stays; and once it is right again, the
// newest is there.
func TestTheLastVersionStays(t *testing.T) {
	for name, trouble := range map[string]func(r *running){
		"sealed":              func(r *running) { r.fails(workload.ErrSealed) },
		"gone":                func(r *running) { r.fails(workload.ErrUnavailable) },
		"404":                 func(r *running) { r.fails(workload.ErrNotFound) },
		"refused":             func(r *running) { r.fails(workload.ErrUnauthorized) },
		"another Safe":        func(r *running) { r.fails(workload.ErrWrongSafe) },
		"half an answer":      func(r *running) { r.fails(workload.ErrBadAnswer) },
		"the SVID is expired": func(r *running) { r.fails(workload.ErrNoIdentity) },
		"nothing for it":      func(r *running) { r.safe(nil) },
		"a name that is a path": func(r *running) {
			r.safe(map[string]string{"../db/password": "elsewhere"})
		},
		"a named key is missing": func(r *running) { r.safe(map[string]string{"db/other": "value-two"}) },
	} {
		t.Run(name, func(t *testing.T) {
			target, file := targetIn(t)
			target.Names = []fetch.Name{{Object: "db", Key: "password", Path: "db/password"}}
			r := start(t, Config{Target: target})
			r.safe(password("value-one"))
			holds(t, file, "value-one")
			trouble(r)
			r.logs("keeping what was delivered")
			holds(t, file, "value-one")
			r.safe(password("value-three"))
			holds(t, file, "value-three")
			r.end()
			holds(t, file, "value-three")
			if r.err != nil || r.code != 0 {
				t.Errorf("ended with %d, %v", r.code, r.err)
			}
			if log := r.log.String(); strings.Contains(log, "value-") {
				t.Errorf("a value is in the log:\n%s", log)
			}
		})
	}
}

// A target that is not what it should be is told of, is left as it is, and is
// written to once somebody has put it right. Time stands still for everybody
// but the agent.
func TestATargetThatIsPutRightIsWrittenTo(t *testing.T) {
	for _, tt := range []struct {
		name   string
		spoil  func(dir string) error
		mend   func(dir string) error
		kind   string
		asRoot bool
	}{
		{
			name:  "a symbolic link",
			spoil: func(dir string) error { return os.Symlink(os.TempDir(), dir) },
			mend:  os.Remove, kind: kindTarget,
		},
		{
			name:  "a file",
			spoil: func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
			mend:  os.Remove, kind: kindTarget,
		},
		{
			name:  "somebody else's place",
			spoil: func(dir string) error { return os.MkdirAll(filepath.Join(dir, "db"), 0o700) },
			mend:  func(dir string) error { return os.Remove(filepath.Join(dir, "db")) }, kind: kindTarget,
		},
		{
			name: "somebody else's directory", asRoot: true,
			spoil: func(dir string) error { return errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, 12345, 12345)) },
			mend:  func(dir string) error { return os.Chown(dir, 0, 0) }, kind: kindTarget,
		},
		{
			name: "read-only", asRoot: true,
			spoil: func(dir string) error {
				return errors.Join(os.Mkdir(dir, 0o700), unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, "size=1m"))
			},
			mend: func(dir string) error { return unix.Mount("", dir, "", unix.MS_REMOUNT, "size=1m") }, kind: kindTarget,
		},
		{
			name: "full", asRoot: true,
			spoil: func(dir string) error {
				err := errors.Join(os.Mkdir(dir, 0o700), unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
				if full := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 1<<20), 0o600); err == nil && !errors.Is(full, unix.ENOSPC) {
					return full
				}
				return err
			},
			mend: func(dir string) error { return os.Remove(filepath.Join(dir, "ballast")) }, kind: kindFull,
		},
		{
			name: "another agent's",
			spoil: func(dir string) error {
				var err error
				other, err = fetch.Open(fetch.Target{Dir: dir})
				return err
			},
			mend: func(string) error { other.Close(); return nil }, kind: kindBusy,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.asRoot && os.Geteuid() != 0 {
				return // nobody else can make such a directory
			}
			target, file := targetIn(t)
			if err := tt.spoil(target.Dir); errors.Is(err, unix.EPERM) {
				t.Logf("%v", err) // root in a container
				return
			} else if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(target.Dir, unix.MNT_DETACH) })
			synctest.Test(t, func(t *testing.T) {
				r := start(t, Config{Target: target})
				defer r.end()
				r.safe(password("value-one"))
				time.Sleep(time.Second / 2)
				if log := r.log.String(); !strings.Contains(log, "kind="+tt.kind) || strings.Contains(log, "value-one") {
					t.Errorf("the log says\n%s", log)
				}
				if _, err := os.Stat(file); err == nil {
					t.Error("it was written to")
				}
				if err := tt.mend(target.Dir); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if got, err := os.ReadFile(file); err != nil || string(got) != "value-one" {
					t.Errorf("after a minute it holds %q, %v\n%s", got, err, r.log)
				}
			})
		})
	}
}

var other *fetch.Directory

// Somebody removes what was written, or the whole directory: it is written again.
func TestWhatIsRemovedIsWrittenAgain(t *testing.T) {
	for name, remove := range map[string]func(dir string) error{
		"the link":      func(dir string) error { return os.Remove(filepath.Join(dir, "..data")) },
		"an object":     func(dir string) error { return os.Remove(filepath.Join(dir, "db")) },
		"the version":   func(dir string) error { return os.RemoveAll(must(filepath.EvalSymlinks(filepath.Join(dir, "..data")))) },
		"the directory": os.RemoveAll,
	} {
		t.Run(name, func(t *testing.T) {
			target, file := targetIn(t)
			synctest.Test(t, func(t *testing.T) {
				r := start(t, Config{Target: target})
				defer r.end()
				r.safe(password("value-one"))
				synctest.Wait()
				holds(t, file, "value-one")
				if err := remove(target.Dir); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * checkEvery)
				if got, err := os.ReadFile(file); err != nil || string(got) != "value-one" {
					t.Errorf("it holds %q, %v\n%s", got, err, r.log)
				}
			})
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// expiring is a context whose deadline passes when the test says so.
type expiring struct {
	context.Context
	done chan struct{}
}

func (e expiring) Done() <-chan struct{} { return e.done }

func (e expiring) Err() error {
	select {
	case <-e.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

func TestOnceWaitsForSomething(t *testing.T) {
	target, file := targetIn(t)
	r := start(t, Config{Target: target, Once: true})
	r.fails(workload.ErrSealed)
	r.safe(nil)
	r.logs("kind=" + kindNothing)
	r.safe(password("value-one"))
	<-r.done
	if r.err != nil || r.code != 0 {
		t.Errorf("ended with %d, %v", r.code, r.err)
	}
	holds(t, file, "value-one")
}

func TestOnceTellsWhyNothingWasDelivered(t *testing.T) {
	for _, tt := range []struct {
		name   string
		layout fetch.Layout
		safe   func(r *running)
		says   string // in the log
		want   error
	}{
		{"sealed", "", func(r *running) { r.fails(workload.ErrSealed) }, "kind=sealed", workload.ErrSealed},
		{"nothing there", "", func(r *running) { r.safe(nil) }, "kind=nothing", ErrNothing},
		{"not text", fetch.LayoutJSON, func(r *running) { r.safe(password("\xff")) }, "kind=value", fetch.ErrNotText},
		{"two variables of one name", fetch.LayoutEnv, func(r *running) { r.safe(map[string]string{"a/b-c": "1", "a/b.c": "2"}) }, "kind=value", shellenv.ErrNoVariable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target, _ := targetIn(t)
			target.Layout = tt.layout
			done := make(chan struct{})
			r := startWith(t, expiring{context.Background(), done}, func() {}, Config{Target: target, Once: true})
			tt.safe(r)
			r.logs(tt.says)
			close(done)
			<-r.done
			if !errors.Is(r.err, ErrTimeout) || !errors.Is(r.err, tt.want) {
				t.Errorf("got %v", r.err)
			}
			if left, err := filepath.Glob(filepath.Join(target.Dir, "*")); err != nil || len(left) > 0 {
				t.Errorf("wrote %v, %v", left, err)
			}
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		target, _ := targetIn(t)
		r := start(t, Config{Target: target, Once: true})
		r.end()
		if !errors.Is(r.err, context.Canceled) {
			t.Errorf("got %v", r.err)
		}
	})
}

// How to reach Safe is wrong, and will be for ever: nothing to try again.
func TestAnAddressThatMakesNoSenseIsAnError(t *testing.T) {
	target, _ := targetIn(t)
	_, err := Run(t.Context(), Config{
		Target: target, Log: quiet(),
		Dial: func(context.Context, func(error)) (Client, error) { return nil, errOdd },
	})
	if !errors.Is(err, errOdd) {
		t.Errorf("got %v", err)
	}
}

// No SVID yet is tried again.
func TestAnAgentWaitsForItsIdentity(t *testing.T) {
	target, file := targetIn(t)
	synctest.Test(t, func(t *testing.T) {
		f := &feed{answers: make(chan func(func(*workload.Secrets), func(error)))}
		tries := 0
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := Run(ctx, Config{Target: target, Log: quiet(), Dial: func(_ context.Context, observe func(error)) (Client, error) {
				f.observe = observe
				if tries++; tries < 4 {
					return nil, fmt.Errorf("%w: not registered", workload.ErrNoIdentity)
				}
				return f, nil
			}})
			done <- err
		}()
		f.answers <- func(fn func(*workload.Secrets), _ func(error)) { fn(secretsOf(password("value-one"))) }
		synctest.Wait()
		holds(t, file, "value-one")
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
