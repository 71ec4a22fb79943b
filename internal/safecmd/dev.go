package safecmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/config"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/safe"
	"github.com/vsecm/kubectl-vsecm/internal/workloadapi"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

const (
	devTrustDomain = "vsecm.dev"
	devSVIDLife    = time.Hour
	devInterval    = 100 * time.Millisecond // of reading one small local file
)

type devOptions struct {
	streams   genericiooptions.IOStreams
	dir       string
	rootKey   string
	workloads []string
	verbose   bool
}

func newDev(streams genericiooptions.IOStreams) *cobra.Command {
	o := devOptions{streams: streams}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Start everything for a try on this machine",
		Long: `Start everything for a try on this machine: Safe with a root key, an empty git
repository to push to, and a small SPIFFE Workload API with a socket for each
workload. It prints how to use them, and runs until it is interrupted; then the
folder that it made is removed.

It is NOT for production: who can open a workload's socket is that workload.

Exit codes: 0 stopped as asked; 1 error.`,
		Example: `  # Everything in a temporary folder, for workload db in namespace shop
  safe dev

  # Two workloads, and a folder that stays
  safe dev --dir ./try --workload shop/db --workload shop/api`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "use this `FOLDER`, which must not exist, and leave it behind")
	f.StringVar(&o.rootKey, "root-key", "", "use the root key in this `FILE` instead of a new one")
	f.StringArrayVar(&o.workloads, "workload", []string{"shop/db"}, "make a socket for this workload, `NAMESPACE/NAME`; may be repeated")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "show Safe's log and audit log too")
	_ = cmd.MarkFlagDirname("dir")
	_ = cmd.MarkFlagFilename("root-key")
	return cmd
}

// devWorld is what the printed help tells of.
type devWorld struct {
	Dir, Repository, Env, Operator, URL string
	Workloads                           []devWorkload
}

type devWorkload struct {
	identity.Workload
	Socket string
}

func (o devOptions) run(ctx context.Context) (err error) {
	// What may be refused comes first: nothing is left behind then.
	workloads, err := parseWorkloads(o.workloads)
	if err != nil {
		return fmt.Errorf("--workload: %w", err)
	}
	key, err := o.readRootKey()
	if err != nil {
		return fmt.Errorf("--root-key: %w", err)
	}
	defer clear(key)
	dir, remove, err := o.folder()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()

	world := devWorld{
		Dir:        dir,
		Repository: filepath.Join(dir, "repository.git"),
		Env:        filepath.Join(dir, "env"),
		Operator:   filepath.Join(dir, "operator.sock"),
	}
	if err := initRepository(world.Repository); err != nil {
		return err
	}
	rootKey := filepath.Join(dir, "root-key.txt")
	if len(key) > 0 { // without one, Safe generates its own
		if err := encrypt.CreateFile(rootKey, key, 0o600); err != nil {
			return err
		}
	}

	ca, err := workloadapi.NewCA(spiffeid.RequireTrustDomainFromString(devTrustDomain))
	if err != nil {
		return err
	}
	own, err := ca.Listen(filepath.Join(dir, "safe.sock"), devID("/workload/vsecm-safe/ns/vsecm-system/sa/vsecm-safe/n/dev"), devSVIDLife)
	if err != nil {
		return err
	}
	defer own.Close()
	for _, w := range workloads {
		id := devID("/workload/" + w.Name + "/ns/" + w.Namespace + "/sa/" + w.Name + "/n/dev")
		socket, err := ca.Listen(filepath.Join(dir, w.Namespace+"."+w.Name+".sock"), id, devSVIDLife)
		if err != nil {
			return err
		}
		defer socket.Close()
		world.Workloads = append(world.Workloads, devWorkload{w, socket.Addr()})
	}

	log, auditLog := slog.New(slog.DiscardHandler), io.Discard
	if o.verbose {
		log, auditLog = slog.New(slog.NewTextHandler(o.streams.ErrOut, nil)), o.streams.ErrOut
	}
	var failed error
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	err = safe.Run(ctx, o.config(world, rootKey, own.Addr()), safe.RootKey{}, log, auditLog, func(s safe.Started) {
		world.URL = "https://" + s.API.String()
		if failed = o.tell(world, s); failed != nil {
			stop()
		}
	})
	return errors.Join(failed, err)
}

func (o devOptions) config(world devWorld, rootKey, socket string) *config.Config {
	const anyPort = "127.0.0.1:0"
	return &config.Config{
		DataDir: filepath.Join(world.Dir, "data"),
		RootKey: rootKey,
		Listen:  config.Listen{API: anyPort, Liveness: anyPort, Readiness: anyPort, Metrics: anyPort, Operator: world.Operator},
		SPIFFE:  config.SPIFFE{Socket: socket},
		Sources: []config.Source{{Name: "dev", URL: world.Repository, Branch: "main", Interval: devInterval}},
	}
}

