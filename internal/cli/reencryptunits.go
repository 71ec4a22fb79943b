package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

const (
	// parcelValues and parcelBytes bound what is sealed anew at a time, before it is written.
	parcelValues = 200
	parcelBytes  = 2 << 20
	// parcelsAtOnce is how many parcels each way to a key has under way: while one is written, the
	// next is sealed.
	parcelsAtOnce = 2
	// writesAtOnce is how many files of a parcel are written at a time: each waits for the disk.
	writesAtOnce = 8
)

// A bundle holds values that may be stale: a file of manifests, or an object in the cluster.
type bundle interface {
	// load reads it as it is now, and finds the stale values in it. What is to be left as it is, is told by
	// faults; of a bundle that cannot be read at all there is one.
	load(ctx context.Context, c *keyChange) (values []*staleValue, faults []*encrypt.Fault)
	// store writes the values that were renewed, if the bundle is still what load read. It is as it was
	// beside an error.
	store(ctx context.Context, values []*staleValue) error
}

// A resealer seals values anew. Each value comes to have renewed or refused set. An error says that no
// more can be done.
type resealer interface {
	reseal(ctx context.Context, values []*staleValue) error
}

// A tally is what became of it all.
type tally struct {
	mu       sync.Mutex
	values   int // that were sealed anew
	holdings int // that were written
	left     []*encrypt.Fault
}

func (t *tally) leave(faults ...*encrypt.Fault) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.left = append(t.left, faults...)
}

// found is what a first look at a bundle found.
type found struct {
	bundle
	values []*encrypt.Fault // where each stale value stands
	size   int              // of all of them, in bytes
}

// scan looks for stale values in every bundle, on every core. What it finds is returned without the
// values, which may be many.
func scan(ctx context.Context, c *keyChange, all []bundle, t *tally) ([]found, error) {
	results := make([]found, len(all))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, h := range all {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			values, faults := h.load(ctx, c)
			t.leave(faults...)
			results[i].bundle = h
			for _, v := range values {
				results[i].values = append(results[i].values, v.at(fmt.Errorf("sealed to the retired key %s", firstRetired(c, v.info))))
				results[i].size += len(v.sealed)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var stale []found
	for _, r := range results {
		if len(r.values) > 0 {
			stale = append(stale, r)
		}
	}
	return stale, nil
}

func firstRetired(c *keyChange, info encrypt.Info) encrypt.KeyID {
	for _, id := range info.KeyIDs {
		if c.isRetired(id) {
			return id
		}
	}
	return ""
}

// parcels puts holdings together that are worked on at a time.
func parcels(all []found) [][]found {
	var (
		out          [][]found
		values, size int
	)
	for _, f := range all {
		if len(out) == 0 || values+len(f.values) > parcelValues || size+f.size > parcelBytes {
			out = append(out, nil)
			values, size = 0, 0
		}
		out[len(out)-1] = append(out[len(out)-1], f)
		values += len(f.values)
		size += f.size
	}
	return out
}

// renewAll seals the values of every bundle anew. Each bundle is written as soon as its values are there, so that
// whatever ends this in the middle leaves no more to do than there was.
func renewAll(ctx context.Context, c *keyChange, all []found, by resealer, t *tally, b *bar) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parcelsAtOnce * runtime.GOMAXPROCS(0))
	for _, parcel := range parcels(all) {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return renewParcel(ctx, c, parcel, by, t, b)
		})
	}
	return group.Wait()
}

func renewParcel(ctx context.Context, c *keyChange, parcel []found, by resealer, t *tally, b *bar) error {
	var all []*staleValue
	byHolding := make([][]*staleValue, len(parcel))
	for i, f := range parcel {
		// What is wrong with it was told when it was looked at first; if it has changed since, it says so now.
		values, faults := f.load(ctx, c)
		if len(values) == 0 {
			t.leave(faults...)
		}
		for _, v := range values {
			if err := c.address(v); err != nil {
				v.refused = err
				continue
			}
			all = append(all, v)
		}
		byHolding[i] = values
	}
	if err := by.reseal(ctx, all); err != nil {
		return err
	}
	group := errgroup.Group{}
	group.SetLimit(writesAtOnce)
	for i, f := range parcel {
		group.Go(func() error {
			f.finish(ctx, byHolding[i], t)
			b.add(len(f.values))
			return nil
		})
	}
	return group.Wait()
}

