package safe_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A treasure is what a re-key must not lose: objects from two repositories and by hand, each with one
// value, which workload reader may read.
type treasure struct {
	*gitops
	more    *gitserver.Repo
	to      encrypt.Recipient
	keys    map[encrypt.KeyID]*unseal.RootKey // all that the test knows of
	objects map[string]*v1alpha1.EncryptedSecret
	want    map[string]string // what the reader gets
}

// reader reads all secrets of a treasure.
const reader = "reader"

// at says where object number i is: in which repository or by hand.
const (
	inShop = iota
	inMore
	onRelease
	byHand
)

func (tr *treasure) place(i int) int {
	switch {
	case i == 0:
		return onRelease
	case i%10 == 9:
		return byHand
	case i%2 == 0:
		return inShop
	}
	return inMore
}

func newTreasure(g *gitops, n int) *treasure {
	g.t.Helper()
	tr := &treasure{
		gitops: g, more: g.server.Repo("more.git"), to: g.recipient(), keys: map[encrypt.KeyID]*unseal.RootKey{},
		objects: map[string]*v1alpha1.EncryptedSecret{}, want: map[string]string{},
	}
	for i := range n {
		name := fmt.Sprintf("s-%03d", i)
		o := &v1alpha1.EncryptedSecret{
			TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret},
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
			Spec:       v1alpha1.EncryptedSecretSpec{Workloads: []string{reader}, EncryptedData: map[string]string{}},
		}
		value := fmt.Sprintf("value-%d-of-%s", i*i, name)
		sealed, err := encrypt.Seal([]byte(value), encrypt.BindingOf(o, "password"), []encrypt.Recipient{tr.to}, time.Now())
		if err != nil {
			g.t.Fatal(err)
		}
		o.Spec.EncryptedData["password"] = sealed
		tr.objects[name], tr.want[name+"/password"] = o, value
	}
	tr.push()
	// From the first commit on, another branch has a manifest of its own.
	tr.release()
	tr.apply()
	tr.follow("platform")
	tr.follow("release", "ref: {branch: release}")
	url := g.url
	g.url = g.server.URL + "/more.git"
	tr.follow("more")
	g.url = url
	return tr
}

// files returns the manifests that are in one place, one file each.
func (tr *treasure) files(place int) map[string]string {
	tr.t.Helper()
	files := make(map[string]string)
	for i := range len(tr.objects) {
		name := fmt.Sprintf("s-%03d", i)
		if tr.place(i) != place {
			continue
		}
		text, err := encrypt.MarshalYAML(tr.objects[name])
		if err != nil {
			tr.t.Fatal(err)
		}
		files[name+".yaml"] = string(text)
	}
	return files
}

// push commits what is in the two repositories' main branches.
func (tr *treasure) push() {
	tr.t.Helper()
	tr.repo.Commit(tr.files(inShop))
	tr.more.Commit(tr.files(inMore))
}

// release commits what is on branch release of the first repository, and on it alone.
func (tr *treasure) release() {
	tr.t.Helper()
	main := tr.repo.Head()
	var gone []string
	if before := tr.repo.Git("", "for-each-ref", "--format=%(objectname)", "refs/heads/release"); before != "" {
		tr.repo.SetHead(before)
	} else {
		for name := range tr.files(inShop) {
			gone = append(gone, name)
		}
	}
	commit := tr.repo.Commit(tr.files(onRelease), gone...)
	tr.repo.Git("", "update-ref", "refs/heads/release", commit)
	tr.repo.SetHead(main)
}

// apply applies what nobody has in git.
func (tr *treasure) apply() {
	tr.t.Helper()
	all := ""
	for _, text := range tr.files(byHand) {
		all += "---\n" + text
	}
	tr.as(tr.dana, all, "apply", "-f", "-")
}

// knows takes note of the key that Safe keeps in its Secret.
func (tr *treasure) knows() *unseal.RootKey {
	tr.t.Helper()
	key := tr.kept("KEY_TXT")
	if key == nil {
		tr.t.Fatal("no root key is kept")
	}
	tr.keys[key.KeyID()] = key
	return key
}

// kept returns the one key under a name of the Secret of root keys; nil if there is none.
func (tr *treasure) kept(name string) *unseal.RootKey {
	tr.t.Helper()
	var s struct{ Data map[string][]byte }
	if err := json.Unmarshal([]byte(tr.kubectl("get", "secret", "vsecm-root-key", "-n", "vsecm-system", "-o", "json")), &s); err != nil {
		tr.t.Fatal(err)
	}
	if len(bytes.TrimSpace(s.Data[name])) == 0 {
		return nil
	}
	key, err := unseal.Parse(s.Data[name])
	if err != nil {
		tr.t.Fatal(err)
	}
	return key
}

// reencrypt has the values of the objects in some places sealed to another key.
func (tr *treasure) reencrypt(from, to *unseal.RootKey, places ...int) {
	tr.t.Helper()
	ring, err := unseal.NewKeyring(to, from)
	if err != nil {
		tr.t.Fatal(err)
	}
	for i := range len(tr.objects) {
		o := tr.objects[fmt.Sprintf("s-%03d", i)]
		for _, place := range places {
			if tr.place(i) != place {
				continue
			}
			now, err := encrypt.Reencrypt(o.Spec.EncryptedData["password"], ring, to.KeyID(),
				func(id encrypt.KeyID) bool { return id == from.KeyID() }, []encrypt.Recipient{to.Recipient()}, time.Now())
			if err != nil {
				tr.t.Fatal(err)
			}
			o.Spec.EncryptedData["password"] = now
		}
	}
}

