package store

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// load reads every object. What is wrong with one file becomes a fault; only
// what makes the directory as a whole unreadable is an error.
func (d *Dir) load() error {
	namespaces, err := fs.ReadDir(d.files.root.FS(), ".")
	if err != nil {
		return err
	}
	var (
		mu    sync.Mutex // guards d.faults
		group errgroup.Group
	)
	fault := func(path string, err error) {
		bad := newFault(err, d.files.beginning(path, maxObjectFile))
		mu.Lock()
		defer mu.Unlock()
		d.faults[path] = bad
	}
	// Reading is decoding YAML, for the most part.
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, ns := range namespaces {
		if !ns.IsDir() {
			fault(ns.Name(), errors.New("not a namespace's directory"))
			continue
		}
		entries, err := fs.ReadDir(d.files.root.FS(), ns.Name())
		if err != nil {
			fault(ns.Name(), err)
			continue
		}
		for _, e := range entries {
			path := ns.Name() + "/" + e.Name()
			group.Go(func() error {
				o, err := d.loadObject(path)
				if err != nil {
					fault(path, err)
					return nil
				}
				d.memory.Put(KeyOf(o), o)
				return nil
			})
		}
	}
	return group.Wait()
}

func (d *Dir) loadObject(path string) (*v1alpha1.EncryptedSecret, error) {
	if !strings.HasSuffix(path, objectExtension) {
		return nil, errors.New("not an object's file")
	}
	data, err := d.files.read(path, maxObjectFile)
	if err != nil {
		return nil, err
	}
	o, err := decodeObject(data)
	if err != nil {
		return nil, err
	}
	if want := objectPath(KeyOf(o)); want != path {
		return nil, fmt.Errorf("it holds %s, whose file is %s", KeyOf(o), want)
	}
	return o, nil
}
