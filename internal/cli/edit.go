package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type editOptions struct {
	streams genericiooptions.IOStreams
	safe    safeFlag
	now     func() time.Time

	what       string // a file or a name
	manifest   manifestFlags
	keys       keyFlags
	recipients recipientFlags
}

func newEdit(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := editOptions{streams: streams, safe: safeFlag{conn: conn}, now: time.Now}
	cmd := &cobra.Command{
		Use:   "edit (FILE | NAME) [flags]",
		Short: "Change values, readers and delivery in your editor",
		Long: `Open secrets in your editor in the clear, and seal what you changed.

A FILE of manifests is opened with --root-key, with shares of it or with another
recipient's identity (-i), without Safe and without a cluster. Without a key,
Safe opens it, for whoever may reveal its secrets, if it has these very values.
A NAME is an EncryptedSecret in the cluster, which is changed there, in your own
name; what a git source applied is edited in its file. What has a slash in it,
ends in .yaml, .yml or .json, or is there as a file, is a FILE.

Values that you leave as they are keep their bytes, and the file its comments
and its order. Values are bound to scope, workloads, template and the secret's
type: where you change one of these, all values of that manifest are sealed
anew. Recipients are found as by 'encrypt'; where none are named, a key that the
values are sealed to, and to no other, stays their recipient.

The editor is $KUBE_EDITOR, $VISUAL or $EDITOR, or vi. The text lies in a file
system in memory where there is one, in a folder for you alone, and is
overwritten and removed when the editor ends, or this program does. What is not
valid comes back with what is wrong at its top.

Exit codes: 0 done, or nothing was to be changed; 1 error; 143 ended from
outside. Unless it is done, nothing has changed.`,
		Example: `  # A file, with the root key
  kubectl vsecm edit secrets/db.yaml --root-key root-key.txt

  # With the root key from a password manager, and another editor
  pass show vsecm/root-key |
    EDITOR=nano kubectl vsecm edit secrets/db.yaml --root-key -

  # One manifest of several, opened by Safe
  kubectl vsecm edit secrets/all.yaml --name db -n shop

  # In the cluster
  kubectl vsecm edit db -n shop`,
		Args: exactArgs(1, "one FILE or NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.what = args[0]
			o.recipients.namespace = o.safe.namespace
			o.recipients.published = conn.publishedOnce(cmd.Context(), streams)
			return o.run(cmd.Context())
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			if isFileName(start) {
				return []string{"yaml", "yml", "json"}, cobra.ShellCompDirectiveFilterFileExt
			}
			names, _ := completeObjects(cmd.Context(), conn, v1alpha1.ResourceEncryptedSecrets, o.manifest.namespace, nil)
			return names, cobra.ShellCompDirectiveDefault
		},
	}
	o.manifest.addTo(cmd, completeNamespaces(conn))
	cmd.Flags().Lookup("namespace").Usage = "The `NAMESPACE` of NAME, by default the current context's; of a file, that of the manifest that is meant"
	o.keys.addTo(cmd)
	o.recipients.addNamesTo(cmd)
	o.safe.addTo(cmd)
	return cmd
}

// isFileName tells what can only be a file: an object's name has no slash, and hardly ends as files of manifests do.
func isFileName(what string) bool {
	return strings.ContainsRune(what, '/') || strings.ContainsRune(what, filepath.Separator) || slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(what))
}

func (o *editOptions) ofFile() bool {
	if isFileName(o.what) {
		return true
	}
	info, err := os.Stat(o.what)
	return err == nil && info.Mode().IsRegular()
}

func (o *editOptions) check() error {
	if err := o.manifest.check(); err != nil {
		return err
	}
	if !o.ofFile() {
		if o.manifest.name != "" {
			return withHint(errors.New("--name is for a file of several manifests"), "there is no file %s here, so it is the name of an object in the cluster", o.what)
		}
		if err := encrypt.ValidateName(o.what); err != nil {
			return withHint(fmt.Errorf("there is no file %s, and it is no object's name: %w", o.what, err), "see 'kubectl vsecm edit --help'")
		}
	}
	return o.keys.check()
}

func (o *editOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	p, err := ownProject(o.streams)
	if err != nil {
		return err
	}
	edit := o.inCluster
	if o.ofFile() {
		edit = o.inFile
	}
	err = edit(ctx, p)
	if errors.Is(err, errNotEdited) {
		fmt.Fprintf(o.streams.ErrOut, "Edit cancelled, %v.\n", err)
		return nil
	}
	return err
}

