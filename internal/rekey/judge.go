package rekey

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A check is one run of [Checker.Check].
type check struct {
	checker *Checker
	cancel  context.CancelFunc
	turn    uint64
	active  encrypt.KeyID
	others  []encrypt.KeyID // to go, sorted
	alone   encrypt.Keys    // the active one
	now     time.Time

	// What is stored that was seen, which one goroutine uses.
	seen   map[store.Key]*v1alpha1.EncryptedSecret
	faults map[string]bool

	mu     sync.Mutex
	stored map[string]*finding // by sealed value; not changed while what is in git is judged
	open   []*finding          // of those, the ones that were not opened
	report Report
}

// A value is one to be opened, and where it stands.
type value struct {
	source   string
	manifest encrypt.Manifest // without a file: it is stored
	key      string
	sealed   string
	binding  encrypt.Binding
}

// need returns what is to be said of the value.
func (v value) need(why string, ids ...encrypt.KeyID) Need {
	n := Need{
		Source: v.source, Namespace: v.manifest.Object.Namespace, Name: v.manifest.Object.Name, Key: v.key,
		KeyIDs: ids, Why: why,
	}
	if v.manifest.File != "" {
		f := v.manifest.Fault(encrypt.DataField(v.key), nil)
		n.File, n.Line = f.File, f.Line
	}
	return n
}

type verdict int

const (
	opened     verdict = iota // the active key alone opens it
	needed                    // a key that is to go is needed, or may be
	unreadable                // no key that is held is of any use
)

// A finding is what was found of one value.
type finding struct {
	verdict verdict
	source  string
	binding encrypt.Binding
	need    Need  // unless it was opened
	inGit   *Need // the same, where a stored value stands in git; guarded by check.mu
}

// judge opens a value with the active key alone. What it opens is wiped at once.
func (k *check) judge(v value) (f *finding) {
	f = &finding{source: v.source, binding: v.binding}
	defer func() {
		if recover() != nil { // a value that breaks its reader; what the panic says may hold anything
			f.verdict, f.need = needed, v.need("an internal error kept it from being opened")
		}
	}()
	plain, err := encrypt.Open(v.sealed, v.binding, k.alone, k.now)
	clear(plain)
	if err == nil {
		return f
	}
	f.verdict = unreadable
	why := err.Error()
	// Only from here on the header is believed: it says that a key is needed.
	info, inspectErr := encrypt.Inspect(v.sealed)
	if inspectErr != nil {
		f.need = v.need(why)
		return f
	}
	var ids []encrypt.KeyID
	for _, id := range info.KeyIDs {
		if _, held := slices.BinarySearch(k.others, id); held {
			ids = append(ids, id)
		}
	}
	if len(ids) > 0 {
		f.verdict = needed
	}
	if errors.Is(err, encrypt.ErrKeyNotHeld) {
		why = fmt.Sprintf("it is not sealed to the active key %s", k.active)
		// Why else would it not open once somebody has given it the key?
		if err := info.Check(v.binding, k.now); err != nil {
			why = fmt.Sprintf("%s; %v", why, err)
		}
	}
	f.need = v.need(why, ids...)
	return f
}

// took takes down what was found of a stored value.
func (k *check) took(v value, f *finding) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stored[v.sealed] = f
	k.count(f)
	if f.verdict != opened {
		k.open = append(k.open, f)
	}
}

// found takes down what was found of a value in git.
func (k *check) found(f *finding) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.count(f)
	k.list(f)
}

// known takes down what was found of a value in git if it is stored as well, and so was opened. Where its own source
// applied it, it is one and the same, and is to be put right where it stands in git.
func (k *check) known(v value) bool {
	f := k.stored[v.sealed]
	if f == nil || !reflect.DeepEqual(f.binding, v.binding) {
		return false
	}
	if f.verdict == opened {
		return true
	}
	n := v.need(f.need.Why, f.need.KeyIDs...)
	if f.source == v.source && k.place(f, n) {
		return true
	}
	k.found(&finding{verdict: f.verdict, need: n})
	return true
}

// place says where in git a stored value stands, if that was not said.
func (k *check) place(f *finding, n Need) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f.inGit != nil { // what is at the head and what is applied may be one and the same
		return f.inGit.File == n.File && f.inGit.Line == n.Line
	}
	f.inGit = &n
	return true
}

// count counts a finding. k.mu is held.
func (k *check) count(f *finding) {
	switch f.verdict {
	case opened:
		k.report.Opened++
	case needed:
		k.report.NeedCount++
		k.report.BySource[f.need.Source]++
	case unreadable:
		k.report.UnreadableCount++
	}
}

// list lists a finding, if there is room: a repository may hold any number. k.mu is held.
func (k *check) list(f *finding) {
	to := &k.report.Needs
	switch f.verdict {
	case opened:
		return
	case unreadable:
		to = &k.report.Unreadable
	}
	if len(*to) < maxListed {
		*to = append(*to, f.need)
	}
}
