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
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

const registerWait = time.Minute

type registerOptions struct {
	streams genericiooptions.IOStreams
	conn    *connection
	now     func() time.Time

	name       string
	namespace  string
	values     valueFlags
	spec       specFlags
	recipients recipientFlags
	merge      bool
	replace    bool
	force      bool
	wait       bool
	timeout    time.Duration
	dryRun     dryRunFlag
	output     outputFlag
}

func newRegister(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := registerOptions{streams: streams, conn: conn, now: time.Now, output: outputFlag{forms: []string{"json", "yaml", "name", formJSONPath}}}
	cmd := &cobra.Command{
		Use:   "register NAME [-n NAMESPACE] [flags]",
		Short: "Encrypt values, and apply them to the cluster at once",
		Long: `Encrypt values into an EncryptedSecret and apply it to the cluster at once, in
your own name, and wait until Safe says that it arrived. Values are taken and
sealed here, as with 'encrypt': plaintext never leaves this machine.

This is the way without git. What a git source applied is refused: it would be
put back. To keep a manifest in git, use 'encrypt' and push.

Where the name is taken, nothing is changed unless you say how. --merge adds the
keys or replaces their values, for the scope, workloads and delivery that the
object has, and keeps its other keys. --replace leaves it with these keys only.

Recipients and the namespace are found as by 'encrypt', with the rules of
.vsecm.yaml for NAME.yaml in the working directory.

Exit codes: 0 done, 1 error. After one that says so, the object stands all the
same.`,
		Example: `  # The value comes from a hidden prompt
  kubectl vsecm register db -n shop --key password

  # For two workloads, and as a Kubernetes Secret too
  kubectl vsecm register db -n shop --from-file tls.key \
    --workload api --workload worker --secret

  # Change one value
  pass show shop/db | kubectl vsecm register db -n shop --key password --merge

  # What would be applied
  kubectl vsecm register db -n shop --key password --dry-run=server -o yaml`,
		Args: exactArgs(1, "one NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name = args[0]
			o.spec.changed = cmd.Flags().Changed
			o.recipients.published = conn.publishedOnce(cmd.Context(), streams)
			return o.run(cmd.Context())
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completeObjects(cmd.Context(), conn, v1alpha1.ResourceEncryptedSecrets, o.namespace, nil)
		},
	}
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "The `NAMESPACE` to encrypt for and apply to")
	o.values.addTo(cmd)
	o.spec.addTo(cmd)
	o.recipients.addTo(cmd)
	cmd.Flags().BoolVar(&o.merge, "merge", false, "Of an object that is there, change these keys, and keep the others")
	cmd.Flags().BoolVar(&o.replace, "replace", false, "Of an object that is there, keep nothing")
	cmd.Flags().BoolVar(&o.force, "force-conflicts", false, "Take the object over from whoever applied it by other means")
	cmd.Flags().BoolVar(&o.wait, "wait", true, "Wait until Safe says that it arrived")
	cmd.Flags().DurationVar(&o.timeout, "timeout", registerWait, "How long to wait, a `DURATION`")
	o.dryRun.addTo(cmd)
	o.output.addTo(cmd, "Print what was applied")
	_ = cmd.RegisterFlagCompletionFunc("namespace", completeNamespaces(conn))
	_ = cmd.RegisterFlagCompletionFunc("key", func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return completeKeysOf(cmd.Context(), conn, o.namespace, args[0])
	})
	_ = cmd.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions)
	return cmd
}

