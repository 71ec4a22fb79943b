package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// specFlags say what a new manifest is like, all but its values.
type specFlags struct {
	scope     string
	workloads []string
	secret    string
	template  string // a file
	notBefore momentFlag
	expiresAt momentFlag

	changed func(flag string) bool

	made         *v1alpha1.Template // what the file holds
	begins, ends *metav1.Time
}

func (f *specFlags) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.scope, "scope", "", "How much of the place is bound, a `SCOPE`: strict (the default), namespace or cluster")
	cmd.Flags().StringArrayVar(&f.workloads, "workload", nil, "A `WORKLOAD` that may fetch the values; by default the one that bears the object's name. May be repeated")
	cmd.Flags().StringVar(&f.secret, "secret", "", "Deliver as a Kubernetes Secret too, of this `TYPE`, written --secret=TYPE")
	cmd.Flags().Lookup("secret").NoOptDefVal = encrypt.DefaultSecretType
	cmd.Flags().StringVar(&f.template, "template", "", "Deliver what the template in this `FILE` makes of the values: YAML, as spec.template has it")
	cmd.Flags().Var(&f.notBefore, "not-before", "Deliver from this `TIME` on: 2027-01-31T12:00:00Z, or how far it is ahead: 12h, 7d")
	cmd.Flags().Var(&f.expiresAt, "expires-at", "Deliver until this `TIME`: 2027-01-31T12:00:00Z, or how far it is ahead: 90d")
	_ = cmd.RegisterFlagCompletionFunc("not-before", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("expires-at", cobra.FixedCompletions([]string{"30d", "90d", "365d"}, cobra.ShellCompDirectiveNoFileComp))
	// These flags are there: they were just added.
	_ = cmd.RegisterFlagCompletionFunc("scope", cobra.FixedCompletions([]string{"strict", "namespace", "cluster"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("workload", cobra.NoFileCompletions)
}

// check checks the flags, and reads what they name.
func (f *specFlags) check(now time.Time) error {
	if _, err := encrypt.ParseScope(f.scope); err != nil {
		return fmt.Errorf("--scope: %w", err)
	}
	if err := encrypt.ValidateWorkloads(f.workloads); err != nil {
		return fmt.Errorf("--workload: %w", err)
	}
	if f.secret != "" {
		if err := encrypt.ValidateSecretType(f.secret); err != nil {
			return fmt.Errorf("--secret: %w", err)
		}
	}
	f.begins, f.ends = f.notBefore.from(now), f.expiresAt.from(now)
	switch {
	case f.ends != nil && !f.ends.After(now):
		return fmt.Errorf("--expires-at: %s is past: nobody would ever get it", f.expiresAt.text)
	case f.begins != nil && f.ends != nil && !f.begins.Before(f.ends):
		return errors.New("--expires-at is not after --not-before")
	}
	if f.changed("template") {
		return f.readTemplate()
	}
	return nil
}

func (f *specFlags) readTemplate() error {
	data, err := readFile(f.template, encrypt.MaxFileSize)
	if err != nil {
		return fmt.Errorf("--template: %w", err)
	}
	made, faults := encrypt.ReadTemplate(f.template, data)
	if len(faults) > 0 {
		return withHint(faultsError(faults), "a template is written as in docs/templates.md: data, and below it each key that is delivered")
	}
	f.made = made
	return nil
}

// object returns a new object without values, as the flags and then the project's rule
// have it.
func (f *specFlags) object(namespace, name string, rule encrypt.Rule) *v1alpha1.EncryptedSecret {
	o := &v1alpha1.EncryptedSecret{}
	o.APIVersion, o.Kind = v1alpha1.APIVersion, v1alpha1.KindEncryptedSecret
	o.Namespace, o.Name = namespace, name
	o.Spec.Scope = f.scope
	if o.Spec.Scope == "" {
		o.Spec.Scope = string(rule.Scope)
	}
	if o.Spec.Scope == "" {
		o.Spec.Scope = string(encrypt.Strict)
	}
	o.Spec.Workloads = f.workloads
	o.Spec.Template, o.Spec.NotBefore, o.Spec.ExpiresAt = f.made, f.begins, f.ends
	secretType := f.secret
	if secretType == "" && !f.changed("secret") {
		secretType = rule.SecretType
	}
	if secretType != "" {
		o.Spec.Secret = &v1alpha1.SecretDelivery{Type: secretType}
	}
	return o
}

// objectOf is object for a v1/Secret document, whose type and metadata are kept.
func (f *specFlags) objectOf(s *encrypt.Secret, namespace string, rule encrypt.Rule) *v1alpha1.EncryptedSecret {
	o := f.object(namespace, s.Name, rule)
	if f.changed("secret") && f.secret == "" {
		return o
	}
	o.Spec.Secret = &v1alpha1.SecretDelivery{
		Type:      s.Type,
		Immutable: s.Immutable,
		Metadata:  v1alpha1.SecretMetadata{Labels: s.Labels, Annotations: s.Annotations},
	}
	if f.secret != "" {
		o.Spec.Secret.Type = f.secret
	}
	return o
}

// agrees tells whether the flags say what an existing object says. place is where it stands.
func (f *specFlags) agrees(place string, o *v1alpha1.EncryptedSecret) error {
	b := encrypt.BindingOf(o, "any")
	differs := func(flag, has string) error {
		return withHint(fmt.Errorf("%s: %s: --%s says otherwise than the manifest, which has %s", place, o.Name, flag, has),
			"its other values are bound to what it has: changing that needs the private key, and is what 'kubectl vsecm edit' does")
	}
	if f.scope != "" && f.scope != string(b.Scope) {
		return differs("scope", "scope "+string(b.Scope))
	}
	if f.changed("workload") && !slices.Equal(slices.Sorted(slices.Values(f.workloads)), slices.Sorted(slices.Values(b.Workloads))) {
		has := "no workloads"
		if len(b.Workloads) > 0 {
			has = "workloads " + strings.Join(b.Workloads, ", ")
		}
		return differs("workload", has)
	}
	if f.changed("secret") && f.secret != b.SecretType {
		has := "no delivery as a Secret"
		if b.SecretType != "" {
			has = "delivery as a Secret of type " + b.SecretType
		}
		return differs("secret", has)
	}
	if f.made != nil && (o.Spec.Template == nil || template.Hash(f.made) != template.Hash(o.Spec.Template)) {
		has := "another template"
		if o.Spec.Template == nil {
			has = "no template"
		}
		return differs("template", has)
	}
	return nil
}

// setValidity sets the times that were given, which no value is bound to.
func (f *specFlags) setValidity(o *v1alpha1.EncryptedSecret) error {
	if f.begins != nil {
		o.Spec.NotBefore = f.begins
	}
	if f.ends != nil {
		o.Spec.ExpiresAt = f.ends
	}
	if b, e := o.Spec.NotBefore, o.Spec.ExpiresAt; b != nil && e != nil && !b.Before(e) {
		return fmt.Errorf("it would expire on %s, and is not to be delivered before %s", e.UTC().Format(time.RFC3339), b.UTC().Format(time.RFC3339))
	}
	return nil
}
