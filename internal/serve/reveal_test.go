package serve

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

func (s *safe) revealed(namespace, name, token string) reply {
	s.t.Helper()
	body := must(json.Marshal(map[string]string{"namespace": namespace, "name": name}))(s.t)
	return send(s.t, s.client(""), http.MethodPost, s.url+"/v1/reveal", strings.NewReader(string(body)), bearer(token)...)
}

func TestRevealGivesOneObjectsValues(t *testing.T) {
	s, _ := newOperated(t)
	s.apply("shop", "db", map[string]string{"password": theValue, "odd.key": ""})
	s.apply("shop", "api", map[string]string{"token": "not asked for"})
	wait.Until(t, "the objects are in", func() bool { return s.Cache.Objects() == 2 })
	r := s.revealed("shop", "db", revealToken)
	var got struct {
		Namespace, Name, Type string
		Updated               time.Time
		Data                  map[string]string
	}
	if r.StatusCode != http.StatusOK || r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%s %v", r.Status, r.Header)
	}
	check(t, json.Unmarshal(r.body, &got))
	want := map[string]string{"password": base64.StdEncoding.EncodeToString([]byte(theValue)), "odd.key": ""}
	if got.Namespace != "shop" || got.Name != "db" || got.Type != "" || time.Since(got.Updated) > time.Hour || !equal(got.Data, want) {
		t.Errorf("got %s", r.body)
	}
	if strings.Contains(string(r.body), `"type"`) {
		t.Errorf("an object that is no Kubernetes Secret has a type: %s", r.body)
	}
}

func TestRevealTellsNothingToThoseWhoMayNot(t *testing.T) {
	s, who := newOperated(t)
	s.withDB(theValue)
	s.apply("shop", "api", map[string]string{"token": "t"})
	s.apply("bank", "db", map[string]string{"pin": "1"})
	wait.Until(t, "the objects are in", func() bool { return s.Cache.Objects() == 3 })
	for _, key := range []store.Key{
		{Namespace: "shop", Name: "api"}, {Namespace: "bank", Name: "db"}, // there are such
		{Namespace: "shop", Name: "nothing"}, {Namespace: "nowhere", Name: "db"}, // and there are not
	} {
		s.revealed(key.Namespace, key.Name, revealToken).is(t, problem.Forbidden)
	}
	s.revealed("shop", "db", adminToken).is(t, problem.Forbidden)
	s.revealed("shop", "missing", revealToken).is(t, problem.NotFound)
	who.set(func(o *operators) { o.rights[revealName] = nil })
	s.revealed("shop", "db", revealToken).is(t, problem.Forbidden)
	lines := s.onRecord()
	for i, want := range []audit.Entry{
		{Object: "secrets shop/api", Outcome: string(problem.Forbidden)},
		{Object: "secrets bank/db", Outcome: string(problem.Forbidden)},
		{Object: "secrets shop/nothing", Outcome: string(problem.Forbidden)},
		{Object: "secrets nowhere/db", Outcome: string(problem.Forbidden)},
		{Object: "secrets shop/db", Outcome: string(problem.Forbidden)},
		{Object: "secrets shop/missing", Outcome: string(problem.NotFound)},
		{Object: "secrets shop/db", Outcome: string(problem.Forbidden)},
	} {
		if e := lines[i]; e.Verb != "reveal" || e.Object != want.Object || e.Outcome != want.Outcome {
			t.Errorf("line %d: %+v", i, e)
		}
	}
	if len(lines) != 7 {
		t.Errorf("%d lines", len(lines))
	}
}

func TestRevealOfWhatDoesNotOpen(t *testing.T) {
	s, _ := newOperated(t)
	// Sealed for another place.
	o := &v1alpha1.EncryptedSecret{}
	o.APIVersion, o.Kind, o.Namespace, o.Name = v1alpha1.APIVersion, v1alpha1.KindEncryptedSecret, "shop", "broken"
	elsewhere := o.DeepCopy()
	elsewhere.Name = "elsewhere"
	o.Spec.EncryptedData = map[string]string{
		"k": must(encrypt.Seal([]byte(theValue), encrypt.BindingOf(elsewhere, "k"), []encrypt.Recipient{s.key.Recipient()}, time.Now()))(t),
	}
	must(s.store.Apply(t.Context(), "shop.test", o))(t)
	wait.Until(t, "the object is in", func() bool { return s.Cache.Objects() == 1 })
	r := s.revealed("shop", "broken", revealToken)
	r.is(t, problem.Unreadable)
	if leak(string(r.body), theValue) != "" || !strings.Contains(string(r.body), "shop/broken") {
		t.Errorf("got %s", r.body)
	}
	if lines := s.onRecord(); len(lines) != 1 || lines[0].Outcome != string(problem.Unreadable) {
		t.Errorf("on record: %+v", lines)
	}
}

