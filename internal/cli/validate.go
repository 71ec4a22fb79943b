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
	"path/filepath"
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
	output  outputFlag
}

func newValidate(streams genericiooptions.IOStreams) *cobra.Command {
	o := validateOptions{streams: streams, now: time.Now, output: outputFlag{forms: []string{"json", "yaml"}}}
	cmd := &cobra.Command{
		Use:   "validate PATH…",
		Short: "Check manifests, for pull requests and CI",
		Long: `Check the manifests in files and folders, without a key: that each is well
formed, that each value is bound to the place where it stands, that no name is
there twice, and what .vsecm.yaml demands: recipients, no retired keys, no
plaintext Secrets. No key is needed, so whether a value opens is not known.

Templates are parsed, and have to ask for values that are there. What expired
is noted on standard error, and is no fault.

Every fault is a line FILE:LINE: FIELD: what is wrong, on standard output.
Folders are searched for .yaml, .yml and .json files; links are not followed.

Exit codes: 0 no fault, 1 faults or another error.`,
		Example: `  # Everything below the working directory
  kubectl vsecm validate .

  # What a commit is about to change
  git diff --cached --name-only --diff-filter=d -z -- '*.yaml' |
    xargs -0 -r kubectl vsecm validate`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return withHint(errors.New("nothing to validate"), "name files or folders; . for everything here")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.paths = args
			return o.run(cmd.Context())
		},
	}
	o.output.addTo(cmd, "Form of the output")
	return cmd
}

func (o validateOptions) run(ctx context.Context) error {
	p, err := findProject()
	if err != nil {
		return err
	}
	files, err := manifestFilesOf(o.paths)
	if err != nil {
		return err
	}
	recipients, faults := p.recipientsByRule()

	results := make([]checked, len(files))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, file := range files {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			results[i] = o.check(p, recipients, file)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}

	faults = append(faults, doubles(results)...)
	objects := 0
	for _, r := range results {
		faults = append(faults, r.faults...)
		objects += len(r.manifests)
	}
	slices.SortStableFunc(faults, func(a, b *encrypt.Fault) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	if err := o.print(faults); err != nil {
		return err
	}
	for _, r := range results {
		o.noteExpired(r.manifests)
	}
	if len(faults) > 0 {
		return fmt.Errorf("faults: %d, in manifests: %d, files: %d", len(faults), objects, len(files))
	}
	fmt.Fprintf(o.streams.ErrOut, "no faults; manifests: %d, files: %d\n", objects, len(files))
	return nil
}

// noteExpired tells what nobody gets any more. It is no fault: what was valid when it was checked in passes for ever.
func (o validateOptions) noteExpired(manifests []encrypt.Manifest) {
	for _, m := range manifests {
		if t := m.Object.Spec.ExpiresAt; t != nil && !o.now().Before(t.Time) {
			fault := m.Fault("spec.expiresAt", fmt.Errorf("%s/%s expired on %s: nobody gets it any more", m.Object.Namespace, m.Object.Name, t.UTC().Format(time.RFC3339)))
			fmt.Fprintln(o.streams.ErrOut, "note:", visible(fault.Error()))
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
			faults = append(faults, &encrypt.Fault{File: filepath.Join(p.root, encrypt.ProjectFile), Field: "rules", Err: err})
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

func (o validateOptions) check(p *project, recipients map[string][]encrypt.Recipient, file string) checked {
	rule := p.rule(file)
	data, err := readFile(file, encrypt.MaxFileSize)
	if errors.Is(err, errLarger) && !rule.ForbidPlaintext && !mentionsManifests(file) {
		return checked{} // such as other people's CRDs
	}
	var path *fs.PathError
	switch {
	case errors.Is(err, errLarger):
		err = fmt.Errorf("%w than %d bytes", errLarger, encrypt.MaxFileSize)
	case errors.As(err, &path):
		err = path.Err // the fault names the file
	}
	if err != nil {
		return checked{faults: []*encrypt.Fault{{File: file, Err: err}}}
	}
	ms := encrypt.ReadManifests(file, data, rule.Namespace)
	c := checked{manifests: ms.Objects, faults: ms.Faults}
	if rule.ForbidPlaintext {
		for _, s := range ms.PlainSecrets {
			c.faults = append(c.faults, &encrypt.Fault{File: file, Line: s.Line, Field: "kind", Namespace: s.Namespace, Name: s.Name,
				Err: errors.New("a plaintext Secret, which .vsecm.yaml forbids here: encrypt it with 'kubectl vsecm encrypt -f'")})
		}
	}
	for _, m := range ms.Objects {
		c.faults = append(c.faults, m.CheckValues(o.now())...)
		c.faults = append(c.faults, p.checkKeys(m, recipients[rule.Path])...)
	}
	return c
}

// mentionsManifests tells whether a file that is too large to be read may hold
// manifests, as far as a search for their group can tell.
func mentionsManifests(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return true
	}
	defer f.Close()
	return bytesIn(bufio.NewReader(f), v1alpha1.Group+"/")
}

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
			faults = append(faults, m.Fault(encrypt.DataField(key), fmt.Errorf("sealed to the retired key %s", info.KeyIDs[retired])))
		case len(wanted) > 0 && !slices.Equal(info.KeyIDs, wanted):
			faults = append(faults, m.Fault(encrypt.DataField(key), errors.New("sealed to other recipients than .vsecm.yaml has for this path")))
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
				faults = append(faults, m.Fault("metadata.name", fmt.Errorf("%s/%s stands in %s:%d too", n.namespace, n.name, f.File, f.Line)))
				continue
			}
			first[n] = m
		}
	}
	return faults
}

func (o validateOptions) print(faults []*encrypt.Fault) error {
	if o.output.value == "" {
		for _, f := range faults {
			if _, err := fmt.Fprintln(o.streams.Out, visible(f.Error())); err != nil {
				return err
			}
		}
		return nil
	}
	type fault struct {
		File      string `json:"file"`
		Line      int    `json:"line,omitempty"`
		Field     string `json:"field,omitempty"`
		Namespace string `json:"namespace,omitempty"`
		Name      string `json:"name,omitempty"`
		Message   string `json:"message"`
	}
	list := make([]fault, 0, len(faults))
	for _, f := range faults {
		list = append(list, fault{f.File, f.Line, f.Field, f.Namespace, f.Name, f.Err.Error()})
	}
	return printObject(o.streams.Out, o.output.value, list)
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
