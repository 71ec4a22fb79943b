package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type validateOptions struct {
	streams genericiooptions.IOStreams
	now     func() time.Time
	paths   []string
	staged  bool
	output  outputFlag
}

func newValidate(streams genericiooptions.IOStreams) *cobra.Command {
	o := validateOptions{streams: streams, now: time.Now, output: outputFlag{forms: []string{"json", "yaml", formSARIF, formJUnit}}}
	cmd := &cobra.Command{
		Use:   "validate (PATH… | --staged)",
		Short: "Check manifests, for commits, pull requests and CI",
		Long: `Check the manifests in files and folders, without a key: that each is well
formed, that each value is bound to the place where it stands, that no name is
there twice, and what .vsecm.yaml demands: recipients, no retired keys, no
plaintext Secrets. No key is needed, so whether a value opens is not known.

Templates are parsed, and have to ask for values that are there. What expired
is noted on standard error, and is no fault.

With --staged, what the next commit changes is checked, as git has it staged
and not as it lies in the folder: the hook of 'kubectl vsecm git setup' does so.
Its manifests are held against all others of the commit, for double names.

Every fault is a line FILE:LINE: FIELD: what is wrong, on standard output. For
CI there are SARIF 2.1.0, which GitHub shows in the changed lines, and JUnit's
XML, which GitLab shows with its tests.
Folders are searched for .yaml, .yml and .json files; links are not followed.

Exit codes: 0 no fault, 1 faults or another error.`,
		Example: `  # Everything below the working directory
  kubectl vsecm validate .

  # What the next commit changes
  kubectl vsecm validate --staged

  # For GitHub's code scanning
  kubectl vsecm validate . -o sarif > vsecm.sarif`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.staged && len(args) > 0:
				return withHint(errors.New("--staged checks all that is staged: it excludes PATHs"), "leave out one of them")
			case !o.staged && len(args) == 0:
				return withHint(errors.New("nothing to validate"), "name files or folders; . for everything here; or --staged for what the next commit changes")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.paths = args
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&o.staged, "staged", false, "Check what is staged in git's index for the next commit")
	o.output.addTo(cmd, "Form of the output")
	return cmd
}

// A validation is what was looked at, and what was found.
type validation struct {
	files   []string
	results []checked        // of each file
	faults  []*encrypt.Fault // of all of them, and those of none, in order
}

// objects counts the manifests without a fault of their form.
func (v validation) objects() int {
	n := 0
	for _, r := range v.results {
		n += len(r.manifests)
	}
	return n
}

