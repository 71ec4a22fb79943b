package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/attempts"
	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/operator"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// Tokens that the operators of tests know, and what they are not to show.
const (
	adminToken   = "aGVhZA.YWRtaW4.c2lnbmF0dXJlLW9mLWFkbWlu"
	revealToken  = "aGVhZA.cmV2ZWFs.c2lnbmF0dXJlLW9mLXJldmVhbA"
	nobodyToken  = "aGVhZA.bm9ib2R5.c2lnbmF0dXJlLW9mLW5vYm9keQ"
	unknownToken = "aGVhZA.dW5rbm93bg.c2lnbmF0dXJlLW9mLW5vYm9keS1hdC1hbGw"
	adminName    = "system:serviceaccount:vsecm-system:vsecm-admin"
	revealName   = "system:serviceaccount:vsecm-system:revealer"
	nobodyName   = "system:serviceaccount:vsecm-system:default"
	credentialOf = "JTI=of-"
)

// theValue is what nobody may see who may not.
const theValue = "hunter2-the-second-of-his-name"

// Operators are those of a cluster that decides what a test says. The real one is asked in
// cluster_test.go.
type operators struct {
	mu        sync.Mutex
	names     map[string]string   // by token
	rights    map[string][]string // by name: "VERB RESOURCE NAMESPACE/NAME"
	failure   error               // of every question
	asked     int                 // how often whose a token is
	audiences []string            // that were asked for
}

func newOperators() *operators {
	return &operators{
		names: map[string]string{adminToken: adminName, revealToken: revealName, nobodyToken: nobodyName},
		rights: map[string][]string{
			adminName: {
				"get safes /", "unseal safes /", "seal safes /", "sync safes /", "override safes /",
			},
			revealName: {"reveal encryptedsecrets shop/db", "reveal encryptedsecrets shop/missing", "reveal encryptedsecrets shop/broken", "sync safes /"},
		},
	}
}

func (o *operators) Authenticate(_ context.Context, token, audience, from string) (operator.Operator, error) {
	if from != attempts.Loopback {
		return operator.Operator{}, fmt.Errorf("asked about somebody at %q", from)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	o.audiences = append(o.audiences, audience)
	if o.failure != nil {
		return operator.Operator{}, o.failure
	}
	name, ok := o.names[token]
	if !ok {
		return operator.Operator{}, operator.ErrUnauthenticated
	}
	return operator.Operator{Name: name, CredentialID: credentialOf + name}, nil
}

func (o *operators) Authorize(_ context.Context, who operator.Operator, a operator.Attributes) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failure != nil {
		return false, o.failure
	}
	return slices.Contains(o.rights[who.Name], a.Verb+" "+a.Resource+" "+a.Namespace+"/"+a.Name), nil
}

func (o *operators) set(change func(*operators)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change(o)
}

func (o *operators) questions() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked
}

// newOperated starts a Safe whose operators are those of a test.
func newOperated(t testing.TB, options ...safeOption) (*safe, *operators) {
	t.Helper()
	who := newOperators()
	s := newSafe(t, append([]safeOption{func(s *safe) { s.Operators = who }}, options...)...)
	return s, who
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

// anyServer returns a client that takes any certificate of Safe's.
func (s *safe) anyServer(options ...func(*http.Transport)) *http.Client {
	return s.client("", append(options, func(t *http.Transport) {
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, NextProtos: t.TLSClientConfig.NextProtos}
	})...)
}

// An operatorCall is one that works, of an operator who may.
type operatorCall struct {
	method, path, body, token string
	audit                     []audit.Entry // without the time and the request's id
}

func (s *safe) operatorCalls() map[string]operatorCall {
	line := func(name, verb, object, outcome string) audit.Entry {
		return audit.Entry{Actor: name, Credential: credentialOf + name, Verb: verb, Object: object, Outcome: outcome}
	}
	return map[string]operatorCall{
		"status": {"GET", "/v1/status", "", adminToken, []audit.Entry{line(adminName, "get", "status", audit.Allowed)}},
		"unseal": {"POST", "/v1/unseal", string(s.key.Text()), adminToken, []audit.Entry{
			line(adminName, "unseal", "root-key", audit.Allowed), line(adminName, "unseal", "root-key", audit.OK),
		}},
		"seal": {"POST", "/v1/seal", "", adminToken, []audit.Entry{
			line(adminName, "seal", "root-key", audit.Allowed), line(adminName, "seal", "root-key", audit.OK),
		}},
		"reveal": {"POST", "/v1/reveal", `{"namespace":"shop","name":"db"}`, revealToken, []audit.Entry{
			line(revealName, "reveal", "secrets shop/db", audit.OK),
		}},
		"sync": {"POST", "/v1/sync", "", adminToken, []audit.Entry{
			line(adminName, "sync", "sources", audit.Allowed), line(adminName, "sync", "sources", audit.OK),
		}},
	}
}

