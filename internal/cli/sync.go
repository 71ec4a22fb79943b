package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// syncTimeout is somewhat longer than Safe's own.
const syncTimeout = 150 * time.Second

// leaderWait is longer than it takes for a replica to lead after the one that did was lost.
const leaderWait = 30 * time.Second

type syncOptions struct {
	streams        genericiooptions.IOStreams
	safe           safeFlag
	name           string
	namespace      string
	allowDeletions string
	acceptRewrite  string
	output         outputFlag

	leaderWait time.Duration
}

func newSync(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := syncOptions{streams: streams, safe: safeFlag{conn: conn}, output: outputFlag{forms: []string{"wide", "json", "yaml", formJSONPath}}, leaderWait: leaderWait}
	cmd := &cobra.Command{
		Use:   "sync [NAME] [-n NAMESPACE] [flags]",
		Short: "Have Safe fetch its git sources now",
		Long: `Have Safe fetch a git source now, or all of them, wait until it has, and show
how they fare. NAME is that of a GitSource in the namespace, or NAMESPACE/NAME.

Two things Safe does not do unasked. A commit that deletes most of what a
source delivered, or all of it, has its deletions wait; and a branch that was
rewritten is refused. 'status' names the revision. Where it is what you want,
say so with --allow-deletions or --accept-rewrite and that revision: it is good
for no other.

This asks the replica of Safe that leads, and needs the right to. Who may change
a GitSource may ask for a round of it without, and need not wait for it:

  kubectl annotate gitsource NAME vsecm.com/sync-requested=$(date +%s) \
    --overwrite

Exit codes: 0 all is well, 1 faults or another error, 2 a replica is sealed.`,
		Example: `  kubectl vsecm sync

  # One source
  kubectl vsecm sync shop/config

  # After a look at what the forced push did
  kubectl vsecm sync shop/config \
    --accept-rewrite 5f1bd60674c3421f1bc28fe5240fa07acd6fe56b`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exactArgs(1, "at most one NAME")(cmd, args)
			}
			o.name = strings.Join(args, "")
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completeSources(cmd.Context(), conn, o.namespace)
		},
	}
	o.safe.addTo(cmd)
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "The `NAMESPACE` of the source, by default the current context's")
	cmd.Flags().StringVar(&o.allowDeletions, "allow-deletions", "", "Do the deletions that wait at this `REVISION`")
	cmd.Flags().StringVar(&o.acceptRewrite, "accept-rewrite", "", "Go to this `REVISION` of a rewritten branch")
	o.output.addTo(cmd, "Form of the output")
	_ = cmd.RegisterFlagCompletionFunc("namespace", completeNamespaces(conn))
	_ = cmd.RegisterFlagCompletionFunc("allow-deletions", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("accept-rewrite", cobra.NoFileCompletions)
	return cmd
}

// resolve makes NAME the NAMESPACE/NAME that Safe knows.
func (o *syncOptions) resolve() error {
	if o.name == "" {
		if o.namespace != "" {
			return withHint(errors.New("-n goes with a NAME"), "without one, the sources of every namespace are fetched")
		}
		return nil
	}
	namespace, name, whole := strings.Cut(o.name, "/")
	if !whole {
		name = o.name
		if o.namespace == "" && strings.HasPrefix(o.safe.given(), "unix:") {
			return withHint(errors.New("a NAME is that of a GitSource in a cluster"), "without one, all sources of this Safe are fetched")
		}
		var err error
		if namespace, err = o.safe.conn.namespaceOrDefault(o.namespace); err != nil {
			return err
		}
	}
	if whole && o.namespace != "" && o.namespace != namespace {
		return fmt.Errorf("%s is in another namespace than -n says", visible(o.name))
	}
	if err := errors.Join(encrypt.ValidateNamespace(namespace), encrypt.ValidateName(name)); err != nil {
		return withHint(fmt.Errorf("name: %w", err), "want NAME or NAMESPACE/NAME; 'kubectl vsecm list --sources -A' shows them")
	}
	o.name = namespace + "/" + name
	return nil
}

