package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/backup"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type restoreOptions struct {
	streams genericiooptions.IOStreams
	conn    *connection
	now     func() time.Time

	file       string
	identities []string
	toDir      string
	apply      bool
	namespaces []string
	dryRun     bool
	overwrite  bool
	recipients recipientFlags
	output     outputFlag
}

func newRestore(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := restoreOptions{streams: streams, conn: conn, now: time.Now, output: outputFlag{forms: []string{"json"}}}
	cmd := &cobra.Command{
		Use:   "restore FILE [-i IDENTITY] (--to-dir DIR | --apply) [flags]",
		Short: "Restore secrets from a backup, to files or to a cluster",
		Long: `Restore secrets from a backup, sealed anew: to files for git, or to a cluster,
in your own name. Safe is not asked, and need not run; the cluster may be
another one, with another root key.

The backup is opened with an identity from -i, or its passphrase. All of it is
verified first, and where anything is wrong with it, nothing is restored. Values
are opened and sealed in memory, and no plaintext is written anywhere.

Each value is sealed for the place, readers and delivery that it had, with the
time that it was first sealed at, to the recipients that 'encrypt' would take:
--recipient and --recipients-file, $VSECM_RECIPIENTS, .vsecm.yaml, or what Safe
publishes in the kubeconfig's cluster, in this order.

With --to-dir, a manifest that stands somewhere in DIR is changed there, and
keeps its comments and order; a new one becomes DIR/NAMESPACE/NAME.yaml. With
--apply, namespaces must be there, and what comes from a git source is left:
restore it into that repository, and push.

What is there already as the backup has it, and is sealed to the right
recipients, is unchanged: after an interruption, do it again, and it goes on
where it was. What is there and newer, or has keys that the backup does not, is
left, unless you say --overwrite.

Whoever knows a recipient of yours can write a backup for it. Restore what you
have kept yourself, and nothing that you were sent; --dry-run lists it all.

Exit codes: 0 everything is there; 1 error; 2 some was left, or did not open
when the backup was made.`,
		Example: `  # Into the repository, for the recipients that its .vsecm.yaml names
  kubectl vsecm restore safe.backup -i backup-key.txt --to-dir .

  # Into a new cluster, once its Safe has a root key
  kubectl vsecm restore safe.backup -i backup-key.txt --apply --dry-run
  kubectl vsecm restore safe.backup -i backup-key.txt --apply

  # Without a cluster, one namespace, for a root key that is kept offline
  kubectl vsecm restore safe.backup -i backup-key.txt --to-dir out -n shop \
    --recipient "$(kubectl vsecm recipient --root-key root-key.txt)"`,
		Args: exactArgs(1, "the FILE of a backup"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.file = args[0]
			o.recipients.published = conn.publishedOnce(cmd.Context(), streams)
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().StringArrayVarP(&o.identities, "identity", "i", nil, "Open the backup with the age identities in this `FILE`. May be repeated")
	cmd.Flags().StringVar(&o.toDir, "to-dir", "", "Restore to files in this `DIR`; made if it is not there")
	cmd.Flags().BoolVar(&o.apply, "apply", false, "Restore to the cluster")
	cmd.Flags().StringArrayVarP(&o.namespaces, "namespace", "n", nil, "Restore only what is of this `NAMESPACE`. May be repeated")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "Change nothing, and say what would be done")
	cmd.Flags().BoolVar(&o.overwrite, "overwrite", false, "Replace what is there, though it is newer or somebody else's")
	o.recipients.addTo(cmd)
	o.output.addTo(cmd, "Form of the summary")
	_ = cmd.MarkFlagDirname("to-dir")
	_ = cmd.RegisterFlagCompletionFunc("namespace", completeNamespaces(conn))
	return cmd
}

func (o *restoreOptions) check() error {
	switch {
	case o.toDir != "" && o.apply:
		return errors.New("--to-dir and --apply exclude each other")
	case o.toDir == "" && !o.apply:
		return withHint(errors.New("nothing says where to restore to"), "--to-dir DIR is for files, --apply for the cluster")
	case o.file == "-":
		return withHint(errors.New("want the name of a file"), "a backup is read to its end before anything is made of it: keep it in a file")
	}
	for _, namespace := range o.namespaces {
		if err := encrypt.ValidateNamespace(namespace); err != nil {
			return fmt.Errorf("--namespace: %w", err)
		}
	}
	return nil
}

// A destination is where secrets are restored to.
type destination interface {
	// begin looks at what is there, and tells why these cannot be restored to it. It changes nothing.
	begin(ctx context.Context, places []place) error
	// standing tells what is at a place. left says in words why that, whatever it is, is not to be touched.
	standing(ctx context.Context, at place) (is standing, left string, err error)
	// recipients returns whom values of a place are to be sealed to.
	recipients(at place) ([]encrypt.Recipient, error)
	// put makes what stands at its place what was restored. left says in words why it did not.
	put(ctx context.Context, is standing, d *draft) (left string, err error)
	// width is how many may be put at a time.
	width() int
	close()
}

func (o *restoreOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	p, err := ownProject(o.streams)
	if err != nil {
		return err
	}
	a, err := openArchive(o.streams, o.file, o.identities)
	if err != nil {
		return err
	}
	defer a.close()
	summary, places, err := o.verify(a)
	if err != nil {
		return err
	}
	to, err := o.destination(p)
	if err != nil {
		return err
	}
	defer to.close()
	if err := to.begin(ctx, places); err != nil {
		return err
	}
	r := &restoring{o: o, to: to, outcomes: make([]outcome, len(places)), placed: indexOf(places)}
	err = r.restore(ctx, a, len(places))
	told := r.tell(summary)
	if err != nil {
		if n := r.count(resultRestored); n > 0 && !o.dryRun {
			err = withHint(err, "%d secrets were restored before; do it again, and it goes on where it was", n)
		}
		if errors.Is(told, errSomeLeft) {
			told = nil // there is more that was left than that
		}
		return errors.Join(err, told)
	}
	return told
}

func (o *restoreOptions) destination(p *project) (destination, error) {
	if o.apply {
		return newClusterDestination(o, p)
	}
	return newFolderDestination(o, p), nil
}

// verify reads all of the archive, before anything is made of it, and returns the places that are asked for.
func (o *restoreOptions) verify(a *archive) (backup.Summary, []place, error) {
	defer tellWaiting(o.streams, "verifying "+o.file)()
	var places []place
	found := make(map[string]bool)
	summary, err := a.read(func(object *backup.Object) error {
		object.Wipe()
		if o.wants(object.Namespace) {
			places = append(places, place{object.Namespace, object.Name})
			found[object.Namespace] = true
		}
		return nil
	})
	if err != nil {
		return summary, nil, err
	}
	for _, namespace := range o.namespaces {
		if !found[namespace] {
			return summary, nil, withHint(fmt.Errorf("%s: it has nothing of namespace %s", o.file, namespace), "'kubectl vsecm backup list' shows what is in it")
		}
	}
	return summary, places, nil
}

func (o *restoreOptions) wants(namespace string) bool {
	return len(o.namespaces) == 0 || slices.Contains(o.namespaces, namespace)
}

func indexOf(places []place) map[place]int {
	index := make(map[place]int, len(places))
	for i, at := range places {
		index[at] = i
	}
	return index
}