func (s *safe) operate(c *http.Client, call operatorCall, headers ...string) reply {
	s.t.Helper()
	var body io.Reader
	if call.body != "" {
		body = strings.NewReader(call.body)
	}
	return send(s.t, c, call.method, s.url+call.path, body, headers...)
}

// withDB puts an object into Safe and waits until it is there.
func (s *safe) withDB(value string) {
	s.t.Helper()
	s.apply("shop", "db", map[string]string{"password": value})
	wait.Until(s.t, "the object is in", func() bool { return s.Cache.Objects() == 1 })
}

// onRecord returns what is on record, without times and ids.
func (s *safe) onRecord() []audit.Entry {
	s.t.Helper()
	lines := s.auditLines()
	for i, e := range lines {
		if e.Time.IsZero() || e.RequestID == "" {
			s.t.Errorf("line %d: %+v", i, e)
		}
		lines[i] = audit.Entry{Actor: e.Actor, Credential: e.Credential, Verb: e.Verb, Object: e.Object, Outcome: e.Outcome}
	}
	return lines
}

func TestOperatorsWhoMayAreServedAndAreOnRecord(t *testing.T) {
	for protocol, option := range map[string]func(*http.Transport){"HTTP/1.1": http1, "HTTP/2.0": func(*http.Transport) {}} {
		for name := range (&safe{key: must(generate())(t)}).operatorCalls() {
			t.Run(name+" "+protocol, func(t *testing.T) {
				s, _ := newOperated(t)
				s.withDB(theValue)
				call := s.operatorCalls()[name]
				r := s.operate(s.client("", option), call, bearer(call.token)...)
				if r.StatusCode/100 != 2 || r.Proto != protocol {
					t.Errorf("%s %s: %s", r.Proto, r.Status, r.body)
				}
				if got := s.onRecord(); !slices.Equal(got, call.audit) {
					t.Errorf("on record:\n%+v, want\n%+v", got, call.audit)
				}
			})
		}
	}
}

func TestOperatorsWhoMayNotAreRefusedAndNothingIsDone(t *testing.T) {
	for name, tt := range map[string]struct {
		headers []string
		want    problem.Type
		actor   string
	}{
		"no token":                   {nil, problem.Unauthorized, audit.Unverified},
		"another scheme":             {[]string{"Authorization", "Basic YWRtaW46YWRtaW4="}, problem.Unauthorized, audit.Unverified},
		"noise":                      {bearer("noise"), problem.Unauthorized, audit.Unverified},
		"a token that is not known":  {bearer(unknownToken), problem.Unauthorized, audit.Unverified},
		"a user in a request header": {[]string{"X-Remote-User", adminName, "Impersonate-User", adminName}, problem.Unauthorized, audit.Unverified},
		"an account without rights":  {bearer(nobodyToken), problem.Forbidden, nobodyName},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newOperated(t, func(s *safe) {
				s.Sync = func(context.Context, string, reconcile.Override) error { t.Error("it was synced"); return nil }
				s.Status = func() Status { t.Error("it was shown"); return Status{} }
			})
			s.withDB(theValue)
			calls := s.operatorCalls()
			for _, call := range calls {
				r := s.operate(s.client(""), call, tt.headers...)
				r.is(t, tt.want)
				if leak(string(r.body), theValue) != "" {
					t.Errorf("%s: %s", call.path, r.body)
				}
				if (tt.want == problem.Unauthorized) != (r.Header.Get("WWW-Authenticate") == "Bearer") {
					t.Errorf("%s: WWW-Authenticate %q", call.path, r.Header.Get("WWW-Authenticate"))
				}
			}
			if s.Cache.Sealed() || s.root.attempts != 0 {
				t.Error("something was done")
			}
			lines := s.onRecord()
			for _, e := range lines {
				credential := ""
				if tt.actor != audit.Unverified {
					credential = credentialOf + tt.actor
				}
				if e.Actor != tt.actor || e.Credential != credential || e.Outcome != string(tt.want) {
					t.Errorf("on record: %+v", e)
				}
			}
			if len(lines) != len(calls) {
				t.Errorf("%d lines of %d calls", len(lines), len(calls))
			}
		})
	}
}

