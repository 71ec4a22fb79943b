package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

type sealOptions struct {
	streams genericiooptions.IOStreams
	safe    safeFlag
}

func newSeal(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := sealOptions{streams: streams, safe: safeFlag{conn: conn}}
	cmd := &cobra.Command{
		Use:   "seal [flags]",
		Short: "Have Safe drop its keys and serve no secrets",
		Long: `Have every replica of Safe drop its root key and all that it has decrypted.
Workloads get no secrets from it, also after a restart, before 'kubectl vsecm
unseal': have the root key at hand. Secrets that were delivered to Kubernetes
stay there.

Exit codes: 0 all replicas that were asked are sealed, 1 one is not, or another
error.`,
		Example:           `  kubectl vsecm seal`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.safe.addTo(cmd)
	return cmd
}

func (o sealOptions) run(ctx context.Context) error {
	ctx, all, done, err := o.safe.openWithin(ctx, unsealTimeout, operatorAccount)
	if err != nil {
		return err
	}
	defer done()
	results := make([]string, len(all.replicas))
	errs := all.each(func(i int, r *replica) error {
		_, err := r.act(ctx, http.MethodPost, "/v1/seal", nil, "")
		switch {
		case err == nil:
			results[i] = "sealed"
		case refusedAs(err) == problem.Sealed:
			results[i], err = "sealed already", nil
		}
		return err
	})
	for i, r := range all.replicas {
		if results[i] != "" {
			fmt.Fprintf(o.streams.Out, "%s: %s\n", visible(r.name), results[i])
		}
	}
	o.safe.tellMissed(o.streams.ErrOut, all, all.shown())
	return errors.Join(errs...)
}
