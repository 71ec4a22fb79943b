package safecmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/agent"
	"github.com/vsecm/kubectl-vsecm/internal/fetch"
	"github.com/vsecm/kubectl-vsecm/pkg/workload"
)

type agentOptions struct {
	streams genericiooptions.IOStreams
	client  clientFlags

	dir, layout, mode, owner string
	files                    []string

	once    bool
	timeout time.Duration

	signal, pidFile, process string
	url, command             string

	exec     bool
	onChange string
	grace    time.Duration

	listen string
}

// newAgent returns "safe agent".
func newAgent(streams genericiooptions.IOStreams) *cobra.Command {
	o := agentOptions{streams: streams}
	cmd := &cobra.Command{
		Use:   "agent (--dir DIR | --exec -- PROGRAM [ARG]...)",
		Short: "Keep this workload's secrets where a program finds them",
		Long: `Keep this workload's secrets where a program finds them that knows nothing of
Safe: as files in --dir, in the environment of a program with --exec, or both.
It watches Safe, and delivers each change whole. It is made to be a sidecar, an init
container (--once), or the parent of a program (docs/agent.md).

What was delivered stays until there is something newer: while Safe is sealed or
away, answers 404, refuses this workload or has nothing for it, and when the new
version cannot be written. Everything that fails is tried again, with pauses that
differ from agent to agent; the log, /readyz and /metrics (--listen) say what fails.

--dir  All files of a version appear together, by one rename, as kubelet's do.
  Layouts:
    files  DIR/OBJECT/KEY. With --file, only those that it names, as DIR/NAME;
           all of them have to be there
    json   DIR/secrets.json: {"OBJECT":{"KEY":"VALUE"}}. A value that is not UTF-8
           is an error
    env    DIR/secrets.env: a line OBJECT_KEY='value' for each, for a shell

--on-change-…  What is told of a new version, in this order: a process is sent a
  signal; an address is called (POST, no body; 2xx is success); a command is run
  (no shell; the command is split at spaces). Each has 30 seconds. What fails is
  tried again, after at most a minute, until it succeeds. The first version in an
  empty directory is no change. No secret is handed to any of them.

--exec  The program starts once there are secrets, which are variables OBJECT_KEY
  beside those that the agent has. Two that become one name, a name that is set
  already, one that would make a runtime load other code (LD_PRELOAD…), and a NUL
  byte are errors. When the secrets change, --on-change says what happens: restart
  (SIGTERM, after --grace SIGKILL; at most every 5 seconds), signal:NAME, or none.
  Signals are passed on. When the program ends, the agent ends with its exit code.

Exit codes: 0 stopped as asked, or, with --once, delivered; 1 error; with --once
also those of 'safe fetch', for the last try before --timeout: 2 try again later,
3 refused. With --exec, once the program has run: its exit code, or 128 and
the signal that ended it.`,
		Example: `  # A sidecar: files on a tmpfs, and a signal to nginx when they change
  safe agent --dir /run/secrets/vsecm --on-change-signal HUP --pid-file /run/nginx.pid

  # An init container: the program does not start before it has its secrets
  safe agent --dir /run/secrets/vsecm --once

  # Two files, where the program looks for them, readable by the pod's fsGroup
  safe agent --dir /tls --file web/tls.crt=server.crt --file web/tls.key=server.key --mode 0440

  # A program with secrets in its environment, started anew when they change
  safe agent --exec -- my-program --verbose`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.exec && (len(args) == 0 || cmd.ArgsLenAtDash() != 0):
				return errors.New("--exec needs a program after --, as in: --exec -- PROGRAM ARG")
			case !o.exec && len(args) > 0:
				return fmt.Errorf("unexpected argument %q: a program is named after --exec --", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), cmd, args) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "write the secrets into this `DIR`, which should be a tmpfs")
	f.StringVar(&o.layout, "layout", string(fetch.LayoutFiles), "`LAYOUT` of the files: files, json or env")
	f.StringArrayVar(&o.files, "file", nil, "write the key `OBJECT/KEY=NAME` as DIR/NAME, and nothing that is not named so; may be repeated")
	f.StringVar(&o.mode, "mode", "0400", "`MODE` of the files, octal; who may read may also enter their directories")
	f.StringVar(&o.owner, "owner", "", "`UID[:GID]` to give the files to; needs the capability CHOWN (default: the agent's own)")
	f.BoolVar(&o.once, "once", false, "end as soon as there is something delivered")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "how long --once waits for Safe to have something for this workload; 0: for ever")
	f.StringVar(&o.signal, "on-change-signal", "", "send this `SIGNAL`, such as HUP, to the process of --pid-file or --process")
	f.StringVar(&o.pidFile, "pid-file", "", "the `FILE` that holds the number of the process to signal")
	f.StringVar(&o.process, "process", "", "the `NAME` of the process to signal; its own children of that name are not")
	f.StringVar(&o.url, "on-change-url", "", "call this `URL`, http or https")
	f.StringVar(&o.command, "on-change-exec", "", "run this `COMMAND`")
	f.BoolVar(&o.exec, "exec", false, "run the program after -- with the secrets in its environment")
	f.StringVar(&o.onChange, "on-change", "restart", "what the program of --exec gets when secrets change: `restart`, signal:NAME or none")
	f.DurationVar(&o.grace, "grace", 20*time.Second, "how long the program of --exec may take to end after SIGTERM; less than the pod's terminationGracePeriodSeconds")
	f.StringVar(&o.listen, "listen", "", "serve /healthz, /readyz and /metrics, plain HTTP, at this `ADDRESS`, such as :8090 (default: nowhere)")
	o.client.addTo(f)
	cmd.MarkFlagsOneRequired("dir", "exec")
	cmd.MarkFlagsMutuallyExclusive("pid-file", "process")
	for _, other := range []string{"exec", "on-change-signal", "on-change-url", "on-change-exec", "listen"} {
		cmd.MarkFlagsMutuallyExclusive("once", other)
	}
	// The flags are there: they were just added.
	_ = cmd.MarkFlagDirname("dir")
	_ = cmd.MarkFlagFilename("pid-file")
	fixed := func(flag string, values ...string) {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	fixed("layout", string(fetch.LayoutFiles), string(fetch.LayoutJSON), string(fetch.LayoutEnv))
	fixed("mode", "0400", "0440", "0444")
	fixed("on-change-signal", "HUP", "USR1", "USR2", "TERM", "QUIT")
	fixed("on-change", "restart", "signal:HUP", "none")
	return cmd
}

