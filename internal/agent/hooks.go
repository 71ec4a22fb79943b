package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"
)

// hookWait bounds one run of a hook.
const hookWait = 30 * time.Second

// A Hook is told that there is a new version. It gets no secret: those are in
// the files.
type Hook interface {
	// name is signal, url or exec.
	name() string
	run(ctx context.Context, f *family) error
}

// hooks runs all hooks for each new version, one after the other. One that
// fails is run again, with growing pauses of up to a minute, until it succeeds
// or there is a newer version, for which all of them are run.
type hooks struct {
	list   []Hook
	family *family
	agent  *agent
	news   chan struct{}
}

func newHooks(list []Hook, f *family, a *agent) *hooks {
	return &hooks{list: list, family: f, agent: a, news: make(chan struct{}, 1)}
}

// notify says that there is a version to be told of.
func (h *hooks) notify() {
	select {
	case h.news <- struct{}{}:
	default: // it will look anyway
	}
}

func (h *hooks) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.news:
		}
		if ctx.Err() != nil {
			return nil // select takes any of two that are ready
		}
		h.tellAll(ctx)
	}
}

// tellAll runs until nobody is left to be told.
func (h *hooks) tellAll(ctx context.Context) {
	var of string // the version that left are for
	var left []Hook
	var pause = newBackoff(time.Second, time.Minute)
	for {
		version, untold := h.agent.dir.Untold()
		if !untold {
			return
		}
		if version != of {
			of, left, pause = version, h.list, newBackoff(time.Second, time.Minute)
		}
		left = h.tellSome(ctx, left)
		switch {
		case ctx.Err() != nil:
			// It is not known to have been told: the next agent tells it.
			return
		case len(left) > 0:
			if h.agent.status.hooksFail(true) {
				h.agent.Log.Error("not everybody could be told of the new version; trying again")
			}
			if !h.pause(ctx, pause.Step()) {
				return
			}
			continue
		}
		h.agent.status.hooksFail(false)
		if err := h.agent.dir.Told(version); err != nil {
			// The cost is that they are told once more.
			h.agent.Log.Warn("cannot remember that the new version was told of", "error", err)
			return
		}
	}
}

// pause waits, less long where there is a newer version.
func (h *hooks) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-h.news:
	case <-ctx.Done():
		return false
	}
	return true
}

// tellSome runs hooks, and returns those that failed.
func (h *hooks) tellSome(ctx context.Context, list []Hook) (failed []Hook) {
	for _, hook := range list {
		bounded, cancel := context.WithTimeoutCause(ctx, hookWait, fmt.Errorf("not done within %v", hookWait))
		err := hook.run(bounded, h.family)
		if err != nil && ctx.Err() == nil && bounded.Err() != nil {
			err = context.Cause(bounded)
		}
		cancel()
		if ctx.Err() != nil {
			return list
		}
		outcome := "ok"
		if err != nil {
			outcome = "failed"
			failed = append(failed, hook)
			h.agent.Log.Error("cannot tell of the new version", "hook", hook.name(), "error", err)
		} else {
			h.agent.Log.Info("told of the new version", "hook", hook.name())
		}
		h.agent.metrics.hooks.WithLabelValues(hook.name(), outcome).Inc()
	}
	return failed
}

// A urlHook is an address that is called.
type urlHook struct {
	url    *url.URL
	client *http.Client
}

// NewURLHook returns a hook that calls address, http or https, with POST and
// without a body. An answer of 2xx is success; a redirection is not followed.
func NewURLHook(address string) (Hook, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		// The error of url.Parse repeats the address, which may hold a password.
		return nil, errors.New("want http://HOST… or https://HOST…")
	}
	if u.User != nil {
		return nil, errors.New("an address with a password in it can be read by everybody who sees this process")
	}
	return urlHook{url: u, client: &http.Client{
		Transport: &http.Transport{
			Proxy:                  nil, // it is this pod that is called
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func (urlHook) name() string { return "url" }

func (u urlHook) run(ctx context.Context, _ *family) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.url.String(), http.NoBody)
	if err != nil {
		return errors.New("cannot be called")
	}
	resp, err := u.client.Do(req)
	if err != nil {
		// Without the address: it may have a token in its query.
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return fmt.Errorf("call %s: %w", u.url.Host, err)
	}
	defer resp.Body.Close()
	// So much of it is read that a server notices nothing odd.
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("call %s: answered %d", u.url.Host, resp.StatusCode)
	}
	return nil
}

// A commandHook is a program that is run.
type commandHook []string

// NewCommandHook returns a hook that runs a program. There is no shell: the
// command is split at spaces, and what a shell would read as more than that is
// refused. An exit code of 0 is success. What it prints goes to standard error.
func NewCommandHook(command string) (Hook, error) {
	if i := strings.IndexAny(command, "'\"\\$`|&;<>*?(){}\n"); i >= 0 {
		return nil, fmt.Errorf("%q means something to a shell, and there is none: name a script", command[i])
	}
	args := strings.Fields(command)
	if len(args) == 0 {
		return nil, errors.New("no command")
	}
	return commandHook(args), nil
}

func (commandHook) name() string { return "exec" }

func (c commandHook) run(ctx context.Context, f *family) error {
	cmd := exec.CommandContext(ctx, c[0], c[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	leadGroup(cmd)
	cmd.Cancel = func() error { return killGroup(cmd) }
	wait, err := f.start(cmd)
	if err != nil {
		return err
	}
	return wait()
}
