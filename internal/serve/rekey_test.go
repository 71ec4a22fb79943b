package serve

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/rekey"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// rekeys does what a test says of a re-key; its gate is a real one.
type rekeys struct {
	*unseal.Gate
	fresh, old *unseal.RootKey

	mu       sync.Mutex
	under    *rootkey.Rekey
	staged   []encrypt.KeyID
	err      error // of every call
	report   rekey.Report
	checkErr error
	checking func(context.Context) // is called in the middle of a check
	done     []string
}

func (r *rekeys) did(format string, args ...any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = append(r.done, fmt.Sprintf(format, args...))
	return r.err
}

func (r *rekeys) Rekeying() (rootkey.Rekey, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.under == nil {
		return rootkey.Rekey{}, false
	}
	return *r.under, true
}

func (r *rekeys) Staged() []encrypt.KeyID { return r.staged }

func (r *rekeys) StageRekey(_ context.Context, text []byte) (encrypt.KeyID, error) {
	key, err := unseal.Parse(text)
	if err != nil {
		return "", err
	}
	return key.KeyID(), r.did("stage %s", key.KeyID())
}

func (r *rekeys) UnstageRekey(context.Context) { _ = r.did("unstage") }

func (r *rekeys) StartRekey(_ context.Context, text []byte, by string) (rootkey.Rekey, bool, error) {
	if err := r.did("start key=%t by %s", text != nil, by); err != nil {
		return rootkey.Rekey{}, false, err
	}
	return *r.record(), true, nil
}

func (r *rekeys) AbortRekey(_ context.Context, by string) (rootkey.Rekey, error) {
	if err := r.did("abort by %s", by); err != nil {
		return rootkey.Rekey{}, err
	}
	now := r.record()
	now.From, now.To, now.Aborted = now.To, now.From, true
	return *now, nil
}

func (r *rekeys) FinishRekey(_ context.Context, from, to encrypt.KeyID) error {
	return r.did("finish %s %s", from, to)
}

func (r *rekeys) Check(ctx context.Context) (rekey.Report, error) {
	if r.checking != nil {
		r.checking(ctx)
	}
	if r.checkErr != nil {
		return rekey.Report{}, r.checkErr
	}
	return r.report, nil
}

func (r *rekeys) record() *rootkey.Rekey {
	return &rootkey.Rekey{
		From: r.old.KeyID(), To: r.fresh.KeyID(), FromRecipient: r.old.Recipient().String(), ToRecipient: r.fresh.Recipient().String(),
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), By: "ada",
	}
}

func (r *rekeys) calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.done)
}

// newInRekey starts a Safe in the middle of a re-key.
func newInRekey(t testing.TB, options ...safeOption) (*safe, *rekeys) {
	t.Helper()
	r := &rekeys{Gate: unseal.NewGate(), old: must(unseal.Generate(true))(t)}
	s := newSafe(t, append([]safeOption{func(s *safe) {
		r.fresh = s.key
		// The gate wipes what it holds, so it has keys of its own.
		r.Open(must(unseal.NewKeyring(must(unseal.Parse(r.fresh.Text()))(t), must(unseal.Parse(r.old.Text()))(t)))(t))
		r.under = r.record()
		r.report = rekey.Report{KeyID: r.fresh.KeyID(), Opened: 7}
		s.Rekey = r
	}}, options...)...)
	return s, r
}

const rekeyURL = "http://safe/v1/rekey"

// post sends a body to POST /v1/rekey on the socket.
func (s *safe) post(body string) reply {
	s.t.Helper()
	return send(s.t, s.operatorClient(), http.MethodPost, rekeyURL, strings.NewReader(body))
}

func (s *safe) finish(r *rekeys, more string) reply {
	s.t.Helper()
	return s.post(fmt.Sprintf(`{"do":"finish","from":%q,"to":%q,"archive":"none"%s}`, r.old.KeyID(), r.fresh.KeyID(), more))
}

func quoted(key *unseal.RootKey) string {
	text, err := json.Marshal(string(key.Text()))
	if err != nil {
		panic(err)
	}
	return string(text)
}

