package safe_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
)

// The values of this test are like nothing else.
const (
	marker1 = "marker-8f14e45f-one"
	marker2 = "marker-c9f0f895-two"
	marker3 = "marker-45c48cce-three"
)

// A haystack is everything that Safe leaves or shows, by where it is.
type haystack map[string][]byte

// find returns where any of the values stands, raw or encoded as one may be.
func (h haystack) find(values ...string) (places []string) {
	for place, all := range h {
		for _, value := range values {
			for form, needle := range forms(value) {
				if bytes.Contains(all, []byte(needle)) {
					places = append(places, fmt.Sprintf("%s: %s %.10s…", place, form, value))
				}
			}
		}
	}
	return places
}

// forms returns how a value may be written. Base64 of a value within something
// longer has three forms; the characters at its ends depend on what stands there.
func forms(value string) map[string]string {
	f := map[string]string{
		"raw":       value,
		"hex":       hex.EncodeToString([]byte(value)),
		"HEX":       strings.ToUpper(hex.EncodeToString([]byte(value))),
		"quoted":    fmt.Sprintf("%q", value),
		"backwards": reverse(value),
	}
	for shift := range 3 {
		padded := append(make([]byte, shift), value...)
		f[fmt.Sprint("base64, shifted by ", shift)] = trimEnds(base64.StdEncoding.EncodeToString(padded), shift)
		f[fmt.Sprint("base64url, shifted by ", shift)] = trimEnds(base64.URLEncoding.EncodeToString(padded), shift)
	}
	return f
}

func trimEnds(encoded string, shift int) string {
	encoded = strings.TrimRight(encoded, "=")
	return encoded[(shift*8+5)/6 : len(encoded)-1]
}

func reverse(s string) string {
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

// TestPromise01_NoPlaintextAtRest lets a whole story happen, and looks at every
// byte that is left or shown of it, but for the root key's own file and the
// workload's connection.
func TestPromise01_NoPlaintextAtRest(t *testing.T) {
	secretPassword := "marker-d3d94468-git"
	server := gitserver.New(t, gitserver.Options{Username: "bot", Password: secretPassword})
	repo := server.Repo("shop.git")
	repo.Git("", "config", "http.receivepack", "true")
	w := newWorld(t, repo, "")
	w.url = server.URL + "/shop.git"
	w.configure("username: bot\n    passwordFile: password.txt")
	w.write(filepath.Join(w.dir, "password.txt"), secretPassword+"\n")

	all := haystack{}
	look := func(when string) {
		t.Helper()
		_, st, err := w.status()
		if err != nil {
			t.Fatal(err)
		}
		all[when+", status"] = []byte(st)
		_, metrics, err := plain(w.at.Metrics, "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		all[when+", metrics"] = []byte(metrics)
		for _, file := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", w.process.cmd.Process.Pid, file))
			if errors.Is(err, fs.ErrPermission) {
				continue // Safe keeps its environment from other processes of its user; root reads it
			}
			if err != nil {
				t.Fatal(err)
			}
			all[when+", "+file] = text
		}
		all.add(t, when, w.data)
		all[when+", log"] = []byte(w.process.stderr.String())
		all[when+", audit log"] = []byte(w.process.stdout.String())
	}

	// Delivered, changed, copied elsewhere, broken, removed; by one who may
	// read, one who may not, and one whom Safe does not know.
	w.push(map[string]string{"db.yaml": w.seal("db", password(marker1)), "other.yaml": w.seal("other", map[string]string{"k": marker3})})
	w.start()
	w.sync()
	w.applied(0)
	db := w.workload("db")
	db.wants(map[string]string{"db/password": marker1})
	w.workload("other").wants(map[string]string{"other/k": marker3})
	look("delivered")

	w.push(map[string]string{"db.yaml": w.seal("db", password(marker2))})
	w.sync()
	db.wants(map[string]string{"db/password": marker2})
	w.workload("thief").has(map[string]string{})
	if _, err := w.workloadOf("/nobody").get(t.Context(), "", ""); !errors.Is(err, errRefused) {
		t.Errorf("who is no workload got %v", err)
	}
	w.push(map[string]string{"thief.yaml": strings.Replace(w.seal("db", password(marker2)), "name: db", "name: thief", 1)})
	w.sync()
	w.applied(1)
	w.push(map[string]string{"thief.yaml": "", "other.yaml": w.seal("other", map[string]string{"k": marker3}) + "  broken: {"})
	w.sync()
	w.appliedAtLeast(1)
	look("changed")
	w.restart()
	db.wants(map[string]string{"db/password": marker2})
	if code, _, err := operate(w.at.Operator, http.MethodPost, "/v1/nothing"); err != nil || code != http.StatusNotFound {
		t.Errorf("an unknown call gives %d, %v", code, err)
	}
	look("restarted")
	w.process.stop(t)
	all.add(t, "the end", w.data)
	all.add(t, "the end", repo.Dir)
	all.add(t, "the end", w.clone)
	all["the end, log"], all["the end, audit log"] = []byte(w.process.stderr.String()), []byte(w.process.stdout.String())

	identity, _, _ := strings.Cut(string(w.key.Text()), "\n")
	seed := strings.TrimSpace(strings.Split(string(w.key.Text()), "\n")[2])
	secrets := []string{marker1, marker2, marker3, secretPassword, identity, seed}
	if places := all.find(secrets...); len(places) > 0 {
		t.Errorf("plaintext is in\n%s", strings.Join(places, "\n"))
	}

	// What was searched was not nothing, and the search finds what is there.
	for _, want := range []string{"delivered, " + filepath.Join(w.data, "objects/shop/db.yaml"), "changed, log", "changed, audit log", "restarted, metrics", "restarted, status", "restarted, cmdline"} {
		if len(all[want]) == 0 {
			t.Errorf("%s was not searched", want)
		}
	}
	for i, secret := range secrets {
		for form, text := range forms(secret) {
			if len((haystack{"planted": []byte("before" + text + "behind")}).find(secrets[i])) == 0 {
				t.Errorf("the search misses a value planted as %s", form)
			}
		}
		for _, before := range []string{"", "p", "pw", `{"password":"`} {
			planted := base64.StdEncoding.EncodeToString([]byte(before + secret + "!"))
			if len((haystack{"planted": []byte(planted)}).find(secret)) == 0 {
				t.Errorf("the search misses base64 of %q and a value", before)
			}
		}
	}
	w.write(filepath.Join(w.data, "objects", "planted"), "x"+marker2)
	planted := haystack{}
	planted.add(t, "planted", w.data)
	if len(planted.find(secrets...)) != 1 {
		t.Error("the search misses a planted file")
	}
}

// add takes in every file below a folder: content, name and, of links, target.
func (h haystack) add(t *testing.T, when, folder string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // Safe is at work
			return nil
		}
		if err != nil {
			return err
		}
		key := when + ", " + path
		switch d.Type() {
		case 0:
			text, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			h[key] = append([]byte(path+"\n"), text...)
			return err
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			h[key] = []byte(path + "\n" + target)
			return err
		}
		h[key] = []byte(path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
