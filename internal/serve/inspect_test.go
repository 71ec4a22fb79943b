package serve

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

func TestAWorkloadLearnsWhoItIsAndWhatItGets(t *testing.T) {
	s := newSafe(t)
	s.apply("shop", "db", map[string]string{"password": "the value"})
	s.apply("shop", "shared", map[string]string{"token": "t"}, "api", "db")
	s.apply("shop", "api", map[string]string{"key": "not for db"})
	s.apply("bank", "db", map[string]string{"password": "another namespace"})
	s.moved("shop", "web")
	notAfter := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	id := vsecmID("shop", "db")
	c := s.clientWith(must(s.ca.Issue(spiffeid.RequireFromString(id), notAfter))(t))
	look := func(c *http.Client) (told inspection) {
		t.Helper()
		r := do(t, c, http.MethodGet, s.url+"/v1/inspect")
		if r.StatusCode != http.StatusOK || strings.Contains(string(r.body), "the value") {
			t.Fatalf("got %s %s", r.Status, r.body)
		}
		check(t, json.Unmarshal(r.body, &told))
		return told
	}
	var told inspection
	wait.Until(t, "the objects are in", func() bool {
		told = look(c)
		return len(told.Objects) == 2 && len(look(s.client(svc("shop", "web"))).Objects) == 1
	})
	if told.SPIFFEID != id || told.Namespace != "shop" || told.Name != "db" || !told.Expires.Equal(notAfter) {
		t.Errorf("told %+v", told)
	}
	list, _, err := s.Cache.Secrets(t.Context(), identity.Workload{Namespace: "shop", Name: "db"})
	check(t, err)
	for i, o := range told.Objects {
		if want := list[i]; o.Name != want.Name || o.Version != want.Version || !o.Updated.Equal(want.Updated) || o.State != "served" || o.Reason != "" {
			t.Errorf("told %+v of %s %s", o, want.Name, want.Version)
		}
	}
	told = look(s.client(svc("shop", "web")))
	if o := told.Objects[0]; o.Name != "web" || o.State != "unreadable" || o.Reason == "" {
		t.Errorf("told %+v", o)
	}
	// Nothing is not null.
	if r := do(t, s.client(svc("shop", "nobody")), http.MethodGet, s.url+"/v1/inspect"); !strings.Contains(string(r.body), `"objects":[]`) {
		t.Errorf("told %s", r.body)
	}
	for _, e := range s.auditLines() {
		if e.Object != "inspect" && e.Object != "secrets" {
			t.Errorf("on record: %+v", e)
		}
	}
}

func TestWhoMayNotInspectLearnsWhy(t *testing.T) {
	s := newSafe(t)
	stranger := do(t, s.client("spiffe://example.org/agent/x"), http.MethodGet, s.url+"/v1/inspect")
	stranger.is(t, problem.Forbidden)
	for _, want := range []string{"spiffe://example.org/agent/x", identity.VSecMPattern, identity.SPIREPattern} {
		if !strings.Contains(string(stranger.body), want) {
			t.Errorf("%s does not name %s", stranger.body, want)
		}
	}
	do(t, s.client(""), http.MethodGet, s.url+"/v1/inspect").is(t, problem.Unauthorized)
	c := s.client(svc("shop", "db"))
	do(t, c, http.MethodPost, s.url+"/v1/inspect").is(t, problem.MethodNotAllowed)
	do(t, c, http.MethodGet, s.url+"/v1/inspect?workload=api").is(t, problem.BadRequest)
	s.Cache.Seal()
	do(t, c, http.MethodGet, s.url+"/v1/inspect").is(t, problem.Sealed)
	unfilled := startSafe(t, false)
	do(t, unfilled.client(svc("shop", "db")), http.MethodGet, unfilled.url+"/v1/inspect").is(t, problem.Unavailable)
}

// An inspection that nobody reads stays in memory, as secrets do.
func TestInspectionsShareTheBudget(t *testing.T) {
	s := newSafe(t, func(s *safe) { s.budget.wait = 20 * time.Millisecond })
	s.apply("shop", "db", map[string]string{"password": "x"})
	c, w := s.client(svc("shop", "db")), identity.Workload{Namespace: "shop", Name: "db"}
	wait.Until(t, "the object is in", func() bool { return s.Cache.ObjectsIn("shop") == 1 })
	leave := must(s.budget.enter(t.Context(), w, maxWorkloadBytes))(t)
	do(t, c, http.MethodGet, s.url+"/v1/inspect").is(t, problem.TooManyRequests)
	leave()
	r := do(t, c, http.MethodGet, s.url+"/v1/inspect")
	if r.StatusCode != http.StatusOK || len(r.body) > perStanding+perRead {
		t.Errorf("got %s, %d bytes", r.Status, len(r.body))
	}
	wait.Until(t, "the room is given back", func() bool { return s.budget.all.TryAcquire(maxBytes) })
}