func TestWhichKeysAreHeld(t *testing.T) {
	s, r := newInRekey(t)
	var got RekeyStatus
	read := func() {
		t.Helper()
		got = RekeyStatus{}
		a := do(t, s.operatorClient(), http.MethodGet, rekeyURL)
		if err := json.Unmarshal(a.body, &got); err != nil || a.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", a.Status, a.body)
		}
	}
	read()
	if got.Active.KeyID != string(r.fresh.KeyID()) || got.Active.Recipient != r.fresh.Recipient().String() || !got.Leads ||
		!slices.Equal(got.Retired, []encrypt.KeyID{r.old.KeyID()}) || got.Staged == nil || got.Rekey == nil || got.Rekey.By != "ada" {
		t.Errorf("in the middle of a re-key: %+v", got)
	}
	r.staged, r.under = []encrypt.KeyID{r.old.KeyID()}, nil
	read()
	if len(got.Retired) != 0 || len(got.Staged) != 1 || got.Rekey != nil {
		t.Errorf("before one: %+v", got)
	}
}

func TestStepsOfARekey(t *testing.T) {
	s, r := newInRekey(t)
	by := fmt.Sprintf("uid:%d", os.Getuid())
	for _, tt := range []struct{ body, done, holds string }{
		{`{"do":"stage","key":` + quoted(r.old) + `}`, "stage " + string(r.old.KeyID()), `{"keyID":"` + string(r.old.KeyID()) + `"}`},
		{`{"do":"unstage"}`, "unstage", "{}"},
		{`{"do":"start"}`, "start key=false by " + by, `"began":true`},
		{`{"do":"start","key":` + quoted(r.old) + `}`, "start key=true by " + by, `"to":"` + string(r.fresh.KeyID()) + `"`},
		{`{"do":"abort"}`, "abort by " + by, `"aborted":true`},
	} {
		a := s.post(tt.body)
		done := r.calls()
		if a.StatusCode != http.StatusOK || !strings.Contains(string(a.body), tt.holds) || done[len(done)-1] != tt.done {
			t.Errorf("%.30s: %s %s, did %q", tt.body, a.Status, a.body, done)
		}
	}
	if a := s.post(`{"do":"check"}`); a.StatusCode != http.StatusOK || !strings.Contains(string(a.body), `"opened":7`) || !strings.Contains(string(a.body), `"rekey":{`) {
		t.Errorf("check: %s %s", a.Status, a.body)
	}
	ids := fmt.Sprintf(" from=%s to=%s", r.old.KeyID(), r.fresh.KeyID())
	back := fmt.Sprintf(" from=%s to=%s", r.fresh.KeyID(), r.old.KeyID())
	key := " key=" + string(r.old.KeyID())
	want := []string{
		"stage" + key + " allowed", "stage" + key + " ok", "unstage allowed", "unstage ok", "start allowed", "start" + ids + " ok",
		"start" + key + " allowed", "start" + key + ids + " ok", "abort allowed", "abort" + back + " ok", "check allowed", "check ok",
	}
	for i, e := range s.auditLines() {
		if got := strings.TrimPrefix(e.Object, "root-key rekey ") + " " + e.Outcome; e.Verb != "rekey" || got != want[i] {
			t.Errorf("line %d: %s %q, want %q", i, e.Verb, got, want[i])
		}
	}
	for what, log := range map[string]string{"audit log": s.audit.String(), "log": s.log.String()} {
		if strings.Contains(log, "AGE-SECRET-KEY") {
			t.Errorf("the %s holds a key", what)
		}
	}
}

