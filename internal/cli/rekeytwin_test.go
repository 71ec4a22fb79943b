//go:build linux

package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A twinPlace is what replicas of a Safe share, as far as a re-key goes; each of them is told by a test to behave as
// a real one hardly does.
type twinPlace struct {
	mu       sync.Mutex
	memory   bool
	record   *rekeyRecord
	began    int // how often a re-key began
	report   rekeyReport
	archived string // what finish was told
	forced   bool
	replicas []*twin
	generate func() *unseal.RootKey
}

// A twin is one replica.
type twin struct {
	*twinPlace
	name   string
	socket string
	sealed bool
	leads  bool
	active *unseal.RootKey
	others map[encrypt.KeyID]*unseal.RootKey
	staged map[encrypt.KeyID]*unseal.RootKey

	// before is called with what is to be done, without the lock. It may answer itself, and says so.
	before func(do string, w http.ResponseWriter) bool
	did    []string
}

func newTwins(t *testing.T, memory bool, key *unseal.RootKey, names ...string) *twinPlace {
	t.Helper()
	p := &twinPlace{memory: memory, generate: func() *unseal.RootKey { k, _ := unseal.Generate(false); return k }}
	dir, err := os.MkdirTemp("", "twin")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for i, name := range names {
		r := &twin{twinPlace: p, name: name, leads: i == len(names)-1, active: key, others: map[encrypt.KeyID]*unseal.RootKey{}, staged: map[encrypt.KeyID]*unseal.RootKey{}}
		path := filepath.Join(dir, name)
		r.socket = "unix://" + path
		l, err := net.Listen("unix", path)
		check(t, err)
		srv := &http.Server{Handler: r}
		ended := make(chan struct{})
		go func() { defer close(ended); _ = srv.Serve(l) }()
		t.Cleanup(func() { srv.Close(); <-ended })
		p.replicas = append(p.replicas, r)
	}
	return p
}

func (p *twinPlace) sockets() string {
	var all []string
	for _, r := range p.replicas {
		all = append(all, r.socket)
	}
	return strings.Join(all, ",")
}

// follow has a replica do what it sees on record.
func (r *twin) follow() {
	if r.record == nil {
		if !r.memory || len(r.others) > 0 {
			clear(r.others)
		}
		return
	}
	if r.active.KeyID() == r.record.To {
		return
	}
	for _, held := range []map[encrypt.KeyID]*unseal.RootKey{r.staged, r.others} {
		if key := held[r.record.To]; key != nil {
			delete(held, r.record.To)
			r.others[r.active.KeyID()] = r.active
			r.active = key
			return
		}
	}
}

func refuse(w http.ResponseWriter, kind problem.Type, detail string) {
	problem.Write(w, kind, detail, "request")
}

func (r *twin) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	var call struct {
		Do, Key, Archive string
		To               json.RawMessage
		From             encrypt.KeyID
		Force            bool
	}
	_ = json.Unmarshal(body, &call)
	r.mu.Lock()
	before := r.before
	r.mu.Unlock()
	if before != nil && before(call.Do, w) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.sealed {
		r.follow()
	}
	answer := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	store := "secret"
	if r.memory {
		store = inMemory
	}
	state := unsealed
	if r.sealed {
		state = "sealed"
	}
	switch {
	case req.URL.Path == "/v1/seal-status":
		st := map[string]any{"state": state, "store": store, "keyID": r.active.KeyID()}
		answer(st)
	case r.sealed:
		refuse(w, problem.Sealed, "sealed")
	case req.Method == http.MethodGet:
		st := rekeyState{Retired: slices.Sorted(maps.Keys(r.others)), Staged: slices.Sorted(maps.Keys(r.staged)), Store: store, Rekey: r.record, Replica: r.name, Leads: r.leads}
		st.Active.KeyID, st.Active.Recipient = r.active.KeyID(), r.active.Recipient().String()
		answer(st)
	default:
		r.did = append(r.did, call.Do)
		r.do(w, call.Do, call.Key, call.To, call.Archive, call.Force, answer)
	}
}

