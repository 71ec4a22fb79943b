package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"
	"pgregory.net/rapid"
)

func TestReadingBlobsSurvivesWhatGitMayPrint(t *testing.T) {
	const id = "5f1bd60674c3421f1bc28fe5240fa07acd6fe56b"
	for name, tc := range map[string]struct {
		printed string
		n       int
		want    []string
		err     error
	}{
		"two, one of them empty":         {id + " blob 3\na\nb\n" + id + " blob 0\n\n", 2, []string{"a\nb", ""}, nil},
		"one that is not there":          {id + " missing\n" + id + " blob 1\nx\n", 2, []string{"missing", "x"}, nil},
		"an end in the content":          {id + " blob 10\nabc", 1, []string{"abc"}, io.ErrUnexpectedEOF},
		"an end before the line's break": {id + " blob 3\nabc", 1, []string{"abc"}, io.ErrUnexpectedEOF},
		"an end in the first line":       {id + " bl", 1, nil, io.ErrUnexpectedEOF},
		"nothing at all":                 {"", 1, nil, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			err := readBlobs(bufio.NewReader(strings.NewReader(tc.printed)), tc.n, func(_ int, size int64, content io.Reader) error {
				if size < 0 {
					got = append(got, "missing")
					return nil
				}
				data, err := io.ReadAll(content)
				got = append(got, string(data))
				return err
			})
			if !slices.Equal(got, tc.want) || !errors.Is(err, tc.err) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	t.Run("content that nobody reads is passed over", func(t *testing.T) {
		var sizes []int64
		err := readBlobs(bufio.NewReader(strings.NewReader(id+" blob 3\nabc\n"+id+" blob 1\nx\n")), 2, func(_ int, size int64, _ io.Reader) error {
			sizes = append(sizes, size)
			return nil
		})
		if err != nil || !slices.Equal(sizes, []int64{3, 1}) {
			t.Errorf("got %v, %v", sizes, err)
		}
	})
	t.Run("an error ends it", func(t *testing.T) {
		stop := errors.New("stop")
		err := readBlobs(bufio.NewReader(strings.NewReader(id+" blob 3\nabc\n")), 1, func(int, int64, io.Reader) error { return stop })
		if !errors.Is(err, stop) {
			t.Errorf("got %v", err)
		}
	})
}

// A call that stops early leaves no process and no goroutine, which TestMain looks for.
func TestBlobsEndsWhenItIsToldTo(t *testing.T) {
	t.Chdir(t.TempDir())
	git(t, "init", "-q")
	var objects []string
	for i := range 100 { // more than a pipe holds
		if err := os.WriteFile(fmt.Sprintf("%d", i), []byte(strings.Repeat(fmt.Sprintf("%3d ", i), 5000)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	git(t, "add", ".")
	index, err := readIndex(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range index.entries {
		objects = append(objects, e.object)
	}
	stop := errors.New("stop")
	if err := index.blobs(t.Context(), objects, func(int, int64, io.Reader) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := index.blobs(ctx, objects, func(int, int64, io.Reader) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	if err := index.blobs(t.Context(), []string{"nonsense"}, func(_ int, size int64, _ io.Reader) error {
		if size != -1 {
			t.Errorf("nonsense has size %d", size)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// Git's newer repositories name objects by SHA-256.
func TestStagedManifestsAreValidatedWhateverObjectsAreNamedBy(t *testing.T) {
	inFolder(t, nil)
	git(t, "init", "-q", "--object-format=sha256")
	if code, _, stderr := run(t, "", "encrypt", "db", "-n", "shop", "--from-literal", "a=b", "-w", "db.yaml"); code != exitOK {
		t.Fatal(stderr)
	}
	git(t, "add", "db.yaml")
	if code, stdout, stderr := run(t, "", "validate", "--staged"); code != exitOK || stderr != "no faults; manifests: 1, files: 1\n" {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

func git(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

// Whatever stands in info/attributes, our lines come and go, and what is not ours stays.
func TestAttributesOfOthersStayWhatTheyAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		others := rapid.SliceOf(rapid.StringMatching(`[a-z* =#]{0,12}`)).Draw(t, "lines")
		text := []byte(strings.Join(others, "\n"))
		if len(text) > 0 && rapid.Bool().Draw(t, "ends in a line break") {
			text = append(text, '\n')
		}
		once := append(withoutBlock(text), attributes...)
		twice := append(withoutBlock(once), attributes...)
		if string(once) != string(twice) {
			t.Fatalf("twice is not once:\n%s\n\n%s", once, twice)
		}
		if got, want := strings.TrimSuffix(string(withoutBlock(once)), "\n"), strings.TrimSuffix(string(text), "\n"); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}

// A difference may be of any file, and hold lines of any length: they come out as they went in.
func FuzzDifferencesKeepAllButSealedValues(f *testing.F) {
	sealed := sealedBeginning + "QUJD"
	f.Add("+    a: " + sealed + "\n")
	f.Add("-a\n+b")
	f.Add(strings.Repeat("x", 100_000) + sealed + "==\n\n\n")
	f.Add("\x00\xff\x1b[31m\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		var out strings.Builder
		o := gitDiffOptions{streams: genericiooptions.IOStreams{Out: &out}}
		if err := o.show(strings.NewReader(text), &heldKeys{}); err != nil {
			t.Fatal(err)
		}
		want := sealedInText().ReplaceAllStringFunc(text, func(sealed string) string { return string(aboutSealed([]byte(sealed))) })
		if out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
		if strings.Contains(out.String(), sealedBeginning+"Q") {
			t.Error("a sealed value is left")
		}
	})
}

func TestTextconvTellsOfBrokenValuesAndKeepsTheRest(t *testing.T) {
	inFolder(t, nil)
	broken := "a: " + sealedBeginning + "QUJD # why\r\nb: '" + sealedBeginning + "'\n\x00"
	if err := os.WriteFile("broken.yaml", []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := run(t, "", "git", "textconv", filepath.Join(".", "broken.yaml"))
	if code != exitOK || stderr != "" || !strings.HasPrefix(stdout, "a: unreadable sealed value, #") || !strings.HasSuffix(stdout, " # why\r\nb: '"+sealedBeginning+"'\n\x00") {
		t.Errorf("exit code %d: %q%s", code, stdout, stderr)
	}
}
