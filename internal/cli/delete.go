package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

const deleteWait = time.Minute

type deleteOptions struct {
	streams genericiooptions.IOStreams
	conn    *connection

	names          []string
	namespace      string
	yes            bool
	ignoreNotFound bool
	wait           bool
	timeout        time.Duration
	dryRun         dryRunFlag
}

func newDelete(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := deleteOptions{streams: streams, conn: conn}
	cmd := &cobra.Command{
		Use:   "delete NAME… [-n NAMESPACE] [flags]",
		Short: "Delete EncryptedSecrets from the cluster",
		Long: `Delete EncryptedSecrets from the cluster, in your own name. Workloads get them
no more. The Kubernetes Secret that one was delivered as goes with it, unless
the manifest says deletionPolicy: Retain, or Safe only took over one that was
there.

What a git source applied is refused while that source is there: it would be put
back. Delete its file in the repository, and push.

On a terminal, you are shown what is deleted, and asked. If one of several names
is refused, or not there, nothing is deleted.

Exit codes: 0 done, 1 error, 130 interrupted.`,
		Example: `  kubectl vsecm delete db -n shop

  # In a script, whether it is there or not
  kubectl vsecm delete db -n shop --yes --ignore-not-found`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return withHint(errors.New("nothing to delete"), "give the NAME of an EncryptedSecret; 'kubectl vsecm list' shows them")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.names = args
			return o.run(cmd.Context())
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return completeObjects(cmd.Context(), conn, v1alpha1.ResourceEncryptedSecrets, o.namespace, args)
		},
	}
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "The `NAMESPACE` to delete from, by default the current context's")
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "Do not ask")
	cmd.Flags().BoolVar(&o.ignoreNotFound, "ignore-not-found", false, "What is not there is as good as deleted")
	cmd.Flags().BoolVar(&o.wait, "wait", true, "Wait until they are gone")
	cmd.Flags().DurationVar(&o.timeout, "timeout", deleteWait, "How long to wait, a `DURATION`")
	o.dryRun.addTo(cmd)
	_ = cmd.RegisterFlagCompletionFunc("namespace", completeNamespaces(conn))
	_ = cmd.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions)
	return cmd
}

func (o deleteOptions) check() error {
	for i, name := range o.names {
		if err := encrypt.ValidateName(name); err != nil {
			return fmt.Errorf("name: %w", err)
		}
		if slices.Contains(o.names[:i], name) {
			return fmt.Errorf("%s is named twice", name)
		}
	}
	if o.timeout <= 0 {
		return withHint(errors.New("--timeout: want a duration, such as 30s"), "--wait=false does not wait")
	}
	return nil
}

func (o deleteOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	namespace, err := o.conn.namespaceOrDefault(o.namespace)
	if err != nil {
		return err
	}
	cluster, err := o.conn.toCluster()
	if err != nil {
		return err
	}
	defer cluster.close()
	objects, err := o.find(ctx, cluster, namespace)
	if err != nil {
		return err
	}
	if ok, err := o.confirm(objects); err != nil || !ok {
		return err
	}
	var errs []error
	for _, object := range objects {
		if err := o.delete(ctx, cluster, object); err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(o.streams.Out, "%s deleted%s\n", shownName(object.Name), o.dryRun.note())
	}
	return errors.Join(errs...)
}

