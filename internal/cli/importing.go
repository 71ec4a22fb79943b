package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// What became of a secret of another tool's; [resultUnchanged], [resultLeft] and [resultFailed] as of a restore.
const resultImported = "imported"

// An importCandidate is what one secret of another tool's is to become: one object. A secret that becomes several is
// as many candidates.
type importCandidate struct {
	source string // where it was read: a file, or a place in one
	secret string // what it is called there

	object *v1alpha1.EncryptedSecret // with namespace and name, and without values
	values map[string][]byte         // the candidate's own: they are wiped when it was dealt with
	// sealedAt is when the values became what they are, in whole seconds; zero where nothing tells.
	sealedAt         time.Time
	created, updated time.Time // as the other tool tells them
	notes            []string  // what has no place in the object, and what is to be known of it
	lossy            bool      // something that the other tool did is not done any more
	// err says why nothing is imported: a fault, or, if it is a [leftError], a reason. It harms this one alone.
	err error
}

// A leftError says why something is left that could be read.
type leftError struct{ why string }

func (e leftError) Error() string { return e.why }

// wipe overwrites the values.
func (c *importCandidate) wipe() { wipe(c.values) }

func (c *importCandidate) notef(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

// losef is notef for what is not done any more.
func (c *importCandidate) losef(format string, args ...any) {
	c.lossy = true
	c.notef(format, args...)
}

// An imported says what became of one secret in one namespace, or of one that has not come as far.
type imported struct {
	Source    string   `json:"source"` // where it was read
	Secret    string   `json:"secret,omitempty"`
	Namespace string   `json:"namespace,omitempty"`
	Name      string   `json:"name,omitempty"`
	Result    string   `json:"result"`
	Why       string   `json:"why,omitempty"`
	Notes     []string `json:"notes,omitempty"`
	Lossy     bool     `json:"lossy,omitempty"` // something is not as the other tool did it
	Created   string   `json:"created,omitempty"`
	Updated   string   `json:"updated,omitempty"`
	File      string   `json:"file,omitempty"`
}

// An importing is one run of any import verb. It knows nothing of what is imported.
type importing struct {
	*importFlags
	p *project
	// candidates yields what is to be imported, each when its turn has come: no more plaintext is held than that of
	// one. Its error ends the run.
	candidates iter.Seq2[importCandidate, error]
	// besides, which may be nil, adds to the summary what else was found, and returns notes on it.
	besides func(*importSummary) []string

	to       *folderDestination // nil: standard output
	resolve  func(encrypt.Rule) ([]encrypt.Recipient, error)
	from     map[place]string // where the object of a name comes from
	objects  []*v1alpha1.EncryptedSecret
	outcomes []imported
}

// run imports all candidates and tells what became of them. what is said to who waits.
func (i *importing) run(ctx context.Context, what string) error {
	err := i.all(ctx, what)
	if err == nil && i.to == nil && !i.dryRun {
		err = i.print()
	}
	if err != nil {
		if n := i.count(resultImported); n > 0 && i.to != nil && !i.dryRun {
			err = withHint(err, "%d secrets were imported before; do it again, and it goes on where it was", n)
		}
		return err
	}
	return i.tell()
}

// begin looks at where the objects go to. A folder is written to as by a restore.
func (i *importing) begin(ctx context.Context) error {
	i.from = make(map[place]string)
	i.resolve = i.recipients.once(i.p)
	if i.toDir == "" {
		return nil
	}
	as := &restoreOptions{streams: i.streams, now: i.now, toDir: i.toDir, dryRun: i.dryRun, recipients: i.recipients}
	i.to = newFolderDestination(as, i.p)
	return i.to.begin(ctx, nil)
}

func (i *importing) all(ctx context.Context, what string) error {
	one, stop := tellCounting(i.streams, what)
	defer stop()
	if err := i.begin(ctx); err != nil {
		return err
	}
	for c, err := range i.candidates {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = i.candidate(ctx, c)
			one()
		}
		c.wipe()
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// yieldAll yields all that was made of one source. What is not taken any more is wiped.
func yieldAll(made []importCandidate, yield func(importCandidate, error) bool) bool {
	for n, c := range made {
		if !yield(c, nil) {
			for _, c := range made[n+1:] {
				c.wipe()
			}
			return false
		}
	}
	return true
}

// candidate imports one. The error stands against the others, too.
func (i *importing) candidate(ctx context.Context, c importCandidate) error {
	said := imported{
		Source: c.source, Secret: c.secret, Result: resultFailed, Notes: c.notes, Lossy: c.lossy,
		Created: stamp(c.created), Updated: stamp(c.updated),
	}
	if c.object != nil {
		said.Namespace, said.Name = c.object.Namespace, c.object.Name
	}
	var left leftError
	if errors.As(c.err, &left) {
		said.Result = resultLeft
	}
	if c.err != nil {
		said.Why = c.err.Error()
	} else if err := i.one(ctx, c, &said); err != nil {
		return fmt.Errorf("importing %s/%s: %w", said.Namespace, said.Name, err)
	}
	i.outcomes = append(i.outcomes, said)
	return nil
}

// stamp returns a time as text, or nothing for none.
func stamp(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339)
}

// one seals one object and puts it where it is to be.
func (i *importing) one(ctx context.Context, c importCandidate, said *imported) error {
	at := place{said.Namespace, said.Name}
	if other, taken := i.from[at]; taken {
		said.Why = "the object of this name is made of " + other + " already"
		return nil
	}
	i.from[at] = c.source
	d := &draft{object: c.object, values: c.values}
	if err := d.check(); err != nil {
		said.Why = err.Error()
		return nil
	}
	sealedAt := c.sealedAt
	if sealedAt.IsZero() {
		sealedAt = i.now()
	}
	if i.to != nil {
		return i.toFolder(ctx, said, d, c, sealedAt)
	}
	var err error
	if d.recipients, err = i.resolve(i.p.rule(at.name + ".yaml")); err != nil {
		return err
	}
	if said.Why = sealWhole(d, sealedAt); said.Why != "" {
		return nil
	}
	i.objects = append(i.objects, d.object)
	said.Result = resultImported
	return nil
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

func (i *importing) toFolder(ctx context.Context, said *imported, d *draft, c importCandidate, sealedAt time.Time) error {
	at := place{said.Namespace, said.Name}
	is, left, err := i.to.standing(ctx, at)
	if err != nil {
		return err
	}
	said.File = is.file
	if d.recipients, err = i.to.recipients(at); err != nil {
		return err
	}
	switch {
	case left != "":
		said.Result, said.Why = resultLeft, left
		return nil
	case is.object != nil && i.stands(is.object, d, c.sealedAt):
		said.Result = resultUnchanged
		return nil
	case is.object != nil && !i.overwrite:
		said.Result, said.Why = resultLeft, "it stands there already, and is another; --overwrite replaces it"
		if c.sealedAt.IsZero() {
			said.Why = "it stands there already, and nothing tells whether its values are these; --overwrite replaces it"
		}
		return nil
	}
	if err := d.seal(sealedAt); err != nil {
		said.Why = err.Error()
		return nil
	}
	left, err = i.to.put(ctx, is, d)
	var alone failedError
	switch {
	case errors.As(err, &alone):
		said.Why = err.Error()
	case err != nil:
		return err
	case left != "":
		said.Result, said.Why = resultLeft, left
	default:
		said.Result = resultImported
	}
	return nil
}

// stands tells whether an object is what an import has made of the same secret before. Its values cannot be compared
// without keys; the time at which they became what they are can.
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
	_, err = i.streams.Out.Write(text)
	return err
}
