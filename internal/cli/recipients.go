package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// recipientsVariable holds recipients, separated by commas or white space.
const recipientsVariable = "VSECM_RECIPIENTS"

// recipientFlags say whom to seal to. The first source that names anybody counts: the
// flags, the environment, the project file, what Safe publishes in the
// cluster. Only for the last a kubeconfig is read.
type recipientFlags struct {
	recipients []string
	files      []string
	namespace  namespaceFlag
	published  func(namespace string) (encrypt.Recipient, error) // asked once
	fromSafe   bool
}

func (f *recipientFlags) addTo(cmd *cobra.Command) {
	f.addNamesTo(cmd)
	f.namespace.addTo(cmd)
}

// addNamesTo is addTo for a verb that reaches Safe by other flags.
func (f *recipientFlags) addNamesTo(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&f.recipients, "recipient", "r", nil, "Seal to this `RECIPIENT` (age1…). May be repeated")
	cmd.Flags().StringArrayVar(&f.files, "recipients-file", nil, "Seal to the recipients in this `FILE`, one a line. May be repeated")
	_ = cmd.RegisterFlagCompletionFunc("recipient", cobra.NoFileCompletions)
}

// explicit tells whether it is the caller who says whom to seal to, and not the
// project file, which others may write to.
func (f *recipientFlags) explicit() bool {
	return f.flagged() || strings.TrimSpace(os.Getenv(recipientsVariable)) != ""
}

// flagged tells whether they do so in this very call.
func (f *recipientFlags) flagged() bool { return len(f.recipients)+len(f.files) > 0 }

// agrees tells whether recipients of the project file are those of the values that an
// object has, which stands at place. Whoever may push may have added one of their own, and a value that is sealed
// to it: that is to be seen before the next value is theirs. Of the key that Safe publishes, one value is enough: it
// is another after a rekey.
func (f *recipientFlags) agrees(place string, o *v1alpha1.EncryptedSecret, recipients []encrypt.Recipient) error {
	if f.explicit() || len(o.Spec.EncryptedData) == 0 {
		return nil
	}
	ids := make([]encrypt.KeyID, len(recipients))
	for i, r := range recipients {
		ids[i] = r.KeyID()
	}
	slices.Sort(ids)
	same := 0
	for _, sealed := range o.Spec.EncryptedData {
		if info, err := encrypt.Inspect(sealed); err == nil && slices.Equal(info.KeyIDs, ids) {
			same++
		}
	}
	if same == len(o.Spec.EncryptedData) || f.fromSafe && same > 0 {
		return nil
	}
	if f.fromSafe {
		return withHint(fmt.Errorf("%s: %s: its values are sealed to others than to this cluster's Safe", place, o.Name),
			"is this the right cluster? See --context; if its key is meant, name it with --recipient or in $%s", recipientsVariable)
	}
	return withHint(fmt.Errorf("%s: %s: its values are sealed to others than %s names now", place, o.Name, encrypt.ProjectFile),
		"look at who changed the recipients; if they are right, name them with --recipient, --recipients-file or in $%s", recipientsVariable)
}

func (f *recipientFlags) resolve(p *project, rule encrypt.Rule) ([]encrypt.Recipient, error) {
	var all []encrypt.Recipient
	for _, text := range f.recipients {
		r, err := encrypt.ParseRecipient(text)
		if err != nil {
			return nil, fmt.Errorf("--recipient: %w", err)
		}
		all = append(all, r)
	}
	for _, file := range f.files {
		rs, err := readRecipients(file)
		if err != nil {
			return nil, err
		}
		all = append(all, rs...)
	}
	if len(all) == 0 {
		for _, text := range strings.FieldsFunc(os.Getenv(recipientsVariable), func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' }) {
			r, err := encrypt.ParseRecipient(text)
			if err != nil {
				return nil, fmt.Errorf("$%s: %w", recipientsVariable, err)
			}
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		var err error
		if all, err = p.recipients(rule); err != nil {
			return nil, err
		}
	}
	if len(all) == 0 {
		r, err := f.published(string(f.namespace))
		if errors.Is(err, errNoCluster) {
			said := errors.New("no recipients to seal to, and no cluster to ask for Safe's")
			if p.rules != nil && rule.Path == "" {
				said = fmt.Errorf("%s has no rule for where this goes, and there is no cluster to ask for Safe's recipient", encrypt.ProjectFile)
			}
			return nil, withHint(said,
				"name one with --recipient, in $%s or in .vsecm.yaml, or a kubeconfig with --kubeconfig; 'kubectl vsecm recipient' prints that of a root key", recipientsVariable)
		}
		if errors.Is(err, errNoKeyYet) {
			return nil, fmt.Errorf("no recipients to seal to were named: %w", err) // it says what to do
		}
		if err != nil {
			hint := fmt.Sprintf("name one with --recipient, in $%s or in .vsecm.yaml, or the cluster with --context", recipientsVariable)
			if errors.Is(err, errNoSafe) {
				hint += ". How to install Safe: " + installPage
			}
			return nil, withHint(fmt.Errorf("no recipients to seal to were named, and Safe's could not be found: %w", err), "%s", hint)
		}
		f.fromSafe = true
		all = append(all, r)
	}
	unique, err := encrypt.UniqueRecipients(all)
	if errors.Is(err, encrypt.ErrMixedRecipients) {
		return nil, withHint(err, "name only hybrid or only classic recipients")
	}
	return unique, err
}

// once finds the recipients of each rule once: a folder may hold thousands of documents.
func (f *recipientFlags) once(p *project) func(encrypt.Rule) ([]encrypt.Recipient, error) {
	byRule := make(map[string][]encrypt.Recipient) // of rules with one path only the first counts
	return func(rule encrypt.Rule) ([]encrypt.Recipient, error) {
		if rs := byRule[rule.Path]; rs != nil {
			return rs, nil
		}
		rs, err := f.resolve(p, rule)
		byRule[rule.Path] = rs
		return rs, err
	}
}
