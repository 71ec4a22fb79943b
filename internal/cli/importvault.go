package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	hashivault "github.com/vsecm/kubectl-vsecm/internal/vault"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type importVaultOptions struct {
	importFlags

	path         string
	mappings     []string
	deliver      bool
	deliverGiven bool

	maps []*hashivault.Mapping
	p    *project
}

func newImportVault(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := importVaultOptions{importFlags: newImportFlags(streams)}
	cmd := &cobra.Command{
		Use:   "vault MOUNT[/PATH] [-n NAMESPACE | --map PATTERN] [flags]",
		Short: "Import the secrets of HashiCorp Vault or OpenBao",
		Long: `Make EncryptedSecrets of the secrets in a KV secrets engine, version 2, of
HashiCorp Vault or OpenBao: of all in MOUNT, or of PATH in it and those below.

Vault is found as its own command finds it, by VAULT_ADDR, VAULT_NAMESPACE,
VAULT_CACERT, VAULT_CAPATH, VAULT_TLS_SERVER_NAME, VAULT_CLIENT_CERT and
VAULT_CLIENT_KEY. The token is that of VAULT_TOKEN, or of 'vault login'
(~/.vault-token); it needs list on MOUNT/metadata and read on MOUNT/data.
Certificates are always verified. Nothing is changed in Vault.

--map says which object a secret becomes, by its path below MOUNT: in PATTERN,
{namespace} and {name} stand for what it is called so, and * for anything, each
between two slashes; {name} at the end for several parts too, whose slashes
become dashes. PATTERN=NAMESPACE/NAME says what does not stand in the path. The
first that matches counts. Without --map, the path below PATH is the name. What
has no namespace is in that of -n.

Keys and texts are kept as they are, and a number, list or mapping as JSON. What
is delivered are the values that workloads fetch; with --deliver, or where
.vsecm.yaml says so, a Kubernetes Secret too. Values count as old as Vault says
that they are. A version that Vault is to delete expires then. The report says
what has no place: deleted versions, custom metadata, names and keys that
Kubernetes does not take. Older versions are not imported.

With --to-dir, each goes to DIR/NAMESPACE/NAME.yaml, and what stands there
already is left, unless you say --overwrite; after an interruption, do it again.
Without it, the manifests go to standard output and the report to standard
error. One bad secret does not keep the others.

Values are sealed in memory, to the recipients that 'encrypt' would take; no
plaintext is written anywhere. See docs/from-vault.md.

Exit codes: 0 everything was imported; 1 error; 2 some was not, or is not what
it was: the report says which.`,
		Example: `  # See what would become of apps/shop/db and the like, then do it
  kubectl vsecm import vault secret/apps --map 'apps/{namespace}/{name}' \
    --to-dir secrets --dry-run
  kubectl vsecm import vault secret/apps --map 'apps/{namespace}/{name}' \
    --to-dir secrets

  # All of one team, into one namespace, as Kubernetes Secrets
  kubectl vsecm import vault teams/kv/shop -n shop --deliver --to-dir secrets

  # One secret, whose name Kubernetes would not take
  kubectl vsecm import vault secret/Shop/DB_Main \
    --map 'Shop/DB_Main=shop/db-main' --to-dir secrets`,
		Args:              exactArgs(1, "the MOUNT of a secrets engine, or a path in it"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path, o.deliverGiven = args[0], cmd.Flags().Changed("deliver")
			o.recipients.published = conn.publishedOnce(cmd.Context(), streams)
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().StringArrayVar(&o.mappings, "map", nil, "A `PATTERN` of paths below MOUNT, such as apps/{namespace}/{name}. May be repeated")
	cmd.Flags().BoolVar(&o.deliver, "deliver", false, "Deliver them as Kubernetes Secrets too")
	_ = cmd.RegisterFlagCompletionFunc("map", cobra.FixedCompletions([]string{"{namespace}/{name}", "{name}"}, cobra.ShellCompDirectiveNoFileComp))
	o.addTo(cmd, conn, "The `NAMESPACE` for those whose path says none")
	return cmd
}

func (o *importVaultOptions) check() error {
	for _, text := range o.mappings {
		m, err := hashivault.ParseMapping(text)
		if err != nil {
			return fmt.Errorf("--map: %w", err)
		}
		if !m.HasNamespace() && len(o.namespaces) == 0 {
			return withHint(fmt.Errorf("--map %s says no namespace", text), "write {namespace} in it, or =NAMESPACE/{name} behind it, or give -n")
		}
		o.maps = append(o.maps, m)
	}
	switch {
	case len(o.namespaces) > 1:
		return withHint(errors.New("--namespace is for one namespace"), "--map can have several: 'shop/{name}=shop/{name}'")
	case len(o.namespaces) == 0 && len(o.maps) == 0:
		return withHint(errors.New("nothing says which namespace the secrets are for"), "give -n, or --map 'apps/{namespace}/{name}'")
	}
	return o.importFlags.check()
}

func (o *importVaultOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	var err error
	if o.p, err = ownProject(o.streams); err != nil {
		return err
	}
	home, _ := os.UserHomeDir() // without one, there is no token in it
	settings, err := hashivault.FromEnvironment(os.Getenv, home)
	if err != nil {
		return wordVault(err, "")
	}
	client := hashivault.New(settings)
	defer client.Close()
	m, plans, err := o.plan(ctx, client)
	if err != nil {
		return wordVault(err, o.path)
	}
	i := &importing{importFlags: &o.importFlags, p: o.p, candidates: o.candidates(ctx, client, m, plans), besides: o.besides}
	return i.run(ctx, fmt.Sprintf("importing %d secrets of %s", len(plans), client))
}

// wordVault says what there is to do about an error of Vault's.
func wordVault(err error, path string) error {
	hint := func(format string, args ...any) error { return withHint(err, format, args...) }
	switch {
	case errors.Is(err, hashivault.ErrNoToken):
		return hint("log in with 'vault login', or put a token into VAULT_TOKEN")
	case errors.Is(err, hashivault.ErrAddress):
		return hint("as in VAULT_ADDR=https://vault.example.com:8200")
	case errors.Is(err, hashivault.ErrDenied):
		return withHint(fmt.Errorf("looking for secrets in %s: %w", path, err),
			"is the token still good ('vault token lookup'), and is there such an engine ('vault secrets list') whose metadata it may list and whose data it may read?")
	case errors.Is(err, hashivault.ErrVersion1):
		return hint("'vault kv enable-versioning' makes it version 2, for all who use it")
	case errors.Is(err, hashivault.ErrNotKV):
		return hint("'vault secrets list' shows the engines of type kv")
	case errors.Is(err, hashivault.ErrRedirect):
		return hint("name that server in VAULT_ADDR, if it is yours: the token is sent to no other")
	case errors.Is(err, hashivault.ErrSealed):
		return hint("'vault operator unseal', then do it again")
	case errors.Is(err, hashivault.ErrUnreachable) && strings.Contains(err.Error(), "certificate"):
		return hint("name the certificate of the authority in VAULT_CACERT; VAULT_SKIP_VERIFY has no effect here")
	case errors.Is(err, hashivault.ErrUnreachable):
		return hint("is VAULT_ADDR right?")
	}
	return err
}

// A vaultPlan is what a secret is to become.
type vaultPlan struct {
	path            string
	namespace, name string
	err             error // it becomes nothing
}

// errNothingInVault: the path leads to no secret.
var errNothingInVault = errors.New("there is no secret")

// plan lists the secrets, and says what each becomes. No value is read yet.
func (o *importVaultOptions) plan(ctx context.Context, client *hashivault.Client) (hashivault.Mount, []vaultPlan, error) {
	defer tellWaiting(o.streams, "listing the secrets of "+client.String())()
	m, below, err := client.Mount(ctx, o.path)
	if err != nil {
		return m, nil, err
	}
	paths, failures, err := client.List(ctx, m, below)
	if err != nil {
		return m, nil, err
	}
	if len(paths)+len(failures) == 0 {
		return m, nil, withHint(fmt.Errorf("%w in %s", errNothingInVault, strings.Trim(o.path, "/")), "'vault kv list %s' shows what there is", m)
	}
	var plans []vaultPlan
	for _, f := range failures {
		plans = append(plans, vaultPlan{path: f.Path, err: fmt.Errorf("its secrets could not be listed: %w", f.Err)})
	}
	for _, p := range paths {
		plans = append(plans, o.planOf(p, below))
	}
	return m, plans, nil
}

func (o *importVaultOptions) planOf(from, below string) vaultPlan {
	plan := vaultPlan{path: from}
	var is bool
	for _, m := range o.maps {
		if plan.namespace, plan.name, is = m.Match(from); is {
			break
		}
	}
	switch {
	case len(o.maps) == 0:
		name := strings.TrimPrefix(strings.TrimPrefix(from, below), "/")
		if name == "" {
			name = path.Base(from)
		}
		plan.name = strings.ReplaceAll(name, "/", "-")
	case !is:
		plan.err = leftError{"no --map matches its path"}
		return plan
	}
	if plan.namespace == "" {
		plan.namespace = o.namespaces[0]
	}
	// What Kubernetes takes is longer to say than to see.
	if encrypt.ValidateNamespace(plan.namespace) != nil {
		plan.err = fmt.Errorf("no namespace may be called %q: name another with --map '%s=NAMESPACE/NAME'", plan.namespace, from)
	} else if encrypt.ValidateName(plan.name) != nil {
		plan.err = fmt.Errorf("no object may be called %q: name another with --map '%s=%s/NAME'", plan.name, from, plan.namespace)
	}
	return plan
}

// candidates reads the secrets, a few ahead. What becomes nothing is not read.
func (o *importVaultOptions) candidates(ctx context.Context, client *hashivault.Client, m hashivault.Mount, plans []vaultPlan) iter.Seq2[importCandidate, error] {
	return func(yield func(importCandidate, error) bool) {
		var paths []string
		byPath := make(map[string]vaultPlan)
		for _, plan := range plans {
			if plan.err == nil {
				paths = append(paths, plan.path)
				byPath[plan.path] = plan
			} else if !yield(importCandidate{source: m.String() + "/" + plan.path, secret: plan.path, err: plan.err}, nil) {
				return
			}
		}
		for found := range client.ReadAll(ctx, m, paths) {
			plan := byPath[found.Path]
			c := importCandidate{source: m.String() + "/" + plan.path, secret: plan.path, object: newImported(plan.namespace, plan.name)}
			switch err := found.Err; {
			case errors.Is(err, hashivault.ErrDeleted), errors.Is(err, hashivault.ErrDestroyed):
				c.err = leftError{err.Error()}
			case errors.Is(err, hashivault.ErrNotFound):
				c.err = leftError{"it has no version"}
			case errors.Is(err, hashivault.ErrDenied), errors.Is(err, hashivault.ErrPath):
				c.err = err
			case err != nil:
				yield(importCandidate{}, wordVault(err, o.path))
				return
			default:
				o.fill(&c, found.Secret)
			}
			if !yield(c, nil) {
				return
			}
		}
	}
}

// fill takes a secret's values over.
func (o *importVaultOptions) fill(c *importCandidate, s *hashivault.Secret) {
	c.values, c.updated = s.Values, s.Created
	var odd []string
	for _, key := range slices.Sorted(maps.Keys(c.values)) {
		if encrypt.ValidateKey(key) != nil {
			clear(c.values[key])
			delete(c.values, key)
			odd = append(odd, strconv.Quote(key))
		}
	}
	if len(odd) > 0 {
		c.losef("keys that Kubernetes does not take were left out: %s", someOf(odd))
	}
	if len(c.values) == 0 {
		c.err = leftError{"it holds no value"}
		return
	}
	if len(s.NotText) > 0 {
		c.notef("kept as JSON, since they are no texts: %s", someOf(s.NotText))
	}
	if len(s.CustomMetadata) > 0 {
		c.notef("custom metadata has no place: %s", someOf(s.CustomMetadata))
	}
	now := o.now()
	if !s.Created.After(now) {
		c.sealedAt = s.Created.Truncate(time.Second)
	}
	if s.DeletesAt.After(now) {
		c.object.Spec.ExpiresAt = &metav1.Time{Time: s.DeletesAt.UTC().Truncate(time.Second)}
		c.notef("Vault deletes this version on %[1]s, and Safe delivers it until then", c.object.Spec.ExpiresAt.Format(time.RFC3339))
	}
	if secretType := o.secretType(c.object); secretType != "" {
		c.deliverAs(v1alpha1.SecretDelivery{Type: secretType})
	}
}

// secretType returns the type of the Kubernetes Secret that an object is delivered as, or nothing.
func (o *importVaultOptions) secretType(object *v1alpha1.EncryptedSecret) string {
	switch {
	case o.deliver:
		return encrypt.DefaultSecretType
	case o.deliverGiven:
		return ""
	}
	return o.p.rule(filepath.Join(o.toDir, object.Namespace, object.Name+".yaml")).SecretType
}

func (o *importVaultOptions) besides(s *importSummary) []string {
	if s.Imported == 0 || s.DryRun {
		return nil
	}
	return []string{"Vault keeps what it has, older versions too: who may read it there still does, until you change the values or delete it"}
}
