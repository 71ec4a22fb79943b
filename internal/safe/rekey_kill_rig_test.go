package safe_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/backup"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/logs"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A rekeyTrial is a world whose root key is replaced again and again, while Safe and the plugin
// are killed. The values never change.
type rekeyTrial struct {
	*world
	random *rand.Rand
	atMost int // kills
	kills  map[string]int
	usual  map[string]usual // by command

	values     map[string]string // by OBJECT/KEY
	out        string            // the folder that commands write into
	operator   *age.X25519Identity
	breakGlass *unseal.RootKey
	reader     *workload
	read       atomic.Int64                      // answers that a workload got
	api        atomic.Pointer[string]            // where it asks
	old        map[encrypt.KeyID]*unseal.RootKey // every key that was replaced in this round
}

// usual is what a command does where nobody is killed.
type usual struct {
	took   time.Duration
	writes int // how often a folder was seen to change
}

const (
	rekeyedObjects = 12
	rekeyedKeys    = 3
)

func newRekeyTrial(t *testing.T, random *rand.Rand, atMost int) *rekeyTrial {
	r := &rekeyTrial{
		world: local(t), random: random, atMost: atMost,
		kills: map[string]int{}, usual: map[string]usual{}, values: map[string]string{}, old: map[encrypt.KeyID]*unseal.RootKey{},
	}
	var err error
	r.operator, err = age.GenerateX25519Identity()
	r.must(err)
	r.breakGlass, err = unseal.Generate(true)
	r.must(err)
	r.out = filepath.Join(r.dir, "out")
	for _, dir := range []string{r.out, filepath.Join(r.dir, "home")} {
		r.must(os.Mkdir(dir, 0o700))
	}
	r.write(r.identity(), r.operator.String()+"\n")
	r.pushSecrets()
	r.start()
	r.applied(0)
	r.reader = r.workload("db")
	r.reader.wants(r.values)
	r.tell()
	return r
}

// identity is the file of what opens backups and archives.
func (r *rekeyTrial) identity() string { return filepath.Join(r.dir, "operator.txt") }

// pushSecrets makes values that no text survives unharmed, two objects a file, every third of
// them for a break-glass key too.
func (r *rekeyTrial) pushSecrets() {
	r.t.Helper()
	files := map[string]string{}
	for i := range rekeyedObjects {
		name := fmt.Sprintf("object-%02d", i)
		o := &v1alpha1.EncryptedSecret{
			TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret},
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
			Spec:       v1alpha1.EncryptedSecretSpec{Workloads: []string{"db"}, EncryptedData: map[string]string{}},
		}
		to := []encrypt.Recipient{r.key.Recipient()}
		if i%3 == 0 {
			to = append(to, r.breakGlass.Recipient())
		}
		for j := range rekeyedKeys {
			key, value := fmt.Sprintf("key-%d", j), make([]byte, r.random.IntN(2000))
			for n := range value {
				value[n] = byte(r.random.Uint32())
			}
			sealed, err := encrypt.Seal(value, encrypt.BindingOf(o, key), to, time.Now())
			r.must(err)
			o.Spec.EncryptedData[key], r.values[name+"/"+key] = sealed, string(value)
		}
		text, err := encrypt.MarshalYAML(o)
		r.must(err)
		file := fmt.Sprintf("team-%d/secrets-%d.yaml", i%2, i/4)
		if files[file] != "" {
			files[file] += "---\n"
		}
		files[file] += "# kept as it is\n" + string(text)
	}
	r.push(files)
}

// tell lets the reader know where Safe listens.
func (r *rekeyTrial) tell() {
	api := r.at.API
	r.api.Store(&api)
}

