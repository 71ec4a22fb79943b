package serve

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

func TestEveryCallIsOneAuditLine(t *testing.T) {
	s := newSafe(t, holding(time.Millisecond))
	s.apply("shop", "db", map[string]string{"password": "one"})
	s.apply("shop", "shared", map[string]string{"token": "t"}, "db")
	db, stranger := s.client(svc("shop", "db")), s.client("spiffe://example.org/agent/x")
	wait.Until(t, "the objects are in", func() bool {
		list, _, err := s.Cache.Secrets(t.Context(), identity.Workload{Namespace: "shop", Name: "db"})
		return err == nil && len(list) == 2
	})
	began := time.Now()
	// Problems tell their caller the id that they are on record under.
	var ids []string
	call := func(c *http.Client, method, path string, headers ...string) reply {
		r := do(t, c, method, s.url+path, headers...)
		ids = append(ids, r.Header.Get("X-Request-Id"))
		return r
	}
	etag := call(db, "GET", "/v1/secrets").Header.Get("ETag")
	call(db, "GET", "/v1/secrets", "If-None-Match", etag)
	call(db, "HEAD", "/v1/secrets")
	call(db, "GET", "/v1/secrets?watch=1", "If-None-Match", etag)
	call(stranger, "GET", "/v1/secrets")
	call(s.client(""), "GET", "/v1/secrets", "X-Request-Id", "forged")
	call(s.client(""), "GET", "/v1/recipient")
	call(s.client(""), "GET", "/v1/seal-status")
	call(db, "POST", "/v1/secrets")
	call(db, "GET", "/v1/nothing%0a")

	want := []audit.Entry{
		{Actor: svc("shop", "db"), Verb: "get", Object: "secrets shop/db shop/shared", Outcome: audit.OK},
		{Actor: svc("shop", "db"), Verb: "get", Object: "secrets", Outcome: audit.NotModified},
		{Actor: svc("shop", "db"), Verb: "head", Object: "secrets", Outcome: audit.OK},
		{Actor: svc("shop", "db"), Verb: "watch", Object: "secrets", Outcome: audit.NotModified},
		{Actor: "spiffe://example.org/agent/x", Verb: "get", Object: "secrets", Outcome: string(problem.Forbidden)},
		{Actor: audit.Anonymous, Verb: "get", Object: "secrets", Outcome: string(problem.Unauthorized)},
		{Actor: audit.Anonymous, Verb: "get", Object: "recipient", Outcome: audit.OK},
		{Actor: audit.Anonymous, Verb: "get", Object: "seal-status", Outcome: audit.OK},
		{Actor: svc("shop", "db"), Verb: "post", Object: "secrets", Outcome: string(problem.MethodNotAllowed)},
		{Actor: svc("shop", "db"), Verb: "get", Object: "unknown", Outcome: string(problem.NotFound)},
	}
	got := s.auditLines()
	if len(got) != len(want) {
		t.Fatalf("%d lines of %d calls: %s", len(got), len(want), s.audit)
	}
	for i, e := range got {
		if e.Time.Before(began.Add(-time.Second)) || e.Time.After(time.Now()) {
			t.Errorf("on record at %v", e.Time)
		}
		if e.RequestID == "" || ids[i] != "" && ids[i] != e.RequestID {
			t.Errorf("call %d has id %q, and is on record under %q", i, ids[i], e.RequestID)
		}
		e.Time, e.RequestID = time.Time{}, ""
		if e != want[i] {
			t.Errorf("call %d is on record as %+v, want %+v", i, e, want[i])
		}
	}
}

func TestReadsAreServedWhenTheAuditLogFails(t *testing.T) {
	s := newSafe(t)
	s.audit.setBroken(true)
	do(t, s.client(svc("shop", "db")), http.MethodGet, s.url+"/v1/secrets").values(t)
	scraper := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	wait.Until(t, "the lost line is counted", func() bool {
		return strings.Contains(string(do(t, scraper, http.MethodGet, s.metricsURL).body), "vsecm_audit_dropped_total 1\n")
	})
}

