package serve

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// TestPromise05_ASealedSafeAnswersNoMoreThanItMust asks a sealed Safe for everything there
// is, over TLS and on the socket: it answers status, probes, its recipient and unseal.
func TestPromise05_ASealedSafeAnswersNoMoreThanItMust(t *testing.T) {
	s, _ := newOperated(t)
	s.withDB(theValue)
	db := s.client(svc("shop", "db"))
	if got := do(t, db, http.MethodGet, s.url+"/v1/secrets").values(t); got["db/password"] != theValue {
		t.Fatalf("served %v", got)
	}
	etag := s.etag(db)
	if r := s.operate(s.client(""), s.operatorCalls()["seal"], bearer(adminToken)...); r.StatusCode != http.StatusOK {
		t.Fatalf("seal: %s %s", r.Status, r.body)
	}

	do(t, db, http.MethodGet, s.url+"/v1/secrets").is(t, problem.Sealed)
	do(t, db, http.MethodGet, s.url+"/v1/secrets", "If-None-Match", etag).is(t, problem.Sealed)
	do(t, db, http.MethodGet, s.url+"/v1/secrets?watch=1", "If-None-Match", etag).is(t, problem.Sealed)
	if r := do(t, db, http.MethodHead, s.url+"/v1/secrets"); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("ETag") != "" {
		t.Errorf("HEAD: %s with ETag %s", r.Status, r.Header.Get("ETag"))
	}
	socket := s.operatorClient()
	for name, call := range s.operatorCalls() {
		if name == "unseal" || name == "status" {
			continue
		}
		s.operate(s.client(""), call, bearer(call.token)...).is(t, problem.Sealed)
		send(t, socket, call.method, "http://safe"+call.path, strings.NewReader(call.body)).is(t, problem.Sealed)
	}
	// Who may not learns nothing of it from a call.
	for _, call := range s.operatorCalls() {
		s.operate(s.client(""), call, bearer(nobodyToken)...).is(t, problem.Forbidden)
		s.operate(s.client(""), call).is(t, problem.Unauthorized)
	}

	answered := func(r reply, want string) {
		t.Helper()
		if r.StatusCode != http.StatusOK || !strings.Contains(string(r.body), want) {
			t.Errorf("%s: %s %s, want %s", r.Request.URL, r.Status, r.body, want)
		}
	}
	const sealed = `"state":"sealed"`
	for _, c := range []*http.Client{db, s.client("")} {
		answered(do(t, c, http.MethodGet, s.url+"/v1/seal-status"), sealed)
		answered(do(t, c, http.MethodGet, s.url+"/v1/recipient"), s.key.Recipient().String())
	}
	answered(do(t, s.client(""), http.MethodGet, s.url+"/v1/status", bearer(adminToken)...), sealed)
	for _, path := range []string{"/v1/status", "/v1/seal-status"} {
		answered(do(t, socket, http.MethodGet, "http://safe"+path), sealed)
	}
	answered(do(t, socket, http.MethodGet, "http://safe/v1/recipient"), s.key.Recipient().String())
	if got := s.probe(s.liveness); got != http.StatusOK {
		t.Errorf("liveness: %d", got)
	}
	if got := s.probe(s.readiness); got != http.StatusServiceUnavailable {
		t.Errorf("readiness: %d", got)
	}

	answered(s.operate(s.client(""), s.operatorCalls()["unseal"], bearer(adminToken)...), `"state":"unsealed"`)
	if got := s.probe(s.readiness); got != http.StatusOK {
		t.Errorf("readiness: %d", got)
	}
	if got := do(t, db, http.MethodGet, s.url+"/v1/secrets").values(t); got["db/password"] != theValue {
		t.Errorf("served %v", got)
	}
}

// unsealed tries to unseal, with a body of known or unknown length.
func (s *safe) unsealed(text []byte, query string, chunked bool) reply {
	s.t.Helper()
	var body io.Reader = bytes.NewReader(text)
	if chunked {
		body = io.MultiReader(body)
	}
	return send(s.t, s.client(""), http.MethodPost, s.url+"/v1/unseal"+query, body, bearer(adminToken)...)
}