// reads has a workload read until ctx ends. Whatever it gets is right.
func (r *rekeyTrial) reads(ctx context.Context) {
	for ctx.Err() == nil {
		at := &world{t: r.t, at: logLine{API: *r.api.Load()}}
		a, err := (&workload{at, r.reader.http}).get(ctx, "", "")
		switch {
		case errors.Is(err, errRefused) && a.code != 503:
			r.t.Errorf("a read: %v", err)
		case err == nil && !maps.Equal(a.values, r.values):
			r.t.Errorf("a read got %d values, not the %d that were sealed", len(a.values), len(r.values))
		case err == nil:
			r.read.Add(1)
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (r *rekeyTrial) killed() int { return r.kills["safe"] + r.kills["plugin"] }

// completes runs the plugin, kills it or Safe at random, and repeats the command until it ends with
// code. Nothing is lost at any time, and holds is true.
func (r *rekeyTrial) completes(what string, code int, holds func(), args ...string) string {
	r.t.Helper()
	_, known := r.usual[what]
	for try := 0; ; try++ {
		disturb := known && r.killed() < r.atMost && (try == 0 || r.random.IntN(2) == 0)
		out, got, killed := r.attempt(what, disturb, args)
		r.revive()
		r.nothingLost(what)
		holds()
		switch {
		case r.t.Failed():
			r.t.Fatalf("after %s (try %d, killed %q, exit code %d):\n%s", what, try, killed, got, out)
		case killed != "plugin" && got == code:
			return out
		case killed == "":
			r.t.Fatalf("%s does not complete (try %d): exit code %d, want %d:\n%s", what, try, got, code, out)
		}
	}
}

// attempt runs the plugin once. killed is who was killed before it ended.
func (r *rekeyTrial) attempt(what string, disturb bool, args []string) (out string, code int, killed string) {
	r.t.Helper()
	cmd := exec.Command(programs.plugin, args...)
	cmd.Dir = r.out
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(r.dir, "home"), "TMPDIR=" + os.TempDir()}
	text := &logs.Buffer{}
	cmd.Stdout, cmd.Stderr = text, text
	r.must(cmd.Start())
	begun := time.Now()
	ended, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		if !disturb {
			if writes := r.writes(-1, ended); r.usual[what].took == 0 {
				r.usual[what] = usual{writes: writes}
			}
			return
		}
		killed = r.disturb(what, cmd, ended)
	}()
	err := cmd.Wait()
	close(ended)
	<-watched
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() < 0:
		r.kills["plugin"]++
		return text.String(), -1, "plugin"
	case err != nil && exit == nil:
		r.t.Fatal(err)
	case killed == "plugin":
		killed = "" // it had ended
	case killed == "safe":
		r.kills["safe"]++
	}
	if u := r.usual[what]; !disturb && u.took == 0 {
		u.took = time.Since(begun)
		r.usual[what] = u
	}
	return text.String(), cmd.ProcessState.ExitCode(), killed
}

// disturb kills one of the two, while a command runs: at any time, or right after something
// was written.
func (r *rekeyTrial) disturb(what string, cmd *exec.Cmd, ended <-chan struct{}) (killed string) {
	u := r.usual[what]
	victim, kill := "safe", r.process.kill
	if r.random.IntN(3) == 0 || what == "restore" { // which Safe has nothing to do with
		victim, kill = "plugin", func() { _ = cmd.Process.Kill() }
	}
	after := time.Duration(r.random.Int64N(int64(u.took) * 11 / 10))
	if u.writes > 0 && r.random.IntN(2) == 0 {
		r.writes(1+r.random.IntN(u.writes), ended)
		after = time.Duration(r.random.Int64N(int64(2 * time.Millisecond)))
	}
	select {
	case <-ended:
		return ""
	case <-time.After(after):
	}
	kill()
	return victim
}

// writes waits until so many changes of folders were seen, or ended, and returns how many there were.
func (r *rekeyTrial) writes(wanted int, ended <-chan struct{}) (seen int) {
	before := r.folders()
	for seen != wanted {
		select {
		case <-ended:
			return seen
		case <-time.After(200 * time.Microsecond):
		}
		if now := r.folders(); now != before {
			before = now
			seen++
		}
	}
	return seen
}

// folders changes whenever a file gets or loses its name in one of the folders that matter.
func (r *rekeyTrial) folders() (stamps [6]int64) {
	for i, dir := range []string{
		r.dir, r.data, filepath.Join(r.data, "objects", "shop"), r.out, filepath.Join(r.clone, "team-0"), filepath.Join(r.clone, "team-1"),
	} {
		if info, err := os.Stat(dir); err == nil {
			stamps[i] = info.ModTime().UnixNano()
		}
	}
	return stamps
}

// revive starts Safe if it was killed.
func (r *rekeyTrial) revive() {
	r.t.Helper()
	if alive(r.process) {
		return
	}
	r.start()
	r.tell()
}

// kept returns the keys that Safe keeps, the active one first.
func (r *rekeyTrial) kept() []*unseal.RootKey {
	r.t.Helper()
	// In this order: what becomes retired is kept as such before another key takes its place.
	file := filepath.Join(r.dir, "root-key.txt")
	text, err := os.ReadFile(file)
	r.must(err)
	active, err := unseal.Parse(text)
	if err != nil {
		r.t.Fatalf("the root key: %v", err)
	}
	keys := []*unseal.RootKey{active}
	text, err = os.ReadFile(file + ".retired")
	if errors.Is(err, fs.ErrNotExist) {
		return keys
	}
	r.must(err)
	retired, err := unseal.ParseAll(text)
	if err != nil && !errors.Is(err, unseal.ErrNone) {
		r.t.Fatalf("the retired root keys: %v", err)
	}
	for _, key := range retired {
		if key.KeyID() != active.KeyID() {
			keys = append(keys, key)
		}
	}
	return keys
}

// keeps tells whether Safe keeps a key.
func (r *rekeyTrial) keeps(id encrypt.KeyID) bool {
	return slices.ContainsFunc(r.kept(), func(k *unseal.RootKey) bool { return k.KeyID() == id })
}

