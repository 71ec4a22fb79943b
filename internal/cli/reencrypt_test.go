//go:build linux

package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A rekeyedSafe is one in the middle of a re-key, and a folder of manifests that are sealed to the old key.
type rekeyedSafe struct {
	*realSafe
	old, active *unseal.RootKey
}

// newRekeyedSafe starts one, and seals so many values to its old key, in so many files of this folder.
func newRekeyedSafe(t *testing.T, files, values int) *rekeyedSafe {
	t.Helper()
	return rekeySafe(t, newKey(t), files, values)
}

func rekeySafe(t *testing.T, old *unseal.RootKey, files, values int) *rekeyedSafe {
	t.Helper()
	t.Chdir(t.TempDir())
	t.Setenv(recipientsVariable, "")
	t.Setenv("KUBECONFIG", "")
	s := &rekeyedSafe{old: old}
	s.realSafe = startSafe(t, nil, "a", s.old, safeKind{record: true})
	text := s.old.Text()
	defer clear(text)
	check(t, s.seal.Unseal(t.Context(), text, ""))
	writeStale(t, s.old, files, values)
	_, began, err := s.seal.StartRekey(t.Context(), nil, "test")
	if err != nil || !began {
		t.Fatalf("the re-key did not start: %v", err)
	}
	kept, err := os.ReadFile(s.keyFile)
	check(t, err)
	s.active, err = unseal.Parse(kept)
	check(t, err)
	return s
}

// writeStale writes files manifests/fN.yaml whose values are sealed to a key.
func writeStale(t *testing.T, key *unseal.RootKey, files, values int) {
	t.Helper()
	check(t, os.Mkdir("manifests", 0o755))
	for f := range files {
		var b strings.Builder
		fmt.Fprintf(&b, "# file %d\napiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata: {name: f%d, namespace: shop}\nspec:\n  encryptedData:\n", f, f)
		for v := range values {
			place := encrypt.Binding{Scope: encrypt.Strict, Namespace: "shop", Name: fmt.Sprintf("f%d", f), Key: fmt.Sprintf("k%d", v)}
			sealed, err := encrypt.Seal([]byte(marker+place.Key), place, []encrypt.Recipient{key.Recipient()}, time.Unix(1_700_000_000, 0))
			check(t, err)
			fmt.Fprintf(&b, "    %s: %s # %d\n", place.Key, sealed, v)
		}
		check(t, os.WriteFile(fmt.Sprintf("manifests/f%d.yaml", f), []byte(b.String()), 0o644))
	}
}

// openable opens every value in the folder with any of the keys, and returns how many the last one alone opens.
func openable(t *testing.T, want int, keys ...*unseal.RootKey) (byLast int) {
	t.Helper()
	n := 0
	var rings []*unseal.Keyring
	for _, k := range keys {
		ring, err := unseal.NewKeyring(k)
		check(t, err)
		rings = append(rings, ring)
	}
	files, err := filepath.Glob("manifests/*.yaml")
	check(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		check(t, err)
		ms := encrypt.ReadManifests(file, text, "")
		if len(ms.Faults) > 0 {
			t.Fatal(ms.Faults[0])
		}
		for _, m := range ms.Objects {
			if len(m.Object.Spec.EncryptedData) != strings.Count(string(text), ": YWdl") || !bytes.HasPrefix(text, []byte("# file ")) {
				t.Errorf("%s has lost something:\n%.200s", file, text)
			}
			for key, sealed := range m.Object.Spec.EncryptedData {
				for i, ring := range rings {
					value, err := encrypt.Open(sealed, encrypt.BindingOf(m.Object, key), ring, time.Now())
					if err != nil {
						continue
					}
					info, err := encrypt.Inspect(sealed)
					check(t, err)
					if string(value) != marker+key || info.SealedAt.Unix() != 1_700_000_000 {
						t.Errorf("%s: %s is %q of %s", file, key, value, info.SealedAt)
					}
					n++
					if i == len(keys)-1 {
						byLast++
					}
					break
				}
			}
		}
	}
	if n != want {
		t.Errorf("%d values open, of %d", n, want)
	}
	return byLast
}

