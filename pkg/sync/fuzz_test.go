package sync

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
)

func FuzzParseTree(f *testing.F) {
	hash := strings.Repeat("\x01", 20)
	for _, seed := range []string{
		"", "100644 a.yaml\x00" + hash, "40000 dir\x00" + hash + "120000 link\x00" + hash, "160000 sub\x00" + hash,
		"100644 ../../x\x00" + hash, "100644 a\x00" + hash + "100644 a\x00" + hash, "1 a", "100644 a\x00short", "100644 \x00" + hash, "99 a\x00" + hash,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseTree(data)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, e := range entries {
			if e.name == "" || seen[e.name] {
				t.Errorf("name %q is empty or stands twice", e.name)
			}
			seen[e.name] = true
			if badName(e.name) == "" && (!filepath.IsLocal(e.name) || filepath.Base(e.name) != e.name || printable(e.name, 300) != strings.TrimSpace(e.name)) {
				t.Errorf("name %q passes", e.name)
			}
		}
	})
}

func FuzzParseCommit(f *testing.F) {
	id := strings.Repeat("0123456789", 4)
	f.Add([]byte("tree " + id + "\nparent " + id + "\nparent " + id + "\nauthor A <a> 1 +0000\ncommitter A <a> 1 +0000\n\nmessage\n"))
	f.Add([]byte("tree " + id + "\n\nparent " + id + "\n"))
	f.Add([]byte("parent " + id))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseCommit(data)
		if err == nil && !bytes.HasPrefix(data, []byte("tree "+c.tree.String())) && !bytes.HasPrefix(bytes.ToLower(data), []byte("tree "+c.tree.String())) {
			t.Errorf("tree %s out of nowhere", c.tree)
		}
	})
}

// FuzzReadPack feeds the indexer with broken packs: it may refuse them, and
// has to do so without giving way. What it accepts is what it says.
func FuzzReadPack(f *testing.F) {
	dir := f.TempDir()
	store, err := openObjectStore(filepath.Join(dir, "r"), dir, DefaultLimits())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { store.close() })
	seed, err := os.CreateTemp(dir, "seed")
	if err != nil {
		f.Fatal(err)
	}
	w, err := newPackWriter(seed, store.zip)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"", "a", strings.Repeat("b", 5000)} {
		if err := w.add(plumbing.ComputeHash(plumbing.BlobObject, []byte(s)), plumbing.BlobObject, []byte(s)); err != nil {
			f.Fatal(err)
		}
	}
	if _, err := w.finish(); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(seed.Name())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-21])
	f.Add([]byte("PACK\x00\x00\x00\x02\xff\xff\xff\xff"))
	limits := Limits{FetchBytes: 1 << 20, ObjectBytes: 1000, Objects: 100}.withDefaults()
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := os.CreateTemp(dir, "pack")
		if err != nil {
			t.Fatal(err)
		}
		defer discard(file)
		if _, err := file.Write(data); err != nil {
			t.Fatal(err)
		}
		if _, err := file.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		p, err := readPack(context.Background(), file, dir, limits)
		if err != nil {
			return
		}
		for _, e := range p.entries {
			if e.hash.IsZero() || e.size > limits.FetchBytes {
				t.Errorf("accepted %+v", e)
			}
		}
	})
}