// finish writes what was renewed, and notes what was left.
func (f found) finish(ctx context.Context, values []*staleValue, t *tally) {
	var renewed []*staleValue
	for _, v := range values {
		if v.refused != nil {
			t.leave(v.at(v.refused))
			continue
		}
		renewed = append(renewed, v)
	}
	if len(renewed) == 0 {
		return
	}
	if err := f.store(ctx, renewed); err != nil {
		var fault *encrypt.Fault
		if !errors.As(err, &fault) {
			fault = renewed[0].at(err)
			fault.Field = ""
		}
		t.leave(fault)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.values += len(renewed)
	t.holdings++
}

// A heldFile is a file of manifests.
type heldFile struct {
	path             string
	defaultNamespace string
	now              func() time.Time
}

func (f *heldFile) load(_ context.Context, c *keyChange) ([]*staleValue, []*encrypt.Fault) {
	unread := func(err error) []*encrypt.Fault { return []*encrypt.Fault{{File: f.path, Err: bareFileError(err)}} }
	data, err := readFile(f.path, encrypt.MaxFileSize)
	if errors.Is(err, errLarger) {
		if !mentionsManifests(f.path) {
			return nil, nil // such as other people's CRDs
		}
		return nil, unread(fmt.Errorf("%w than %d bytes", errLarger, encrypt.MaxFileSize))
	}
	if err != nil {
		return nil, unread(err)
	}
	ms := encrypt.ReadManifests(f.path, data, f.defaultNamespace)
	if len(ms.Faults) > 0 {
		return nil, ms.Faults
	}
	var (
		values []*staleValue
		faults []*encrypt.Fault
	)
	for _, m := range ms.Objects {
		vs, fs := c.stale(m, f.now())
		values, faults = append(values, vs...), append(faults, fs...)
	}
	return values, faults
}

// store reads the file once more rather than keep all files in memory. Whoever has changed another value
// of it since loses nothing; a stale value that is another by now is left to the next run.
func (f *heldFile) store(_ context.Context, values []*staleValue) error {
	info, err := os.Stat(f.path)
	if err == nil && info.Mode().Perm()&0o222 == 0 {
		// Replacing it would not ask for the right to write to it.
		err = errors.New("it is read-only, and is left as it is")
	}
	if err != nil {
		return &encrypt.Fault{File: f.path, Err: bareFileError(err)}
	}
	t := &target{path: f.path, exists: true}
	if t.original, err = readFile(f.path, encrypt.MaxFileSize); err != nil {
		return &encrypt.Fault{File: f.path, Err: bareFileError(err)}
	}
	standing := make(map[encrypt.Place]string)
	for _, m := range encrypt.ReadManifests(f.path, t.original, f.defaultNamespace).Objects {
		for key, sealed := range m.Object.Spec.EncryptedData {
			standing[encrypt.Place{Namespace: m.Object.Namespace, Name: m.Object.Name, Key: key}] = sealed
		}
	}
	replace := make(map[encrypt.Place]string, len(values))
	for _, v := range values {
		if standing[v.place] != v.sealed {
			return v.at(errors.New("somebody else has changed it meanwhile, and the file is left as it is: do it again"))
		}
		replace[v.place] = v.renewed
	}
	text, err := encrypt.ReplaceValues(f.path, t.original, replace, f.defaultNamespace)
	if err != nil {
		return err
	}
	if err := t.write(text); err != nil {
		return &encrypt.Fault{File: f.path, Err: bareFileError(err)}
	}
	return nil
}

// bareFileError leaves the path away, which a fault names.
func bareFileError(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// heldFiles returns the files that paths lead to.
func heldFiles(p *project, paths []string, now func() time.Time) ([]bundle, error) {
	files, err := manifestFilesOf(paths)
	if err != nil {
		return nil, err
	}
	all := make([]bundle, 0, len(files))
	for _, file := range files {
		if filepath.Base(file) == encrypt.ProjectFile {
			continue
		}
		all = append(all, &heldFile{path: file, defaultNamespace: p.rule(file).Namespace, now: now})
	}
	return all, nil
}
