package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/backup"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

type backupVerifyOptions struct {
	streams    genericiooptions.IOStreams
	file       string
	identities []string
	rootKey    string
}

func newBackupVerify(streams genericiooptions.IOStreams) *cobra.Command {
	o := backupVerifyOptions{streams: streams}
	cmd := &cobra.Command{
		Use:   "verify FILE [-i IDENTITY] [flags]",
		Short: "Tell whether a backup is whole, and opens",
		Long: `Read every byte of a backup, and tell whether it is whole and as it was written:
every digest, every count, every name. Nothing is written and nothing shown.

That needs an identity that opens it (-i), or its passphrase, which is asked
for. Without either, only its header and its length can be looked at.

With a root key, that in the backup or --root-key, each value is also opened as
it is stored, and compared.

Exit codes: 0 all is well; 1 it is damaged, or another error; 2 it is whole, and
some secrets in it did not open when it was made, which are listed.`,
		Example: `  kubectl vsecm backup verify safe.backup -i backup-key.txt

  # Without any key
  kubectl vsecm backup verify safe.backup`,
		Args: exactArgs(1, "the FILE of a backup"),
		RunE: func(_ *cobra.Command, args []string) error {
			o.file = args[0]
			return o.run()
		},
	}
	cmd.Flags().StringArrayVarP(&o.identities, "identity", "i", nil, "Open the backup with the age identities in this `FILE`. May be repeated")
	cmd.Flags().StringVar(&o.rootKey, "root-key", "", "Open the values as they are stored with the root keys in this `FILE`, too")
	return cmd
}

func (o backupVerifyOptions) run() error {
	a, err := openArchive(o.streams, o.file, o.identities)
	if err != nil {
		return err
	}
	defer a.close()
	header, err := readArchiveHeader(a)
	if err != nil {
		return err
	}
	if len(o.identities) == 0 && !header.passphrase {
		return o.outside(header)
	}
	v := &verification{now: time.Now()}
	if o.rootKey != "" {
		text, err := readFile(o.rootKey, unseal.MaxTextSize)
		if err != nil {
			return err
		}
		defer clear(text)
		if v.keys, err = keyringOf(text); err != nil {
			return fmt.Errorf("%s: %w", o.rootKey, err)
		}
		defer v.keys.Wipe()
	}
	defer tellWaiting(o.streams, "verifying "+o.file)()
	summary, err := v.read(a)
	if err != nil {
		return err
	}
	return o.tell(summary, v)
}

// outside says what can be told without a key.
func (o backupVerifyOptions) outside(h archiveHeader) error {
	if o.rootKey != "" {
		return withHint(errors.New("--root-key opens values, and not the backup that they are in"), "name the file of the backup's identity with -i")
	}
	fmt.Fprintf(o.streams.Out, "%s: an age file for %s, %d bytes inside\n", visible(o.file), counted(h.recipients, "recipient"), h.size)
	prose(o.streams.ErrOut, "note: not checked, for want of an identity: whether it is whole and unchanged, what is in it, and whether that opens")
	prose(o.streams.ErrOut, "hint: name the file of the identity with -i")
	return nil
}

func (o backupVerifyOptions) tell(s backup.Summary, v *verification) error {
	fmt.Fprintf(o.streams.Out, "%s: whole: %s, %s, made %s by Safe %s with root key %s\n", visible(o.file), counted(s.Objects, "secret"), counted(s.Values, "value"),
		s.Created.Format(time.RFC3339), visible(s.Safe.Version), visible(string(s.Safe.KeyID)))
	if s.RootKey {
		fmt.Fprintf(o.streams.Out, "%s: the root key is in it\n", visible(o.file))
	}
	if v.keys != nil {
		fmt.Fprintf(o.streams.Out, "%s: %s opened as stored, and the same\n", visible(o.file), counted(v.opened, "value"))
		if v.foreign > 0 {
			prose(o.streams.ErrOut, "note: %s sealed to other root keys, and could not be compared", counted(v.foreign, "value"))
		}
	}
	return tellUnopened(o.streams.ErrOut, s)
}

// tellUnopened lists what of a backup is not as it should be.
func tellUnopened(w io.Writer, s backup.Summary) error {
	var notes []string
	for _, u := range s.Unreadable {
		notes = append(notes, "not opened: "+unreadableText(u))
	}
	for _, secret := range s.Secrets {
		if secret.Note != "" {
			notes = append(notes, fmt.Sprintf("%s/%s: %s", secret.Namespace, secret.Name, secret.Note))
		}
	}
	for _, fault := range s.Faults {
		notes = append(notes, "not in it: "+fault)
	}
	for i, note := range notes {
		if i == maxTold {
			prose(w, "note: and %d more", len(notes)-maxTold)
			break
		}
		prose(w, "note: %s", note)
	}
	if len(notes) > 0 {
		return errSomeLeft
	}
	return nil
}

