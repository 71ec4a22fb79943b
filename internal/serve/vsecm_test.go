package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// moved puts an object into the store whose value was sealed for another place.
func (s *safe) moved(namespace, name string) {
	s.t.Helper()
	s.apply("elsewhere", name, map[string]string{"value": "p"})
	o := must(s.store.Get(s.t.Context(), store.Key{Namespace: "elsewhere", Name: name}))(s.t).DeepCopy()
	o.Namespace, o.ResourceVersion = namespace, ""
	_, err := s.store.Apply(s.t.Context(), "shop.test", o)
	check(s.t, err)
}

// vsecmID is how VSecM registers a workload.
func vsecmID(namespace, name string) string {
	return "spiffe://example.org/workload/" + name + "/ns/" + namespace + "/sa/" + name + "/n/" + name + "-5d8c6c8f7-abcde"
}

func TestAClientOfVSecMsIsServed(t *testing.T) {
	s := newSafe(t)
	s.apply("shop", "db", map[string]string{"value": `{"user":"u","password":"p\"4<&>é"}`})
	s.apply("shop", "other", map[string]string{"value": "another object of this workload's"}, "db")
	s.apply("bank", "db", map[string]string{"value": "another namespace's"})
	v := s.vsecmClient(vsecmID("shop", "db"))
	var a vsecmAnswer
	wait.Until(t, "the object is served", func() (ok bool) {
		var err error
		a, err = v.fetch(t)
		return err == nil
	})
	if a.Data != `{"user":"u","password":"p\"4<&>é"}` || a.Err != "" {
		t.Errorf("got %+v", a)
	}
	for _, at := range []string{a.Created, a.Updated} {
		// VSecM's times are in a pair of quotes of their own.
		if when, err := time.Parse(time.RFC3339, strings.Trim(at, `"`)); err != nil || len(at) != len(`"2026-01-02T03:04:05Z"`) || time.Since(when) > time.Hour {
			t.Errorf("time %s: %v", at, err)
		}
	}
	if r := do(t, s.client(vsecmID("shop", "db")), http.MethodGet, s.url+vsecmPath); r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", r.Header)
	}
	if got := v.sidecar(t); got != a.Data {
		t.Errorf("the sidecar wrote %s", got)
	}
}

// VSecM's clients look at no status but 404. Anything else that went wrong must not look
// like a secret that is empty, or have the sidecar empty its file.
func TestAClientOfVSecMsKeepsItsSecretUnlessItIsGone(t *testing.T) {
	s := newSafe(t)
	s.apply("shop", "db", map[string]string{"value": "p"})
	v := s.vsecmClient(vsecmID("shop", "db"))
	wait.Until(t, "the sidecar has the secret", func() bool { return v.sidecar(t) == "p" })

	failing := func(what string) {
		t.Helper()
		if a, err := v.fetch(t); err == nil || errors.Is(err, errVSecMNotFound) || a != (vsecmAnswer{}) {
			t.Errorf("%s: the SDK got %+v, %v", what, a, err)
		}
		if got := v.sidecar(t); got != "p" {
			t.Errorf("%s: the sidecar's file holds %q", what, got)
		}
	}
	s.Cache.Seal()
	failing("sealed")
	s.Cache.Unseal()
	if got := v.sidecar(t); got != "p" {
		t.Errorf("the sidecar's file holds %q", got)
	}
	// Its SVID has expired, by Safe's clock.
	s.ahead.Store(int64(2 * time.Hour))
	failing("expired")
	s.ahead.Store(0)

	check(t, s.store.Delete(t.Context(), "shop.test", store.Key{Namespace: "shop", Name: "db"}))
	wait.Until(t, "the sidecar knows that the secret is gone", func() bool { return v.sidecar(t) == "" })
	if _, err := v.fetch(t); !errors.Is(err, errVSecMNotFound) {
		t.Errorf("the SDK got %v", err)
	}
}

func TestASecretThatCannotBeReadIsNotGoneForVSecMsClients(t *testing.T) {
	s := newSafe(t)
	s.apply("shop", "db", map[string]string{"value": "\xff"})
	s.apply("shop", "api", map[string]string{"user": "u", "blob": "a\xffb"})
	s.moved("shop", "web")
	for name, want := range map[string]string{"db": `the value of "value" is not UTF-8`, "api": `the value of "blob" is not UTF-8`, "web": "cannot be read"} {
		t.Run(name, func(t *testing.T) {
			c := s.client(vsecmID("shop", name), http1)
			var r reply
			wait.Until(t, "the object is in", func() bool {
				r = do(t, c, http.MethodGet, s.url+vsecmPath)
				return r.StatusCode != http.StatusNotFound
			})
			if r.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(string(r.body), want) || json.Valid(r.body) {
				t.Errorf("got %s %s", r.Status, r.body)
			}
			if _, err := s.vsecmClient(vsecmID("shop", name)).fetch(t); err == nil || errors.Is(err, errVSecMNotFound) {
				t.Errorf("the SDK got %v", err)
			}
		})
	}
}

