package rootkey

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/publication"
	"github.com/vsecm/kubectl-vsecm/internal/publish"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A place that cannot write the record, for now.
type recordless struct {
	Place
	fails atomic.Bool
	with  error
	tried atomic.Int32
}

func (p *recordless) WriteRecord(ctx context.Context, was *Kept, r Record) error {
	if p.fails.Load() {
		p.tried.Add(1)
		return p.with
	}
	return p.Place.WriteRecord(ctx, was, r)
}

func newRecordless(p Place, with error) *recordless {
	r := &recordless{Place: p, with: with}
	r.fails.Store(true)
	return r
}

func TestAKeyThatIsKeptIsSafesThoughNoRecordCouldBeWritten(t *testing.T) {
	for name, with := range map[string]error{"away": errors.New("away"), "changed": ErrChanged} {
		t.Run(name, func(t *testing.T) {
			sites(t, func(t *testing.T, s site) {
				place := newRecordless(s.place(), with)
				r := newRig(t, place, mode(manual)).run()
				r.settled()
				if err := r.unseal(keyA, ""); err != nil || s.key() != keyA {
					t.Fatalf("unsealing: %v", err)
				}
				if st := r.status(); st.State != Unsealed || st.KeyID != idOf(keyA) || !r.holds(keyA) {
					t.Errorf("status %+v", st)
				}
				tried := place.tried.Load()
				wait.Until(t, "the record is tried again, unasked", func() bool { return place.tried.Load() > tried })
				if s.record() != "" {
					t.Errorf("on record: %.20s", s.record())
				}
				place.fails.Store(false)
				wait.Until(t, "the record", func() bool { return s.record() == recipientOf(keyA).String() })
			})
		})
	}
}

func TestAReplicaFollowsThoughTheOtherCouldWriteNoRecord(t *testing.T) {
	s := newSecretSite(t, cluster.Start(t))
	other := newRig(t, s.place(), mode(manual)).run()
	other.settled()
	place := newRecordless(s.place(), errors.New("away"))
	r := newRig(t, place, mode(manual)).run()
	r.settled()
	if err := r.unseal(keyA, ""); err != nil {
		t.Fatal(err)
	}
	other.until(Unsealed)
	for _, all := range []*rig{r, other} {
		if st := all.status(); st.State != Unsealed || !all.holds(keyA) {
			t.Errorf("status %+v", st)
		}
		if err := all.unseal(keyB, idOf(keyB)); !errors.Is(err, ErrWrongKey) {
			t.Errorf("another key: %v", err)
		}
	}
	wait.Until(t, "the record", func() bool { return s.record() == recipientOf(keyA).String() })
}

// In memory mode the record is all there is, and decides between two keys.
func TestWithoutARecordNothingIsHeldInMemory(t *testing.T) {
	s := newSecretSite(t, cluster.Start(t))
	r := newRig(t, newRecordless(s.place(), errors.New("away")), mode(memory)).run()
	r.settled()
	if err := r.unseal(keyA, ""); !errors.Is(err, ErrUnavailable) || r.status().State != Sealed || s.record() != "" {
		t.Errorf("unsealing: %v", err)
	}
}

func TestAnUnsealedSafeSaysThatItsRecordWasEdited(t *testing.T) {
	for _, m := range []string{auto, memory} {
		t.Run("mode "+m, func(t *testing.T) {
			sites(t, func(t *testing.T, s site) {
				r := newRig(t, s.place(), mode(m)).run()
				r.settled()
				key := keyA
				if m == auto {
					key = s.key()
				} else if err := r.unseal(key, ""); err != nil {
					t.Fatal(err)
				}
				r.wrong = true
				for range 2 { // whoever does it twice is undone twice
					setRecord(t, s, recipientOf(keyB).String())
					wait.Until(t, "what is wrong", func() bool {
						reason := r.keeper.Status().Reason
						return strings.Contains(reason, string(idOf(keyB))) && strings.Contains(reason, string(idOf(key)))
					})
					if st := r.status(); st.State != Unsealed || st.KeyID != idOf(key) || !r.holds(key) || s.record() != recipientOf(keyB).String() {
						t.Errorf("status %+v", st)
					}
					if err := r.unseal(key, ""); err != nil || s.record() != recipientOf(key).String() {
						t.Errorf("unsealing: %v", err)
					}
					wait.Until(t, "nothing is wrong any more", func() bool { return r.keeper.Status().Reason == "" })
				}
			})
		})
	}
}

