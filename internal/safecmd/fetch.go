package safecmd

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/fetch"
	"github.com/vsecm/kubectl-vsecm/pkg/workload"
)

type fetchOptions struct {
	streams genericiooptions.IOStreams
	client  clientFlags
	dir     string
	output  string
}

// newFetch returns "safe fetch".
func newFetch(streams genericiooptions.IOStreams) *cobra.Command {
	o := fetchOptions{streams: streams}
	cmd := &cobra.Command{
		Use:   "fetch",
		Short: "Fetch this workload's secrets from Safe",
		Long: `Fetch this workload's secrets from Safe, over mTLS with the X.509-SVID that the
SPIFFE Workload API gives this process. Print them, or write them as files.

With --dir, each value is the file DIR/OBJECT/KEY, mode 0400. All files of a new
version appear together, by one rename, and keys that are gone are removed. The
directory should be a tmpfs. A program that needs several keys of one version
opens DIR/..data once and reads below it.

Formats for --output:
  json  what Safe answers; values are base64, so that none is lost or changed
  yaml  the same as YAML
  env   a line OBJECT_KEY='value' for each key, for a shell's eval. Names are upper
        case, with _ for what a variable's name may not hold. Two keys that become
        one name, one that would make a runtime load other code (LD_PRELOAD…), and
        a value with a NUL byte are errors.

Exit codes: 0 done; 1 error; 2 try again later: there is no SVID, or Safe is
sealed or cannot be reached; 3 refused: Safe does not let this workload in, or the
server is not Safe. When it fails, nothing is printed and no file is changed.`,
		Example: `  # Print everything
  safe fetch

  # One value
  safe fetch | jq -r '.secrets[] | select(.name == "db").data.password | @base64d'

  # Write files on a tmpfs
  safe fetch --dir /run/secrets/vsecm

  # Variables for a program that a shell starts
  env=$(safe fetch -o env) && set -a && eval "$env" && set +a && exec my-program`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "write the secrets as files into this `DIR`, and print nothing")
	f.StringVarP(&o.output, "output", "o", string(fetch.JSON), "`FORMAT` to print: json, yaml or env")
	o.client.addTo(f)
	cmd.MarkFlagsMutuallyExclusive("dir", "output")
	// The flags are there: they were just added.
	_ = cmd.MarkFlagDirname("dir")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(
		[]string{string(fetch.JSON), string(fetch.YAML), string(fetch.Env)}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o *fetchOptions) run(ctx context.Context) error {
	format, err := fetch.ParseFormat(o.output)
	if err != nil {
		return err
	}
	client, err := workload.New(ctx, o.client.options()...)
	if err != nil {
		return explainFetch(err)
	}
	defer client.Close()
	fetched, err := client.Fetch(ctx)
	if err != nil {
		return explainFetch(err)
	}
	defer fetched.Wipe()
	secrets := (*fetch.Secrets)(fetched)
	if o.dir != "" {
		return explainFetch(secrets.WriteFiles(o.dir))
	}
	return explainFetch(secrets.Print(o.streams.Out, format))
}

// explainFetch gives err its exit code and next step.
func explainFetch(err error) error {
	for _, known := range []struct {
		err  error
		code int
		hint string
	}{
		{workload.ErrNoIdentity, exitAgain, "check $SPIFFE_ENDPOINT_SOCKET or --socket, and that this workload is registered with SPIRE"},
		{workload.ErrWrongSafe, exitRefused, "if Safe is registered under another SPIFFE ID, name it with --safe-id"},
		{workload.ErrUnauthorized, exitRefused, "Safe's audit log has the request, and the SPIFFE ID that was shown"},
		{workload.ErrSealed, exitAgain, "operators unseal Safe with 'kubectl vsecm unseal'"},
		{workload.ErrUnavailable, exitAgain, "check --safe, and Safe's readiness and log"},
		{workload.ErrNotFound, exitError, "check that --safe is the workload API of a Safe of this version"},
		{fetch.ErrBusy, exitAgain, "give every process a directory of its own"},
		{fetch.ErrTarget, exitError, "give --dir a directory of its own"},
		{fetch.ErrNoVariable, exitError, "use -o json, or --dir"},
	} {
		if errors.Is(err, known.err) {
			return commandError{err, known.hint, known.code}
		}
	}
	return err
}
