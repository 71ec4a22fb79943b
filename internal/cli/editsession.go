package cli

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// An editing is one manifest that is edited: as it was, in the clear, and as it is to be.
type editing struct {
	was        *v1alpha1.EncryptedSecret
	plain      *encrypt.Plain
	recipients []encrypt.Recipient

	result *v1alpha1.EncryptedSecret // with all values sealed; nil if nothing changed
	sealed []string                  // the keys of those that were sealed anew
}

func (e *editing) place() place { return place{e.was.Namespace, e.was.Name} }

// An editSession has a person edit manifests until they are right, or nothing is to be changed.
type editSession struct {
	streams genericiooptions.IOStreams
	editor  editor
	now     func() time.Time
	title   string // what is edited
	keyIn   bool   // whether standard input was a key, and is over
	all     []*editing

	folders  []string // in memory
	fallback string
}

// maxTries bounds how often a program is asked to mend what it saved: without a terminal, no person edits.
const maxTries = 10

// errNotEdited ends an edit in which nothing is to be changed.
var errNotEdited = errors.New("no changes made")

// run edits, and seals what changed. The error is [errNotEdited] if nothing did.
func (s *editSession) run() (err error) {
	plains := make([]*encrypt.Plain, len(s.all))
	for i, e := range s.all {
		plains[i] = e.plain
	}
	text, err := encrypt.MarshalPlain(plains...)
	if err != nil {
		return err
	}
	defer func() { clear(text) }()

	d, err := newDesk(s.fileName(), s.folders, s.fallback)
	if err != nil {
		return err
	}
	// Before anything lies on it: what ends the program clears it, but for a kill -9.
	i := onSignals(func() { _ = d.clear() }, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer notForUs()()
	defer func() {
		i.end(func() {
			if failed := d.clear(); failed != nil {
				err = errors.Join(err, failed)
			}
		})
	}()
	if !d.memory {
		prose(s.streams.ErrOut, "note: no file system in memory was found; while you edit, the values lie on a disk, in %s", d.dir)
	}
	streams := s.streams
	if s.keyIn {
		if t, done, err := anyTerminal(s.streams); err == nil {
			defer done()
			streams.In = t.file
		}
	}
	var wrong []mistake
	tries := 0
	for {
		edited, err := s.edit(streams, d, i, text, wrong)
		if err != nil {
			return err
		}
		body := withoutHeader(edited)
		switch {
		case len(bytes.TrimSpace(body)) == 0:
			clear(edited)
			return fmt.Errorf("%w: the saved file was empty", errNotEdited)
		case bytes.Equal(body, text):
			clear(edited)
			if len(wrong) > 0 {
				return withHint(fmt.Errorf("what was saved is not valid, and nothing was changed: %s", shortly(wrong)), "the text is not kept, since it is in the clear: edit again")
			}
			return errNotEdited
		}
		clear(text)
		text = bytes.Clone(body)
		clear(edited)
		if wrong = s.take(text); len(wrong) == 0 {
			break
		}
		if tries++; tries == maxTries && terminalOf(streams) == nil {
			return fmt.Errorf("the editor was started %d times, and what it saved was never valid: %s", tries, shortly(wrong))
		}
	}
	if !slices.ContainsFunc(s.all, func(e *editing) bool { return e.result != nil }) {
		return errNotEdited
	}
	return nil
}

// edit shows a text, below a header, and returns what was saved.
func (s *editSession) edit(streams genericiooptions.IOStreams, d *desk, i *interruption, text []byte, wrong []mistake) ([]byte, error) {
	shown := slices.Concat(s.header(wrong), text)
	defer clear(shown)
	if err := d.lay(shown); err != nil {
		return nil, err
	}
	if err := s.editor.edit(streams, d.path, i); err != nil {
		return nil, err
	}
	return d.take()
}

// fileName has editors show what is edited, and as what.
func (s *editSession) fileName() string {
	name := strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || obeyed(r) {
			return '-'
		}
		return r
	}, filepath.Base(s.title))
	if ext := filepath.Ext(name); ext != ".yaml" && ext != ".yml" {
		name += ".yaml"
	}
	if strings.HasPrefix(name, "-") || strings.HasPrefix(name, ".") {
		name = "edit" + name
	}
	return name
}

const editRules = `# Save, leave the editor, and what you changed is sealed anew. Without a change,
# or with an empty file, nothing happens. Comments at the top are left out.
#
# Values that are text stand below stringData, others below data, in base64.
# Keys may be added and removed; names and namespaces stay. Put a text with
# ': ' or ' #' in it into quotes: '…'. Where you change scope, workloads, the
# template or the secret's type, all values of that manifest are sealed anew.
`

// header is what stands above the text. Lines of what is wrong come as those of the text.
func (s *editSession) header(wrong []mistake) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s, in the clear.\n%s", visible(s.title), editRules)
	if len(wrong) > 0 {
		b.WriteString("#\n# What you saved is not valid. Mend it, or leave it as it is to change nothing:\n")
		for i, m := range wrong {
			if i == maxTold {
				fmt.Fprintf(&b, "#   and %d more\n", len(wrong)-maxTold)
				break
			}
			fmt.Fprintf(&b, "#   line %d: %s\n", m.line+headerLines(len(wrong)), visible(m.said))
		}
	}
	b.WriteString("#\n")
	return []byte(b.String())
}

