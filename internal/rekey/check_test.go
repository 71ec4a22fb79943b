package rekey_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/rekey"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	gitsync "github.com/vsecm/kubectl-vsecm/pkg/sync"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A rig is a gate with a new key, which is active, and an old one, and what is stored and in git.
type rig struct {
	t            testing.TB
	now          time.Time
	gate         *unseal.Gate
	fresh, old   *unseal.RootKey
	foreign      encrypt.Recipient
	stored       []*v1alpha1.EncryptedSecret
	storedFaults []rekey.Need
	storedErr    error
	git          map[string][]encrypt.Manifest // by source
	heads        []reconcile.Head
	headsErr     error
	whileReading func()
	checker      *rekey.Checker
	freshR, oldR encrypt.Recipient
	freshT, oldT []byte
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), gate: unseal.NewGate(), git: map[string][]encrypt.Manifest{}}
	key := func() *unseal.RootKey {
		k, err := unseal.Generate(true)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	r.fresh, r.old, r.foreign = key(), key(), key().Recipient()
	r.freshR, r.oldR, r.freshT, r.oldT = r.fresh.Recipient(), r.old.Recipient(), r.fresh.Text(), r.old.Text()
	r.open()
	r.checker = rekey.New(rekey.Config{
		Keys: r.gate,
		Stored: func(context.Context) ([]*v1alpha1.EncryptedSecret, []rekey.Need, error) {
			return r.stored, r.storedFaults, r.storedErr
		},
		Heads: func(ctx context.Context, visit func(string, encrypt.Manifest)) ([]reconcile.Head, error) {
			if r.whileReading != nil {
				r.whileReading()
			}
			var all sync.WaitGroup
			for source, manifests := range r.git {
				all.Go(func() {
					for _, m := range manifests {
						visit(source, m)
					}
				})
			}
			all.Wait()
			return r.heads, r.headsErr
		},
		Now: func() time.Time { return r.now },
	})
	return r
}

// open opens the gate with both keys, of which it wipes those that it had.
func (r *rig) open() {
	r.t.Helper()
	var keys []*unseal.RootKey
	for _, text := range [][]byte{r.freshT, r.oldT} {
		k, err := unseal.Parse(slices.Clone(text))
		if err != nil {
			r.t.Fatal(err)
		}
		keys = append(keys, k)
	}
	ring, err := unseal.NewKeyring(keys[0], keys[1])
	if err != nil {
		r.t.Fatal(err)
	}
	r.gate.Open(ring)
}

func object(name, source string, values map[string]string) *v1alpha1.EncryptedSecret {
	o := &v1alpha1.EncryptedSecret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       v1alpha1.EncryptedSecretSpec{EncryptedData: values},
	}
	if source != "" {
		o.Labels = map[string]string{v1alpha1.LabelSource: source}
	}
	return o
}

// seal seals a value for shop/NAME, key k.
func (r *rig) seal(name string, at time.Time, to ...encrypt.Recipient) string {
	r.t.Helper()
	b := encrypt.BindingOf(object(name, "", nil), "k")
	sealed, err := encrypt.Seal([]byte("value of "+name), b, to, at)
	if err != nil {
		r.t.Fatal(err)
	}
	return sealed
}

// one is an object with one value, sealed to those.
func (r *rig) one(name, source string, to ...encrypt.Recipient) *v1alpha1.EncryptedSecret {
	return object(name, source, map[string]string{"k": r.seal(name, r.now, to...)})
}

func manifest(file string, line int, o *v1alpha1.EncryptedSecret) encrypt.Manifest {
	return encrypt.Manifest{File: file, Line: line, Object: o}
}