// stored waits until every object is stored as it was written last.
func (tr *treasure) stored() {
	tr.t.Helper()
	wait.For(tr.t, "every object is stored", func() error {
		have := tr.list()
		for name, o := range tr.objects {
			if have[name] == nil || have[name].Spec.EncryptedData["password"] != o.Spec.EncryptedData["password"] {
				return fmt.Errorf("%s is not, of %d", name, len(have))
			}
		}
		return nil
	})
}

// list returns all objects that the cluster has, by name.
func (tr *treasure) list() map[string]*v1alpha1.EncryptedSecret {
	tr.t.Helper()
	var all struct{ Items []*v1alpha1.EncryptedSecret }
	if err := json.Unmarshal([]byte(tr.kubectl("get", "encryptedsecrets", "-A", "-o", "json")), &all); err != nil {
		tr.t.Fatal(err)
	}
	by := make(map[string]*v1alpha1.EncryptedSecret)
	for _, o := range all.Items {
		by[o.Name] = o
	}
	return by
}

// opens tells how many of all stored values a key opens alone.
func (tr *treasure) opens(key *unseal.RootKey) (n int) {
	tr.t.Helper()
	ring, err := unseal.NewKeyring(key)
	if err != nil {
		tr.t.Fatal(err)
	}
	for _, o := range tr.list() {
		for name, sealed := range o.Spec.EncryptedData {
			value, err := encrypt.Open(sealed, encrypt.BindingOf(o, name), ring, time.Now())
			switch {
			case err == nil && string(value) != tr.want[o.Name+"/"+name]:
				tr.t.Errorf("%s/%s opens, and is another value", o.Name, name)
			case err == nil:
				n++
			case !errors.Is(err, encrypt.ErrKeyNotHeld):
				tr.t.Errorf("%s/%s: %v", o.Name, name, err)
			}
		}
	}
	return n
}

// A reading goes on all the time: each answer is right, or the test fails.
type reading struct {
	tr    *treasure
	phase atomic.Pointer[string]
	n     atomic.Int64
	stop  func()
}

// reads has workload reader fetch over mTLS at these replicas, again and again, until stop is called.
func (tr *treasure) reads(replicas ...*replica) *reading {
	tr.t.Helper()
	r := &reading{tr: tr}
	r.says("before")
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, at := range replicas {
		client := tr.workload(at, reader)
		all.Go(func() {
			for ctx.Err() == nil {
				a, err := client.get(ctx, "", "")
				switch {
				case ctx.Err() != nil:
				case err != nil || !maps.Equal(a.values, tr.want):
					tr.t.Errorf("%s, %s: a read gives %d, %d values, %v", at.name, *r.phase.Load(), a.code, len(a.values), err)
					return
				}
				r.n.Add(1)
			}
		})
	}
	r.stop = sync.OnceFunc(func() { cancel(); all.Wait() })
	tr.t.Cleanup(r.stop)
	return r
}

// says in which phase reads are that fail, and waits for some of it.
func (r *reading) says(phase string) {
	r.tr.t.Helper()
	before := r.n.Load()
	first := r.phase.Swap(&phase) == nil
	if first {
		return
	}
	wait.For(r.tr.t, "reads go on "+phase, func() error {
		if now := r.n.Load(); now < before+4 && !r.tr.t.Failed() {
			return fmt.Errorf("%d since", now-before)
		}
		return nil
	})
}

// A rekeyShown is what rekey status -o json prints.
type rekeyShown struct {
	Rekey  *struct{ From, To encrypt.KeyID }
	Report struct {
		Opened, NeedCount int
		BySource          map[string]int
		Needs             []struct{ Source, Name, File, Why string }
		Unread            []struct{ Source, Why string }
	}
}

// rekeyStatus asks the plugin how far a re-key is; left says that something needs the old key.
func (tr *treasure) rekeyStatus() (shown rekeyShown, left bool) {
	tr.t.Helper()
	out, errOut, code := tr.vsecm(tr.ada, "", "rekey", "status", "-o", "json")
	if code != 0 && code != 2 {
		tr.t.Fatalf("rekey status: %d\n%s%s", code, out, errOut)
	}
	if err := json.Unmarshal([]byte(out), &shown); err != nil {
		tr.t.Fatalf("%v\n%s", err, out)
	}
	return shown, code == 2
}

// refused demands that rekey finish does nothing, and says each of the words.
func (tr *treasure) refused(words ...string) {
	tr.t.Helper()
	out, errOut, code := tr.vsecm(tr.ada, "", "rekey", "finish", "--no-archive")
	if code != 2 {
		tr.t.Fatalf("rekey finish ends with %d:\n%s%s", code, out, errOut)
	}
	for _, word := range words {
		if !strings.Contains(out+errOut, word) {
			tr.t.Errorf("rekey finish does not say %q:\n%s%s", word, out, errOut)
		}
	}
}

// offline makes a key with the plugin, and returns the file and the key.
func (c *cluster) offline(name string) (string, *unseal.RootKey) {
	c.t.Helper()
	file := filepath.Join(c.dir, name)
	c.vsecmOffline("", "keygen", "--output", file)
	key, err := unseal.Parse(readFile(c.t, file))
	if err != nil {
		c.t.Fatal(err)
	}
	return file, key
}
