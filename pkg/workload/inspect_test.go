package workload

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

const oneInspection = `{"spiffeID":"spiffe://example.org/ns/shop/sa/db","namespace":"shop","name":"db","expires":"2026-01-02T03:04:05Z","objects":[
	{"name":"db","version":"v1","updated":"2026-01-01T00:00:00Z","state":"served","expiresAt":"2027-01-01T00:00:00Z"},
	{"name":"api","version":"v2","state":"unreadable","reason":"why","later":{"more":[1]}}]}`

func TestInspectTellsWhatSafeSays(t *testing.T) {
	w := newWorld(t, "spiffe://example.org"+safePath, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.String() != "/v1/inspect" || r.Header.Get("If-None-Match") != "" {
			t.Errorf("asked for %s", r.URL)
		}
		respond(oneInspection)(w, r)
	})
	c := w.client(t)
	in, err := c.Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if in.SPIFFEID != "spiffe://example.org/ns/shop/sa/db" || in.Namespace != "shop" || in.Name != "db" || in.Expires.Year() != 2026 {
		t.Errorf("got %+v", in)
	}
	api := Standing{Name: "api", Version: "v2", State: Unreadable, Reason: "why"}
	db := Standing{
		Name: "db", Version: "v1", Updated: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), State: Served,
		ExpiresAt: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	if len(in.Objects) != 2 || in.Objects[0] != api || in.Objects[1] != db {
		t.Errorf("got %+v", in.Objects)
	}
	if id, expires, err := c.Identity(); err != nil || id != in.SPIFFEID || !expires.After(time.Now()) {
		t.Errorf("identity %q, %v, %v", id, expires, err)
	}
	if c.URL() != w.url {
		t.Errorf("url %q", c.URL())
	}
}

func TestInspectRefusesWhatIsNoInspection(t *testing.T) {
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   error
	}{
		"an older Safe":      {refuse(problem.NotFound), ErrNotFound},
		"a sealed Safe":      {refuse(problem.Sealed), ErrSealed},
		"not a workload":     {refuse(problem.Forbidden), ErrUnauthorized},
		"half a JSON":        {respond(oneInspection[:80]), ErrBadAnswer},
		"secrets":            {respond(oneFile), ErrBadAnswer},
		"no objects":         {respond(`{"spiffeID":"spiffe://example.org/x"}`), ErrBadAnswer},
		"a name that climbs": {respond(`{"spiffeID":"x","objects":[{"name":"../a"}]}`), ErrBadAnswer},
		"a doubled name":     {respond(`{"spiffeID":"x","objects":[{"name":"a"},{"name":"a"}]}`), ErrBadAnswer},
		"a doubled member":   {respond(`{"spiffeID":"x","objects":[],"objects":[]}`), ErrBadAnswer},
		"an unasked 304":     {unchanged, ErrBadAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "spiffe://example.org"+safePath, nil, tt.answer)
			if in, err := w.client(t).Inspect(t.Context()); in != nil || !errors.Is(err, tt.want) {
				t.Errorf("got %+v, %v", in, err)
			}
		})
	}
}

func FuzzParseInspection(f *testing.F) {
	f.Add([]byte(oneInspection))
	f.Add([]byte(oneFile))
	f.Add([]byte(`{"spiffeID":"x","objects":[{"name":"a","updated":"yesterday"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		in, err := parseInspection(body)
		if err != nil {
			if !errors.Is(err, ErrBadAnswer) || in != nil {
				t.Fatalf("got %v, %v", in, err)
			}
			return
		}
		for i, o := range in.Objects {
			if !isObjectName(o.Name) || i > 0 && o.Name <= in.Objects[i-1].Name {
				t.Fatalf("%q comes after %q", o.Name, in.Objects[max(i-1, 0)].Name)
			}
		}
	})
}