// What stands under the old path is only ever what the workload may read.
func TestWhomTheOldPathServes(t *testing.T) {
	s := newSafe(t)
	s.apply("shop", "db", map[string]string{"value": "p"})
	s.apply("shop", "api", map[string]string{"value": "for db alone"}, "db")
	wait.Until(t, "the objects are in", func() bool {
		return do(t, s.client(vsecmID("shop", "db")), http.MethodGet, s.url+vsecmPath).StatusCode == http.StatusOK &&
			len(do(t, s.client(svc("shop", "db")), http.MethodGet, s.url+"/v1/secrets").values(t)) == 2
	})
	for _, tt := range []struct {
		name, method, id string
		want             int
	}{
		{"its owner", "GET", svc("shop", "db"), 200},
		{"its name in another namespace", "GET", vsecmID("bank", "db"), 404},
		{"one whose name an object bears that names others", "GET", vsecmID("shop", "api"), 404},
		{"one without anything", "GET", vsecmID("shop", "web"), 404},
		{"nobody", "GET", "", 401},
		{"an ID that is no workload's", "GET", "spiffe://example.org/agent/x", 403},
		{"HEAD", "HEAD", svc("shop", "db"), 405},
		{"VSecM's POST", "POST", svc("shop", "db"), 405},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := do(t, s.client(tt.id, http1), tt.method, s.url+vsecmPath)
			if r.StatusCode != tt.want {
				t.Errorf("got %s %s", r.Status, r.body)
			}
			if tt.want != 200 && json.Valid(r.body) {
				t.Errorf("an error is JSON: %s", r.body)
			}
		})
	}
	outcomes := map[string]int{}
	for _, e := range s.auditLines() {
		outcomes[e.Object+" "+e.Outcome]++
	}
	if outcomes["secrets shop/db ok"] == 0 || outcomes["secrets "+string(problem.NotFound)] == 0 || outcomes["secrets "+string(problem.Forbidden)] != 1 {
		t.Errorf("on record: %v", outcomes)
	}
}

func TestSeveralKeysAreAnObjectForVSecMsClients(t *testing.T) {
	odd := "a\"b\\c\x00\x1f\n\t\ré\u2028</script>\x7f"
	for name, data := range map[string]map[string]string{
		"one":     {"value": odd},
		"several": {"user": odd, "password": "", "tls.key": strings.Repeat(odd, 100)},
		"nothing": {},
		"empty":   {"value": ""},
		"JSON":    {"value": `{"a":[1,"\u0000"]}`},
	} {
		t.Run(name, func(t *testing.T) {
			secret := cache.Secret{Updated: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Data: map[string][]byte{}}
			for key, value := range data {
				secret.Data[key] = []byte(value)
			}
			b, err := encodeVSecM(secret)
			check(t, err)
			if len(b) != cap(b) {
				t.Errorf("%d bytes in a buffer of %d", len(b), cap(b))
			}
			var a vsecmAnswer
			check(t, json.Unmarshal(b, &a))
			if want := `"2026-01-02T03:04:05Z"`; a.Created != want || a.Updated != want {
				t.Errorf("times %s, %s", a.Created, a.Updated)
			}
			got := map[string]string{}
			switch len(data) {
			case 0:
				if a.Data != "" {
					t.Errorf("nothing is %q", a.Data)
				}
			case 1:
				got["value"] = a.Data
			default:
				check(t, json.Unmarshal([]byte(a.Data), &got))
			}
			if !equal(got, data) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func FuzzVSecMsShape(f *testing.F) {
	f.Add("value", "p", "", "")
	f.Add("a", "\x00\x1f\"\\", "b", "\u2028é")
	f.Add("a", "\xff", "b", "")
	f.Fuzz(func(t *testing.T, key, value, key2, value2 string) {
		secret := cache.Secret{Data: map[string][]byte{key: []byte(value), key2: []byte(value2)}}
		if !utf8.ValidString(key + key2) {
			return // no key of an object is
		}
		b, err := encodeVSecM(secret)
		if err != nil {
			if utf8.ValidString(value) && utf8.ValidString(value2) {
				t.Fatal(err)
			}
			return
		}
		var a vsecmAnswer
		if err := json.Unmarshal(b, &a); err != nil || len(b) != cap(b) {
			t.Fatalf("%q: %v, %d of %d", b, err, len(b), cap(b))
		}
		if len(secret.Data) == 1 {
			if a.Data != string(secret.Data[key]) {
				t.Fatalf("%q became %q", value, a.Data)
			}
			return
		}
		got := map[string]string{}
		if err := json.Unmarshal([]byte(a.Data), &got); err != nil || len(got) != 2 || got[key] != value || got[key2] != value2 {
			t.Fatalf("%q became %q (%v)", secret.Data, got, err)
		}
	})
}

func TestWhatAnAnswerToVSecMsClientsTakesIsForeseen(t *testing.T) {
	for _, keys := range []int{1, 2, 100} {
		secret := cache.Secret{Name: "db", Version: "0123456789abcdef", Data: make(map[string][]byte)}
		values := 0
		for i := range keys {
			// What takes the most: a character that JSON spells out.
			value := []byte(strings.Repeat("\x01", 10_000/keys))
			secret.Data[fmt.Sprintf("key-%d", i)] = value
			values += len(value)
		}
		data, _ := dataOf(secret)
		if keys == 1 {
			data = nil // it is the value itself
		}
		body, err := encodeVSecM(secret)
		if err != nil {
			t.Fatal(err)
		}
		if taken, room := values+cap(data)+cap(body), 2*vsecmRoom*encodedSize([]cache.Secret{secret}); taken > room {
			t.Errorf("%d keys take %d bytes, of %d", keys, taken, room)
		}
	}
}
