package reconcile

import (
	"context"
	"errors"
	"path"
	"slices"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// How an object was changed that was put back: see [Observer].
const (
	Edited  = "edited"
	Deleted = "deleted"
)

// An Observer is told what becomes of objects. It is called in the middle of rounds, by several
// sources at a time, and has to be quick; it must not call the source.
type Observer interface {
	// Applied tells that a source has made an object what this revision declares. Of one that was so already,
	// it does not tell.
	Applied(source string, key store.Key, revision sync.Revision)
	// Stands tells that an object is what this revision declares, and was so already: when a source begins, of every one.
	Stands(source string, key store.Key, revision sync.Revision)
	// Refused tells why an object is not what its source declares, if the source knows one of that name: it
	// stays as it was. No faults: it is not refused any longer. Told when that changes, and once in
	// a process; not told of namespaces that the source may not deliver into.
	Refused(source string, key store.Key, faults []*encrypt.Fault)
	// Restored tells that somebody else had [Edited] or [Deleted] an object, and that it was put back.
	Restored(source string, key store.Key, how string)
}

// blame tells the observer what is refused now and what no longer is. faults are those of the
// whole source, skips what is not read.
func (s *Source) blame(ctx context.Context, faults []*encrypt.Fault, skips []sync.Skip) {
	if s.deps.Observer == nil {
		return
	}
	now := make(map[store.Key][]*encrypt.Fault)
	for _, f := range faults {
		if f.Namespace != "" && f.Name != "" && s.concerns(store.Key{Namespace: f.Namespace, Name: f.Name}) {
			now[store.Key{Namespace: f.Namespace, Name: f.Name}] = nil
		}
	}
	for _, f := range faults {
		key := store.Key{Namespace: f.Namespace, Name: f.Name}
		if all, ok := now[key]; ok && len(all) < maxObjectFaults {
			now[key] = append(all, f)
		}
	}
	for key, r := range s.refused {
		switch {
		case !s.concerns(key):
		case len(r.faults) > 0:
			now[key] = r.faults // of these, faults may only hold some
		case now[key] == nil && s.blamed[key] != nil:
			now[key] = s.blamed[key] // to be told when it could be tried
		}
	}
	s.blameFiles(ctx, now, faults, skips)

	for _, key := range keysOf(now) {
		if !slices.EqualFunc(now[key], s.blamed[key], func(a, b *encrypt.Fault) bool { return a.Error() == b.Error() }) {
			s.deps.Observer.Refused(s.config.Name, key, now[key])
		}
	}
	over := s.owned // of what an earlier process has told, nothing is known
	if s.blamed != nil {
		over = make(map[store.Key]struct{})
		for key := range s.blamed {
			over[key] = struct{}{}
		}
	}
	for _, key := range keysOf(over) {
		if now[key] == nil {
			s.deps.Observer.Refused(s.config.Name, key, nil)
		}
	}
	s.blamed = now
}

// concerns tells whether the observer hears of an object. Of others' namespaces a repository may declare what it
// likes: that is told of the source, and must not get to where they look at their own.
func (s *Source) concerns(key store.Key) bool {
	_, owned := s.owned[key]
	return owned || s.mayDeliver(key.Namespace)
}

// blameFiles finds what is wrong with the files that objects stand in for which no document speaks any
// more, and which only stay because of that.
func (s *Source) blameFiles(ctx context.Context, now map[store.Key][]*encrypt.Fault, faults []*encrypt.Fault, skips []sync.Skip) {
	if len(faults)+len(skips) == 0 {
		return
	}
	byFile := make(map[string][]*encrypt.Fault)
	for _, f := range faults {
		if len(byFile[f.File]) < maxObjectFaults {
			byFile[f.File] = append(byFile[f.File], f)
		}
	}
	for _, skip := range skips {
		byFile[skip.Path] = append(byFile[skip.Path], &encrypt.Fault{File: skip.Path, Err: errors.New(skip.Reason)})
	}
	for key := range s.owned {
		ref := sync.ObjectRef(key)
		if now[key] != nil || s.index.Declares(ref) || !s.index.Keeps(ref) {
			continue
		}
		o, err := s.deps.Store.Get(ctx, key)
		if err != nil {
			if before := s.blamed[key]; before != nil && !errors.Is(err, store.ErrNotFound) {
				now[key] = before
			}
			continue
		}
		for at := o.Annotations[v1alpha1.AnnotationPath]; at != "." && at != "" && at != "/"; at = path.Dir(at) {
			if blamed := byFile[at]; blamed != nil {
				now[key] = blamed
				break
			}
		}
	}
}