// A verification is one reading of a backup from its beginning to its end.
type verification struct {
	now     time.Time
	keys    *unseal.Keyring // nil: values are not opened as they are stored
	opened  int
	foreign int // values that are sealed to other keys
}

func (v *verification) read(a *archive) (backup.Summary, error) {
	if _, err := a.file.Seek(0, io.SeekStart); err != nil {
		return backup.Summary{}, err
	}
	r, err := backup.NewReader(bufio.NewReaderSize(a.file, 64<<10), a.identity)
	if err != nil {
		return backup.Summary{}, a.refused(err)
	}
	defer r.Close()
	if text := r.RootKeyText(); text != nil && v.keys == nil {
		all := append(append(bytes.Clone(text), '\n'), r.RetiredKeysText()...)
		defer clear(all)
		if v.keys, err = keyringOf(all); err != nil {
			return backup.Summary{}, fmt.Errorf("%s: root-key.txt: %w", a.path, err)
		}
		defer v.keys.Wipe()
	}
	for {
		o, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Summary(), nil
		}
		if err != nil {
			return backup.Summary{}, a.refused(err)
		}
		if err := v.compare(o); err != nil {
			return backup.Summary{}, fmt.Errorf("%s: %w", a.path, err)
		}
	}
}

// compare opens the values of an object as they are stored.
func (v *verification) compare(o *backup.Object) error {
	defer o.Wipe()
	if v.keys == nil || o.Manifest == nil {
		return nil
	}
	for key, value := range o.Data {
		stored, err := encrypt.Open(o.Manifest.Spec.EncryptedData[key], encrypt.BindingOf(o.Manifest, key), v.keys, v.now)
		if errors.Is(err, encrypt.ErrKeyNotHeld) {
			v.foreign++
			continue
		}
		if err != nil {
			return fmt.Errorf("%s/%s key %s: %w", o.Namespace, o.Name, key, err)
		}
		same := bytes.Equal(stored, value)
		clear(stored)
		if !same {
			return fmt.Errorf("%s/%s key %s: %w: what is sealed is not the value that stands beside it", o.Namespace, o.Name, key, backup.ErrDamaged)
		}
		v.opened++
	}
	return nil
}

// keyringOf reads one root key or more.
func keyringOf(text []byte) (*unseal.Keyring, error) {
	keys, err := unseal.ParseAll(text)
	if err != nil {
		return nil, err
	}
	return unseal.NewKeyring(keys[0], keys[1:]...)
}

// An archiveHeader is what anybody sees of a backup.
type archiveHeader struct {
	passphrase bool
	recipients int
	size       int64 // of what is inside, by the file's length
}

// openers counts whom an age file, of which this is the header, is for. Who they are it does not say.
func openers(header []byte) (passphrase bool, recipients int) {
	for line := range strings.Lines(string(header)) {
		if kind, found := strings.CutPrefix(line, "-> "); found {
			kind, _, _ = strings.Cut(kind, " ")
			passphrase = passphrase || kind == "scrypt"
			if slices.Contains([]string{"X25519", "mlkem768x25519", "scrypt"}, kind) {
				recipients++
			}
		}
	}
	return passphrase, recipients
}

// madeFor tells whether an age file that begins so is for a passphrase, or for so many recipients and nobody else.
func madeFor(start []byte, passphrase bool, recipients int) error {
	header, err := age.ExtractHeader(bytes.NewReader(start))
	if err != nil {
		return errors.New("what Safe sent is no age file")
	}
	if p, n := openers(header); p != passphrase || n != recipients {
		return errors.New("what Safe sent is not for whom it was to be")
	}
	return nil
}

// readArchiveHeader reads the age header of a backup, and tells whether its length is one that it can have.
func readArchiveHeader(a *archive) (h archiveHeader, err error) {
	info, err := a.file.Stat()
	if err != nil {
		return h, err
	}
	noAge := withHint(fmt.Errorf("%s: it is no age file", a.path), "want a file of 'kubectl vsecm backup'")
	header, err := age.ExtractHeader(bufio.NewReader(io.LimitReader(a.file, maxHead)))
	if err != nil {
		return h, noAge
	}
	h.passphrase, h.recipients = openers(header)
	// A nonce, and chunks of 64 KiB with a tag each.
	const nonce, chunk, tag = 16, 64 << 10, 16
	payload := info.Size() - int64(len(header)) - nonce
	chunks := (payload + chunk + tag - 1) / (chunk + tag)
	h.size = payload - chunks*tag
	if payload < tag || h.size <= (chunks-1)*chunk && h.size > 0 || h.size%512 != 0 || h.size < 2*512 {
		return h, withHint(fmt.Errorf("%s: %w: no backup has this length: it is cut off, or something was added to it", a.path, backup.ErrDamaged), "take another copy of the file")
	}
	return h, nil
}
