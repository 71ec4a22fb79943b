package serve

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestWhatCannotBeATokenIsRefusedUnasked(t *testing.T) {
	s, who := newOperated(t)
	c := s.client("")
	for name, values := range map[string][]string{
		"none":                nil,
		"empty":               {""},
		"no scheme":           {adminToken},
		"another scheme":      {"Basic " + adminToken},
		"no token":            {"Bearer "},
		"two parts":           {"Bearer aGVhZA.YWRtaW4"},
		"four parts":          {"Bearer " + adminToken + ".eA"},
		"an empty part":       {"Bearer aGVhZA..c2ln"},
		"two spaces":          {"Bearer  " + adminToken},
		"two tokens":          {"Bearer " + adminToken + " " + adminToken},
		"two headers":         {"Bearer " + adminToken, "Bearer " + adminToken},
		"standard base64":     {"Bearer aGVh/A.YWRt+W4.c2ln"},
		"padding":             {"Bearer aGVhZA==.YWRtaW4=.c2ln"},
		"control characters":  {"Bearer aGVhZA.YWRtaW4\t.c2ln"},
		"longer than allowed": {"Bearer " + adminToken + strings.Repeat("A", maxToken)},
	} {
		req := must(http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/v1/status", nil))(t)
		req.Header["Authorization"] = values
		resp, err := c.Do(req)
		check(t, err)
		check(t, resp.Body.Close())
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
	if n := who.questions(); n != 0 {
		t.Errorf("the cluster was asked about %d of them", n)
	}
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER "} {
		if r := do(t, c, http.MethodGet, s.url+"/v1/status", "Authorization", scheme+adminToken); r.StatusCode != http.StatusOK {
			t.Errorf("%q: %s", scheme, r.Status)
		}
	}
}

func FuzzBearer(f *testing.F) {
	for _, seed := range []string{"", "Bearer", "Bearer ", "Bearer " + adminToken, "bearer a.b.c", "Basic a.b.c", "Bearer a.b.c d", "Bearer a..c", "Bearer\ta.b.c", "Bearer é.b.c"} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, value string, twice bool) {
		h := http.Header{"Authorization": {value}}
		if twice {
			h.Add("Authorization", value)
		}
		token, err := bearerOf(h)
		if err != nil {
			if token != "" || len(value) > 8 && strings.Contains(err.Error(), value) {
				t.Errorf("%q, %v", token, err)
			}
			return
		}
		if twice || len(token) > maxToken || strings.Count(token, ".") != 2 || strings.ContainsAny(token, " \t\r\n\"\x00") || !strings.HasSuffix(value, " "+token) {
			t.Errorf("%q is taken for token %q", value, token)
		}
	})
}

func FuzzRevealRequest(f *testing.F) {
	for _, seed := range []string{
		"", "{}", `{"namespace":"shop","name":"db"}`, `{"namespace":"shop","name":"db"} `, `{"namespace":"shop","name":"db"}{}`,
		`{"namespace":"shop","name":"../x"}`, `{"name":"a","name":"b","namespace":"c"}`, `{"NAMESPACE":"shop","Name":"a.b"}`, "[]", "null", `{"namespace":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		key, err := parseReveal(body)
		if err != nil {
			if key.Name != "" || key.Namespace != "" {
				t.Errorf("%v beside %v", key, err)
			}
			return
		}
		for _, name := range []string{key.Namespace, key.Name} {
			if name == "" || len(name) > 253 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
				t.Errorf("%q is taken for a name", name)
			}
		}
	})
}

func FuzzUnsealQuery(f *testing.F) {
	id := strings.Repeat("0a", 16)
	for _, seed := range []string{
		"", "accept-key-id=", "accept-key-id=" + id, "accept-key-id=%30", "a=b", ";", "%zz",
		"reset=1", "reset=0", "reset=1&set=" + id, "set=" + id, "reset=1&accept-key-id=" + id, "reset=1&set=" + id + "&set=" + id,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, err := parseUnsealQuery(query)
		if err != nil {
			return
		}
		if q.accept != "" && (len(q.accept) != 32 || strings.Trim(string(q.accept), "0123456789abcdef") != "") {
			t.Errorf("%q, %v", query, q)
		}
		if len(q.sets) > 1 || len(q.sets) == 1 && !q.reset || q.reset && q.accept != "" {
			t.Errorf("%q, %v", query, q)
		}
		if text := q.onRecord(); strings.Trim(text, " -=abcdefghijklmnopqrstuvwxyz0123456789") != "" || len(text) > 64 {
			t.Errorf("%q, on record %q", query, text)
		}
	})
}

// What is read of a share's body is what encoding/json reads, and nothing of it is in an
// error.
func FuzzGivenShare(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "null", `""`, `{"share":"a"}`, `{"share":"a\nb\t\"\\\/\b\f\r","set":"x\n"}`, `{"share":"\u0061\ud83d\ude00\u003c"}`, `{"share":null}`,
		`{"share":1}`, `{"share":"a","set":1}`, `{"share":"a","share":"b"}`, `{"share":"a","more":[1]}`, `{"SHARE":"a"}`, `{"share":"a"} {}`, "{\"share\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		given, err := parseGivenShare(bytes.Clone(body))
		if err != nil {
			if err.Error() != errShareBody.Error() {
				t.Errorf("an error of its own: %v", err)
			}
			return
		}
		var want struct{ Share, Set string }
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatalf("taken: %q", body)
		}
		if given.Set != want.Set {
			t.Errorf("set %q, want %q", given.Set, want.Set)
		}
		// No share has a letter beyond ASCII, for which encoding/json knows more.
		if ascii := strings.IndexFunc(want.Share, func(r rune) bool { return r >= utf8.RuneSelf }) < 0; ascii && string(given.Share) != want.Share {
			t.Errorf("share %q, want %q", given.Share, want.Share)
		}
	})
}