func TestWhatIsNoStepOfARekey(t *testing.T) {
	s, r := newInRekey(t)
	hybrid, classic := must(unseal.Generate(false))(t).Recipient().String(), must(unseal.Generate(true))(t).Recipient().String()
	key := strings.Split(string(r.old.Text()), "\n")
	id, fresh := string(r.old.KeyID()), string(r.fresh.KeyID())
	finish := func(from, to, archive string) string {
		return fmt.Sprintf(`{"do":"finish","from":%q,"to":%q,"archive":%q}`, from, to, archive)
	}
	for _, body := range []string{
		"", "{}", "null", "[]", "42", `{"do":"x"}`, `{"do":7}`, `{"do":"check"}{"do":"check"}`, `{"do":"check","force":true}`, `{"DO":"check"}`,
		`{"do":"stage"}`, `{"do":"stage","key":""}`, `{"do":"stage","key":"x"}`, `{"do":"stage","key":7}`, `{"do":"stage","key":"` + key[0] + `"}`,
		`{"do":"start","key":"x"}`, `{"do":"start","to":"x"}`, `{"do":"unstage","key":"x"}`, `{"do":"start","key":` + quoted(r.old) + `,"x":1}`,
		`{"do":"archive"}`, `{"do":"archive","to":[]}`, `{"do":"archive","to":"` + classic + `"}`, `{"do":"archive","to":["` + classic + `","` + hybrid + `"]}`,
		`{"do":"archive","to":["age1x"]}`, `{"do":"archive","to":["` + key[0] + `"]}`, `{"do":"archive","to":["` + r.old.Recipient().String() + `"]}`,
		`{"do":"finish"}`, finish(id, fresh, ""), finish(id, fresh, "NONE"), finish(id, fresh, strings.Repeat("A", 64)), finish("", fresh, "none"), finish(id, id+"0", "none"),
		`{"do":"finish","from":"` + id + `","to":"` + fresh + `","archive":"none","force":"yes"}`,
		`{"do":"check","x":"` + strings.Repeat("x", maxRekeyBody) + `"}`,
	} {
		a := s.post(body)
		a.is(t, problem.BadRequest)
		if t.Failed() {
			t.Fatalf("for %.100s", body)
		}
		if strings.Contains(string(a.body), "AGE-SECRET-KEY") {
			t.Errorf("%.60s: a key comes back", body)
		}
	}
	if done := r.calls(); len(done) > 0 {
		t.Errorf("it did %q", done)
	}
	if a := do(t, s.operatorClient(), http.MethodPut, rekeyURL); a.StatusCode != http.StatusMethodNotAllowed || a.Header.Get("Allow") != "GET, POST" {
		t.Errorf("PUT: %s, Allow %q", a.Status, a.Header.Get("Allow"))
	}
}

func TestNothingIsDestroyedWhileItIsNeeded(t *testing.T) {
	for name, tt := range map[string]struct {
		arrange  func(*rekeys)
		more     string
		want     problem.Type // empty: it is answered
		finished bool
		outcome  string
	}{
		"nothing is in the way":                {finished: true, outcome: audit.OK},
		"a value needs it":                     {arrange: func(r *rekeys) { r.report.NeedCount = 1 }, outcome: audit.Failed},
		"a source was not read":                {arrange: func(r *rekeys) { r.report.Unread = []rekey.Unread{{Source: "shop.main", Why: "away"}} }, outcome: audit.Failed},
		"what no key opens":                    {arrange: func(r *rekeys) { r.report.UnreadableCount = 1 }, finished: true, outcome: audit.OK},
		"a value needs it, and it is forced":   {arrange: func(r *rekeys) { r.report.NeedCount = 1 }, more: `,"force":true`, finished: true, outcome: audit.OK},
		"it cannot be told, though forced":     {arrange: func(r *rekeys) { r.checkErr = io.ErrUnexpectedEOF }, more: `,"force":true`, want: problem.Internal},
		"another replica leads":                {arrange: func(r *rekeys) { r.checkErr = ErrNotLeading }, want: problem.NotLeading},
		"the cluster cannot be asked":          {arrange: func(r *rekeys) { r.checkErr = fmt.Errorf("%w: away", rekey.ErrUnavailable) }, more: `,"force":true`, want: problem.Unavailable},
		"it was sealed meanwhile":              {arrange: func(r *rekeys) { r.checkErr = rekey.ErrSealed }, want: problem.Sealed},
		"the keys changed meanwhile":           {arrange: func(r *rekeys) { r.checkErr = rekey.ErrChanged }, want: problem.Unavailable},
		"it takes too long":                    {arrange: func(r *rekeys) { r.checkErr = context.DeadlineExceeded }, want: problem.Timeout},
		"this replica has not followed":        {arrange: func(r *rekeys) { r.report.KeyID = r.old.KeyID() }, want: problem.Unavailable},
		"another is under way":                 {arrange: func(r *rekeys) { r.under.From = "other" }, want: problem.OtherRekey},
		"it was aborted":                       {arrange: func(r *rekeys) { r.under.From, r.under.To = r.under.To, r.under.From }, want: problem.OtherRekey},
		"none is, and something is in the way": {arrange: func(r *rekeys) { r.under, r.report.NeedCount = nil, 1 }, want: problem.NoRekey},
		"it was finished before":               {arrange: func(r *rekeys) { r.under = nil }, finished: true, outcome: audit.OK},
		"a retired key was not looked at":      {arrange: func(r *rekeys) { r.err = rootkey.ErrUnheard }, want: problem.Unavailable},
		"aborted while it was checked":         {arrange: func(r *rekeys) { r.err = &rootkey.RekeyingError{Rekey: *r.record()} }, want: problem.OtherRekey},
		"finished while it was checked":        {arrange: func(r *rekeys) { r.err = rootkey.ErrNoRekey }, want: problem.NoRekey},
		"its place cannot be written":          {arrange: func(r *rekeys) { r.err = fmt.Errorf("%w: away", rootkey.ErrUnavailable) }, want: problem.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			s, r := newInRekey(t)
			if tt.arrange != nil {
				tt.arrange(r)
			}
			a := s.finish(r, tt.more)
			if tt.want != "" {
				a.is(t, tt.want)
				tt.outcome = string(tt.want)
			} else {
				var in struct {
					Finished bool
					Report   *rekey.Report
				}
				if err := json.Unmarshal(a.body, &in); err != nil || in.Finished != tt.finished || in.Report == nil {
					t.Errorf("%s: %s", a.Status, a.body)
				}
			}
			if done := r.calls(); (len(done) > 0) != (tt.finished || r.err != nil) {
				t.Errorf("it did %q", done)
			}
			lines := s.auditLines()
			if len(lines) != 2 || lines[0].Outcome != audit.Allowed || lines[1].Outcome != tt.outcome || !strings.Contains(lines[0].Object, "archive=none") ||
				strings.Contains(lines[0].Object, "force") != (tt.more != "") {
				t.Errorf("on record: %+v", lines)
			}
		})
	}
}

