package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type gitDiffOptions struct {
	streams genericiooptions.IOStreams
	now     func() time.Time
	args    []string
	keys    keyFlags
}

func newGitDiff(streams genericiooptions.IOStreams) *cobra.Command {
	o := gitDiffOptions{streams: streams, now: time.Now}
	cmd := &cobra.Command{
		Use:   "diff (--root-key FILE | --share FILE… | -i FILE) [-- ARG…]",
		Short: "Show differences with the values in the clear",
		Long: `Run 'git diff' with the ARGs, and show each sealed value that a key given opens
in the clear, with what it was sealed for. A value that was sealed anew
without a change is the same on both sides. The key stays in this program: git
gets neither it nor a value. No pager is started.

Without a key there is 'git diff' itself, which after 'kubectl vsecm git setup'
tells which values changed.

Exit codes: 0 done, whether there are differences or not; 1 error.`,
		Example: `  # What was changed since the last commit
  kubectl vsecm git diff --root-key root-key.txt

  # What a branch changes in a folder, with a break-glass key
  kubectl vsecm git diff -i break-glass.txt -- main...feature -- secrets`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.args = args
			return o.run(cmd.Context())
		},
	}
	o.keys.addTo(cmd)
	return cmd
}

func (o gitDiffOptions) run(ctx context.Context) error {
	if !o.keys.given() {
		return withHint(errors.New("no key given"), "name the root key's file with --root-key, its shares with --share, or another recipient's identity with -i; 'git diff' needs none, and shows no values")
	}
	if err := o.keys.check(); err != nil {
		return err
	}
	if _, err := runGit(ctx, "rev-parse", "--git-dir"); err != nil {
		return withHint(err, "run it inside of a repository")
	}
	color := o.colored(ctx)
	keys, err := o.keys.open(o.streams)
	if err != nil {
		return err
	}
	defer keys.wipe()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := gitCommand(ctx, append([]string{"--no-pager", "diff", "--no-ext-diff", "--no-textconv", color}, o.args...)...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return gitFailure(err, "")
	}
	err = o.show(out, keys)
	if err != nil {
		cancel()
	}
	waitErr := gitFailure(cmd.Wait(), errOut.String())
	if err != nil {
		return err
	}
	const differ = 1 // with --exit-code
	var failed gitError
	if errors.As(waitErr, &failed) && failed.code == differ && errOut.Len() == 0 {
		return nil
	}
	return waitErr
}

// colored is the flag of git by which it colours what goes through this program as it would colour what goes to
// standard output.
func (o gitDiffOptions) colored(ctx context.Context) string {
	terminal := isTerminal(o.streams.Out) && os.Getenv("NO_COLOR") == ""
	if says, err := gitPath(ctx, "config", "--get-colorbool", "color.diff", strconv.FormatBool(terminal)); err == nil && says == "true" {
		return "--color=always"
	}
	return "--color=never"
}

// maxDiffLine bounds the lines in which values are looked for, in bytes. A manifest's are shorter.
const maxDiffLine = encrypt.MaxFileSize + 4096

// show copies the output of git diff with the values in it opened. It keeps no line for longer than it
// takes to write it.
func (o gitDiffOptions) show(out io.Reader, keys encrypt.Keys) error {
	r := bufio.NewReaderSize(out, maxDiffLine)
	for {
		line, err := r.ReadSlice('\n')
		if writeErr := o.showLine(line, keys); writeErr != nil {
			return writeErr
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

func (o gitDiffOptions) showLine(line []byte, keys encrypt.Keys) error {
	found := sealedInText().FindAllIndex(line, -1)
	if len(found) == 0 {
		_, err := o.streams.Out.Write(line)
		return err
	}
	shown, at := make([]byte, 0, 2*len(line)), 0
	defer func() { clear(shown) }()
	for _, f := range found {
		text := o.open(line[f[0]:f[1]], keys)
		shown = append(append(shown, line[at:f[0]]...), text...)
		clear(text)
		at = f[1]
	}
	shown = append(shown, line[at:]...)
	_, err := o.streams.Out.Write(shown)
	return err
}

// open says what is in a sealed value, and what it was sealed for: nobody has compared that with where it stands.
func (o gitDiffOptions) open(sealed []byte, keys encrypt.Keys) []byte {
	info, err := encrypt.Inspect(string(sealed))
	if err != nil {
		return aboutSealed(sealed)
	}
	place := info.Binding
	// What a wider scope leaves open may be anything.
	place.Namespace, place.Name, place.Key = cmp.Or(place.Namespace, "any"), cmp.Or(place.Name, "any"), cmp.Or(place.Key, "any")
	value, err := encrypt.Open(string(sealed), place, keys, o.now())
	if err != nil {
		return aboutSealed(sealed)
	}
	defer clear(value)
	sealedFor := fmt.Sprintf("%s/%s key %s", star(info.Binding.Namespace), star(info.Binding.Name), star(info.Binding.Key))
	if !printable(value) {
		return fmt.Appendf(nil, "(%d bytes that are not text, sealed for %s, %s)", len(value), sealedFor, aboutSealed(sealed))
	}
	text := make([]byte, 0, 2*len(value)+len(sealedFor)+64)
	return fmt.Appendf(strconv.AppendQuote(text, string(value)), " (sealed for %s)", sealedFor)
}