// Whoever has an SVID is a workload, and no operator by it.
func TestAClientCertificateOperatesNothing(t *testing.T) {
	s, who := newOperated(t)
	s.withDB(theValue)
	c := s.client(svc("shop", "db"))
	for _, call := range s.operatorCalls() {
		s.operate(c, call).is(t, problem.Unauthorized)
	}
	if n := who.questions(); n != 0 {
		t.Errorf("the cluster was asked %d times", n)
	}
	if r := s.operate(c, s.operatorCalls()["status"], bearer(adminToken)...); r.StatusCode != http.StatusOK {
		t.Errorf("with a token: %s", r.Status)
	}
}

func TestWithoutOperatorsTheTLSListenerHasNoOperatorsCalls(t *testing.T) {
	s := newSafe(t)
	for _, call := range s.operatorCalls() {
		s.operate(s.client(""), call, bearer(adminToken)...).is(t, problem.NotFound)
	}
}

func TestNobodyOperatesWhileTheClusterCannotBeAsked(t *testing.T) {
	s, who := newOperated(t)
	s.withDB(theValue)
	who.set(func(o *operators) { o.failure = errors.New("connection refused, token=" + adminToken[:5]) })
	for _, call := range s.operatorCalls() {
		s.operate(s.client(""), call, bearer(call.token)...).is(t, problem.Unavailable)
	}
	who.set(func(o *operators) { o.failure = operator.ErrBusy })
	for _, call := range s.operatorCalls() {
		r := s.operate(s.client(""), call, bearer(call.token)...)
		r.is(t, problem.TooManyRequests)
		if r.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	if s.Cache.Sealed() {
		t.Error("it was sealed")
	}
	// Workloads notice nothing.
	if got := do(t, s.client(svc("shop", "db")), http.MethodGet, s.url+"/v1/secrets").values(t); got["db/password"] != theValue {
		t.Errorf("a workload gets %v", got)
	}
}

func TestAnOperatorsCallOverTLSThatCannotBeLoggedIsRefused(t *testing.T) {
	s, _ := newOperated(t, func(s *safe) {
		s.Sync = func(context.Context, string, reconcile.Override) error { t.Error("it was synced"); return nil }
		s.Status = func() Status { t.Error("it was shown"); return Status{} }
	})
	s.withDB(theValue)
	s.audit.setBroken(true)
	for _, call := range s.operatorCalls() {
		for _, token := range []string{call.token, nobodyToken} {
			r := s.operate(s.client(""), call, bearer(token)...)
			r.is(t, problem.Unavailable)
			if leak(string(r.body), theValue) != "" {
				t.Errorf("%s: %s", call.path, r.body)
			}
		}
	}
	if s.Cache.Sealed() || s.root.attempts != 0 {
		t.Error("something was done")
	}
	s.audit.setBroken(false)
}

func TestCallsTakeTheirMethodAndBodyAlone(t *testing.T) {
	s, _ := newOperated(t)
	s.withDB(theValue)
	for name, call := range s.operatorCalls() {
		other := call
		if other.method = "POST"; call.method == "POST" {
			other.method = "GET"
		}
		r := s.operate(s.client(""), other, bearer(call.token)...)
		r.is(t, problem.MethodNotAllowed)
		if r.Header.Get("Allow") != call.method {
			t.Errorf("%s: Allow %q", name, r.Header.Get("Allow"))
		}
		if call.body == "" {
			other = call
			other.body = "{}"
			s.operate(s.client(""), other, bearer(call.token)...).is(t, problem.BadRequest)
		}
	}
	if s.Cache.Sealed() {
		t.Error("it was sealed")
	}
}

func TestAnOverrideIsARightOfItsOwn(t *testing.T) {
	s, _ := newOperated(t)
	url := s.url + "/v1/sync"
	revision := "?accept-rewrite=" + strings.Repeat("ab", 20)
	if r := do(t, s.client(""), "POST", url, bearer(revealToken)...); r.StatusCode != http.StatusNoContent {
		t.Errorf("sync: %s", r.Status)
	}
	do(t, s.client(""), "POST", url+revision, bearer(revealToken)...).is(t, problem.Forbidden)
	do(t, s.client(""), "POST", url+"?%zz", bearer(revealToken)...).is(t, problem.Forbidden)
	do(t, s.client(""), "POST", url+"?%zz", bearer(adminToken)...).is(t, problem.BadRequest)
	if r := do(t, s.client(""), "POST", url+revision, bearer(adminToken)...); r.StatusCode != http.StatusNoContent {
		t.Errorf("override: %s", r.Status)
	}
}
