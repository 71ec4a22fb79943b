package cli

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"go.yaml.in/yaml/v3"
)

// scriptCommands are what the scripts have beside testscript's own.
var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"refused": refused,
	"capture": capture,
	"mode":    mode,
	"repeat":  repeat,
	"opens":   opens,

	"identity": identity,
	"vsecm":    vsecmScript,
}

// refused runs a command that has to fail as every verb does: exit code 1, nothing on
// standard output, "error: …" on standard error, and no file made, changed or
// removed. With -stdout, as for verbs that report, there may be output.
func refused(ts *testscript.TestScript, neg bool, args []string) {
	reports := len(args) > 0 && args[0] == "-stdout"
	if reports {
		args = args[1:]
	}
	if neg || len(args) == 0 {
		ts.Fatalf("usage: refused [-stdout] command…")
	}
	before := snapshot(ts)
	err := ts.Exec(args[0], args[1:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitError {
		ts.Fatalf("want exit code %d, got %v", exitError, err)
	}
	if after := snapshot(ts); after != before {
		ts.Fatalf("files changed\nbefore:\n%safter:\n%s", before, after)
	}
	stderr := ts.ReadFile("stderr")
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, "error: ") && !strings.HasPrefix(line, "hint: ") && !strings.HasPrefix(line, "note: ") {
			ts.Fatalf("standard error has a line that is neither error, hint nor note: %q", line)
		}
	}
	if !strings.Contains("\n"+stderr, "\nerror: ") {
		ts.Fatalf("no error on standard error")
	}
	if stdout := ts.ReadFile("stdout"); stdout != "" && !reports {
		ts.Fatalf("a failure wrote to standard output")
	}
}

// snapshot lists every file of the script, with mode and content.
func snapshot(ts *testscript.TestScript) string {
	var list strings.Builder
	root := ts.Getenv("WORK")
	ts.Check(filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&list, "%s %s", path, info.Mode())
		if info.Mode().IsRegular() {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			sum := sha256.New()
			if _, err := io.Copy(sum, f); err != nil {
				return err
			}
			fmt.Fprintf(&list, " %x", sum.Sum(nil))
		}
		list.WriteByte('\n')
		return nil
	}))
	return list.String()
}

// capture puts the first line of the last command's output into a variable.
func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: capture VARIABLE")
	}
	line, _, _ := strings.Cut(ts.ReadFile("stdout"), "\n")
	ts.Setenv(args[0], line)
}

// mode checks the permissions of a file.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode PERM FILE")
	}
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := strconv.FormatUint(uint64(info.Mode().Perm()), 8); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// repeat writes a file of a text, with \n for line breaks and %d for a running number,
// many times over.
func repeat(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: repeat COUNT TEXT FILE")
	}
	count, err := strconv.Atoi(args[0])
	ts.Check(err)
	text := strings.ReplaceAll(args[1], `\n`, "\n")
	f, err := os.OpenFile(ts.MkAbs(args[2]), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	ts.Check(err)
	defer f.Close()
	var out bytes.Buffer
	for i := range count {
		out.WriteString(strings.ReplaceAll(text, "%d", strconv.Itoa(i)))
		if out.Len() > 1<<20 || i == count-1 {
			_, err := out.WriteTo(f)
			ts.Check(err)
		}
	}
}

// opens checks that base64 -d | age -d -i KEYFILE gives exactly what is in a file. The value is
// that of a key, in any one of the file's manifests, or the whole file for -.
func opens(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: opens KEYFILE MANIFESTS KEY|- WANT")
	}
	text := ts.ReadFile(args[1])
	values := []string{strings.TrimSpace(text)}
	if args[2] != "-" {
		values = sealedValues(ts, text, args[2])
	}
	key := identityFile(ts, args[0])
	want := ts.ReadFile(args[3])
	for _, value := range values {
		raw, err := base64.StdEncoding.DecodeString(value)
		ts.Check(err)
		cmd := exec.Command(ts.Getenv("AGE"), "-d", "-i", key)
		cmd.Stdin = bytes.NewReader(raw)
		got, err := cmd.Output()
		ts.Check(err)
		if string(got) != want {
			ts.Fatalf("age opens %s to %q, want %q", args[2], got, want)
		}
	}
}

// identity puts the identity of a root key where age finds it: $WORK/.home/identity.
func identity(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: identity KEYFILE")
	}
	identityFile(ts, args[0])
}

// identityFile writes the first line of a root key, all that age reads of it, to a file.
func identityFile(ts *testscript.TestScript, rootKey string) string {
	line, _, _ := strings.Cut(ts.ReadFile(rootKey), "\n")
	path := filepath.Join(ts.Getenv("WORK"), ".home", "identity")
	ts.Check(os.WriteFile(path, []byte(line+"\n"), 0o600))
	return path
}

func sealedValues(ts *testscript.TestScript, text, key string) []string {
	var values []string
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for {
		var doc struct {
			Spec struct {
				EncryptedData map[string]string `yaml:"encryptedData"`
			} `yaml:"spec"`
		}
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		ts.Check(err)
		if value, ok := doc.Spec.EncryptedData[key]; ok {
			values = append(values, value)
		}
	}
	if len(values) == 0 {
		ts.Fatalf("no value of %s", key)
	}
	return values
}