// headerLines returns how many lines header has.
func headerLines(wrong int) int {
	lines := 2 + strings.Count(editRules, "\n")
	if wrong > 0 {
		lines += 2 + min(wrong, maxTold+1)
	}
	return lines
}

// withoutHeader returns the text below the comments at its top.
func withoutHeader(text []byte) []byte {
	for bytes.HasPrefix(text, []byte("#")) {
		_, rest, more := bytes.Cut(text, []byte("\n"))
		if !more {
			return nil
		}
		text = rest
	}
	return text
}

// shortly tells the first things that are wrong on a terminal, on which nothing in the clear is shown.
func shortly(wrong []mistake) string {
	const most = 3
	var told []string
	for i, m := range wrong {
		if i == most {
			told = append(told, fmt.Sprintf("and %d more", len(wrong)-most))
			break
		}
		said := m.said
		if m.quotes {
			said = "not what belongs there"
		}
		told = append(told, fmt.Sprintf("line %d: %s", m.line+headerLines(len(wrong)), said))
	}
	return strings.Join(told, "; ")
}

// A mistake is something wrong with what was saved.
type mistake struct {
	line int // of the text, without its header
	said string
	// quotes says that it may quote a piece of a value that slipped out of its place: it is for the editor's eyes.
	quotes bool
}

// take has each manifest be what the text says, or returns what is wrong with it.
func (s *editSession) take(text []byte) (wrong []mistake) {
	plains, faults := encrypt.ReadPlain("", text)
	defer func() {
		for _, p := range plains {
			p.Wipe()
		}
	}()
	for _, f := range faults {
		said := f.Err.Error()
		if f.Field != "" {
			said = f.Field + ": " + said
		}
		wrong = append(wrong, mistake{f.Line, said, true})
	}
	if len(faults) == 0 {
		seen := make(map[place]bool)
		for _, p := range plains {
			at := place{p.Object.Namespace, p.Object.Name}
			i := slices.IndexFunc(s.all, func(e *editing) bool { return e.place() == at })
			switch {
			case seen[at]:
				wrong = append(wrong, mistake{line: p.Line, said: at.String() + " stands there twice"})
			case i < 0:
				wrong = append(wrong, mistake{line: p.Line, said: "this manifest was not there: to add or rename one, use 'kubectl vsecm encrypt'"})
			default:
				if err := s.all[i].become(p, s.now()); err != nil {
					wrong = append(wrong, mistake{line: p.Line, said: err.Error()})
				}
			}
			seen[at] = true
		}
		for _, e := range s.all {
			if !seen[e.place()] {
				wrong = append(wrong, mistake{line: 1, said: fmt.Sprintf("%s is missing: to remove a whole manifest, delete it from its file, or with 'kubectl vsecm delete'", e.place())})
			}
		}
	}
	return wrong
}

// become finds what of an edited manifest is to be sealed: values that are others, and those that may not stand any
// more where they would, for other readers or another delivery. Then it seals them.
func (e *editing) become(p *encrypt.Plain, now time.Time) error {
	want := e.was.DeepCopy()
	want.Labels, want.Annotations, want.Spec = p.Object.Labels, p.Object.Annotations, p.Object.Spec
	want.Spec.EncryptedData = make(map[string]string)
	values := make(map[string][]byte)
	at := encrypt.BindingOf(want, "")
	for key, value := range p.Values {
		at.Key = key
		before, had := e.plain.Values[key]
		info, err := encrypt.Inspect(e.was.Spec.EncryptedData[key])
		if had && err == nil && bytes.Equal(before, value) && info.Check(at, now) == nil {
			want.Spec.EncryptedData[key] = e.was.Spec.EncryptedData[key]
			continue
		}
		values[key] = value
	}
	e.result, e.sealed = nil, nil
	if len(values) == 0 && len(want.Spec.EncryptedData) == len(e.was.Spec.EncryptedData) && encrypt.SaysTheSame(want, e.plain.Object) {
		return nil
	}
	whole := &draft{object: want.DeepCopy(), values: p.Values}
	whole.object.Spec.EncryptedData = nil
	if err := errors.Join(whole.check(), whole.try()); err != nil {
		return err
	}
	d := &draft{object: want, values: values, recipients: e.recipients}
	if err := d.seal(now); err != nil {
		return err
	}
	sealed, err := d.whole()
	if err != nil {
		return err
	}
	want.Spec.EncryptedData = sealed
	e.result, e.sealed = want, slices.Sorted(maps.Keys(values))
	return nil
}

// said tells what was done to the values.
func (e *editing) said() string {
	var gone []string
	for _, key := range sortedKeys(e.was.Spec.EncryptedData) {
		if _, stays := e.result.Spec.EncryptedData[key]; !stays {
			gone = append(gone, key)
		}
	}
	var parts []string
	if len(e.sealed) > 0 {
		parts = append(parts, "sealed anew: "+someOf(e.sealed))
	}
	if len(gone) > 0 {
		parts = append(parts, "removed: "+someOf(gone))
	}
	if len(parts) == 0 {
		return "no value sealed anew"
	}
	return strings.Join(parts, "; ")
}