func (r *rig) check() rekey.Report {
	r.t.Helper()
	report, err := r.checker.Check(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

// lines says needs in few words.
func lines(needs []rekey.Need) []string {
	all := []string{}
	for _, n := range needs {
		all = append(all, fmt.Sprintf("%s %s:%d %s/%s/%s %d", n.Source, n.File, n.Line, n.Namespace, n.Name, n.Key, len(n.KeyIDs)))
	}
	return all
}

func equal(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWhatTheNewKeyDoesNotOpenAloneNeedsTheOld(t *testing.T) {
	for name, tt := range map[string]struct {
		value       func(r *rig) string
		needs, lost int
		why         string
	}{
		"sealed to the new key":                  {value: func(r *rig) string { return r.seal("db", r.now, r.freshR) }},
		"to both":                                {value: func(r *rig) string { return r.seal("db", r.now, r.freshR, r.oldR) }},
		"to the new one and a foreign one":       {value: func(r *rig) string { return r.seal("db", r.now, r.freshR, r.foreign) }},
		"to the old one":                         {value: func(r *rig) string { return r.seal("db", r.now, r.oldR) }, needs: 1, why: "not sealed to the active key"},
		"to the old one and a foreign one":       {value: func(r *rig) string { return r.seal("db", r.now, r.oldR, r.foreign) }, needs: 1, why: "not sealed to the active key"},
		"to the old one, for elsewhere":          {value: func(r *rig) string { return r.seal("api", r.now, r.oldR) }, needs: 1, why: "not bound to this place"},
		"to both, for elsewhere":                 {value: func(r *rig) string { return r.seal("api", r.now, r.freshR, r.oldR) }, needs: 1, why: "not bound to this place"},
		"to the old one, in the future":          {value: func(r *rig) string { return r.seal("db", r.now.Add(time.Hour), r.oldR) }, needs: 1, why: "in the future"},
		"to the old one, damaged in its payload": {value: func(r *rig) string { return damaged(r.seal("db", r.now, r.oldR)) }, needs: 1, why: "not sealed to the active key"},
		"to both, damaged in its payload":        {value: func(r *rig) string { return damaged(r.seal("db", r.now, r.freshR, r.oldR)) }, needs: 1, why: "malformed"},
		"to the new one, damaged in its payload": {value: func(r *rig) string { return damaged(r.seal("db", r.now, r.freshR)) }, lost: 1, why: "malformed"},
		"to the new one, for elsewhere":          {value: func(r *rig) string { return r.seal("api", r.now, r.freshR) }, lost: 1, why: "not bound to this place"},
		"to a foreign one":                       {value: func(r *rig) string { return r.seal("db", r.now, r.foreign) }, lost: 1, why: "not sealed to the active key"},
		"no sealed value":                        {value: func(*rig) string { return "aGVsbG8=" }, lost: 1, why: "malformed"},
		"empty":                                  {value: func(*rig) string { return "" }, lost: 1, why: "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			o := object("db", "shop.main", map[string]string{"k": tt.value(r)})
			for where, put := range map[string]func(){
				"stored": func() { r.stored = []*v1alpha1.EncryptedSecret{o} },
				"in git": func() {
					r.stored, r.git = nil, map[string][]encrypt.Manifest{"shop.main": {manifest("db.yaml", 3, o)}}
				},
			} {
				put()
				got := r.check()
				if got.NeedCount != tt.needs || got.UnreadableCount != tt.lost || got.Opened != 1-tt.needs-tt.lost || got.BySource["shop.main"] != tt.needs {
					t.Errorf("%s: %+v", where, got)
				}
				if got.Blocked() != (tt.needs > 0) || got.KeyID != r.freshR.KeyID() {
					t.Errorf("%s: blocked %v, of key %s", where, got.Blocked(), got.KeyID)
				}
				for _, n := range slices.Concat(got.Needs, got.Unreadable) {
					if !strings.Contains(n.Why, tt.why) || n.Namespace != "shop" || n.Name != "db" || n.Key != "k" || n.Source != "shop.main" {
						t.Errorf("%s: %+v", where, n)
					}
					if tt.needs == 1 && !slices.Equal(n.KeyIDs, []encrypt.KeyID{r.oldR.KeyID()}) || tt.needs == 0 && len(n.KeyIDs) > 0 {
						t.Errorf("%s: keys %v", where, n.KeyIDs)
					}
				}
			}
		})
	}
}

// damaged changes the last byte of a sealed value, which its payload's tag is over.
func damaged(sealed string) string {
	at := len(strings.TrimRight(sealed, "=")) - 3
	other := byte('A')
	if sealed[at] == other {
		other = 'B'
	}
	return sealed[:at] + string(other) + sealed[at+1:]
}

// A header that says that the new key opens a value is not believed.
func TestAHeaderThatLiesIsNotBelieved(t *testing.T) {
	r := newRig(t)
	// Sealed to the old key, and the header's key id is the new one's: its MAC is wrong then, but no more so than
	// that of whoever makes such a thing for their own key.
	sealed := r.seal("db", r.now, r.oldR)
	raw := strings.Replace(decode(t, sealed), string(r.oldR.KeyID()), string(r.freshR.KeyID()), 1)
	r.stored = []*v1alpha1.EncryptedSecret{object("db", "", map[string]string{"k": encode(raw)})}
	if got := r.check(); got.Opened != 0 || got.UnreadableCount != 1 {
		t.Errorf("%+v", got)
	}
}

func TestWhereEachNeedStands(t *testing.T) {
	r := newRig(t)
	byHand := r.one("by-hand", "", r.oldR)
	both := r.one("both", "shop.main", r.oldR)
	behind := r.one("behind", "shop.main", r.oldR)
	fine := r.one("fine", "shop.main", r.freshR)
	r.stored = []*v1alpha1.EncryptedSecret{behind, both, byHand, fine}
	r.git = map[string][]encrypt.Manifest{
		// What is stored as it stands in git is one need, which names the file; behind was pushed already.
		"shop.main": {manifest("both.yaml", 4, both), manifest("behind.yaml", 1, r.one("behind", "", r.freshR)), manifest("fine.yaml", 1, fine)},
		// The same on another branch is another need. So is what nobody applied yet.
		"shop.release": {manifest("both.yaml", 4, both), manifest("fine.yaml", 1, fine), manifest("new.yaml", 9, r.one("new", "", r.oldR))},
	}
	got := r.check()
	equal(t, "needs", lines(got.Needs),
		" :0 shop/by-hand/k 1",
		"shop.main :0 shop/behind/k 1",
		"shop.main both.yaml:4 shop/both/k 1",
		"shop.release both.yaml:4 shop/both/k 1",
		"shop.release new.yaml:9 shop/new/k 1",
	)
	if got.NeedCount != 5 || got.Opened != 2 || len(got.BySource) != 3 || got.BySource[""] != 1 || got.BySource["shop.main"] != 2 || got.BySource["shop.release"] != 2 {
		t.Errorf("%+v", got)
	}
}

func TestWhatGitDoesNotShow(t *testing.T) {
	r := newRig(t)
	r.storedFaults = []rekey.Need{{Namespace: "shop", Name: "spoilt", Why: "cannot be read"}}
	r.heads = []reconcile.Head{
		{Source: "shop.away", Err: errors.New("no route to host")},
		{Source: "shop.asleep", Err: errors.New("it is suspended")},
		{Source: "shop.broken", Revision: "abc", FaultCount: 7, Faults: []*encrypt.Fault{
			{File: "db.yaml", Line: 7, Namespace: "shop", Name: "db", Err: errors.New("unknown field")},
		}, Skips: []gitsync.Skip{{Path: "huge.yaml", Reason: "file is larger than it may be"}}},
		{Source: "shop.fine", Revision: "abc"},
	}
	got := r.check()
	equal(t, "needs", lines(got.Needs), " :0 shop/spoilt/ 0", "shop.broken db.yaml:7 shop/db/ 0")
	equal(t, "unreadable", lines(got.Unreadable), "shop.broken huge.yaml:0 // 0")
	if got.NeedCount != 8 || got.BySource["shop.broken"] != 7 || got.UnreadableCount != 1 || !got.Blocked() {
		t.Errorf("%+v", got)
	}
	want := []rekey.Unread{{Source: "shop.asleep", Why: "it is suspended"}, {Source: "shop.away", Why: "no route to host"}}
	if !slices.Equal(got.Unread, want) {
		t.Errorf("unread: %+v", got.Unread)
	}
	if !strings.Contains(got.Needs[1].Why, "whether it needs another key cannot be told") {
		t.Errorf("why: %s", got.Needs[1].Why)
	}
}

func TestListsAreBoundedAndCountsAreNot(t *testing.T) {
	r := newRig(t)
	const n = 3000
	sealed := r.seal("db", r.now, r.oldR)
	for i := range n {
		values := map[string]string{"k": sealed}
		r.stored = append(r.stored, object(fmt.Sprintf("s-%d", i), "", values))
		r.git["shop.main"] = append(r.git["shop.main"], manifest("a.yaml", i, object(fmt.Sprintf("g-%d", i), "", values)))
	}
	got := r.check()
	if got.NeedCount != 2*n || len(got.Needs) != 1000 || got.BySource[""] != n || got.BySource["shop.main"] != n {
		t.Errorf("%d needs, %d of them listed, %v", got.NeedCount, len(got.Needs), got.BySource)
	}
}

func TestASealOrOtherKeysMeanwhileSayNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		meanwhile func(*rig)
		want      error
	}{
		"sealed":               {func(r *rig) { r.gate.Shut() }, rekey.ErrSealed},
		"sealed, and unsealed": {func(r *rig) { r.gate.Shut(); r.open() }, rekey.ErrChanged},
		"opened again":         {func(r *rig) { r.open() }, rekey.ErrChanged},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.stored = []*v1alpha1.EncryptedSecret{r.one("db", "", r.freshR)}
			r.git["shop.main"] = []encrypt.Manifest{manifest("a.yaml", 1, r.one("api", "", r.freshR))}
			r.whileReading = func() { tt.meanwhile(r) }
			if report, err := r.checker.Check(t.Context()); !errors.Is(err, tt.want) || report.Opened != 0 {
				t.Errorf("%+v, %v", report, err)
			}
		})
	}
	r := newRig(t)
	r.gate.Shut()
	if _, err := r.checker.Check(t.Context()); !errors.Is(err, rekey.ErrSealed) {
		t.Errorf("a sealed Safe: %v", err)
	}
}