func (r *twin) do(w http.ResponseWriter, do, text string, to json.RawMessage, archive string, force bool, answer func(any)) {
	var key *unseal.RootKey
	if text != "" {
		var err error
		if key, err = unseal.Parse([]byte(text)); err != nil {
			refuse(w, problem.BadRequest, "no key")
			return
		}
	}
	switch do {
	case "stage":
		if !r.memory || key == nil || key.KeyID() == r.active.KeyID() || r.record != nil && r.record.To != key.KeyID() {
			refuse(w, problem.OtherRekey, "not now")
			return
		}
		r.staged[key.KeyID()] = key
		r.follow()
		answer(map[string]any{"keyID": key.KeyID()})
	case "unstage":
		clear(r.staged)
		answer(map[string]any{})
	case "start":
		r.start(w, key, answer)
	case "abort":
		if r.record == nil {
			refuse(w, problem.NoRekey, "no re-key")
			return
		}
		if !r.record.Aborted {
			r.record = &rekeyRecord{From: r.record.To, To: r.record.From, Started: r.record.Started, By: r.record.By, Aborted: true}
			r.follow()
		}
		answer(map[string]any{"rekey": r.record})
	case "archive":
		var recipients []string
		_ = json.Unmarshal(to, &recipients)
		answer(map[string]any{"archive": r.archive(recipients), "keyIDs": slices.Sorted(maps.Keys(r.others))})
	case "check", "finish":
		if !r.leads {
			refuse(w, problem.NotLeading, "another leads")
			return
		}
		report := r.report
		report.KeyID = r.active.KeyID()
		if do == "check" {
			answer(map[string]any{"rekey": r.record, "report": report})
			return
		}
		if r.record == nil {
			refuse(w, problem.NoRekey, "no re-key")
			return
		}
		done := force || !report.blocked()
		if done {
			r.record, r.archived, r.forced = nil, archive, force
			r.follow()
		}
		answer(map[string]any{"finished": done, "report": report})
	}
}

func (r *twin) start(w http.ResponseWriter, key *unseal.RootKey, answer func(any)) {
	if r.record != nil {
		if key != nil && key.KeyID() != r.record.To {
			refuse(w, problem.OtherRekey, "a re-key to "+string(r.record.To)+" is under way")
			return
		}
		answer(map[string]any{"rekey": r.record, "began": false})
		return
	}
	if key == nil {
		key = r.generate()
	}
	if r.memory && r.staged[key.KeyID()] == nil {
		refuse(w, problem.NotStaged, "the key is not staged here")
		return
	}
	r.began++
	r.record = &rekeyRecord{From: r.active.KeyID(), To: key.KeyID(), Started: time.Now(), By: "olga"}
	if !r.memory { // all read it in one place
		for _, other := range r.replicas {
			other.others[key.KeyID()] = key
		}
	}
	r.follow()
	answer(map[string]any{"rekey": r.record, "began": true})
}

// archive holds every key but the active one.
func (r *twin) archive(recipients []string) []byte {
	var to []age.Recipient
	for _, text := range recipients {
		one, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil {
			return nil
		}
		to = append(to, one...)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(r.others)) {
		_, _ = w.Write(r.others[id].Text())
	}
	_ = w.Close()
	return out.Bytes()
}

// intervene has a test answer in a replica's place, or, with nil, no more.
func (r *twin) intervene(before func(do string, w http.ResponseWriter) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = before
}

// now returns the re-key that is under way, or nil.
func (p *twinPlace) now() *rekeyRecord {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.record
}

// times returns how often a re-key began.
func (p *twinPlace) times() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.began
}

// told returns what the last finish was told.
func (p *twinPlace) told() (archived string, forced bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.archived, p.forced
}

// finds has a check find this.
func (p *twinPlace) finds(report rekeyReport) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report = report
}

// on looks at each replica.
func (p *twinPlace) on(do func(r *twin)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.replicas {
		do(r)
	}
}