// TestPromise01_KeysThatAreGivenAreNowhere gives a sealed Safe keys that are wrong in each
// way, and the right one, and looks for them in all that it writes.
func TestPromise01_KeysThatAreGivenAreNowhere(t *testing.T) {
	s, _ := newOperated(t)
	s.withDB(theValue)
	s.Cache.Seal()
	right, other := s.key.Text(), must(generate())(t).Text()
	lines, otherLines := strings.Split(string(right), "\n"), strings.Split(string(other), "\n")
	noise := strings.Repeat("noise and "+lines[0], 1<<20/80)

	var answers strings.Builder
	for name, tt := range map[string]struct {
		text string
		want problem.Type
	}{
		"another key":                    {string(other), problem.WrongKey},
		"lines that do not belong":       {lines[0] + "\n" + otherLines[1] + "\n" + lines[2], problem.BadRequest},
		"half a key":                     {lines[0][:len(lines[0])/2], problem.BadRequest},
		"the first line alone":           {lines[0], problem.BadRequest},
		"two keys":                       {string(right) + "\n" + string(other), problem.BadRequest},
		"the placeholder for none":       {"{}", problem.BadRequest},
		"nothing":                        {"", problem.BadRequest},
		"a key and 64 KiB of blanks":     {string(right) + strings.Repeat(" ", unseal.MaxTextSize), problem.BadRequest},
		"a megabyte of noise with a key": {noise, problem.BadRequest},
		"JSON with the key in it":        {fmt.Sprintf("{%q:%q}", "key", right), problem.BadRequest},
	} {
		for _, chunked := range []bool{false, true} {
			s.root.set(func(k *rootKey) { k.attempts = 0 })
			s.ahead.Add(int64(unsealEvery)) // an attempt is back
			r := s.unsealed([]byte(tt.text), "", chunked)
			answers.Write(r.body)
			r.is(t, tt.want)
			if !s.Cache.Sealed() {
				t.Fatalf("%s unsealed it", name)
			}
		}
	}
	// Even what is meant for the key's place, and a panic, tells nothing.
	s.root.set(func(k *rootKey) { k.place = fmt.Errorf("%w: etcd is full", rootkey.ErrUnavailable) })
	r := s.unsealed(right, "", false)
	answers.Write(r.body)
	r.is(t, problem.Unavailable)
	s.root.set(func(k *rootKey) { k.place = errors.New("a fault with " + string(right)) })
	s.root.set(func(k *rootKey) { k.onUnseal = func(context.Context) { panic(string(right)) } })
	r = s.unsealed(right, "", false)
	answers.Write(r.body)
	r.is(t, problem.Internal)
	s.root.set(func(k *rootKey) { k.onUnseal, k.place = nil, nil })
	s.ahead.Add(int64(unsealEvery)) // an attempt is back
	r = s.unsealed(right, "", true)
	answers.Write(r.body)
	if r.StatusCode != http.StatusOK || s.Cache.Sealed() {
		t.Fatalf("the right key: %s %s", r.Status, r.body)
	}

	scraper := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	metrics := string(do(t, scraper, http.MethodGet, s.metricsURL).body)
	s.auditLines()
	places := map[string]string{"audit log": s.audit.String(), "log": s.log.String(), "metrics": metrics, "answers": answers.String()}
	for where, text := range places {
		for i, secret := range []string{lines[0], lines[2], otherLines[0], otherLines[2], adminToken, theValue} {
			// Also a part of a key is too much.
			for _, part := range []string{secret, secret[:len(secret)/2], secret[len(secret)/2:]} {
				if leak(text, part) != "" {
					t.Errorf("%s: secret %d, or a half of it, is there", where, i)
				}
			}
			// The key as bytes: the third line is hex.
			if raw, err := hex.DecodeString(secret); err == nil && strings.Contains(text, base64.StdEncoding.EncodeToString(raw)) {
				t.Errorf("%s: secret %d is there as base64", where, i)
			}
		}
	}
	if !strings.Contains(places["audit log"], `"verb":"unseal","object":"root-key","outcome":"wrong-key"`) || leak(places["audit log"]+lines[0], lines[0]) == "" {
		t.Error("what was to be searched is not there")
	}
}