// target is the call that Safe is asked.
func (o *syncOptions) target() string {
	query := url.Values{}
	for name, value := range map[string]string{"allow-deletions": o.allowDeletions, "accept-rewrite": o.acceptRewrite, "source": o.name} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if len(query) == 0 {
		return "/v1/sync"
	}
	return "/v1/sync?" + query.Encode()
}

// account is the one that may do what is asked.
func (o *syncOptions) account() string {
	if o.allowDeletions+o.acceptRewrite != "" {
		return adminAccount // override
	}
	return operatorAccount
}

func (o syncOptions) run(ctx context.Context) error {
	if err := o.resolve(); err != nil {
		return err
	}
	ctx, cancel, err := o.safe.conn.within(ctx, syncTimeout)
	if err != nil {
		return err
	}
	defer cancel()
	all, err := o.safe.open(ctx, o.account())
	if err != nil {
		return o.advise(err)
	}
	defer all.close()
	if err := o.ask(ctx, all); err != nil {
		return o.advise(err)
	}
	return statusOptions{streams: o.streams, safe: o.safe, output: o.output, source: o.name, leaders: true}.show(ctx, all)
}

// ask has the replica that leads do it. Who that is may change at any time, and for a while nobody
// leads.
func (o syncOptions) ask(ctx context.Context, all *safes) error {
	what := "all sources"
	if o.name != "" {
		what = o.name
	}
	defer tellWaiting(o.streams, "waiting for Safe to fetch "+what)()
	waiting, cancel := context.WithTimeout(ctx, o.leaderWait)
	defer cancel()
	var last error
	err := poll(waiting, func() (bool, error) {
		var again bool
		again, last = o.once(ctx, all)
		if again {
			return false, nil
		}
		return true, last
	})
	if errors.Is(err, context.DeadlineExceeded) && last != nil {
		return last
	}
	return err
}

// once asks every replica, of which one at most leads. again tells whether another may lead in a
// while.
func (o syncOptions) once(ctx context.Context, all *safes) (again bool, err error) {
	ctx, done := context.WithCancel(ctx)
	defer done()
	errs := all.each(func(_ int, r *replica) error {
		if len(all.replicas) > 1 {
			r.patience = connectWait
		}
		_, err := r.act(ctx, http.MethodPost, o.target(), nil, "")
		if err == nil && r.remote {
			done() // nobody else has anything to say
		}
		return err
	})
	if all.remote() && slices.Contains(errs, nil) {
		return false, nil
	}
	following, lost := 0, true
	var others []error
	for _, err := range errs {
		switch {
		case err == nil:
		case refusedAs(err) == problem.NotLeading:
			following++
		default:
			others = append(others, err)
			lost = lost && errors.Is(err, errUnreachable)
		}
	}
	if following == 0 || !lost {
		return false, errors.Join(others...)
	}
	nobody := withHint(errors.New("no replica of Safe leads now"), "try again in a while; 'kubectl vsecm status' shows the replicas")
	return true, errors.Join(append(others, nobody)...)
}

// advise tells what else there is to do.
func (o syncOptions) advise(err error) error {
	var hinted hintError
	namespace, name, _ := strings.Cut(o.name, "/")
	switch forbidden := codeOf(err) == http.StatusForbidden || refusedAs(err) == problem.Forbidden; {
	case forbidden && o.name != "" && o.allowDeletions+o.acceptRewrite == "":
		instead := fmt.Sprintf("with the right to change the GitSource: kubectl annotate gitsource -n %s %s %s=$(date +%%s) --overwrite", namespace, name, v1alpha1.AnnotationSyncRequested)
		return withHint(err, "%s", strings.Join(append(hintsOf(err), instead), "; or, "))
	case refusedAs(err) == problem.NotFound && o.name != "":
		return withHint(err, "'kubectl vsecm list --sources -A' shows the sources")
	case errors.As(err, &hinted):
		return err
	}
	return withHint(err, "'kubectl vsecm status' tells more")
}