// inFile edits manifests of a file.
func (o *editOptions) inFile(ctx context.Context, p *project) error {
	t, err := openExisting(o.what, p)
	if err != nil {
		return err
	}
	manifests, err := o.manifest.all(t)
	if err != nil {
		return err
	}
	s := o.session(o.what)
	if err := s.editor.check(); err != nil {
		return err
	}
	opened, err := o.open(ctx, manifests)
	defer opened.wipe()
	if err != nil {
		return err
	}
	rule := p.rule(o.what)
	for i, m := range manifests {
		e, err := o.editing(p, rule, fmt.Sprintf("%s:%d", m.File, m.Line), opened.rs[i], opened.own)
		if err != nil {
			return err
		}
		s.all = append(s.all, e)
	}
	if err := s.run(); err != nil {
		return err
	}
	for _, e := range s.all {
		if e.result == nil {
			continue
		}
		if t.data, err = encrypt.SetManifest(t.path, t.data, e.result, t.defaultNamespace); err != nil {
			return o.keep(err, s.all)
		}
	}
	if err := t.save(o.streams); err != nil {
		return o.keep(err, s.all)
	}
	for _, e := range s.all {
		if e.result != nil {
			fmt.Fprintf(o.streams.Out, "%s edited in %s (%s)\n", visible(e.place().String()), visible(t.path), e.said())
		}
	}
	return nil
}

func (o *editOptions) session(title string) *editSession {
	return &editSession{
		streams: o.streams, editor: findEditor(), now: o.now, title: title, keyIn: slices.Contains(o.keys.files(), "-"),
		folders: deskFolders(), fallback: os.TempDir(),
	}
}

// editing prepares an opened manifest. place is where it stands, for errors.
func (o *editOptions) editing(p *project, rule encrypt.Rule, place string, r revealed, own map[encrypt.KeyID]encrypt.Recipient) (*editing, error) {
	object := r.manifest.Object
	whom := o.recipients
	whom.published = func(namespace string) (encrypt.Recipient, error) {
		if id, one := onlyKey(object); one {
			if r, held := own[id]; held {
				return r, nil
			}
		}
		return o.recipients.published(namespace)
	}
	recipients, err := whom.resolve(p, rule)
	if err != nil {
		return nil, err
	}
	if err := whom.agrees(place, object, recipients); err != nil {
		return nil, err
	}
	shown := object.DeepCopy()
	shown.Spec.EncryptedData = nil
	return &editing{was: object, plain: &encrypt.Plain{Object: shown, Values: r.data}, recipients: recipients}, nil
}

// onlyKey returns the one key that all values of an object are sealed to, if it is one.
func onlyKey(o *v1alpha1.EncryptedSecret) (id encrypt.KeyID, one bool) {
	for _, sealed := range o.Spec.EncryptedData {
		info, err := encrypt.Inspect(sealed)
		if err != nil || len(info.KeyIDs) != 1 || id != "" && id != info.KeyIDs[0] {
			return "", false
		}
		id = info.KeyIDs[0]
	}
	return id, id != ""
}

// openedManifests are manifests in the clear.
type openedManifests struct {
	rs  []revealed // in their order; theirs to wipe who opened them
	own map[encrypt.KeyID]encrypt.Recipient
}

func (o openedManifests) wipe() {
	for _, r := range o.rs {
		wipe(r.data)
	}
}

// open opens manifests with the key that was given, or has Safe do it. What was opened is returned after an error too.
func (o *editOptions) open(ctx context.Context, manifests []encrypt.Manifest) (openedManifests, error) {
	if !o.keys.given() {
		rs, err := o.openBySafe(ctx, manifests)
		return openedManifests{rs: rs}, err
	}
	keys, err := o.keys.open(o.streams)
	if err != nil {
		return openedManifests{}, err
	}
	defer keys.wipe()
	opened := openedManifests{own: recipientsOfKeys(keys)}
	reveal := revealOptions{streams: o.streams, now: o.now}
	var faults []*encrypt.Fault
	for _, m := range manifests {
		r, fs := reveal.open(m, keys)
		opened.rs = append(opened.rs, r)
		faults = append(faults, fs...)
	}
	if len(faults) > 0 {
		err = faultsError(faults)
		if errors.Is(err, encrypt.ErrKeyNotHeld) {
			err = withHint(err, "%s", keys)
		}
	}
	return opened, err
}

func recipientsOfKeys(keys *heldKeys) map[encrypt.KeyID]encrypt.Recipient {
	own := make(map[encrypt.KeyID]encrypt.Recipient)
	for _, key := range keys.own {
		own[key.KeyID()] = key.Recipient()
	}
	for id, identity := range keys.byID {
		text, native := recipientOf(identity)
		if !native {
			continue
		}
		if r, err := encrypt.ParseRecipient(text); err == nil {
			own[id] = r
		}
	}
	return own
}

// keep has sealed manifests outlive an error that came after they were edited: the work of a person is in them, and
// nothing in the clear.
func (o *editOptions) keep(err error, all []*editing) error {
	var objects []*v1alpha1.EncryptedSecret
	for _, e := range all {
		if e.result != nil {
			kept := e.result.DeepCopy()
			delete(kept.Annotations, lastAppliedAnnotation)
			objects = append(objects, kept)
		}
	}
	text, failed := encrypt.MarshalYAML(objects...)
	if failed != nil {
		return err
	}
	f, failed := os.CreateTemp("", "vsecm-edited-*.yaml")
	if failed != nil {
		return err
	}
	_, failed = f.Write(text)
	if failed = errors.Join(failed, f.Close()); failed != nil {
		return err
	}
	return withHint(err, "what you edited is kept, sealed, in %s: take from it what is missing, or edit again", f.Name())
}