// Who went away while it was checked is not there to hear that a key is gone.
func TestNothingIsDestroyedForWhoWentAway(t *testing.T) {
	s, r := newInRekey(t)
	ctx, cancel := context.WithCancel(t.Context())
	r.checking = func(ctx context.Context) { cancel(); <-ctx.Done() }
	body := fmt.Sprintf(`{"do":"finish","from":%q,"to":%q,"archive":"none"}`, r.old.KeyID(), r.fresh.KeyID())
	if _, err := trySend(ctx, s.operatorClient(), http.MethodPost, rekeyURL, strings.NewReader(body)); err == nil {
		t.Error("it was answered")
	}
	check(t, s.stopAndWait())
	if done := r.calls(); len(done) > 0 {
		t.Errorf("it did %q", done)
	}
}

func TestTheArchiveHoldsTheRetiredKeys(t *testing.T) {
	s, r := newInRekey(t)
	for _, hybrid := range []bool{false, true} {
		var identity age.Identity
		var to string
		if hybrid {
			i := must(age.GenerateHybridIdentity())(t)
			identity, to = i, i.Recipient().String()
		} else {
			i := must(age.GenerateX25519Identity())(t)
			identity, to = i, i.Recipient().String()
		}
		a := s.post(`{"do":"archive","to":["` + to + `"]}`)
		var in struct {
			Archive string
			KeyIDs  []encrypt.KeyID
		}
		if err := json.Unmarshal(a.body, &in); err != nil || a.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", a.Status, a.body)
		}
		plain := must(age.Decrypt(bytes.NewReader(must(base64.StdEncoding.DecodeString(in.Archive))(t)), identity))(t)
		if text := must(io.ReadAll(plain))(t); !bytes.Equal(text, r.old.Text()) || !slices.Equal(in.KeyIDs, []encrypt.KeyID{r.old.KeyID()}) {
			t.Errorf("the archive holds %v, and %d bytes", in.KeyIDs, len(text))
		}
	}
	// What is only staged is none of them.
	r.staged = []encrypt.KeyID{r.old.KeyID()}
	s.post(`{"do":"archive","to":["`+must(age.GenerateX25519Identity())(t).Recipient().String()+`"]}`).is(t, problem.NoRekey)
}