// needs says which flag means nothing without which.
var needs = []struct{ flag, other string }{
	{"layout", "dir"}, {"file", "dir"}, {"mode", "dir"}, {"owner", "dir"},
	{"on-change-signal", "dir"}, {"on-change-url", "dir"}, {"on-change-exec", "dir"},
	{"pid-file", "on-change-signal"}, {"process", "on-change-signal"},
	{"timeout", "once"}, {"on-change", "exec"}, {"grace", "exec"},
}

func (o *agentOptions) run(ctx context.Context, cmd *cobra.Command, args []string) error {
	for _, n := range needs {
		if cmd.Flags().Changed(n.flag) && !cmd.Flags().Changed(n.other) {
			return withHint(fmt.Errorf("--%s means nothing without --%s", n.flag, n.other), "see 'safe agent --help'")
		}
	}
	c, err := o.config(args)
	if err != nil {
		return err
	}
	c.Log = slog.New(slog.NewJSONHandler(o.streams.ErrOut, nil))
	c.Dial = func(ctx context.Context, observe func(error)) (agent.Client, error) {
		return workload.New(ctx, append(o.client.options(), workload.WithObserver(observe))...)
	}
	if err := agent.Harden(); err != nil {
		return err
	}
	if o.listen != "" {
		if c.Listener, err = new(net.ListenConfig).Listen(ctx, "tcp", o.listen); err != nil {
			return fmt.Errorf("--listen: %w", err)
		}
		c.Log.Info("listening", "address", c.Listener.Addr().String())
	}
	code, err := agent.Run(ctx, c)
	switch {
	case err == nil && code != 0:
		return programExit(code)
	case errors.Is(err, context.Canceled):
		return commandError{errors.New("interrupted before anything was delivered"), "", exitAgain}
	case errors.Is(err, agent.ErrTimeout):
		return explainAgent(err)
	}
	return err
}

// explainAgent gives the last failure of --once its exit code and next step.
func explainAgent(err error) error {
	if explained := explainFetch(err); explained != err {
		return explained
	}
	if errors.Is(err, agent.ErrNothing) || errors.Is(err, fetch.ErrMissing) {
		return commandError{err, "'safe inspect' tells who this workload is and what Safe has for it", exitAgain}
	}
	if errors.Is(err, fetch.ErrNotText) {
		return withHint(err, "use --layout files")
	}
	return commandError{err, "", exitAgain}
}