func TestUnsealSaysWhatIsWrong(t *testing.T) {
	s, _ := newOperated(t)
	s.Cache.Seal()
	id, other := string(s.key.KeyID()), must(generate())(t)
	r := s.unsealed(other.Text(), "", false)
	r.is(t, problem.WrongKey)
	if text := string(r.body); !strings.Contains(text, id) || !strings.Contains(text, string(other.KeyID())) {
		t.Errorf("a wrong key is answered with %s", text)
	}
	s.root.set(func(k *rootKey) { k.lost = true })
	r = s.unsealed(s.key.Text(), "", false)
	r.is(t, problem.KeyIDNeeded)
	if !strings.Contains(string(r.body), id) {
		t.Errorf("without the record: %s", r.body)
	}
	do(t, s.client(""), http.MethodGet, s.url+"/v1/recipient").is(t, problem.Unavailable)
	s.unsealed(s.key.Text(), "?accept-key-id="+string(other.KeyID()), false).is(t, problem.KeyIDNeeded)
	for _, query := range []string{
		"?accept-key-id=", "?accept-key-id=" + id[:31], "?accept-key-id=" + id + "0", "?accept-key-id=" + strings.ToUpper(id[:31]) + "G",
		"?accept-key-id=" + id + "&accept-key-id=" + id, "?accept-key-id=" + id + "&force=1", "?force=1", "?%zz",
	} {
		s.unsealed(s.key.Text(), query, false).is(t, problem.BadRequest)
	}
	if r := s.unsealed(s.key.Text(), "?accept-key-id="+id, false); r.StatusCode != http.StatusOK {
		t.Errorf("with the key id: %s %s", r.Status, r.body)
	}
	var st rootkey.Status
	r = s.unsealed(s.key.Text(), "?accept-key-id="+id, false)
	check(t, json.Unmarshal(r.body, &st))
	if st.State != rootkey.Unsealed || st.KeyID != s.key.KeyID() {
		t.Errorf("the answer is %s", r.body)
	}
	if !slices.ContainsFunc(s.onRecord(), func(e audit.Entry) bool {
		return e.Object == "root-key accept-key-id="+id && e.Outcome == audit.OK
	}) {
		t.Errorf("on record: %s", s.audit)
	}
}