// The way out that docs/operations.md tells, for a Safe that is sealed.
func TestASealedSafeIsFreedOfAnEditedRecord(t *testing.T) {
	recordB := recipientOf(keyB).String()
	for _, tt := range []struct {
		name, mode, key, mark string
		was                   bool            // unsealed with keyA, by this process
		accept                []encrypt.KeyID // what it asks for first; none: it takes keyA unasked
		alone                 bool            // it unseals by itself
	}{
		{name: "the key is kept", mode: auto, key: keyA, alone: true},
		{name: "the key is lost", mode: auto, accept: []encrypt.KeyID{"", idOf(keyB)}},
		{name: "after a seal", mode: manual, key: keyA, mark: marked},
		{name: "after a seal, the key is lost", mode: manual, mark: marked, accept: []encrypt.KeyID{""}},
		{name: "memory", mode: memory, accept: []encrypt.KeyID{"", idOf(keyB)}},
		{name: "memory, after a seal", mode: memory, mark: marked, accept: []encrypt.KeyID{""}},
		{name: "it held the key before", mode: memory, was: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sites(t, func(t *testing.T, s site) {
				var r *rig
				if tt.was {
					r = newRig(t, s.place(), mode(tt.mode)).run()
					r.settled()
					if err := errors.Join(r.unseal(keyA, ""), r.keeper.Seal(t.Context())); err != nil {
						t.Fatal(err)
					}
					setRecord(t, s, recordB)
				} else {
					s.put(tt.key, tt.mark, recordB)
					r = newRig(t, s.place(), mode(tt.mode)).run()
					r.settled()
				}
				if err := r.unseal(keyA, idOf(keyA)); !errors.Is(err, ErrWrongKey) || r.status().State != Sealed {
					t.Fatalf("with the record's: %v", err)
				}

				setRecord(t, s, "")
				if tt.alone {
					r.until(Unsealed)
				}
				for _, accept := range tt.accept {
					looks(t, r)
					if st := r.status(); st.State != Sealed || st.KeyID != "" || s.key() != tt.key {
						t.Errorf("status %+v", st)
					}
					if err := r.unseal(keyA, accept); !errors.Is(err, ErrConfirm) || r.status().State != Sealed {
						t.Errorf("accepting %q: %v", accept, err)
					}
				}
				accept := idOf(keyA)
				if tt.accept == nil {
					accept = ""
				}
				if err := r.unseal(keyA, accept); err != nil || !r.holds(keyA) || s.record() != recipientOf(keyA).String() || s.marked() {
					t.Errorf("unsealing: %v, marked %v", err, s.marked())
				}
			})
		})
	}
}

func TestARecordThatIsTakenOutLetsNoKeyBeMade(t *testing.T) {
	sites(t, func(t *testing.T, s site) {
		s.put("", "", recipientOf(keyA).String())
		r := newRig(t, s.place()).run()
		r.settled()
		setRecord(t, s, "")
		looks(t, r)
		if st := r.status(); st.State != Sealed || s.key() != "" || !strings.Contains(st.Reason, "not on record") {
			t.Errorf("status %+v", st)
		}
	})
}

