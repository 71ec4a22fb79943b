package serve

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/attempts"
	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

func TestCallsOfStrangersDoNotFillTheAuditLog(t *testing.T) {
	const burst = 5
	for name, tt := range map[string]struct {
		address      int
		path         string
		headers      []string
		answer, then int
	}{
		"the seal status":                 {2, "/v1/seal-status", nil, http.StatusOK, http.StatusTooManyRequests},
		"the recipient":                   {2, "/v1/recipient", nil, http.StatusOK, http.StatusTooManyRequests},
		"the seal status, a port-forward": {1, "/v1/seal-status", nil, http.StatusOK, http.StatusOK},
		"secrets":                         {2, "/v1/secrets", nil, http.StatusUnauthorized, http.StatusUnauthorized},
		"no such path":                    {2, "/", nil, http.StatusNotFound, http.StatusNotFound},
		"no token":                        {2, "/v1/status", nil, http.StatusUnauthorized, http.StatusUnauthorized},
		"a token that proves nothing":     {1, "/v1/status", bearer(unknownToken), http.StatusUnauthorized, http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newOperated(t, func(s *safe) {
				s.afar = true
				s.strangers = attempts.New(lineEvery, burst, 10)
			})
			now := time.Now()
			s.stopped.Store(&now)
			c := s.client("", at(tt.address))
			call := func(want int) {
				t.Helper()
				r := do(t, c, http.MethodGet, s.url+tt.path, tt.headers...)
				if r.StatusCode != want {
					t.Fatalf("%s: %s", r.Status, r.body)
				}
				if want == http.StatusTooManyRequests {
					if r.is(t, problem.TooManyRequests); r.Header.Get("Retry-After") == "" {
						t.Error("no Retry-After")
					}
				}
			}
			for range burst {
				call(tt.answer)
			}
			for range 4 {
				call(tt.then)
			}
			// Those who are known are answered and on record, whoever else is there.
			known := s.client(svc("shop", "db"), at(tt.address))
			for range burst + 5 {
				do(t, known, http.MethodGet, s.url+"/v1/recipient")
			}
			do(t, s.client(""), http.MethodGet, s.url+"/v1/status", bearer(adminToken)...)
			later := now.Add(lineEvery)
			s.stopped.Store(&later)
			call(tt.answer)

			if text := string(do(t, s.client(""), http.MethodGet, s.url+"/v1/recipient").body); !strings.Contains(text, "age1") {
				t.Errorf("another address: %s", text)
			}
			metrics := string(do(t, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, http.MethodGet, s.metricsURL).body)
			lines := s.onRecord()
			of := func(actor string) int {
				return len(slices.DeleteFunc(slices.Clone(lines), func(e audit.Entry) bool { return e.Actor != actor }))
			}
			written := of(audit.Anonymous) + of(audit.Unverified)
			if written != burst+1 && written != burst+2 { // the last one, from another address or not
				t.Errorf("%d lines of strangers", written)
			}
			if of(svc("shop", "db")) != burst+5 || of(adminName) != 1 {
				t.Errorf("%d lines of a workload, %d of an operator", of(svc("shop", "db")), of(adminName))
			}
			if leftOut := burst + 4 + 1 + 1 - written; !strings.Contains(metrics, fmt.Sprintf("\nvsecm_audit_left_out_total %d\n", leftOut)) || strings.Count(s.log.String(), "audit log lacks some") != 1 {
				t.Errorf("it is not told once: %s", s.log.String())
			}
		})
	}
}
