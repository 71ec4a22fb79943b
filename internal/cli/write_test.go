package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// files returns every file below the working directory, and what it holds.
func files(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.Walk(".", func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		all[path] = info.Mode().String()
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[path] += " " + string(data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func unchanged(t *testing.T, before map[string]string) {
	t.Helper()
	after := files(t)
	for path, text := range before {
		if now, ok := after[path]; !ok || now != text {
			t.Errorf("%s was changed or removed", path)
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok {
			t.Errorf("%s was made", path)
		}
	}
}

// A meddler does something while standard input is being read: after encrypt
// has read the file of -w, and before it writes.
type meddler struct {
	value  io.Reader
	meddle func()
}

func (m *meddler) Read(p []byte) (int, error) {
	if m.meddle != nil {
		m.meddle()
		m.meddle = nil
	}
	return m.value.Read(p)
}

func TestAFileThatSomebodyElseChangedMeanwhileIsLeftAlone(t *testing.T) {
	const theirs = "# theirs\n"
	for name, exists := range map[string]bool{"a file that was there": true, "a new file": false} {
		t.Run(name, func(t *testing.T) {
			inFolder(t, nil)
			if exists {
				if code, _, stderr := run(t, "v", "encrypt", "db", "-n", "shop", "--key", "a", "-w", "db.yaml"); code != exitOK {
					t.Fatal(stderr)
				}
			}
			var before map[string]string
			in := &meddler{value: strings.NewReader("v"), meddle: func() {
				if err := os.WriteFile("db.yaml", []byte(theirs), 0o644); err != nil {
					t.Error(err)
				}
				before = files(t)
			}}
			var stderr bytes.Buffer
			code := Main(context.Background(), []string{"encrypt", "db", "-n", "shop", "--key", "b", "-w", "db.yaml"},
				genericiooptions.IOStreams{In: in, Out: io.Discard, ErrOut: &stderr})
			if code != exitError || !strings.Contains(stderr.String(), "changed the file meanwhile") || !strings.Contains(stderr.String(), "hint: ") {
				t.Errorf("exit code %d: %s", code, stderr.String())
			}
			unchanged(t, before)
		})
	}
}

func TestOutputThatCannotBeWrittenIsAnError(t *testing.T) {
	inFolder(t, nil)
	for _, args := range [][]string{
		{"encrypt", "db", "-n", "shop", "--key", "a"},
		{"encrypt", "db", "-n", "shop", "--key", "a", "--raw"},
		{"keygen"},
		{"recipient", "--root-key", "key.txt"},
		{"version"},
		{"completion", "bash"},
	} {
		var stderr bytes.Buffer
		code := Main(context.Background(), args, genericiooptions.IOStreams{In: strings.NewReader("v"), Out: failingWriter{}, ErrOut: &stderr})
		if code != exitError || !strings.HasPrefix(stderr.String(), "error: ") {
			t.Errorf("%q: exit code %d: %s", args, code, stderr.String())
		}
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// manySecrets writes a folder of v1/Secret documents, whose last ones are large.
func manySecrets(t *testing.T, count int) {
	t.Helper()
	for i := range count {
		value := "small"
		if i == count-1 {
			value = strings.Repeat("x", 200<<10)
		}
		dir := filepath.Join("plain", fmt.Sprintf("d%d", i%3))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: s%02d, namespace: shop}\nstringData: {a: %s}\n", i, value)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("s%02d.yaml", i)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// onAFullDisk runs the plugin where a file can grow to 128 KiB: from there on, writes fail
// half-way, as on a full disk. (bash counts in KiB; Go ignores SIGXFSZ.)
func onAFullDisk(t *testing.T, args ...string) {
	t.Helper()
	before := files(t)
	cmd := exec.Command("bash", append([]string{"-c", `ulimit -f 128 && exec kubectl-vsecm "$@"`, "bash"}, args...)...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitError || !bytes.HasPrefix(out, []byte("error: ")) {
		t.Errorf("%q: %v: %s", args, err, out)
	}
	unchanged(t, before)
}

func TestAFullDiskLeavesFilesAsTheyWere(t *testing.T) {
	inFolder(t, map[string]string{"large": strings.Repeat("x", 200<<10), "out/d0/.keep": ""})
	manySecrets(t, 9)
	if code, _, stderr := run(t, "v", "encrypt", "db", "-n", "shop", "--key", "a", "-w", "db.yaml"); code != exitOK {
		t.Fatal(stderr)
	}
	if code, _, stderr := run(t, "v", "encrypt", "other", "-n", "shop", "--key", "a", "-w", "out/d0/s00.yaml"); code != exitOK {
		t.Fatal(stderr)
	}
	onAFullDisk(t, "encrypt", "db", "--from-file", "large", "-w", "db.yaml")
	onAFullDisk(t, "encrypt", "db", "-n", "shop", "--from-file", "large", "-w", "new.yaml")
	// The files before the one that fails are taken back, folders too.
	onAFullDisk(t, "encrypt", "-f", "plain", "-w", "out")
	// Without a full disk it works, so it was that which failed.
	if code, _, stderr := run(t, "", "encrypt", "-f", "plain", "-w", "out"); code != exitOK {
		t.Fatal(stderr)
	}
	if code, _, stderr := run(t, "", "validate", "out"); code != exitOK || !strings.Contains(stderr, "manifests: 10, files: 9") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// What was answered with success is there: many processes that write one file
// either wait for each other or say that they came too late.
func TestPromise07_ManyWritersOfOneFileLoseNothing(t *testing.T) {
	t.Chdir(t.TempDir())
	key, err := unseal.Generate(true)
	if err != nil {
		t.Fatal(err)
	}
	recipient := key.Recipient().String()
	run := func(key string) error {
		return exec.Command("kubectl-vsecm", "encrypt", "db", "-n", "shop", "-r", recipient, "--from-literal", key+"=x", "-w", "db.yaml").Run()
	}
	if err := run("first"); err != nil {
		t.Fatal(err)
	}
	var done sync.Map
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			key := fmt.Sprintf("k%d", i)
			if run(key) == nil {
				done.Store(key, true)
			}
		})
	}
	wg.Wait()
	data, err := os.ReadFile("db.yaml")
	if err != nil {
		t.Fatal(err)
	}
	ms := encrypt.ReadManifests("db.yaml", data, "")
	if len(ms.Faults) > 0 || len(ms.Objects) != 1 {
		t.Fatalf("%d objects, faults %v", len(ms.Objects), ms.Faults)
	}
	written := 0
	done.Range(func(key, _ any) bool {
		written++
		if _, ok := ms.Objects[0].Object.Spec.EncryptedData[key.(string)]; !ok {
			t.Errorf("%s was acknowledged, and is gone", key)
		}
		return true
	})
	if written == 0 {
		t.Error("nobody could write")
	}
}
