package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type listOptions struct {
	streams genericiooptions.IOStreams
	conn    *connection
	now     func() time.Time

	names     []string
	namespace string
	all       bool
	selector  string
	noHeaders bool
	sources   bool
	olderThan ageFlag
	output    outputFlag
}

func newList(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := listOptions{streams: streams, conn: conn, now: time.Now, output: outputFlag{forms: []string{"wide", "json", "yaml", "name", formJSONPath}}}
	cmd := &cobra.Command{
		Use:   "list [NAME…] [-n NAMESPACE | -A] [flags]",
		Short: "List the EncryptedSecrets in the cluster, and how they fare",
		Long: `List the EncryptedSecrets in the cluster: whether each arrived where it is meant
to go, why if it did not, what it is delivered as, and which git source it comes
from. With --sources, list the git sources. No value is shown, or read.

READY is True, False, or Unknown while Safe has not looked at an object as it is
now. EXPIRES is when it ceases to be delivered. -o wide adds when its delivery
starts, who may fetch it, the number of its keys, and of those that a template
makes of them, the root key that they are sealed to, the revision that it came
with, when its Kubernetes Secret was written last, and what Safe says of it. The
objects are read in your own name: Safe need not run.

--older-than lists only what has a value that was sealed longer ago than that,
and names such keys: it may be time for new passwords. A re-key does not make a
value newer. When a value was sealed stands in its header, as whoever sealed it
wrote it; a value that does not say is listed too.

Exit codes: 0 done, also where there are none, 1 error.`,
		Example: `  kubectl vsecm list -n shop

  # Passwords that are due, and a new one for the first of them
  kubectl vsecm list -A --older-than 90d
  kubectl vsecm encrypt db --generate password=24 -w secrets/db.yaml

  # What did not arrive, and why
  kubectl vsecm list -A -o wide | grep -v ' True '

  # Those of a source
  kubectl vsecm list -l vsecm.com/source=shop.config

  # The sources themselves
  kubectl vsecm list --sources -A`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.names = args
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "The `NAMESPACE` to look in, by default the current context's")
	cmd.Flags().BoolVarP(&o.all, "all-namespaces", "A", false, "Look in every namespace")
	cmd.Flags().StringVarP(&o.selector, "selector", "l", "", "List only what has these `LABELS`, as with kubectl")
	cmd.Flags().BoolVar(&o.noHeaders, "no-headers", false, "Leave out the table's header")
	cmd.Flags().BoolVar(&o.sources, "sources", false, "List git sources instead")
	cmd.Flags().Var(&o.olderThan, "older-than", "List only what has values that were sealed longer ago than this `AGE`: 90d, or 2160h")
	o.output.addTo(cmd, "Form of the output")
	_ = cmd.RegisterFlagCompletionFunc("older-than", cobra.FixedCompletions([]string{"30d", "90d", "365d"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("namespace", completeNamespaces(conn))
	_ = cmd.RegisterFlagCompletionFunc("selector", cobra.NoFileCompletions)
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return completeObjects(cmd.Context(), conn, o.resource(), o.namespace, args)
	}
	return cmd
}

func (o listOptions) resource() string {
	if o.sources {
		return v1alpha1.ResourceGitSources
	}
	return v1alpha1.ResourceEncryptedSecrets
}

func (o listOptions) kinds() string {
	if o.sources {
		return v1alpha1.KindGitSource + "s"
	}
	return v1alpha1.KindEncryptedSecret + "s"
}

func (o listOptions) check() error {
	switch {
	case o.all && o.namespace != "":
		return errors.New("-n and -A exclude each other")
	case o.all && len(o.names) > 0:
		return withHint(errors.New("a NAME is of one namespace, and -A of all"), "name it with -n")
	case o.selector != "" && len(o.names) > 0:
		return errors.New("a NAME and --selector exclude each other")
	case o.sources && o.olderThan.age > 0:
		return errors.New("--older-than is for EncryptedSecrets, and excludes --sources")
	}
	if _, err := labels.Parse(o.selector); err != nil {
		return errors.New("--selector: want KEY=VALUE, KEY!=VALUE, KEY or !KEY, several joined by commas")
	}
	for _, name := range o.names {
		if err := encrypt.ValidateName(name); err != nil {
			return fmt.Errorf("name: %w", err)
		}
	}
	return nil
}

func (o listOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	namespace := ""
	if !o.all {
		var err error
		if namespace, err = o.conn.namespaceOrDefault(o.namespace); err != nil {
			return err
		}
	}
	cluster, err := o.conn.toCluster()
	if err != nil {
		return err
	}
	defer cluster.close()
	switch {
	case o.output.objects():
		printer := &objectPrinter{w: o.streams.Out, form: o.output.value, alone: len(o.names) == 1 && o.olderThan.age == 0}
		before := o.now().Add(-o.olderThan.age)
		err := list(ctx, o, cluster, namespace, func(raw *json.RawMessage) error {
			if o.olderThan.age > 0 {
				if old, err := isOld(*raw, before); !old || err != nil {
					return err
				}
			}
			return printer.object(raw)
		})
		if err == nil || printer.some {
			err = errors.Join(err, printer.end())
		}
		return err
	case o.sources:
		return listRows(ctx, o, cluster, namespace, sourceHeader, (*listedSource).row)
	case o.olderThan.age > 0:
		return listRows(ctx, o, cluster, namespace, agedHeader, agedRow(o.now(), o.olderThan.age))
	}
	return listRows(ctx, o, cluster, namespace, secretHeader, (*listedSecret).row)
}

// list calls do with every object that was asked for. Of several names, the errors of those that cannot be had
// are told at the end.
func list[T any](ctx context.Context, o listOptions, c *cluster, namespace string, do func(*T) error) error {
	if len(o.names) == 0 {
		err := each(ctx, c, c.objects(o.resource(), namespace), o.selector, do)
		return wordObjects(missingKind(err, o.kinds()), "listing "+o.kinds(), namespace)
	}
	var errs []error
	for _, name := range o.names {
		item := new(T)
		err := c.call(ctx, http.MethodGet, c.objects(o.resource(), namespace, name), nil, item)
		if err == nil {
			if err := do(item); err != nil {
				return err
			}
			continue
		}
		errs = append(errs, notThere(err, strings.TrimSuffix(o.kinds(), "s"), namespace, name))
	}
	return errors.Join(errs...)
}

// notThere words the error of reading an object by its name.
func notThere(err error, kind, namespace, name string) error {
	if codeOf(err) == http.StatusNotFound {
		return fmt.Errorf("there is no %s %s/%s", kind, namespace, name)
	}
	return wordObjects(err, "reading "+namespace+"/"+name, namespace)
}

// listRows prints a table of what was asked for, and has a row.
func listRows[T any](ctx context.Context, o listOptions, c *cluster, namespace string, header func(wide bool) []string, row func(item *T, wide bool) []string) error {
	wide := o.output.value == "wide"
	table := newTable(o.streams.Out)
	if o.output.value != "name" && !o.noHeaders {
		cells := header(wide)
		if o.all {
			cells = append([]string{"NAMESPACE"}, cells...)
		}
		table.header(cells)
	}
	if !wide {
		table.may("AGE", "SOURCE", "EXPIRES", "SECRET", "LAST APPLIED", "REVISION", "FAULTS", "OBJECTS", "OLD-VALUES", "SEALED", "REASON")
	}
	n := 0
	err := list(ctx, o, c, namespace, func(item *T) error {
		cells := row(item, wide)
		if cells == nil {
			return nil
		}
		n++
		switch {
		case o.output.value == "name":
			cells = []string{strings.ToLower(strings.TrimSuffix(o.kinds(), "s")) + "." + v1alpha1.Group + "/" + cells[1]}
		case o.all:
		default:
			cells = cells[1:]
		}
		return table.row(cells)
	})
	if err := table.flush(); err != nil {
		return err
	}
	if n == 0 && err == nil {
		which, where := o.kinds(), ""
		if o.olderThan.age > 0 {
			which += " with values older than " + o.olderThan.text
		}
		if !o.all {
			where = " in namespace " + namespace
		}
		fmt.Fprintf(o.streams.ErrOut, "No %s found%s.\n", which, where)
	}
	return err
}

// A listedSecret is what a list shows of an EncryptedSecret.
type listedSecret struct {
	Metadata listedMetadata `json:"metadata"`
	Spec     struct {
		Workloads     []string                 `json:"workloads"`
		EncryptedData map[string]unread        `json:"encryptedData"`
		Secret        *v1alpha1.SecretDelivery `json:"secret"`
		Template      *listedTemplate          `json:"template"`
		NotBefore     *metav1.Time             `json:"notBefore"`
		ExpiresAt     *metav1.Time             `json:"expiresAt"`
	} `json:"spec"`
	Status v1alpha1.EncryptedSecretStatus `json:"status"`
}

type listedMetadata struct {
	Namespace         string            `json:"namespace"`
	Name              string            `json:"name"`
	Generation        int64             `json:"generation"`
	CreationTimestamp metav1.Time       `json:"creationTimestamp"`
	Labels            map[string]string `json:"labels"`
}

// unread is a value of which nothing is kept.
type unread struct{}

func (unread) UnmarshalJSON([]byte) error { return nil }

func secretHeader(wide bool) []string {
	header := []string{"NAME", "READY", "REASON", "SECRET", "SOURCE", "AGE", "EXPIRES"}
	if wide {
		header = append(header, "STARTS", "WORKLOADS", "KEYS", "KEY-ID", "REVISION", "DELIVERED", "MESSAGE")
	}
	return header
}

// row returns the cells of the table, the namespace first.
func (s *listedSecret) row(wide bool) []string {
	ready := readinessOf(s.Status.Conditions, s.Metadata.Generation)
	secret := ""
	if s.Spec.Secret != nil {
		secret = s.Spec.Secret.Type
		if secret == "" {
			secret = encrypt.DefaultSecretType
		}
	}
	cells := []string{
		s.Metadata.Namespace, s.Metadata.Name, ready.status, ready.reason, orNone(secret),
		orNone(sourceName(s.Metadata.Labels)), ageOf(s.Metadata.CreationTimestamp), whenOf(s.Spec.ExpiresAt),
	}
	if !wide {
		return cells
	}
	workloads, delivered := s.Spec.Workloads, "<none>"
	if len(workloads) == 0 {
		workloads = []string{s.Metadata.Name}
	}
	if s.Status.Secret != nil {
		delivered = agoOf(&s.Status.Secret.DeliveredAt)
	}
	return append(cells, whenOf(s.Spec.NotBefore), strings.Join(workloads, ","), s.keys(), shortIDs(s.Status.KeyIDs),
		orNone(short(s.Status.Revision)), delivered, orNone(ready.message))
}

// A listedTemplate is a template of which the keys are kept.
type listedTemplate struct {
	Data map[string]unread `json:"data"`
}

// keys counts the keys that are sealed, and those that a template makes of them.
func (s *listedSecret) keys() string {
	n := strconv.Itoa(len(s.Spec.EncryptedData))
	if s.Spec.Template == nil {
		return n
	}
	return n + " to " + strconv.Itoa(len(s.Spec.Template.Data))
}

// whenOf says how far a time is away.
func whenOf(t *metav1.Time) string {
	if t == nil {
		return "<none>"
	}
	if ahead := time.Until(t.Time); ahead > 0 {
		return "in " + duration.HumanDuration(ahead)
	}
	return ago(t.Time)
}

// A listedSource is what a list shows of a GitSource.
type listedSource struct {
	Metadata listedMetadata           `json:"metadata"`
	Spec     v1alpha1.GitSourceSpec   `json:"spec"`
	Status   v1alpha1.GitSourceStatus `json:"status"`
}

func sourceHeader(wide bool) []string {
	header := []string{"NAME", "READY", "REASON", "REVISION", "OBJECTS", "FAULTS", "LAST APPLIED"}
	if wide {
		header = append(header, "AGE", "URL", "REF", "VERIFIED", "MESSAGE")
	}
	return header
}

func (s *listedSource) ready() readiness {
	if s.Spec.Suspend { // what stands in the status is from before
		r := readiness{statusUnknown, "Suspended", "spec.suspend is set: nothing is done for the source"}
		if c := conditionOf(s.Status.Conditions, "Ready"); c != nil {
			r.status = string(c.Status)
		}
		return r
	}
	return readinessOf(s.Status.Conditions, s.Metadata.Generation)
}

func (s *listedSource) row(wide bool) []string {
	ready := s.ready()
	cells := []string{
		s.Metadata.Namespace, s.Metadata.Name, ready.status, ready.reason, orNone(short(s.Status.Revision)),
		strconv.FormatInt(s.Status.Objects, 10), strconv.FormatInt(s.Status.FaultCount, 10), agoOf(s.Status.AppliedAt),
	}
	if !wide {
		return cells
	}
	verified := ""
	if v := s.Status.Verification; v != nil && v.Mode != v1alpha1.VerifyNone {
		verified = v.Mode
		if v.Signer != "" {
			verified += ", " + v.Signer
		}
	}
	return append(cells, ageOf(s.Metadata.CreationTimestamp), bareURL(s.Spec.URL), refOf(s.Spec.Ref), orNone(verified), orNone(ready.message))
}

// refOf says what of a repository is followed.
func refOf(ref v1alpha1.GitRef) string {
	switch {
	case ref.Tag != "":
		return "tag " + ref.Tag
	case ref.Branch == "" && ref.Commit == "":
		return "main"
	case ref.Commit != "":
		return strings.TrimPrefix(ref.Branch+"@"+short(ref.Commit), "@")
	}
	return ref.Branch
}

// bareURL leaves out a password that somebody wrote into the address of a repository, where it
// does not belong.
func bareURL(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return address
	}
	return u.Redacted()
}
