package safecmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/config"
	"github.com/vsecm/kubectl-vsecm/internal/safe"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

type serveOptions struct {
	streams genericiooptions.IOStreams
	config  string
	level   string
}

func newServe(streams genericiooptions.IOStreams) *cobra.Command {
	o := serveOptions{streams: streams}
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Serve secrets from git repositories to workloads",
		Long: `Serve secrets from git repositories to workloads, on one machine, until it is
interrupted. FILE says which repositories, where the data and the root key lie, and
where to listen; docs/configuration.md describes it. The root key is generated at the
first start.

The audit log, a JSON line for every call, goes to standard output; Safe's own log,
as JSON too, to standard error.

Exit codes: 0 stopped as asked; 1 error.`,
		Example: `  safe serve --config safe.yaml`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().StringVar(&o.config, "config", "", "the configuration `FILE`")
	cmd.Flags().StringVar(&o.level, "log-level", "info", "least `LEVEL` to log: debug, info, warn or error")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	_ = cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o serveOptions) run(ctx context.Context) error {
	if o.config == "" {
		return withHint(errors.New("no configuration given"), "name its file with --config; 'safe dev' needs none")
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(strings.ToUpper(o.level))); err != nil {
		return withHint(fmt.Errorf("--log-level: unknown level %q", o.level), "want debug, info, warn or error")
	}
	cfg, err := config.Load(o.config)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(o.streams.ErrOut, &slog.HandlerOptions{Level: level}))
	return explainServe(safe.Run(ctx, cfg, log, o.streams.Out, nil))
}

// explainServe gives err its next step.
func explainServe(err error) error {
	switch {
	case errors.Is(err, store.ErrLocked):
		return withHint(err, "a data directory belongs to one process: stop the other Safe, or name another dataDir")
	case errors.Is(err, safe.ErrRootKeyMissing):
		return withHint(err, "put the root key back from your backup; where it is lost for good, empty the data directory to begin anew")
	}
	return err
}