func TestReencryptThroughSafe(t *testing.T) {
	s := newRekeyedSafe(t, 60, 4)
	t.Setenv(safeVariable, s.socket)
	code, _, stderr := run(t, "", "reencrypt", "--check", "manifests")
	if code != exitError || !strings.Contains(stderr, "stale values: 240, in files: 60") {
		t.Errorf("--check: %d: %s", code, stderr)
	}
	code, stdout, stderr := run(t, "", "reencrypt", "manifests")
	if code != exitOK || stdout != "" || stderr != "sealed anew: values: 240, files: 60\n" {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	openable(t, 240, s.active)
	if code, _, stderr := run(t, "", "reencrypt", "--check", "manifests"); code != exitOK || stderr != "nothing is stale\n" {
		t.Errorf("--check: %d: %s", code, stderr)
	}
	log := s.audit.String()
	if strings.Contains(log+s.log.String(), marker) || !strings.Contains(log, `"object":"values shop `) {
		t.Errorf("the audit log:\n%.2000s", log)
	}
}

func TestReencryptOfAThousandValuesInOneFile(t *testing.T) {
	old, err := unseal.Generate(true) // a file has no room for as many hybrid values
	check(t, err)
	s := rekeySafe(t, old, 1, 1000)
	t.Setenv(safeVariable, s.socket)
	if code, stdout, stderr := run(t, "", "reencrypt", "manifests/f0.yaml"); code != exitOK || stderr != "sealed anew: values: 1000, files: 1\n" {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	openable(t, 1000, s.active)
}

func TestReencryptWhereNoKeyIsRetired(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("KUBECONFIG", "")
	key := newKey(t)
	s := startSafe(t, nil, "a", key, safeKind{record: true})
	writeStale(t, key, 1, 1)
	if code, _, stderr := run(t, "", "reencrypt", "manifests", "--safe", s.socket); code != exitError || !strings.Contains(stderr, "hint: unseal it") {
		t.Errorf("a sealed Safe: %d: %s", code, stderr)
	}
	text := key.Text()
	defer clear(text)
	check(t, s.seal.Unseal(t.Context(), text, ""))
	if code, _, stderr := run(t, "", "reencrypt", "manifests", "--safe", s.socket); code != exitOK || stderr != "nothing to do: no root key is retired\n" {
		t.Errorf("%d: %s", code, stderr)
	}
	openable(t, 1, key)
}

// listenUnix returns a socket that is closed with the test, and how it is named.
func listenUnix(t *testing.T) (net.Listener, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lane")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	check(t, err)
	return l, "unix://" + filepath.Join(dir, "s")
}

func TestReencryptGoesOnWithoutAReplicaThatHangs(t *testing.T) {
	s := newRekeyedSafe(t, 120, 5)
	var hung atomic.Int64
	hanging := inFront(t, s.realSafe, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if r.URL.Path != "/v1/reencrypt" {
			pass.ServeHTTP(w, r)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		hung.Add(1)
		<-r.Context().Done() // the caller gives up
	})
	// Long enough for the other one on a busy machine.
	code, stdout, stderr := run(t, "", "reencrypt", "manifests", "--safe", hanging+","+s.socket, "--request-timeout", "15s")
	if code != exitOK || stderr != "sealed anew: values: 600, files: 120\n" || hung.Load() == 0 {
		t.Errorf("exit code %d, %d calls hung: %s%s", code, hung.Load(), stdout, stderr)
	}
	openable(t, 600, s.active)
}

// inFront serves a socket that passes on to Safe what serve says.
func inFront(t *testing.T, s *realSafe, serve func(w http.ResponseWriter, r *http.Request, pass http.Handler)) string {
	t.Helper()
	l, address := listenUnix(t)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "safe"})
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(s.socket, "unix://"))
	}}
	proxy.Transport = transport
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(w, r, proxy) })}
	var running sync.WaitGroup
	running.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() {
		_ = srv.Close()
		running.Wait()
		transport.CloseIdleConnections()
	})
	return address
}

func TestReencryptThatLosesSafeGoesOnWhenItIsDoneAgain(t *testing.T) {
	s := newRekeyedSafe(t, 120, 5)
	var calls atomic.Int64
	address := inFront(t, s.realSafe, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if r.URL.Path == "/v1/reencrypt" && calls.Add(1) > 1 {
			panic(http.ErrAbortHandler)
		}
		pass.ServeHTTP(w, r)
	})
	code, _, stderr := run(t, "", "reencrypt", "manifests", "--safe", address)
	if code != exitError || !strings.Contains(stderr, "error: it did not come to its end; doing it again goes on where it stopped: reaching Safe at "+address) {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	done := openable(t, 600, s.old, s.active)
	if done == 0 || done == 600 {
		t.Errorf("%d values are sealed anew", done)
	}
	code, _, stderr = run(t, "", "reencrypt", "manifests", "--safe", s.socket)
	if want := fmt.Sprintf("sealed anew: values: %d, files: %d\n", 600-done, (600-done)/5); code != exitOK || stderr != want {
		t.Errorf("again: exit code %d: %s, want %s", code, stderr, want)
	}
	openable(t, 600, s.active)
}