func TestAttemptsToUnsealAreBounded(t *testing.T) {
	s, who := newOperated(t)
	who.set(func(o *operators) { o.rights[revealName] = append(o.rights[revealName], "unseal safes /") })
	s.Cache.Seal()
	now := time.Now()
	s.stopped.Store(&now)
	wrong := must(generate())(t).Text()
	attempt := func(token string) reply {
		return send(t, s.client(""), http.MethodPost, s.url+"/v1/unseal", bytes.NewReader(wrong), bearer(token)...)
	}
	onSocket := func() reply {
		return send(t, s.operatorClient(), http.MethodPost, "http://safe/v1/unseal", bytes.NewReader(wrong))
	}
	// A flood of one costs the others nothing.
	for range unsealBurst {
		attempt(adminToken).is(t, problem.WrongKey)
	}
	for range 20 {
		r := attempt(adminToken)
		r.is(t, problem.TooManyRequests)
		if r.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	attempt(revealToken).is(t, problem.WrongKey)
	for range unsealBurst {
		onSocket().is(t, problem.WrongKey)
	}
	onSocket().is(t, problem.TooManyRequests)
	if n := s.root.attempts; n != 2*unsealBurst+1 {
		t.Errorf("%d attempts were let through", n)
	}
	// Those who may not have none to lose.
	for range unsealBurst + 1 {
		attempt(nobodyToken).is(t, problem.Forbidden)
	}
	later := now.Add(unsealEvery)
	s.stopped.Store(&later)
	attempt(adminToken).is(t, problem.WrongKey)
	attempt(adminToken).is(t, problem.TooManyRequests)
}

func TestAttemptsToUnsealThatDoNotFailCostNothing(t *testing.T) {
	s, _ := newOperated(t)
	now := time.Now()
	s.stopped.Store(&now)
	for range 2 * unsealBurst {
		if r := s.unsealed(s.key.Text(), "", false); r.StatusCode != http.StatusOK {
			t.Fatalf("the right key: %s %s", r.Status, r.body)
		}
	}
	s.root.set(func(k *rootKey) { k.place = fmt.Errorf("%w: etcd is full", rootkey.ErrUnavailable) })
	for range 2 * unsealBurst {
		s.unsealed(s.key.Text(), "", false).is(t, problem.Unavailable)
	}
}

func TestFailuresToUnsealAreCountedByTokenAndInAll(t *testing.T) {
	s, _ := newOperated(t)
	now := time.Now()
	s.stopped.Store(&now)
	try := func(credential string) bool { return s.mayTryToUnseal(&call{actor: adminName, credential: credential}) }
	for range unsealBurst {
		if !try("one") {
			t.Fatal("too few attempts")
		}
	}
	if try("one") || !try("another of the same account") {
		t.Error("attempts are not counted by token")
	}
	taken := unsealBurst + 1
	for i := range 2 * allUnsealsBurst { // tokens are as many as one asks for
		if try(fmt.Sprint(i)) {
			taken++
		}
	}
	if taken != allUnsealsBurst {
		t.Errorf("%d attempts in all", taken)
	}
}

func TestSealIsRepeatedAndSaysWhatItCouldNotDo(t *testing.T) {
	s, _ := newOperated(t)
	s.withDB(theValue)
	seal := func() reply {
		return do(t, s.client(""), http.MethodPost, s.url+"/v1/seal", bearer(adminToken)...)
	}
	s.root.set(func(k *rootKey) {
		k.place = fmt.Errorf("%w: sealed here, but not for the others", rootkey.ErrUnavailable)
	})
	r := seal()
	r.is(t, problem.Unavailable)
	if !strings.Contains(string(r.body), "sealed here, but") || !s.Cache.Sealed() {
		t.Errorf("sealed: %v, %s", s.Cache.Sealed(), r.body)
	}
	s.root.set(func(k *rootKey) { k.place = nil })
	seal().is(t, problem.Sealed)
	if !s.root.marked {
		t.Error("the second seal did not last either")
	}
}

// An operator who goes away leaves nothing half done.
func TestWhatWasBegunIsEndedWithoutItsCaller(t *testing.T) {
	s, _ := newOperated(t)
	s.Cache.Seal()
	ctx, leave := context.WithCancel(t.Context())
	s.root.set(func(k *rootKey) {
		k.onUnseal = func(unsealing context.Context) {
			leave()
			select { // for as long as the server takes to notice
			case <-unsealing.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
	if r, err := trySend(ctx, s.client(""), http.MethodPost, s.url+"/v1/unseal", bytes.NewReader(s.key.Text()), bearer(adminToken)...); err == nil {
		t.Errorf("got %s", r.Status)
	}
	wait.Until(t, "it is unsealed", func() bool { return !s.Cache.Sealed() })
	want := audit.Entry{Actor: adminName, Credential: credentialOf + adminName, Verb: "unseal", Object: "root-key", Outcome: audit.OK}
	wait.Until(t, "that is on record", func() bool { return strings.Contains(s.audit.String(), `"outcome":"ok"`) })
	if lines := s.onRecord(); !slices.Contains(lines, want) {
		t.Errorf("on record: %+v", lines)
	}
}

// Before the cache and the key's keeper agree that Safe is unsealed, it is sealed.
func TestSafeIsSealedWhileOneOfItsPartsIs(t *testing.T) {
	s, _ := newOperated(t)
	s.withDB(theValue)
	s.root.set(func(k *rootKey) { k.behind = true })
	for _, name := range []string{"reveal", "sync", "seal"} {
		call := s.operatorCalls()[name]
		s.operate(s.client(""), call, bearer(call.token)...).is(t, problem.Sealed)
	}
}