func TestWhatCannotBeAskedIsAnError(t *testing.T) {
	away := errors.New("away")
	r := newRig(t)
	r.headsErr = away
	if _, err := r.checker.Check(t.Context()); !errors.Is(err, away) || !errors.Is(err, rekey.ErrUnavailable) {
		t.Errorf("heads: %v", err)
	}
	r.headsErr, r.storedErr = nil, away
	if _, err := r.checker.Check(t.Context()); !errors.Is(err, away) || !errors.Is(err, rekey.ErrUnavailable) {
		t.Errorf("stored: %v", err)
	}
}

// One check goes on at a time, and who does not wait for it leaves.
func TestChecksTakeTurns(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	began, end := make(chan struct{}), make(chan struct{})
	r.whileReading = sync.OnceFunc(func() { close(began); <-end })
	var first sync.WaitGroup
	first.Go(func() {
		if _, err := r.checker.Check(t.Context()); err != nil {
			t.Error(err)
		}
	})
	<-began
	cancel()
	if _, err := r.checker.Check(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("the second: %v", err)
	}
	close(end)
	first.Wait()
	r.check()
}

func TestWhoGoesAwayEndsTheCheck(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	r.whileReading = cancel
	r.git["shop.main"] = []encrypt.Manifest{manifest("a.yaml", 1, r.one("api", "", r.freshR))}
	if _, err := r.checker.Check(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// What a check read is not kept.
func TestARepeatedCheckTakesNoMoreMemory(t *testing.T) {
	r := newRig(t)
	for i := range 200 {
		name := fmt.Sprintf("s-%d", i)
		o := r.one(name, "shop.main", []encrypt.Recipient{r.freshR, r.oldR}[i%2])
		r.stored = append(r.stored, o)
		r.git["shop.main"] = append(r.git["shop.main"], manifest(name, 1, o))
	}
	inUse := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	r.check()
	before := inUse()
	for range 20 {
		r.check()
	}
	// All that is checked takes some 200 KB; twenty times as much would be seen.
	if grown := inUse() - before; grown > 1<<20 {
		t.Errorf("after 20 checks, %d bytes more are in use", grown)
	}
}