func TestNothingIsRevealedBeforeTheCacheIsFilled(t *testing.T) {
	s := startSafe(t, false, func(s *safe) { s.Operators = newOperators() })
	s.revealed("shop", "db", revealToken).is(t, problem.Unavailable)
	s.revealed("shop", "db", nobodyToken).is(t, problem.Forbidden)
}

func TestRevealTakesNothingButTwoNames(t *testing.T) {
	s, _ := newOperated(t)
	s.withDB(theValue)
	for name, body := range map[string]string{
		"nothing":             "",
		"no JSON":             "namespace=shop",
		"another member":      `{"namespace":"shop","name":"db","key":"password"}`,
		"two objects":         `{"namespace":"shop","name":"db"}{}`,
		"no namespace":        `{"name":"db"}`,
		"no name":             `{"namespace":"shop"}`,
		"a namespace of none": `{"namespace":"","name":"db"}`,
		"a path":              `{"namespace":"shop","name":"../db"}`,
		"a line break":        `{"namespace":"shop","name":"db\n{\"actor\":\"forged\"}"}`,
		"a list":              `[{"namespace":"shop","name":"db"}]`,
		"a number":            `{"namespace":"shop","name":1}`,
		"too much":            `{"namespace":"shop","name":"db"}` + strings.Repeat(" ", maxReveal),
	} {
		t.Run(name, func(t *testing.T) {
			r := send(t, s.client(""), http.MethodPost, s.url+"/v1/reveal", strings.NewReader(body), bearer(revealToken)...)
			r.is(t, problem.BadRequest)
		})
	}
	for _, e := range s.onRecord() {
		if e.Object != "secrets" || e.Outcome != string(problem.BadRequest) {
			t.Errorf("on record: %+v", e)
		}
	}
}

func TestEncodeRevealedIsExactAndNeverGrows(t *testing.T) {
	long := strings.Repeat("x", 253)
	for _, found := range []cache.Revealed{
		{},
		{Type: "kubernetes.io/dockerconfigjson", Secret: cache.Secret{Updated: time.Now(), Data: map[string][]byte{".dockerconfigjson": []byte("{}")}}, Sealed: map[string]string{".dockerconfigjson": "YWdl"}},
		{Type: strings.Repeat("\x01", 253), Secret: cache.Secret{Data: map[string][]byte{strings.Repeat("\x02", 253): nil, "b": make([]byte, 1<<20)}}},
	} {
		key := store.Key{Namespace: long[:63], Name: long}
		got := encodeRevealed(key, found)
		if cap(got) != revealedSize(key, found) {
			t.Errorf("the buffer grew from %d to %d bytes", revealedSize(key, found), cap(got))
		}
		var in struct {
			Namespace, Name, Type string
			Data                  map[string][]byte
			Sealed                map[string]string
		}
		check(t, json.Unmarshal(got, &in))
		for k := range found.Data {
			if sum := sha256.Sum256([]byte(found.Sealed[k])); in.Sealed[k] != hex.EncodeToString(sum[:]) || len(in.Sealed) != len(found.Data) {
				t.Errorf("sealed: %q", in.Sealed)
			}
		}
		if in.Namespace != key.Namespace || in.Name != key.Name || in.Type != found.Type || len(in.Data) != len(found.Data) {
			t.Errorf("got %.200s", got)
		}
	}
}

// Operators share the room for answers with workloads, and each has a part of it.
func TestAnswersToOperatorsTakeBoundedMemory(t *testing.T) {
	s, _ := newOperated(t, func(s *safe) { s.budget = newBudget(maxBytes, 1, time.Millisecond) })
	s.withDB(theValue)
	leave := must(s.budget.enter(context.Background(), operatorShare(revealName), 1))(t)
	s.revealed("shop", "db", revealToken).is(t, problem.TooManyRequests)
	leave()
	if r := s.revealed("shop", "db", revealToken); r.StatusCode != http.StatusOK {
		t.Errorf("got %s", r.Status)
	}
	if lines := s.onRecord(); !slices.ContainsFunc(lines, func(e audit.Entry) bool { return e.Outcome == string(problem.TooManyRequests) }) {
		t.Errorf("on record: %+v", lines)
	}
}
