package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/vsecm"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// What became of a secret of VSecM's; [resultUnchanged], [resultLeft] and [resultFailed] as of a restore.
const resultImported = "imported"

// An imported says what became of one secret in one namespace, or of one that has not come as far.
type imported struct {
	Source    string   `json:"source"` // which entry of the export, or which file
	Secret    string   `json:"secret,omitempty"`
	Namespace string   `json:"namespace,omitempty"`
	Name      string   `json:"name,omitempty"`
	Result    string   `json:"result"`
	Why       string   `json:"why,omitempty"`
	Notes     []string `json:"notes,omitempty"`
	Lossy     bool     `json:"lossy,omitempty"` // something is not as VSecM did it
	Created   string   `json:"created,omitempty"`
	Updated   string   `json:"updated,omitempty"`
	File      string   `json:"file,omitempty"`
}

// An importing is one run.
type importing struct {
	o      *importVSecMOptions
	key    *vsecm.Key
	keyID  encrypt.KeyID
	p      *project
	source *vsecmSource

	to       *folderDestination // nil: standard output
	resolve  func(encrypt.Rule) ([]encrypt.Recipient, error)
	objects  []*v1alpha1.EncryptedSecret
	outcomes []imported
}

func (i *importing) run(ctx context.Context) error {
	err := i.all(ctx)
	if err == nil && i.to == nil && !i.o.dryRun {
		err = i.print()
	}
	if err != nil {
		if n := i.count(resultImported); n > 0 && i.to != nil && !i.o.dryRun {
			err = withHint(err, "%d secrets were imported before; do it again, and it goes on where it was", n)
		}
		return err
	}
	return i.tell()
}

// tryKey tells a wrong key once, and before anything is written: with AES, it opens some of the values to something.
func (i *importing) tryKey(ctx context.Context) error {
	var right, wrong, implausible int
	for _, item := range i.source.items {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		record, err := item.Open(i.key)
		switch {
		case err == nil:
			record.Wipe()
			right++
		case errors.Is(err, vsecm.ErrWrongKey):
			wrong++
		case errors.Is(err, vsecm.ErrImplausible):
			implausible++
		}
	}
	hint := "give the one that this VSecM had when it wrote them: its Secret vsecm-root-key"
	switch {
	case right == 0 && wrong > 0:
		return withHint(fmt.Errorf("root key %s opens none of the %d secrets: they are encrypted to another", i.keyID, len(i.source.items)), "%s", hint)
	case implausible > right:
		return withHint(fmt.Errorf("root key %s opens %d of the %d secrets to what VSecM cannot have stored, so it is another one's", i.keyID, implausible, len(i.source.items)), "%s", hint)
	}
	return nil
}

// begin looks at where the objects go to. A folder is written to as by a restore.
func (i *importing) begin(ctx context.Context) error {
	i.resolve = i.o.recipients.once(i.p)
	if i.o.toDir == "" {
		return nil
	}
	as := &restoreOptions{streams: i.o.streams, now: i.o.now, toDir: i.o.toDir, dryRun: i.o.dryRun, recipients: i.o.recipients}
	i.to = newFolderDestination(as, i.p)
	return i.to.begin(ctx, nil)
}

func (i *importing) all(ctx context.Context) error {
	defer tellWaiting(i.o.streams, fmt.Sprintf("importing %d secrets", len(i.source.items)))()
	if err := i.tryKey(ctx); err != nil {
		return err
	}
	if err := i.begin(ctx); err != nil {
		return err
	}
	// Of two that become one object, a workload's own secret comes first.
	items := slices.Clone(i.source.items)
	slices.SortStableFunc(items, func(a, b vsecm.Item) int { return cmp.Compare(len(a.Prefix()), len(b.Prefix())) })
	from := make(map[place]string)
	for _, item := range items {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := i.item(ctx, item, from); err != nil {
			return err
		}
	}
	return nil
}