func (o *registerOptions) check() error {
	switch {
	case o.merge && o.replace:
		return errors.New("--merge and --replace exclude each other")
	case o.timeout <= 0:
		return withHint(errors.New("--timeout: want a duration, such as 30s"), "--wait=false does not wait")
	}
	if err := encrypt.ValidateName(o.name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if err := o.values.checkGenerate(); err != nil {
		return err
	}
	return o.spec.check(o.now())
}

func (o *registerOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	p, err := ownProject(o.streams)
	if err != nil {
		return err
	}
	rule := p.rule(o.name + ".yaml")
	namespace, err := o.namespaceFor(rule)
	if err != nil {
		return err
	}
	cluster, err := o.conn.toCluster()
	if err != nil {
		return err
	}
	defer cluster.close()
	recipients, err := o.recipients.resolve(p, rule)
	if err != nil {
		return err
	}
	d := &draft{object: o.spec.object(namespace, o.name, rule), recipients: recipients}
	before, err := o.standing(ctx, cluster, d)
	if err != nil {
		return err
	}
	if err := d.check(); err != nil {
		return err
	}
	// Only now, when nothing else stands against it: a person may have to type.
	if d.values, err = o.values.read(o.streams); err != nil {
		return err
	}
	defer wipe(d.values)
	if err := d.seal(o.now()); err != nil {
		return err
	}
	if d.object.Spec.EncryptedData, err = d.whole(); err != nil {
		return err
	}
	if err := o.apply(ctx, cluster, d.object); err != nil {
		return err
	}
	if before != nil && o.replace {
		o.tellLost(before, d.object)
	}
	if o.wait && !o.dryRun.dry() {
		if err := o.await(ctx, cluster, d.object); err != nil {
			return err
		}
	}
	return o.print(d.object)
}

func (o *registerOptions) namespaceFor(rule encrypt.Rule) (string, error) {
	namespace := o.namespace
	if namespace == "" {
		namespace = rule.Namespace
	}
	if namespace == "" {
		// Not "default", as for 'encrypt'.
		var err error
		if namespace, err = o.conn.namespace(); err != nil {
			return "", err
		}
	}
	if err := encrypt.ValidateNamespace(namespace); err != nil {
		return "", fmt.Errorf("--namespace: %w", err)
	}
	return namespace, nil
}

// standing looks at what the cluster has of the name, and makes the draft one that goes with it. It
// returns nil if there is nothing.
func (o *registerOptions) standing(ctx context.Context, c *cluster, d *draft) (*v1alpha1.EncryptedSecret, error) {
	namespace := d.object.Namespace
	ctx, cancel, err := o.conn.within(ctx, clusterTimeout)
	if err != nil {
		return nil, err
	}
	defer cancel()
	place := namespace + "/" + o.name
	is, err := c.secret(ctx, namespace, o.name)
	switch {
	case codeOf(err) == http.StatusNotFound:
		d.object.ResourceVersion = firstVersion
		return nil, nil
	case err != nil:
		return nil, wordObjects(err, "reading "+place, namespace)
	case sourceName(is.Labels) != "":
		return nil, ofSource(is, "change")
	case !o.merge && !o.replace:
		return nil, withHint(fmt.Errorf("%s is there already, with %s", place, keysOf(is)),
			"--merge changes the keys that you name and keeps the others; --replace keeps none")
	}
	d.object.UID, d.object.ResourceVersion = is.UID, is.ResourceVersion
	if o.replace {
		return is, nil
	}
	if err := o.spec.agrees("in the cluster", is); err != nil {
		return nil, withHint(err, "its other values are bound to what it has: give them all anew, with --replace")
	}
	if err := o.recipients.agrees("in the cluster", is, d.recipients); err != nil {
		return nil, err
	}
	d.object.Spec = is.Spec
	return is, o.spec.setValidity(d.object)
}

// ofSource says that an object is a git source's, so that what is done to it would not last.
func ofSource(o *v1alpha1.EncryptedSecret, verb string) error {
	file := o.Annotations[v1alpha1.AnnotationPath]
	if file == "" {
		file = "its file"
	}
	return withHint(fmt.Errorf("%s/%s comes from git source %s, which would put it back", o.Namespace, o.Name, sourceName(o.Labels)),
		"%s %s in that source's repository, and push", verb, file)
}

// keysOf names an object's keys.
func keysOf(o *v1alpha1.EncryptedSecret) string {
	keys := sortedKeys(o.Spec.EncryptedData)
	if len(keys) == 1 {
		return "key " + keys[0]
	}
	return "keys " + someOf(keys)
}

// tellLost names the keys that a replaced object has no more.
func (o *registerOptions) tellLost(before, after *v1alpha1.EncryptedSecret) {
	lost := slices.DeleteFunc(sortedKeys(before.Spec.EncryptedData), func(key string) bool {
		_, kept := after.Spec.EncryptedData[key]
		return kept
	})
	if len(lost) == 0 {
		return
	}
	are := "are gone"
	if o.dryRun.dry() {
		are = "would be gone"
	}
	prose(o.streams.ErrOut, "note: keys that %s from %s/%s: %s", are, before.Namespace, before.Name, strings.Join(lost, ", "))
}

// apply has the cluster take the object, on condition that what stands there is what was looked
// at. The object becomes what stands there then.
func (o *registerOptions) apply(ctx context.Context, c *cluster, object *v1alpha1.EncryptedSecret) error {
	if o.dryRun == dryRunClient {
		object.UID, object.ResourceVersion = "", ""
		return nil
	}
	ctx, cancel, err := o.conn.within(ctx, clusterTimeout)
	if err != nil {
		return err
	}
	defer cancel()
	place := object.Namespace + "/" + object.Name
	now, err := c.apply(ctx, object, o.force, o.dryRun.ask())
	var refused *clusterError
	switch {
	case err == nil:
		*object = *now
		return nil
	case errors.As(err, &refused) && refused.managers:
		return withHint(fmt.Errorf("applying %s: %w", place, err), "somebody applied it by other means, and may again; --force-conflicts takes it over")
	case codeOf(err) == http.StatusConflict:
		return withHint(fmt.Errorf("applying %s: it has changed meanwhile, and is left as it is", place), "look at it with 'kubectl vsecm list', and do it again")
	case codeOf(err) == http.StatusNotFound:
		return withHint(fmt.Errorf("applying %s: %w", place, err), "is the namespace there, and Safe installed in this cluster? See -n and --context")
	}
	return wordObjects(err, "applying "+place, object.Namespace)
}

// await waits until Safe says that the object arrived, as it was applied.
func (o *registerOptions) await(ctx context.Context, c *cluster, object *v1alpha1.EncryptedSecret) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	place := object.Namespace + "/" + object.Name
	defer tellWaiting(o.streams, "waiting for Safe to take up "+place)()
	last := readiness{}
	err := poll(ctx, func() (bool, error) {
		is, err := c.secret(ctx, object.Namespace, object.Name)
		switch {
		case codeOf(err) == http.StatusNotFound || err == nil && is.UID != object.UID:
			return false, fmt.Errorf("%s was applied, and somebody has deleted it since", place)
		case err != nil:
			return false, fmt.Errorf("%s was applied, but how it fares is not known: %w", place, err)
		}
		last = readinessOf(is.Status.Conditions, is.Generation)
		switch {
		case last.status == "True":
			object.Status = is.Status
			return true, nil
		case stalled(is.Status.Conditions, is.Generation):
			return false, withHint(fmt.Errorf("%s was applied, and does not arrive: %s: %s", place, last.reason, last.message), "what to do about %s: %s", last.reason, reasonsPage)
		}
		return false, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return withHint(fmt.Errorf("%s was applied, but has not arrived within %s: %s: %s", place, o.timeout, last.reason, last.message),
			"'kubectl vsecm status' tells how Safe fares; 'kubectl vsecm list -n %s %s' shows when it has", object.Namespace, object.Name)
	}
	return err
}

func (o *registerOptions) print(object *v1alpha1.EncryptedSecret) error {
	switch o.output.value {
	case "":
		_, err := fmt.Fprintf(o.streams.Out, "%s registered%s\n", shownName(object.Name), o.dryRun.note())
		return err
	case "name":
		_, err := fmt.Fprintln(o.streams.Out, shownName(object.Name))
		return err
	}
	if o.dryRun == dryRunClient && !strings.HasPrefix(o.output.value, formJSONPath) { // no more than what was asked for, to be kept in a file
		text, err := encrypt.MarshalYAML(object)
		if o.output.value == "json" {
			text, err = encrypt.MarshalJSON(object)
		}
		if err == nil {
			_, err = o.streams.Out.Write(text)
		}
		return err
	}
	object.ManagedFields = nil
	return printObject(o.streams.Out, o.output.value, object)
}

// shownName is how kubectl names an object.
func shownName(name string) string {
	return strings.ToLower(v1alpha1.KindEncryptedSecret) + "." + v1alpha1.Group + "/" + name
}