// Anybody may read a reason.
func TestAReasonNamesNoAddressesAndNoPermissions(t *testing.T) {
	secret := "https://10.0.0.1:6443/api: users \"system:serviceaccount:vsecm-system:vsecm-safe\" cannot get"
	away := &url.Error{Op: "Get", URL: "https://10.0.0.1:6443/api", Err: errors.New(secret)}
	for name, tt := range map[string]struct {
		place func(p Place) Place
		says  string
		key   string
		get   error
	}{
		"reading":    {place: func(p Place) Place { return unreadable{p, away} }, says: "cannot be reached"},
		"writing":    {place: func(p Place) Place { return newRecordless(p, away) }, says: "cannot be written", key: keyA},
		"objects":    {place: func(p Place) Place { return p }, says: "cannot be told", get: away},
		"a bad file": {place: func(p Place) Place { return faulty{p, fmt.Errorf("%w", away)} }, says: "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newDirSite(t)
			s.put(tt.key, "", "")
			r := newRig(t, tt.place(s.place()), stored(tt.get)).run()
			st := r.settled()
			if st.State == Unsealed || !strings.Contains(st.Reason, tt.says) {
				t.Errorf("status %+v", st)
			}
			for _, no := range []string{"10.0.0.1", "serviceaccount", "cannot get", "/"} {
				if strings.Contains(st.Reason, no) {
					t.Errorf("the reason says %q: %s", no, st.Reason)
				}
			}
			if !strings.Contains(r.log.String(), "10.0.0.1") {
				t.Errorf("the log does not say why: %s", r.log.String())
			}
		})
	}
}

type unreadable struct {
	Place
	err error
}

func (p unreadable) Read(context.Context, bool) (*Kept, error) { return nil, p.err }

type faulty struct {
	Place
	err error
}

func (p faulty) Read(ctx context.Context, keysOfSealed bool) (*Kept, error) {
	kept, err := p.Place.Read(ctx, keysOfSealed)
	if err == nil {
		kept.KeyFault = p.err
	}
	return kept, err
}

// The record shares its object with what replicas say of themselves: that changes, and is made, at any time.
func TestEntriesOfReplicasAreNoChangeOfTheRecord(t *testing.T) {
	s := newSecretSite(t, cluster.Start(t))
	record := recordOf(recipientOf(keyA))
	entry := func(name string) {
		t.Helper()
		publisher := publish.New(s.client, s.namespace, name, slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			publisher.Run(ctx, func() publish.Self { return publish.Self{} }, func() <-chan struct{} { return nil })
		})
		wait.Until(t, name+" says who it is", func() bool { return s.published()[publication.ReplicaPrefix+name] != "" })
		t.Cleanup(func() { stop(); running.Wait() })
	}
	for name, there := range map[string]string{"made meanwhile": "", "changed meanwhile": recipientOf(keyB).String()} {
		t.Run(name, func(t *testing.T) {
			s.put("", "", there)
			was, err := s.place().Read(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			entry("safe-0")
			if err := s.place().WriteRecord(t.Context(), was, record); err != nil || s.record() != record.Recipient {
				t.Errorf("got %v, on record is %.20q", err, s.record())
			}
			// Another record is.
			entry("safe-1")
			if err := s.place().WriteRecord(t.Context(), was, recordOf(recipientOf(keyB))); !errors.Is(err, ErrChanged) || s.record() != record.Recipient {
				t.Errorf("got %v, on record is %.20q", err, s.record())
			}
		})
	}
	for name, there := range map[string]string{"none": "", "one": recipientOf(keyB).String()} {
		t.Run("deleted, where there was "+name, func(t *testing.T) {
			s.put("", "", there)
			entry("safe-2")
			was, err := s.place().Read(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			s.remove("configmaps", publication.Name)
			err = s.place().WriteRecord(t.Context(), was, record)
			if there == "" && (err != nil || s.record() != record.Recipient) || there != "" && (!errors.Is(err, ErrChanged) || s.record() != "") {
				t.Errorf("got %v, on record is %.20q", err, s.record())
			}
		})
	}
}