// find returns what is to be deleted, or why none of it may be.
func (o deleteOptions) find(ctx context.Context, c *cluster, namespace string) ([]*v1alpha1.EncryptedSecret, error) {
	var objects []*v1alpha1.EncryptedSecret
	var errs []error
	for _, name := range o.names {
		is, err := c.secret(ctx, namespace, name)
		switch {
		case codeOf(err) == http.StatusNotFound && o.ignoreNotFound:
			continue
		case err != nil:
			err = notThere(err, v1alpha1.KindEncryptedSecret, namespace, name)
		case sourceName(is.Labels) != "":
			err = o.orphaned(ctx, c, is)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		objects = append(objects, is)
	}
	return objects, errors.Join(errs...)
}

// orphaned returns nil if the source that applied the object is there no more: then nobody puts it
// back.
func (o deleteOptions) orphaned(ctx context.Context, c *cluster, object *v1alpha1.EncryptedSecret) error {
	namespace, name, ok := strings.Cut(sourceName(object.Labels), "/")
	if !ok {
		return nil // none that could be
	}
	var source listedSource
	err := c.call(ctx, http.MethodGet, c.objects(v1alpha1.ResourceGitSources, namespace, name), nil, &source)
	if codeOf(err) == http.StatusNotFound {
		return nil
	}
	return ofSource(object, "delete")
}

// fate says what becomes of the Kubernetes Secret.
func fate(o *v1alpha1.EncryptedSecret) string {
	place := visible(o.Namespace + "/" + o.Name)
	switch s := o.Spec.Secret; {
	case s == nil && o.Status.Secret == nil:
		return ""
	case o.Status.Secret != nil && o.Status.Secret.Adopted:
		return "Kubernetes Secret " + place + " stays: it was there before"
	case s != nil && s.DeletionPolicy == "Retain":
		return "Kubernetes Secret " + place + " stays: deletionPolicy is Retain"
	}
	return "Kubernetes Secret " + place + " is deleted with it"
}

// confirm shows what is to be deleted, and on a terminal asks.
func (o deleteOptions) confirm(objects []*v1alpha1.EncryptedSecret) (bool, error) {
	t := terminalOf(o.streams)
	asks := t != nil && !o.yes && !o.dryRun.dry() && len(objects) > 0
	for _, object := range objects {
		if asks {
			prose(o.streams.ErrOut, "EncryptedSecret %s/%s, with %s", object.Namespace, object.Name, keysOf(object))
		}
		if said := fate(object); said != "" {
			prose(o.streams.ErrOut, "note: %s", said)
		}
	}
	if !asks {
		return true, nil
	}
	what := "it"
	if len(objects) > 1 {
		what = fmt.Sprintf("these %d", len(objects))
	}
	answer, err := t.ask("delete " + what + "? [y/N] ")
	if err != nil {
		return false, err
	}
	switch strings.ToLower(answer) {
	case "y", "yes":
		return true, nil
	}
	return false, errors.New("nothing was deleted")
}

// delete deletes the object that was shown, and no other of its name.
func (o deleteOptions) delete(ctx context.Context, c *cluster, object *v1alpha1.EncryptedSecret) error {
	if o.dryRun == dryRunClient {
		return nil
	}
	place := object.Namespace + "/" + object.Name
	path := c.objects(v1alpha1.ResourceEncryptedSecrets, object.Namespace, object.Name)
	// The API server heeds no query where there is a body.
	body := metav1.DeleteOptions{
		TypeMeta:      metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"},
		Preconditions: &metav1.Preconditions{UID: &object.UID}, DryRun: o.dryRun.ask(),
	}
	var answer struct{}
	switch err := c.call(ctx, http.MethodDelete, path, body, &answer); {
	case codeOf(err) == http.StatusNotFound:
		return nil
	case codeOf(err) == http.StatusConflict:
		return withHint(fmt.Errorf("deleting %s: another object has taken its place meanwhile, and is left as it is", place), "look at it with 'kubectl vsecm list'")
	case err != nil:
		return wordObjects(err, "deleting "+place, object.Namespace)
	}
	if !o.wait || o.dryRun.dry() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	defer tellWaiting(o.streams, "waiting for "+place+" to be gone")()
	err := poll(ctx, func() (bool, error) {
		is, err := c.secret(ctx, object.Namespace, object.Name)
		if codeOf(err) == http.StatusNotFound {
			return true, nil
		}
		return err == nil && is.UID != object.UID, err
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return withHint(fmt.Errorf("%s is being deleted, and still there after %s", place, o.timeout), "its finalizers are what it waits for: kubectl get encryptedsecret -n %s %s -o yaml", object.Namespace, object.Name)
	}
	if err != nil {
		return fmt.Errorf("waiting for %s to be gone: %w", place, err)
	}
	return nil
}