// config turns flags into what they mean.
func (o *agentOptions) config(args []string) (agent.Config, error) {
	c := agent.Config{Once: o.once, Timeout: o.timeout}
	if o.timeout < 0 || o.grace < 0 {
		return c, errors.New("--timeout and --grace cannot be negative")
	}
	if o.dir != "" {
		target, err := o.target()
		if err != nil {
			return c, err
		}
		c.Target = &target
	}
	if o.signal != "" {
		number, err := parseSignal(o.signal)
		if err != nil {
			return c, fmt.Errorf("--on-change-signal: %w", err)
		}
		if o.pidFile == "" && o.process == "" {
			return c, errors.New("--on-change-signal needs --pid-file or --process: whom to signal")
		}
		c.Hooks = append(c.Hooks, agent.SignalHook{Signal: number, PIDFile: o.pidFile, Process: o.process})
	}
	if o.url != "" {
		hook, err := agent.NewURLHook(o.url)
		if err != nil {
			return c, fmt.Errorf("--on-change-url: %w", err)
		}
		c.Hooks = append(c.Hooks, hook)
	}
	if o.command != "" {
		hook, err := agent.NewCommandHook(o.command)
		if err != nil {
			return c, fmt.Errorf("--on-change-exec: %w", err)
		}
		c.Hooks = append(c.Hooks, hook)
	}
	if c.Target != nil {
		c.Target.Tell = len(c.Hooks) > 0
	}
	if o.exec {
		c.Program = &agent.Program{Args: args, Grace: o.grace}
		name, isSignal := strings.CutPrefix(o.onChange, "signal:")
		switch {
		case o.onChange == "restart":
			c.Program.Restart = true
		case isSignal:
			number, err := parseSignal(name)
			if err != nil {
				return c, fmt.Errorf("--on-change: %w", err)
			}
			c.Program.Signal = number
		case o.onChange != "none":
			return c, fmt.Errorf("--on-change: unknown %q: want restart, signal:NAME or none", o.onChange)
		}
	}
	return c, nil
}

func (o *agentOptions) target() (fetch.Target, error) {
	t := fetch.Target{Dir: o.dir, Layout: fetch.Layout(o.layout)}
	mode, err := strconv.ParseUint(o.mode, 8, 32)
	if err != nil || mode == 0 {
		return t, fmt.Errorf("--mode: %q is no octal number such as 0400", o.mode)
	}
	t.Mode = fs.FileMode(mode)
	if t.Owner, err = parseOwner(o.owner); err != nil {
		return t, fmt.Errorf("--owner: %w", err)
	}
	for _, text := range o.files {
		key, name, ok := strings.Cut(text, "=")
		object, key, ok2 := strings.Cut(key, "/")
		if !ok || !ok2 || object == "" || key == "" || name == "" {
			return t, fmt.Errorf("--file: %q: want OBJECT/KEY=NAME", text)
		}
		t.Names = append(t.Names, fetch.Name{Object: object, Key: key, Path: name})
	}
	return t, t.Check()
}

// parseOwner reads UID or UID:GID; nil for an empty text.
func parseOwner(text string) (*fetch.Owner, error) {
	if text == "" {
		return nil, nil
	}
	user, group, hasGroup := strings.Cut(text, ":")
	uid, err := strconv.ParseUint(user, 10, 31)
	gid := uint64(math.MaxUint64)
	if hasGroup && err == nil {
		gid, err = strconv.ParseUint(group, 10, 31)
	}
	if err != nil {
		return nil, fmt.Errorf("%q: want numbers, UID or UID:GID", text)
	}
	owner := &fetch.Owner{UID: int(uid), GID: -1}
	if hasGroup {
		owner.GID = int(gid)
	}
	return owner, nil
}

// parseSignal reads a name, with or without SIG, or a number.
func parseSignal(text string) (syscall.Signal, error) {
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if number := unix.SignalNum(name); number != 0 {
		return number, nil
	}
	if number, err := strconv.Atoi(text); err == nil && unix.SignalName(syscall.Signal(number)) != "" {
		return syscall.Signal(number), nil
	}
	return 0, fmt.Errorf("unknown signal %q: want a name such as HUP", text)
}