// nothingLost fails unless every value can be read with what is stored, in the working copy and
// in Safe, and a workload gets them.
func (r *rekeyTrial) nothingLost(when string) {
	r.t.Helper()
	// Read before the keys: what is sealed to a key stands there no longer when that is destroyed.
	working, stored := r.manifests(r.clone), r.manifests(filepath.Join(r.data, "objects"))
	keys := r.kept()
	r.opens(when+": the working copy", working, r.values, keys)
	r.opens(when+": what Safe stores", stored, r.values, keys)
	archived := r.archived()
	for id := range r.old {
		if !r.keeps(id) && !archived[id] {
			r.t.Errorf("%s: root key %s is neither kept nor archived", when, id)
		}
	}
	backups, err := filepath.Glob(filepath.Join(r.out, "*.backup"))
	r.must(err)
	for _, file := range backups {
		if got, err := r.backedUp(file); err != nil || !maps.Equal(got, r.values) {
			r.t.Errorf("%s: %s has %d values of %d: %v", when, filepath.Base(file), len(got), len(r.values), err)
		}
	}
	r.reader.wants(r.values)
}

// manifests reads every manifest below a folder.
func (r *rekeyTrial) manifests(folder string) (all []encrypt.Manifest) {
	r.t.Helper()
	r.must(filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && errors.Is(err, fs.ErrNotExist): // a temporary file
			return nil
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".yaml" || strings.HasPrefix(d.Name(), "."):
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		ms := encrypt.ReadManifests(path, data, "")
		for _, fault := range ms.Faults {
			r.t.Errorf("%v", fault)
		}
		all = append(all, ms.Objects...)
		return nil
	}))
	return all
}

// opens fails unless these keys open every value of these manifests, and they are those that are
// wanted. It returns them.
func (r *rekeyTrial) opens(where string, all []encrypt.Manifest, want map[string]string, keys []*unseal.RootKey) map[string]string {
	r.t.Helper()
	ring, err := unseal.NewKeyring(keys[0], keys[1:]...)
	r.must(err)
	got := map[string]string{}
	for _, m := range all {
		for key, sealed := range m.Object.Spec.EncryptedData {
			at := m.Object.Name + "/" + key
			value, err := encrypt.Open(sealed, encrypt.BindingOf(m.Object, key), ring, time.Now())
			if err != nil {
				r.t.Errorf("%s: %s: %v", where, at, err)
			} else if r.values[at] != string(value) {
				r.t.Errorf("%s: %s is another value than was sealed", where, at)
			}
			got[at] = string(value)
		}
	}
	if want != nil && !maps.Equal(got, want) {
		r.t.Errorf("%s has %d values, want %d", where, len(got), len(want))
	}
	return got
}

// archived returns which keys are archived. An archive that has its name is whole.
func (r *rekeyTrial) archived() map[encrypt.KeyID]bool {
	r.t.Helper()
	// What was being written when the plugin was killed begins with a dot.
	files, err := filepath.Glob(filepath.Join(r.out, "[^.]*.age*"))
	r.must(err)
	ids := map[encrypt.KeyID]bool{}
	for _, file := range files {
		f, err := os.Open(file)
		r.must(err)
		var text []byte
		sealed, err := age.Decrypt(f, r.operator)
		if err == nil {
			text, err = io.ReadAll(sealed)
		}
		f.Close()
		keys, parsed := unseal.ParseAll(text)
		if err != nil || parsed != nil {
			r.t.Errorf("archive %s: %v, %v", filepath.Base(file), err, parsed)
		}
		for _, k := range keys {
			ids[k.KeyID()] = true
		}
	}
	return ids
}

// backedUp reads a backup to its end.
func (r *rekeyTrial) backedUp(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := backup.NewReader(f, r.operator)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	got := map[string]string{}
	for {
		o, err := b.Next()
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		for key, value := range o.Data {
			got[o.Name+"/"+key] = string(value)
		}
		o.Wipe()
	}
}

// destroyed fails if a file anywhere holds a key that is to be gone, in the clear.
func (r *rekeyTrial) destroyed(keys map[encrypt.KeyID]*unseal.RootKey) {
	r.t.Helper()
	r.must(filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for id, key := range keys {
			for i, line := range strings.Split(strings.TrimSpace(string(key.Text())), "\n") {
				if i != 1 && strings.Contains(string(data), line) { // the second is its recipient
					r.t.Errorf("%s holds line %d of root key %s, which was destroyed", path, i+1, id)
				}
			}
		}
		return nil
	}))
}

// sum tells one content of a file from another.
func (r *rekeyTrial) sum(file string) string {
	data, err := os.ReadFile(file)
	r.must(err)
	return fmt.Sprintf("%x", sha256.Sum256(data))
}
