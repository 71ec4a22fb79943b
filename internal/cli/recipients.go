package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// recipientsVariable holds recipients, separated by commas or white space.
const recipientsVariable = "VSECM_RECIPIENTS"

// recipientFlags say whom to seal to. The first source that names anybody counts: the
// flags, the environment, the project file.
type recipientFlags struct {
	recipients []string
	files      []string
}

func (f *recipientFlags) addTo(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&f.recipients, "recipient", "r", nil, "Seal to this `RECIPIENT` (age1…). May be repeated")
	cmd.Flags().StringArrayVar(&f.files, "recipients-file", nil, "Seal to the recipients in this `FILE`, one a line. May be repeated")
	_ = cmd.RegisterFlagCompletionFunc("recipient", cobra.NoFileCompletions)
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
		// A project file in a folder that others may write to, such as /tmp,
		// would have secrets sealed to them.
		if len(all) > 0 && p.foreign {
			return nil, withHint(fmt.Errorf("%s belongs to another user: its recipients are not taken", filepath.Join(p.root, encrypt.ProjectFile)),
				"if they are the right ones, name them with --recipient, --recipients-file or in $%s", recipientsVariable)
		}
	}
	if len(all) == 0 {
		return nil, withHint(errors.New("no recipients to seal to"),
			"name one with --recipient, in $%s or in .vsecm.yaml; 'kubectl vsecm recipient' prints that of a root key", recipientsVariable)
	}
	unique, err := encrypt.UniqueRecipients(all)
	if errors.Is(err, encrypt.ErrMixedRecipients) {
		return nil, withHint(err, "name only hybrid or only classic recipients")
	}
	return unique, err
}
