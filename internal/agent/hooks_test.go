package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/fetch"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/workload"
)

// A fakeHook does what the test says.
type fakeHook func(ctx context.Context) error

func (fakeHook) name() string                               { return "exec" }
func (f fakeHook) run(ctx context.Context, _ *family) error { return f(ctx) }

func TestHooksAreToldOfChangesAlone(t *testing.T) {
	target, file := targetIn(t)
	target.Tell = true
	seen := make(chan string, 10)
	r := start(t, Config{Target: target, Hooks: []Hook{fakeHook(func(context.Context) error {
		content, err := os.ReadFile(file)
		seen <- string(content)
		return err
	})}})
	r.safe(password("one"))
	holds(t, file, "one")
	r.safe(password("two"))
	if got := <-seen; got != "two" {
		t.Errorf("told of %q", got)
	}
	// Another version of the same values is no change.
	r.safe(password("two"))
	r.safe(password("three"))
	if got := <-seen; got != "three" {
		t.Errorf("told of %q", got)
	}
	r.end()
	if len(seen) > 0 {
		t.Errorf("told %d times more, of %q:\n%s", len(seen), <-seen, r.log)
	}
}

// One that fails is tried again, alone, until it succeeds or there is a newer
// version. What is written does not wait for it.
func TestAHookThatFailsIsTriedAgain(t *testing.T) {
	target, file := targetIn(t)
	target.Tell = true
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		first, second, well := 0, 0, false
		r := start(t, Config{Target: target, Hooks: []Hook{
			fakeHook(func(context.Context) error { mu.Lock(); defer mu.Unlock(); first++; return nil }),
			fakeHook(func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				second++
				if well {
					return nil
				}
				return errors.New("not yet")
			}),
		}})
		defer r.end()
		count := func(wantFirst, wantSecond int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if first != wantFirst || second < wantSecond {
				t.Errorf("run %d and %d times, want %d and at least %d", first, second, wantFirst, wantSecond)
			}
		}
		runs := func() int { mu.Lock(); defer mu.Unlock(); return second }
		r.safe(password("one"))
		synctest.Wait()
		r.safe(password("two"))
		count(1, 1)
		time.Sleep(10 * time.Minute)
		count(1, 10)
		if n := runs(); n > 20 {
			t.Errorf("%d tries in ten minutes", n)
		}
		before := runs()
		r.safe(password("three"))
		count(2, before+1)
		holds(t, file, "three")
		mu.Lock()
		well = true
		mu.Unlock()
		time.Sleep(2 * time.Minute)
		last := runs()
		time.Sleep(10 * time.Minute)
		count(2, last)
		if n := runs(); n != last {
			t.Errorf("told %d times more after it had worked", n-last)
		}
	})
}

func TestAHookThatHangsIsBounded(t *testing.T) {
	target, file := targetIn(t)
	target.Tell = true
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{Target: target, Hooks: []Hook{fakeHook(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })}})
		defer r.end()
		r.safe(password("one"))
		synctest.Wait()
		r.safe(password("two"))
		synctest.Wait()
		r.safe(password("three"))
		synctest.Wait()
		holds(t, file, "three")
		time.Sleep(hookWait + time.Second)
		if !strings.Contains(r.log.String(), "not done within 30s") {
			t.Errorf("the log says\n%s", r.log)
		}
	})
}

// An agent that was killed after it had written, before it had told, tells when
// it is started again, though Safe is not there.
func TestPromise07_WhatWasNotToldIsToldAfterARestart(t *testing.T) {
	target, _ := targetIn(t)
	target.Tell = true
	for _, value := range []string{"one", "two"} {
		d := must(fetch.Open(*target))
		if _, err := d.Write((*fetch.Secrets)(secretsOf(password(value)))); err != nil {
			t.Fatal(err)
		}
		d.Close()
	}
	for _, want := range []int{1, 0} {
		told := make(chan struct{}, 10)
		r := start(t, Config{Target: target, Hooks: []Hook{fakeHook(func(context.Context) error { told <- struct{}{}; return nil })}})
		r.logs("found a version in place")
		if want > 0 {
			<-told
			r.logs("told of the new version")
		}
		// This one tells nothing new: it comes after what there was to tell.
		r.safe(password("two"))
		r.fails(workload.ErrSealed)
		r.logs("kind=sealed")
		r.end()
		if len(told) > 0 {
			t.Errorf("told %d times more than %d", len(told), want)
		}
	}
}

func TestAnAddressIsCalled(t *testing.T) {
	var got []string
	status := http.StatusNoContent
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, fmt.Sprint(r.Method, " ", r.URL, " ", r.ContentLength))
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
	}))
	defer server.Close()
	hook := must(NewURLHook(server.URL + "/-/reload?token=hunter2"))
	if err := hook.run(t.Context(), nil); err != nil {
		t.Error(err)
	}
	for _, status = range []int{http.StatusFound, http.StatusInternalServerError} {
		if err := hook.run(t.Context(), nil); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%d: got %v", status, err)
		}
	}
	if all := strings.Join(got, "\n"); all != strings.TrimSpace(strings.Repeat("POST /-/reload?token=hunter2 0\n", 3)) {
		t.Errorf("it was called\n%s", all)
	}
	server.Close()
	if err := hook.run(t.Context(), nil); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestAnAddressThatHangsIsLeft(t *testing.T) {
	come := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { close(come); <-r.Context().Done() }))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-come; cancel() }()
	if err := must(NewURLHook(server.URL)).run(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAddressesThatAreRefused(t *testing.T) {
	for _, address := range []string{"", "/reload", "localhost:8080", "file:///etc/passwd", "unix:///run/x", "http://", "http://user:hunter2@localhost/", "http://x\x00hunter2/"} {
		if _, err := NewURLHook(address); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: got %v", address, err)
		}
	}
}

// A command that hangs is killed, with what it has started.
func TestACommandIsEndedWithItsChildren(t *testing.T) {
	dir := t.TempDir()
	script := write(t, filepath.Join(dir, "hook"), "#!/bin/sh\ntrap '' TERM\nsleep 3600 & echo $! >"+dir+"/new && mv "+dir+"/new "+dir+"/child\nwait\n")
	if err := os.Chmod(script, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- must(NewCommandHook(script+" with arguments")).run(ctx, newFamily()) }()
	wait.For(t, "the command runs", exists(filepath.Join(dir, "child")))
	cancel()
	if err := <-done; err == nil {
		t.Error("a command that was killed was a success")
	}
	var child int
	if _, err := fmt.Sscan(string(must(os.ReadFile(filepath.Join(dir, "child")))), &child); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "its child is gone", func() error { return gone(child) })
}

// gone reports whether a process runs no more: it may wait to be reaped.
func gone(pid int) error {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil && !strings.Contains(string(stat), ") Z ") {
		return fmt.Errorf("it runs: %s", stat)
	}
	return nil
}

func TestCommandsThatFail(t *testing.T) {
	for _, command := range []string{"false", "/no/such/program", "/etc/passwd"} {
		if err := must(NewCommandHook(command)).run(t.Context(), newFamily()); err == nil {
			t.Errorf("%s was a success", command)
		}
	}
	for _, command := range []string{"", "  ", "echo $HOME", "a; b", "sh -c 'x'", "a > b", "a\nb"} {
		if _, err := NewCommandHook(command); err == nil {
			t.Errorf("%q was accepted", command)
		}
	}
}