// item imports one secret. The error stands against the others, too.
func (i *importing) item(ctx context.Context, item vsecm.Item, from map[place]string) error {
	record, err := item.Open(i.key)
	if err != nil {
		i.outcomes = append(i.outcomes, imported{Source: item.Where, Secret: item.Name, Result: resultFailed, Why: err.Error()})
		return nil
	}
	defer record.Wipe()
	now := i.o.now()
	all, errs := record.Convert(i.o.namespaces, now)
	for _, err := range errs {
		i.outcomes = append(i.outcomes, imported{Source: item.Where, Secret: record.Name, Result: resultFailed, Why: err.Error()})
	}
	for _, c := range all {
		said, err := i.one(ctx, c, from, item.Where)
		if err != nil {
			return fmt.Errorf("importing %s/%s: %w", c.Object.Namespace, c.Object.Name, err)
		}
		said.Source, said.Secret = item.Where, record.Name
		said.Created, said.Updated = stamp(record.Created), stamp(record.Updated)
		i.outcomes = append(i.outcomes, said)
	}
	return nil
}

// stamp returns a time as text, or nothing for none.
func stamp(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339)
}

// one imports one secret into one namespace.
func (i *importing) one(ctx context.Context, c vsecm.Converted, from map[place]string, where string) (imported, error) {
	at := place{c.Object.Namespace, c.Object.Name}
	said := imported{Namespace: at.namespace, Name: at.name, Result: resultFailed, Notes: c.Notes, Lossy: c.Lossy}
	if other := from[at]; other != "" {
		said.Why = "the object of this name is made of " + other
		return said, nil
	}
	from[at] = where
	d := &draft{object: c.Object, values: c.Values}
	if err := d.check(); err != nil {
		said.Why = err.Error()
		return said, nil
	}
	sealedAt := c.SealedAt
	if sealedAt.IsZero() {
		sealedAt = i.o.now()
	}
	if i.to != nil {
		return i.toFolder(ctx, said, d, c, sealedAt)
	}
	var err error
	if d.recipients, err = i.resolve(i.p.rule(at.name + ".yaml")); err != nil {
		return said, err
	}
	if said.Why = sealWhole(d, sealedAt); said.Why != "" {
		return said, nil
	}
	i.objects = append(i.objects, d.object)
	said.Result = resultImported
	return said, nil
}

// sealWhole makes a draft's object whole. why says in words why that cannot be.
func sealWhole(d *draft, at time.Time) (why string) {
	err := d.seal(at)
	if err == nil {
		d.object.Spec.EncryptedData, err = d.whole()
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func (i *importing) toFolder(ctx context.Context, said imported, d *draft, c vsecm.Converted, sealedAt time.Time) (imported, error) {
	at := place{said.Namespace, said.Name}
	is, left, err := i.to.standing(ctx, at)
	if err != nil {
		return said, err
	}
	said.File = is.file
	if d.recipients, err = i.to.recipients(at); err != nil {
		return said, err
	}
	switch {
	case left != "":
		said.Result, said.Why = resultLeft, left
		return said, nil
	case is.object != nil && i.stands(is.object, d, c.SealedAt):
		said.Result = resultUnchanged
		return said, nil
	case is.object != nil && !i.o.overwrite:
		said.Result, said.Why = resultLeft, "it stands there already, and is another; --overwrite replaces it"
		return said, nil
	}
	if err := d.seal(sealedAt); err != nil {
		said.Why = err.Error()
		return said, nil
	}
	left, err = i.to.put(ctx, is, d)
	var alone failedError
	switch {
	case errors.As(err, &alone):
		said.Why = err.Error()
	case err != nil:
		return said, err
	case left != "":
		said.Result, said.Why = resultLeft, left
	default:
		said.Result = resultImported
	}
	return said, nil
}

// stands tells whether an object is what an import has made of the same secret before. Its values cannot be compared
// without keys; the time at which VSecM was given them can.
func (i *importing) stands(is *v1alpha1.EncryptedSecret, d *draft, sealedAt time.Time) bool {
	if sealedAt.IsZero() || len(is.Spec.EncryptedData) != len(d.values) || !sameSpec(is, d.object) {
		return false
	}
	ids := make([]encrypt.KeyID, len(d.recipients))
	for n, r := range d.recipients {
		ids[n] = r.KeyID()
	}
	slices.Sort(ids)
	for key, value := range d.values {
		info, err := encrypt.Inspect(is.Spec.EncryptedData[key])
		if err != nil || !info.SealedAt.Equal(sealedAt) || info.Size != len(value) || !slices.Equal(info.KeyIDs, ids) ||
			info.Check(encrypt.BindingOf(is, key), info.SealedAt) != nil {
			return false
		}
	}
	return true
}

// print writes the manifests to standard output.
func (i *importing) print() error {
	text, err := marshalAll(i.objects)
	if err != nil {
		return err
	}
	_, err = i.o.streams.Out.Write(text)
	return err
}
