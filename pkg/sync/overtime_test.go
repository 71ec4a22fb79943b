package sync

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
)

// testPack returns a pack of one file, and a store to take it over.
func testPack(t *testing.T) (*objectStore, *os.File) {
	t.Helper()
	dir := t.TempDir()
	store, err := openObjectStore(filepath.Join(dir, "r"), dir, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.close() })
	f, err := os.CreateTemp(dir, "pack-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { discard(f) })
	w, err := newPackWriter(f, store.zip)
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("a file")
	if err := w.add(plumbing.ComputeHash(plumbing.BlobObject, data), plumbing.BlobObject, data); err != nil {
		t.Fatal(err)
	}
	if _, err := w.finish(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	return store, f
}

func TestPackThatTakesTooLongSaysSo(t *testing.T) {
	t.Run("in time", func(t *testing.T) {
		store, f := testPack(t)
		if err := takeOver(context.Background(), store, f); err != nil {
			t.Error(err)
		}
	})
	t.Run("too late", func(t *testing.T) {
		store, f := testPack(t)
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(errOvertime)
		if err := takeOver(ctx, store, f); !errors.Is(err, errOvertime) || !errors.Is(err, ErrLimit) || errors.Is(err, ErrMalformed) {
			t.Errorf("took over: %v", err)
		}
	})
	t.Run("Safe ends", func(t *testing.T) {
		store, f := testPack(t)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := takeOver(ctx, store, f); !errors.Is(err, context.Canceled) || errors.Is(err, ErrLimit) {
			t.Errorf("took over: %v", err)
		}
	})
}

func TestRevisionThatTakesTooLongIsNotTriedAgain(t *testing.T) {
	repo := gitserver.NewRepo(t)
	repo.Commit(map[string]string{"a.yaml": "1"})
	m, err := OpenMirror(t.TempDir(), Remote{URL: repo.Dir, Branch: gitserver.Branch}, Limits{Timeout: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Fetch(context.Background()); !errors.Is(err, ErrLimit) || !errors.Is(err, ErrStalled) {
		t.Fatalf("fetch: %v", err)
	}
	m.limits.Timeout = time.Hour // it would work now
	if _, err := m.Fetch(context.Background()); !errors.Is(err, ErrLimit) {
		t.Errorf("tried again: %v", err)
	}
	repo.Commit(map[string]string{"b.yaml": "1"})
	if _, err := m.Fetch(context.Background()); err != nil {
		t.Errorf("next revision: %v", err)
	}
}

// What is inflated again and again counts each time.
func TestIndexerAccountsForItsWork(t *testing.T) {
	_, f := testPack(t)
	x := &indexer{ctx: context.Background(), file: f, limits: Limits{InflatedBytes: 20}.withDefaults(), scan: newScanner(f),
		byOffset: make(map[int64]int32), byHash: make(map[plumbing.Hash]int32), cache: make(map[int32][]byte)}
	if _, _, err := x.list(); err != nil {
		t.Fatal(err)
	}
	var err error
	times := 0
	for ; err == nil && times < 10; times++ {
		clear(x.cache)
		_, err = x.content(0)
	}
	if !errors.Is(x.fault(err), ErrLimit) || times != 3 {
		t.Errorf("after %d times: %v", times, err)
	}
}

// Each file of the pack is a copy of the one before.
func TestChainsOfDeltasAreBounded(t *testing.T) {
	for _, test := range []struct {
		depth int
		want  error
	}{{250, nil}, {251, ErrLimit}} {
		store, f := testPack(t)
		w, err := newPackWriter(f, store.zip)
		data := []byte("a file")
		if err == nil {
			err = w.add(plumbing.ComputeHash(plumbing.BlobObject, data), plumbing.BlobObject, data)
		}
		back := w.size.n - int64(len(packFileHeader(0)))
		for range test.depth {
			if err != nil {
				t.Fatal(err)
			}
			start := w.size.n
			delta := []byte{byte(len(data)), byte(len(data)), 0x90, byte(len(data))} // lengths, and a copy of all
			w.out.Write(append(packHeader(plumbing.OFSDeltaObject, len(delta)), byte(back)))
			w.zip.Reset(w.out)
			w.zip.Write(delta)
			err = w.zip.Close()
			w.count++
			back = w.size.n - start
		}
		if _, err := w.finish(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		if err := takeOver(context.Background(), store, f); !errors.Is(err, test.want) {
			t.Errorf("depth %d: %v, want %v", test.depth, err, test.want)
		}
	}
}

func TestErrorsDoNotShowWhereAReaderGaveWay(t *testing.T) {
	err := func() (err error) {
		defer contain(&err)
		panic("index out of range\nwith more below")
	}()
	if !errors.Is(err, ErrMalformed) || !strings.HasSuffix(err.Error(), "reader gave way: index out of range with more below") {
		t.Errorf("error: %v", err)
	}
}