// conclude puts all faults together, those given first being of no file alone.
func (v *validation) conclude(faults []*encrypt.Fault) {
	for _, r := range v.results {
		faults = append(faults, r.faults...)
	}
	slices.SortStableFunc(faults, func(a, b *encrypt.Fault) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	v.faults = faults
}

func (o validateOptions) run(ctx context.Context) error {
	look := o.inFolders
	if o.staged {
		look = o.inIndex
	}
	v, err := look(ctx)
	if err != nil {
		return err
	}
	if err := o.print(v); err != nil {
		return err
	}
	for _, r := range v.results {
		o.noteExpired(r.manifests)
	}
	switch objects := v.objects(); {
	case len(v.faults) > 0:
		err := fmt.Errorf("faults: %d, in manifests: %d, files: %d", len(v.faults), objects, len(v.files))
		if slices.ContainsFunc(v.faults, func(f *encrypt.Fault) bool { return errors.Is(f, encrypt.ErrMergeConflict) }) {
			return withHint(err, conflictHint)
		}
		return err
	case o.staged && objects == 0:
		// Most commits touch no manifest, and have nothing to read about it.
	default:
		fmt.Fprintf(o.streams.ErrOut, "no faults; manifests: %d, files: %d\n", objects, len(v.files))
	}
	return nil
}

// inFolders validates the files and folders that were named.
func (o validateOptions) inFolders(ctx context.Context) (validation, error) {
	p, err := findProject()
	if err != nil {
		return validation{}, err
	}
	files, err := manifestFilesOf(o.paths)
	if err != nil {
		return validation{}, err
	}
	recipients, faults := p.recipientsByRule()
	v := validation{files: files, results: make([]checked, len(files))}
	shown := newBar(o.streams, "validating", len(files))
	defer shown.end()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, file := range files {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			v.results[i] = o.checkFile(p, recipients, file)
			shown.add(1)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return validation{}, err
	}
	v.conclude(append(faults, doubles(v.results)...))
	return v, nil
}

// noteExpired tells what nobody gets any more. It is no fault: what was valid when it was checked in passes for ever.
func (o validateOptions) noteExpired(manifests []encrypt.Manifest) {
	for _, m := range manifests {
		if t := m.Object.Spec.ExpiresAt; t != nil && !o.now().Before(t.Time) {
			fault := m.Fault("spec.expiresAt", fmt.Errorf("%s/%s expired on %s: nobody gets it any more", m.Object.Namespace, m.Object.Name, t.UTC().Format(time.RFC3339)))
			prose(o.streams.ErrOut, "note: %s", fault.Error())
		}
	}
}

// recipientsByRule returns the recipients by the path of their rule, and what is wrong
// with those that cannot be read.
func (p *project) recipientsByRule() (map[string][]encrypt.Recipient, []*encrypt.Fault) {
	byRule := make(map[string][]encrypt.Recipient)
	var faults []*encrypt.Fault
	if p.rules == nil {
		return byRule, nil
	}
	for _, rule := range p.rules.Rules {
		if _, known := byRule[rule.Path]; known {
			continue // of rules with one path only the first counts
		}
		rs, err := p.recipients(rule)
		if err != nil {
			faults = append(faults, &encrypt.Fault{File: p.shownFile(), Field: "rules", Err: err})
		}
		byRule[rule.Path] = rs
	}
	return byRule, faults
}

// checked is what was found in one file.
type checked struct {
	manifests []encrypt.Manifest
	faults    []*encrypt.Fault
}

// checkFile checks a file of the file system.
func (o validateOptions) checkFile(p *project, recipients map[string][]encrypt.Recipient, file string) checked {
	rule := p.rule(file)
	data, err := readFile(file, encrypt.MaxFileSize)
	if errors.Is(err, errLarger) && !rule.ForbidPlaintext && !mentionsManifests(file) {
		return checked{} // such as other people's CRDs
	}
	var path *fs.PathError
	switch {
	case errors.Is(err, errLarger):
		err = errTooLargeFile
	case errors.As(err, &path):
		err = path.Err // the fault names the file
	}
	if err != nil {
		return checked{faults: []*encrypt.Fault{{File: file, Err: err}}}
	}
	return o.check(p, rule, recipients[rule.Path], file, data)
}

// check checks the text of a file, for which a rule counts.
func (o validateOptions) check(p *project, rule encrypt.Rule, recipients []encrypt.Recipient, file string, data []byte) checked {
	ms := encrypt.ReadManifests(file, data, rule.Namespace)
	c := checked{manifests: ms.Objects, faults: ms.Faults}
	if rule.ForbidPlaintext {
		for _, s := range ms.PlainSecrets {
			c.faults = append(c.faults, &encrypt.Fault{File: file, Line: s.Line, Field: "kind", Namespace: s.Namespace, Name: s.Name, Err: errPlainSecret})
		}
	}
	for _, m := range ms.Objects {
		c.faults = append(c.faults, m.CheckValues(o.now())...)
		c.faults = append(c.faults, checkReserved(m)...)
		c.faults = append(c.faults, p.checkKeys(m, recipients)...)
	}
	return c
}

// What may be wrong with a manifest beside what package encrypt finds.
var (
	errTooLargeFile    = fmt.Errorf("%w than %d bytes", errLarger, encrypt.MaxFileSize)
	errPlainSecret     = errors.New("a plaintext Secret, which .vsecm.yaml forbids here: encrypt it with 'kubectl vsecm encrypt -f'")
	errRetiredKey      = errors.New("sealed to the retired key")
	errOtherRecipients = errors.New("sealed to other recipients than .vsecm.yaml has for this path")
)

// A doubleError says where a manifest's name stands, too.
type doubleError struct{ this, other encrypt.Manifest }

func (e doubleError) Error() string {
	return fmt.Sprintf("%s/%s stands in %s:%d too", e.this.Object.Namespace, e.this.Object.Name, e.other.File, e.other.Line)
}

// mentionsManifests tells whether a file that is too large to be read may hold
// manifests, as far as a search for their group can tell.
func mentionsManifests(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return true
	}
	defer f.Close()
	return mentionsManifestsIn(f)
}

func mentionsManifestsIn(r io.Reader) bool { return bytesIn(bufio.NewReader(r), v1alpha1.Group+"/") }

// bytesIn tells whether text stands in what r gives.
func bytesIn(r *bufio.Reader, text string) bool {
	for {
		window, err := r.Peek(r.Size())
		if bytes.Contains(window, []byte(text)) {
			return true
		}
		if err != nil {
			return !errors.Is(err, io.EOF)
		}
		_, _ = r.Discard(len(window) - len(text) + 1) // as much is there
	}
}

// checkKeys tells which values are sealed to other keys than the project has
// for them.
func (p *project) checkKeys(m encrypt.Manifest, want []encrypt.Recipient) []*encrypt.Fault {
	if p.rules == nil {
		return nil
	}
	wanted := make([]encrypt.KeyID, 0, len(want))
	for _, r := range want {
		wanted = append(wanted, r.KeyID())
	}
	slices.Sort(wanted)
	wanted = slices.Compact(wanted)
	var faults []*encrypt.Fault
	for _, key := range sortedKeys(m.Object.Spec.EncryptedData) {
		info, err := encrypt.Inspect(m.Object.Spec.EncryptedData[key])
		if err != nil {
			continue // CheckValues has told
		}
		retired := slices.IndexFunc(info.KeyIDs, func(id encrypt.KeyID) bool { return slices.Contains(p.rules.RetiredKeys, id) })
		switch {
		case retired >= 0:
			faults = append(faults, m.Fault(encrypt.DataField(key), fmt.Errorf("%w %s", errRetiredKey, info.KeyIDs[retired])))
		case len(wanted) > 0 && !slices.Equal(info.KeyIDs, wanted):
			faults = append(faults, m.Fault(encrypt.DataField(key), errOtherRecipients))
		}
	}
	return faults
}

// doubles finds the names that stand in more than one place.
func doubles(results []checked) []*encrypt.Fault {
	type name struct{ namespace, name string }
	first := make(map[name]encrypt.Manifest)
	var faults []*encrypt.Fault
	for _, r := range results {
		for _, m := range r.manifests {
			n := name{m.Object.Namespace, m.Object.Name}
			if f, twice := first[n]; twice {
				faults = append(faults, m.Fault("metadata.name", doubleError{m, f}))
				continue
			}
			first[n] = m
		}
	}
	return faults
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