// Whatever answers in Safe's place cannot have a file hold what is not the same value.
func TestReencryptBelievesNoAnswerBlindly(t *testing.T) {
	s := newRekeyedSafe(t, 1, 2)
	first, err := os.ReadFile("manifests/f0.yaml")
	check(t, err)
	place := encrypt.Binding{Scope: encrypt.Strict, Namespace: "shop", Name: "f0", Key: "k0"}
	seal := func(b encrypt.Binding, at int64, value string, to ...encrypt.Recipient) string {
		sealed, err := encrypt.Seal([]byte(value), b, to, time.Unix(at, 0))
		check(t, err)
		return sealed
	}
	elsewhere := place
	elsewhere.Key = "k1"
	right := s.active.Recipient()
	for name, answer := range map[string]string{
		"for another place": seal(elsewhere, 1_700_000_000, marker+"k0", right),
		"of another time":   seal(place, 1_700_000_001, marker+"k0", right),
		"of another size":   seal(place, 1_700_000_000, "x", right),
		"to somebody else":  seal(place, 1_700_000_000, marker+"k0", newKey(t).Recipient()),
		"to one more":       seal(place, 1_700_000_000, marker+"k0", right, newKey(t).Recipient()),
		"no sealed value":   "YWdl",
		"nothing":           "",
	} {
		t.Run(name, func(t *testing.T) {
			address := inFront(t, s.realSafe, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
				if r.URL.Path != "/v1/reencrypt" {
					pass.ServeHTTP(w, r)
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				fmt.Fprintf(w, `{"values":[{"sealed":%q},{"error":{"type":"x","detail":"not this one"}}]}`, answer)
			})
			code, stdout, stderr := run(t, "", "reencrypt", "manifests", "--safe", address)
			if code != exitSomeLeft || !strings.Contains(stdout, "spec.encryptedData.k0: "+address+": what came back") || !strings.Contains(stdout, "not this one") {
				t.Errorf("exit code %d: %s%s", code, stdout, stderr)
			}
			now, err := os.ReadFile("manifests/f0.yaml")
			check(t, err)
			if !bytes.Equal(now, first) {
				t.Error("the file was changed")
			}
		})
	}
}

// An editor that saves the file while Safe is asked loses nothing, whatever it changed.
func TestReencryptLeavesWhatIsChangedMeanwhile(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(text string) string
		code int
		want string
	}{
		"a comment":          {func(text string) string { return text + "# mine\n" }, exitOK, "sealed anew: values: 2"},
		"a key":              {func(text string) string { return strings.Replace(text, "    k0: ", "    k00: eA==\n    k0: ", 1) }, exitOK, "sealed anew: values: 2"},
		"the value itself":   {func(text string) string { return strings.Replace(text, "k0: YWdl", "k0: eHh4", 1) }, exitSomeLeft, "somebody else has changed it meanwhile"},
		"all but half of it": {func(text string) string { return text[:len(text)/2] + "\n  typo" }, exitSomeLeft, "left: 1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newRekeyedSafe(t, 1, 2)
			var edited string
			address := inFront(t, s.realSafe, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
				if r.URL.Path == "/v1/reencrypt" {
					text, err := os.ReadFile("manifests/f0.yaml")
					if err != nil {
						t.Error(err)
					}
					edited = test.edit(string(text))
					if err := os.WriteFile("manifests/f0.yaml", []byte(edited), 0o644); err != nil {
						t.Error(err)
					}
				}
				pass.ServeHTTP(w, r)
			})
			code, stdout, stderr := run(t, "", "reencrypt", "manifests", "--safe", address)
			if code != test.code || !strings.Contains(stdout+stderr, test.want) {
				t.Errorf("exit code %d: %s%s", code, stdout, stderr)
			}
			now, err := os.ReadFile("manifests/f0.yaml")
			check(t, err)
			if test.code != exitOK && string(now) != edited {
				t.Errorf("it is now\n%s", now)
			}
			if test.code == exitOK && (strings.Contains(edited, "# mine") != strings.Contains(string(now), "# mine") || strings.Contains(edited, "k00: eA==") != strings.Contains(string(now), "k00: eA==")) {
				t.Errorf("the edit is lost:\n%s", now)
			}
		})
	}
}

// Killed at any moment, it leaves files that open, and is completed by doing it again.
func TestPromise07_AReencryptionThatIsKilledLosesNothing(t *testing.T) {
	program, err := exec.LookPath("kubectl-vsecm")
	check(t, err)
	t.Chdir(t.TempDir())
	t.Setenv("KUBECONFIG", "")
	old, active := newKey(t), newKey(t)
	check(t, os.WriteFile("old.txt", old.Text(), 0o600))
	check(t, os.WriteFile("new.txt", active.Text(), 0o600))
	writeStale(t, old, 200, 2)
	args := []string{"reencrypt", "manifests", "--root-key", "new.txt", "--retired-key", "old.txt"}
	killed := 0
	for done := 0; killed < 5 && done < 400; done = openable(t, 400, old, active) {
		before := manifests(t)
		cmd := exec.Command(program, args...)
		check(t, cmd.Start())
		waitFor(t, "a file more to be written", func() bool { return !maps.Equal(manifests(t), before) })
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); err != nil {
			killed++
		}
	}
	if killed == 0 {
		t.Error("it was never killed in the middle")
	}
	if code, stdout, stderr := run(t, "", args...); code != exitOK {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	openable(t, 400, active)
}

// manifests returns the text of each file in the folder.
func manifests(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("manifests/*.yaml")
	check(t, err)
	texts := make(map[string]string)
	for _, file := range files {
		text, err := os.ReadFile(file)
		check(t, err)
		texts[file] = string(text)
	}
	return texts
}