func TestErrorsOfARekey(t *testing.T) {
	s, r := newInRekey(t)
	for err, want := range map[error]problem.Type{
		rootkey.ErrSealed: problem.Sealed, unseal.ErrShut: problem.Sealed, rootkey.ErrNoRekey: problem.NoRekey,
		&rootkey.RekeyingError{Rekey: *r.record()}: problem.OtherRekey, rootkey.ErrNotMemory: problem.BadRequest, rootkey.ErrKeyWanted: problem.BadRequest,
		rootkey.ErrNotStaged: problem.NotStaged, rootkey.ErrTooManyStaged: problem.NotStaged, rootkey.ErrOtherKind: problem.WrongKey, rootkey.ErrActiveKey: problem.WrongKey,
		rootkey.ErrNotHeld: problem.Unavailable, rootkey.ErrUnavailable: problem.Unavailable, context.DeadlineExceeded: problem.Timeout, io.ErrClosedPipe: problem.Internal,
	} {
		r.mu.Lock()
		r.err = err
		r.mu.Unlock()
		a := s.post(`{"do":"start"}`)
		a.is(t, want)
		if want == problem.OtherRekey && !strings.Contains(string(a.body), "since 2026-01-02T03:04:05Z, by ada") {
			t.Errorf("it does not say which: %s", a.body)
		}
	}
}

func TestASealedSafeRekeysNothing(t *testing.T) {
	s, r := newInRekey(t)
	s.Cache.Seal()
	do(t, s.operatorClient(), http.MethodGet, rekeyURL).is(t, problem.Sealed)
	for _, body := range []string{`{"do":"start"}`, `{"do":"abort"}`, `{"do":"check"}`, `{"do":"unstage"}`, `{"do":"stage","key":` + quoted(r.old) + `}`,
		`{"do":"archive","to":["` + r.fresh.Recipient().String() + `"]}`} {
		s.post(body).is(t, problem.Sealed)
	}
	s.finish(r, "").is(t, problem.Sealed)
	if done := r.calls(); len(done) > 0 {
		t.Errorf("it did %q", done)
	}
}

func TestStepsOfARekeyAreRightsOfTheirOwn(t *testing.T) {
	who := newOperators()
	s, r := newInRekey(t, func(s *safe) { s.Operators = who })
	call := func(body string) reply {
		t.Helper()
		return send(t, s.client(""), http.MethodPost, s.url+"/v1/rekey", strings.NewReader(body), bearer(adminToken)...)
	}
	finish := fmt.Sprintf(`{"do":"finish","from":%q,"to":%q,"archive":"none","force":true}`, r.old.KeyID(), r.fresh.KeyID())
	// Who gives the key knows it.
	key := string(must(json.Marshal(string(must(unseal.Generate(true))(t).Text())))(t))
	given, staged := `{"do":"start","key":`+key+`}`, `{"do":"stage","key":`+key+`}`
	archive := `{"do":"archive","to":["` + r.fresh.Recipient().String() + `"]}`
	may := func(rights ...string) {
		who.set(func(o *operators) {
			o.rights[adminName] = nil
			for _, right := range rights {
				o.rights[adminName] = append(o.rights[adminName], right+" safes /")
			}
		})
	}
	may("get", "unseal", "seal", "sync", "override", "exportkey", "backup")
	for _, body := range []string{`{"do":"start"}`, finish, archive, "nonsense"} {
		call(body).is(t, problem.Forbidden)
	}
	if a := do(t, s.client(""), http.MethodGet, s.url+"/v1/rekey", bearer(adminToken)...); a.StatusCode != http.StatusOK {
		t.Errorf("get: %s", a.Status)
	}
	may("rekey")
	do(t, s.client(""), http.MethodGet, s.url+"/v1/rekey", bearer(adminToken)...).is(t, problem.Forbidden)
	for _, body := range []string{finish, archive, given, staged} {
		call(body).is(t, problem.Forbidden)
	}
	if done := r.calls(); len(done) > 0 {
		t.Errorf("it did %q", done)
	}
	for body, more := range map[string]string{`{"do":"start"}`: "sync", finish: "override", archive: "exportkey", given: "exportkey", staged: "exportkey"} {
		may("rekey", more)
		if a := call(body); a.StatusCode != http.StatusOK {
			t.Errorf("%.20s: %s %s", body, a.Status, a.body)
		}
	}
}

func TestAStepThatCannotBeLoggedIsNotDone(t *testing.T) {
	s, r := newInRekey(t)
	s.audit.setBroken(true)
	defer s.audit.setBroken(false)
	for _, body := range []string{`{"do":"start"}`, `{"do":"archive","to":["` + must(age.GenerateX25519Identity())(t).Recipient().String() + `"]}`} {
		s.post(body).is(t, problem.Unavailable)
	}
	s.finish(r, "").is(t, problem.Unavailable)
	if done := r.calls(); len(done) > 0 {
		t.Errorf("it did %q", done)
	}
}