func (o devOptions) folder() (dir string, remove func() error, err error) {
	if o.dir == "" {
		dir, err = os.MkdirTemp("", "vsecm-dev-")
		return dir, func() error { return os.RemoveAll(dir) }, err
	}
	if dir, err = filepath.Abs(o.dir); err != nil {
		return "", nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", nil, withHint(err, "name a folder that does not exist yet")
	}
	return dir, func() error { return nil }, nil
}

// readRootKey reads and checks the key that was given, if one was.
func (o devOptions) readRootKey() ([]byte, error) {
	if o.rootKey == "" {
		return nil, nil
	}
	f, err := os.Open(o.rootKey)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, unseal.MaxTextSize+1))
	if err == nil {
		if _, err = unseal.Parse(text); err != nil {
			err = fmt.Errorf("%s: %w", o.rootKey, err)
		}
	}
	if err != nil {
		clear(text)
		return nil, err
	}
	return text, nil
}

// initRepository makes an empty bare repository. It takes four files; go-git's way
// to write them would link ssh and OpenPGP into Safe.
func initRepository(dir string) error {
	var err error
	for _, folder := range []string{"objects", "refs/heads"} {
		err = errors.Join(err, os.MkdirAll(filepath.Join(dir, folder), 0o700))
	}
	for name, text := range map[string]string{
		"HEAD":   "ref: refs/heads/main\n",
		"config": "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n",
	} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	if err != nil {
		return fmt.Errorf("making the repository: %w", err)
	}
	return nil
}

func devID(path string) spiffeid.ID {
	return spiffeid.RequireFromPath(spiffeid.RequireTrustDomainFromString(devTrustDomain), path)
}

func parseWorkloads(texts []string) ([]identity.Workload, error) {
	var workloads []identity.Workload
	for _, text := range texts {
		w, err := parseWorkload(text)
		if err != nil {
			return nil, err
		}
		if slices.Contains(workloads, w) {
			return nil, fmt.Errorf("%s stands there twice", text)
		}
		workloads = append(workloads, w)
	}
	return workloads, nil
}

func parseWorkload(text string) (identity.Workload, error) {
	namespace, name, ok := strings.Cut(text, "/")
	if !ok {
		return identity.Workload{}, fmt.Errorf("%q: want NAMESPACE/NAME", text)
	}
	if err := encrypt.ValidateNamespace(namespace); err != nil {
		return identity.Workload{}, err
	}
	return identity.Workload{Namespace: namespace, Name: name}, encrypt.ValidateName(name)
}

// devEnv is sourced by a shell. The folder's name comes from the user or from
// the system's temporary folder, so it is quoted.
var devEnv = template.Must(template.New("env").Funcs(template.FuncMap{"quote": shellQuote}).Parse(`export VSECM_RECIPIENTS={{quote .Recipient}}
export VSECM_SAFE={{quote .Operator}}
export VSECM_SAFE_ENDPOINT_URL={{quote .World.URL}}
export VSECM_REPOSITORY={{quote .World.Repository}}
export SPIFFE_ENDPOINT_SOCKET={{quote (index .World.Workloads 0).Socket}}
`))

var devHelp = template.Must(template.New("help").Funcs(template.FuncMap{"quote": shellQuote}).Parse(`Safe is running, for a try only. Everything is in
  {{.Dir}}

In another terminal:
  . {{quote .Env}}
  git clone "$VSECM_REPOSITORY" try && cd try && git checkout -B main

  # A developer encrypts, commits and pushes; only a public key is needed:
  kubectl vsecm encrypt {{(index .Workloads 0).Name}} -n {{(index .Workloads 0).Namespace}} --key password -w {{(index .Workloads 0).Name}}.yaml
  git add . && git commit -m "Add a password" && git push -u origin main

  # The workload fetches what it may read:
  safe fetch

  # The operator looks at how the repository fares:
  kubectl vsecm status

Workloads, and the sockets that make a process one of them:
{{range .Workloads}}  {{.Namespace}}/{{.Name}}   SPIFFE_ENDPOINT_SOCKET={{quote .Socket}}
{{end}}
Stop with Ctrl-C.
`))

// tell writes the file of variables, then says what there is.
func (o devOptions) tell(world devWorld, s safe.Started) error {
	var env strings.Builder
	if err := devEnv.Execute(&env, struct {
		World     devWorld
		Recipient string
		Operator  string
	}{world, s.Recipient.Recipient, "unix://" + s.Operator}); err != nil {
		return err
	}
	if err := encrypt.CreateFile(world.Env, []byte(env.String()), 0o600); err != nil {
		return err
	}
	out := bufio.NewWriter(o.streams.Out)
	if err := devHelp.Execute(out, world); err != nil {
		return err
	}
	return out.Flush()
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=-]+$`)

// shellQuote returns s as one word for a shell, quoted where it has to be.
func shellQuote(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
