package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type reencryptOptions struct {
	streams genericiooptions.IOStreams
	conn    *connection
	now     func() time.Time

	paths      []string
	cluster    bool
	namespace  string
	all        bool
	check      bool
	retiredIDs []string
	rootKey    string
	retired    []string
	recipients []string
	files      []string
	safe       safeFlag
}

func newReencrypt(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := reencryptOptions{streams: streams, conn: conn, now: time.Now, safe: safeFlag{conn: conn}}
	cmd := &cobra.Command{
		Use:   "reencrypt (PATH… | --cluster [-n NAMESPACE | -A]) [flags]",
		Short: "Seal values anew that are sealed to a retired root key",
		Long: `Seal the values that are sealed to a retired root key anew, to the active one:
those of the manifests in files and folders, or, with --cluster, of the objects
that no git source applied. Safe does it, sealed value to sealed value: no
plaintext leaves it. Without Safe, give both keys: --root-key and --retired-key.

Nothing else changes: each value keeps the place, the readers and the delivery
that it is bound to, the time that it was sealed, and its other recipients, such
as a break-glass key. Comments and order of the files stay. Each file is
replaced when its values are there: interrupt it, or do it again, at any time.

The strings of the other recipients are looked up in .vsecm.yaml, --recipient,
--recipients-file and $VSECM_RECIPIENTS, by the key ids that the value names.

A value that may not stand where it does, and a file that cannot be read, are
left as they are, and listed on standard output, a line each.

--check changes nothing, and lists what is stale. It needs no right: which keys
are retired is taken from --retired-key-id, retiredKeys in .vsecm.yaml, or what
Safe tells anybody of a re-key under way.

Exit codes: 0 done, 1 error, or with --check: something is stale, 2 something
was left, 130 interrupted.`,
		Example: `  # A repository, after 'kubectl vsecm rekey start'
  kubectl vsecm reencrypt .
  git commit -am "Seal to the new root key" && git push

  # What was applied by hand
  kubectl vsecm reencrypt --cluster -A

  # Without Safe
  kubectl vsecm reencrypt . --root-key new.txt --retired-key old.txt

  # In CI
  kubectl vsecm reencrypt --check .`,
		Args: func(_ *cobra.Command, args []string) error {
			o.paths = args
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&o.cluster, "cluster", false, "Re-encrypt objects in the cluster instead of files")
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "With --cluster: the `NAMESPACE` of the objects, by default the current context's")
	cmd.Flags().BoolVarP(&o.all, "all-namespaces", "A", false, "With --cluster: the objects of every namespace")
	cmd.Flags().BoolVar(&o.check, "check", false, "Change nothing, list what is stale, and fail if anything is")
	cmd.Flags().StringArrayVar(&o.retiredIDs, "retired-key-id", nil, "With --check: the `ID` of a key that is retired. May be repeated")
	cmd.Flags().StringVar(&o.rootKey, "root-key", "", "Do it without Safe: the `FILE` of the active root key")
	cmd.Flags().StringArrayVar(&o.retired, "retired-key", nil, "Do it without Safe: the `FILE` of a retired root key. May be repeated")
	cmd.Flags().StringArrayVarP(&o.recipients, "recipient", "r", nil, "Another `RECIPIENT` (age1…) that values are sealed to. May be repeated")
	cmd.Flags().StringArrayVar(&o.files, "recipients-file", nil, "Other recipients, in this `FILE`, one a line. May be repeated")
	o.safe.addTo(cmd)
	_ = cmd.RegisterFlagCompletionFunc("namespace", completeNamespaces(conn))
	_ = cmd.RegisterFlagCompletionFunc("recipient", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("retired-key-id", cobra.NoFileCompletions)
	return cmd
}

// withoutSafe tells whether the keys themselves are given.
func (o *reencryptOptions) withoutSafe() bool { return o.rootKey != "" }

func (o *reencryptOptions) valid() error {
	switch {
	case o.cluster && len(o.paths) > 0:
		return errors.New("a PATH and --cluster exclude each other")
	case !o.cluster && len(o.paths) == 0:
		return withHint(errors.New("nothing to re-encrypt"), "name files or folders, . for everything here, or --cluster for what was applied by hand")
	case !o.cluster && (o.namespace != "" || o.all):
		return withHint(errors.New("-n and -A are for --cluster"), "files say themselves what namespace they are for")
	case o.namespace != "" && o.all:
		return errors.New("-n and -A exclude each other")
	case o.check && (o.rootKey != "" || len(o.retired) > 0):
		return withHint(errors.New("--check needs no key: it excludes --root-key and --retired-key"), "say which keys are retired with --retired-key-id")
	case !o.check && len(o.retiredIDs) > 0:
		return withHint(errors.New("--retired-key-id is for --check"), "Safe knows which keys it has retired")
	case o.withoutSafe() && o.safe.address != "":
		return errors.New("--safe and --root-key exclude each other")
	}
	for _, id := range o.retiredIDs {
		if id == "" || !isKeyID(id) {
			return errors.New("--retired-key-id: a key id is 32 hex digits in lower case")
		}
	}
	return checkKeyFiles(o.rootKey, o.retired)
}

func (o *reencryptOptions) run(ctx context.Context) error {
	if err := o.valid(); err != nil {
		return err
	}
	p, err := findProject()
	if err != nil {
		return err
	}
	c := &keyChange{}
	named, err := o.knownRecipients(p, c)
	if err != nil {
		return err
	}
	by, done, err := o.resealer(ctx, p, c)
	if err != nil {
		return err
	}
	defer done()
	if len(c.retired) == 0 {
		fmt.Fprintln(o.streams.ErrOut, "nothing to do: no root key is retired")
		return nil
	}
	for _, id := range c.retiredIn(p, named) {
		prose(o.streams.ErrOut, "note: %s names the recipient of the retired key %s still; put that of the active key there ('kubectl vsecm recipient')", encrypt.ProjectFile, id)
	}
	all, stop, err := o.holdings(ctx, p)
	if err != nil {
		return err
	}
	defer stop()
	t := &tally{}
	stale, err := scan(ctx, c, all, t)
	if err != nil {
		return err
	}
	if o.check {
		return o.tellStale(stale, t)
	}
	values := 0
	for _, f := range stale {
		values += len(f.values)
	}
	b := newBar(o.streams, "sealing anew", values)
	err = renewAll(ctx, c, stale, by, t, b)
	b.end()
	if advises, can := by.(interface{ advice() string }); can && err == nil {
		defer func() {
			if advice := advises.advice(); advice != "" {
				fmt.Fprintln(o.streams.ErrOut, "hint:", visible(advice))
			}
		}()
	}
	return o.tell(t, err)
}

// knownRecipients collects the recipients that values may be sealed to. By which of them a value is to
// be sealed, the value itself says. It returns those of the project.
func (o *reencryptOptions) knownRecipients(p *project, c *keyChange) ([]encrypt.Recipient, error) {
	byRule, faults := p.recipientsByRule()
	if len(faults) > 0 {
		return nil, faultsError(faults)
	}
	var named []encrypt.Recipient
	for _, rs := range byRule {
		named = append(named, rs...)
	}
	c.know(named...)
	given := recipientFlags{recipients: o.recipients, files: o.files, published: func(string) (encrypt.Recipient, error) {
		return encrypt.Recipient{}, errors.New("it is not asked for")
	}}
	if given.explicit() {
		rs, err := given.resolve(&project{}, encrypt.Rule{})
		if err != nil {
			return nil, err
		}
		c.know(rs...)
	}
	if p.rules != nil {
		c.retired = append(c.retired, p.rules.RetiredKeys...)
	}
	return named, nil
}

// resealer finds out which keys are retired, and what seals anew.
func (o *reencryptOptions) resealer(ctx context.Context, p *project, c *keyChange) (by resealer, done func(), err error) {
	nothing := func() {}
	if o.withoutSafe() {
		c.retired = nil // a key that is not given opens nothing
		local, err := newLocalResealer(o.streams, c, o.rootKey, o.retired, o.now)
		if err != nil {
			return nil, nil, err
		}
		return local, local.close, nil
	}
	for _, id := range o.retiredIDs {
		c.retired = append(c.retired, encrypt.KeyID(id))
	}
	if o.check && len(c.retired) > 0 && o.safe.given() == "" {
		return nil, nothing, nil
	}
	finding, cancel, err := o.conn.within(ctx, statusTimeout)
	if err != nil {
		return nil, nil, err
	}
	defer cancel()
	all, err := o.safe.open(finding, adminAccount)
	if err != nil {
		if o.check {
			err = withHint(err, "which keys are retired can be said with --retired-key-id, or with retiredKeys in %s", encrypt.ProjectFile)
		}
		return nil, nil, err
	}
	if o.check {
		defer all.close()
		return nil, nothing, o.askRetired(finding, all, c)
	}
	if err := c.learn(finding, all); err != nil {
		all.close()
		return nil, nil, err
	}
	safe := newSafeResealer(o.conn, all)
	return safe, func() { safe.close(); all.close() }, nil
}

// askRetired asks any replica what it tells anybody.
func (o *reencryptOptions) askRetired(ctx context.Context, all *safes, c *keyChange) error {
	answers := make([][]encrypt.KeyID, len(all.replicas))
	errs := all.each(func(i int, r *replica) (err error) {
		answers[i], err = retiredBy(ctx, r)
		return err
	})
	heard := false
	for i, ids := range answers {
		heard = heard || errs[i] == nil
		c.retired = append(c.retired, ids...)
	}
	if !heard {
		return errors.Join(errs...)
	}
	return nil
}

// holdings finds what may hold stale values.
func (o *reencryptOptions) holdings(ctx context.Context, p *project) (all []bundle, stop func(), err error) {
	if !o.cluster {
		all, err = heldFiles(p, o.paths, o.now)
		return all, func() {}, err
	}
	namespace := ""
	if !o.all {
		if namespace, err = o.conn.namespaceOrDefault(o.namespace); err != nil {
			return nil, nil, err
		}
	}
	cluster, err := o.conn.toCluster()
	if err != nil {
		return nil, nil, err
	}
	if all, err = heldObjects(ctx, o.conn, cluster, namespace, o.now); err != nil {
		cluster.close()
		return nil, nil, err
	}
	return all, cluster.close, nil
}

// unit is what is counted, one or many.
func (o *reencryptOptions) unit() string {
	if o.cluster {
		return "objects"
	}
	return "files"
}

// tellStale prints what --check found.
func (o *reencryptOptions) tellStale(stale []found, t *tally) error {
	values := 0
	for _, f := range stale {
		values += len(f.values)
		t.left = append(t.left, f.values...)
	}
	unread := len(t.left) - values
	if err := o.print(t.left); err != nil {
		return err
	}
	switch {
	case values > 0:
		return withHint(fmt.Errorf("stale values: %d, in %s: %d", values, o.unit(), len(stale)), "'kubectl vsecm reencrypt' seals them anew")
	case unread > 0:
		return fmt.Errorf("nothing stale was found, but what cannot be read or is left: %d", unread)
	}
	fmt.Fprintln(o.streams.ErrOut, "nothing is stale")
	return nil
}

// tell says what was done, and what was not.
func (o *reencryptOptions) tell(t *tally, failed error) error {
	if err := o.print(t.left); err != nil {
		return err
	}
	summary := fmt.Sprintf("sealed anew: values: %d, %s: %d", t.values, o.unit(), t.holdings)
	if len(t.left) > 0 {
		summary += fmt.Sprintf("; left: %d", len(t.left))
	}
	if failed != nil {
		if t.values > 0 {
			prose(o.streams.ErrOut, "note: %s", summary)
			failed = fmt.Errorf("it did not come to its end; doing it again goes on where it stopped: %w", failed)
		}
		return failed
	}
	fmt.Fprintln(o.streams.ErrOut, summary)
	if len(t.left) > 0 {
		return errSomeLeft
	}
	return nil
}

// print lists faults a line each, each once.
func (o *reencryptOptions) print(faults []*encrypt.Fault) error {
	slices.SortStableFunc(faults, func(a, b *encrypt.Fault) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), strings.Compare(a.Field, b.Field))
	})
	last := ""
	for _, f := range faults {
		line := visible(f.Error())
		if line == last {
			continue
		}
		last = line
		if _, err := fmt.Fprintln(o.streams.Out, line); err != nil {
			return err
		}
	}
	return nil
}