// TestPromise01_NoSecretValueInLogsAuditOrMetrics makes every kind of call, good
// and bad, and looks for the value in everything that Safe writes but the
// answers that deliver it.
func TestPromise01_NoSecretValueInLogsAuditOrMetrics(t *testing.T) {
	const value = "correct-horse-battery-staple"
	s := newSafe(t, holding(time.Millisecond))
	s.apply("shop", "db", map[string]string{"password": value})
	db := s.client(svc("shop", "db"))
	var etag string
	wait.Until(t, "the value is delivered", func() bool {
		r := do(t, db, http.MethodGet, s.url+"/v1/secrets")
		etag = r.Header.Get("ETag")
		return r.values(t)["db/password"] == value
	})
	var answers strings.Builder
	for _, c := range []*http.Client{s.client(""), s.client("spiffe://example.org/x"), s.client(svc("shop", "api")), db} {
		for _, path := range []string{"/v1/recipient", "/v1/seal-status", "/v1/nothing", "/v1/secrets?watch=1", "/v1/secrets?odd"} {
			r := do(t, c, http.MethodGet, s.url+path, "If-None-Match", etag)
			answers.Write(r.body)
		}
		answers.Write(do(t, c, http.MethodHead, s.url+"/v1/secrets").body)
		answers.Write(do(t, c, http.MethodPut, s.url+"/v1/secrets").body)
	}
	operator := s.operatorClient()
	answers.Write(do(t, operator, http.MethodGet, "http://safe/v1/status").body)
	answers.Write(do(t, operator, http.MethodPost, "http://safe/v1/sync").body)
	// A value that can no longer be opened, and one that panics on its way.
	s.Cache.Seal()
	answers.Write(do(t, db, http.MethodGet, s.url+"/v1/secrets").body)
	s.root.set(func(k *rootKey) { k.onRecipient = func() { panic(value) } })
	r := do(t, db, http.MethodGet, s.url+"/v1/recipient")
	r.is(t, problem.Internal)
	answers.Write(r.body)
	scraper := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	metrics := string(do(t, scraper, http.MethodGet, s.metricsURL).body)
	s.auditLines()

	if !strings.Contains(s.log.String(), "panic") || !strings.Contains(metrics, "vsecm_http_requests_total") {
		t.Error("what was to be searched is not there")
	}
	for where, text := range map[string]string{
		"audit log": s.audit.String(), "log": s.log.String(), "metrics": metrics, "other answers": answers.String(),
	} {
		if form := leak(text, value); form != "" {
			t.Errorf("%s: the value is there as %s", where, form)
		}
	}
}

// leak returns the form in which text holds value, or "".
func leak(text, value string) string {
	forms := map[string]string{"text": value, "hex": hex.EncodeToString([]byte(value))}
	// Base64 looks different at each of three offsets, and so does its end.
	for i := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(value[i : len(value)-len(value[i:])%3]))
		forms["base64"+strings.Repeat("+", i)] = encoded
	}
	for form, s := range forms {
		if strings.Contains(strings.ToLower(text), strings.ToLower(s)) {
			return form
		}
	}
	return ""
}

func TestMetricsTellRoutesAndCodesAndNothingOfTheClients(t *testing.T) {
	s := newSafe(t, holding(time.Millisecond))
	db := s.client(svc("shop", "db"))
	etag := s.etag(db)
	do(t, db, http.MethodGet, s.url+"/v1/secrets")
	do(t, db, http.MethodGet, s.url+"/v1/secrets?watch=1", "If-None-Match", etag)
	do(t, db, http.MethodGet, s.url+"/v1/a-path-of-the-clients")
	do(t, s.client(""), http.MethodGet, s.url+"/v1/secrets")
	scraper := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	text := ""
	for _, want := range []string{
		`vsecm_http_requests_total{code="200",route="secrets"} 2`,
		`vsecm_http_requests_total{code="304",route="secrets-watch"} 1`,
		`vsecm_http_requests_total{code="404",route="other"} 1`,
		`vsecm_http_requests_total{code="401",route="secrets"} 1`,
		`vsecm_http_request_duration_seconds_count{route="secrets-watch"} 1`,
		"vsecm_watches 0",
		"vsecm_audit_dropped_total 0",
		"vsecm_svid_not_after_timestamp_seconds ",
	} {
		wait.Until(t, "metrics have "+want, func() bool {
			text = string(do(t, scraper, http.MethodGet, s.metricsURL).body)
			return strings.Contains(text, want)
		})
	}
	if strings.Contains(text, "clients") || strings.Contains(text, "shop") {
		t.Errorf("a client made a series: %s", text)
	}
}
