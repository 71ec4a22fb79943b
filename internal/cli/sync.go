package cli

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// syncTimeout is somewhat longer than Safe's own.
const syncTimeout = 150 * time.Second

type syncOptions struct {
	streams        genericiooptions.IOStreams
	safe           safeFlag
	allowDeletions string
	acceptRewrite  string
	output         outputFlag
}

func newSync(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := syncOptions{streams: streams, safe: safeFlag{conn: conn}, output: outputFlag{forms: []string{"json", "yaml"}}}
	cmd := &cobra.Command{
		Use:   "sync [flags]",
		Short: "Have Safe fetch its git sources now",
		Long: `Have Safe fetch its git sources now, wait until it has, and show how they fare.

Two things Safe does not do unasked. A commit that deletes most of what a
source delivered, or all of it, has its deletions wait; and a branch that was
rewritten is refused. 'status' names the revision. Where it is what you want,
say so with --allow-deletions or --accept-rewrite and that revision: it is good
for no other.

Exit codes: 0 all is well, 1 faults or another error, 2 a replica is sealed.`,
		Example: `  kubectl vsecm sync

  # After a look at what the forced push did
  kubectl vsecm sync --accept-rewrite 5f1bd60674c3421f1bc28fe5240fa07acd6fe56b`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.safe.addTo(cmd)
	cmd.Flags().StringVar(&o.allowDeletions, "allow-deletions", "", "Do the deletions that wait at this `REVISION`")
	cmd.Flags().StringVar(&o.acceptRewrite, "accept-rewrite", "", "Go to this `REVISION` of a rewritten branch")
	o.output.addTo(cmd, "Form of the output")
	_ = cmd.RegisterFlagCompletionFunc("allow-deletions", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("accept-rewrite", cobra.NoFileCompletions)
	return cmd
}

func (o syncOptions) run(ctx context.Context) error {
	query := url.Values{}
	for name, revision := range map[string]string{"allow-deletions": o.allowDeletions, "accept-rewrite": o.acceptRewrite} {
		if revision != "" {
			query.Set(name, revision)
		}
	}
	target := "/v1/sync"
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	ctx, cancel, err := o.safe.conn.within(ctx, syncTimeout)
	if err != nil {
		return err
	}
	defer cancel()
	all, err := o.safe.open(ctx, operatorAccount)
	if err != nil {
		return err
	}
	defer all.close()
	errs := all.each(func(_ int, r *replica) error {
		_, err := r.act(ctx, http.MethodPost, target, nil, "")
		return err
	})
	if err := errors.Join(errs...); err != nil {
		var hinted hintError
		if errors.As(err, &hinted) {
			return err
		}
		return withHint(err, "'kubectl vsecm status' tells more")
	}
	return statusOptions{streams: o.streams, safe: o.safe, output: o.output}.show(ctx, all)
}
