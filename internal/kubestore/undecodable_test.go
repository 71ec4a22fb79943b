package kubestore_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// loosen makes the cluster take any spec, as an older CRD may have, and returns what makes it
// strict again.
func (w *world) loosen(t *testing.T) (tighten func()) {
	t.Helper()
	w.kubectl(t, "", "patch", "crd", "encryptedsecrets.vsecm.com", "--type=json", "-p",
		`[{"op":"replace","path":"/spec/versions/0/schema/openAPIV3Schema","value":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}]`)
	w.until(t, "the loose CRD", true)
	return func() {
		w.kubectl(t, "", "apply", "--server-side", "--force-conflicts", "-k", crds(t))
		w.until(t, "the strict CRD", false)
	}
}

// until waits until the cluster takes, or no longer takes, what the CRD refuses.
func (w *world) until(t *testing.T, what string, taken bool) {
	t.Helper()
	probe := `{"apiVersion":"vsecm.com/v1alpha1","kind":"EncryptedSecret","metadata":{"name":"probe"},"spec":{"encryptedData":{"a":"` + sealed + `"},"scope":"galaxy"}}`
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		_, _, err := w.Kubectl(t, w.Kubeconfig(), probe, "create", "--dry-run=server", "--validate=false", "-n", "web", "-f", "-")
		if (err == nil) == taken {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s", what)
		}
	}
}

// sealedObject returns an object whose value key opens.
func sealedObject(t *testing.T, key *unseal.RootKey, name, value string) *v1alpha1.EncryptedSecret {
	t.Helper()
	o := object(name, "")
	text, err := encrypt.Seal([]byte(value), encrypt.BindingOf(o, "password"), []encrypt.Recipient{key.Recipient()}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o.Spec.EncryptedData["password"] = text
	return o
}

func TestPromise06_WhatAnOlderCRDLetThroughHarmsNobody(t *testing.T) {
	const canary = "8123456789"
	w := newWorld(t, start(t))
	key, err := unseal.Generate(true)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := unseal.NewKeyring(key)
	if err != nil {
		t.Fatal(err)
	}
	s, log := w.open(t)
	c := cache.New(keys, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	following := make(chan error, 1)
	go func() { following <- c.Run(t.Context(), s) }()
	apply(t, s, sealedObject(t, key, "good", "good value"))
	apply(t, s, sealedObject(t, key, "turns", "turned"))
	tighten := w.loosen(t)

	metadata := func(name string, labels string) string {
		return `"apiVersion":"vsecm.com/v1alpha1","kind":"EncryptedSecret","metadata":{"namespace":"shop","name":"` + name + `"` + labels + `}`
	}
	mine := `,"labels":{"` + v1alpha1.LabelSource + `":"` + owner + `"}`
	odd := map[string]string{
		// These the store cannot decode.
		"text-workloads": `{` + metadata("text-workloads", "") + `,"spec":{"encryptedData":{},"workloads":"db"}}`,
		"number-value":   `{` + metadata("number-value", "") + `,"spec":{"encryptedData":{"password":` + canary + `}}}`,
		"list-data":      `{` + metadata("list-data", mine) + `,"spec":{"encryptedData":["` + canary + `"]}}`,
		"text-spec":      `{` + metadata("text-spec", "") + `,"spec":"` + canary + `"}`,
		"word-immutable": `{` + metadata("word-immutable", "") + `,"spec":{"encryptedData":{},"secret":{"immutable":"yes"}}}`,
	}
	for _, body := range odd {
		w.raw(t, "shop", body)
	}
	// These it can, and whoever reads them judges.
	served := map[string]string{
		"odd-status":     `{` + metadata("odd-status", "") + `,"spec":{"encryptedData":{}}}`,
		"no-spec":        `{` + metadata("no-spec", "") + `}`,
		"null-spec":      `{` + metadata("null-spec", "") + `,"spec":null}`,
		"unknown-scope":  `{` + metadata("unknown-scope", "") + `,"spec":{"scope":"galaxy","workloads":["good"],"encryptedData":{"password":"` + canary + `"}}}`,
		"odd-names":      `{` + metadata("odd-names", "") + `,"spec":{"workloads":["good","../good","",","],"encryptedData":{"../x":"` + canary + `","":""}}}`,
		"many-workloads": `{` + metadata("many-workloads", "") + `,"spec":{"workloads":["good"` + strings.Repeat(`,"x"`, 5000) + `],"encryptedData":{}}}`,
		"many-keys":      `{` + metadata("many-keys", "") + `,"spec":{"workloads":["good"],"encryptedData":` + toJSON(t, many(5000, "k%d", "")) + `}}`,
	}
	for _, body := range served {
		w.raw(t, "shop", body)
	}
	w.kubectl(t, "", "patch", "encryptedsecrets", "-n", "shop", "odd-status", "--subresource=status", "--type=merge", "-p", `{"status":{"conditions":"x"}}`)
	w.kubectl(t, "", "patch", "encryptedsecrets", "-n", "shop", "turns", "--type=merge", "-p", `{"spec":{"workloads":"db"}}`)

	w.raw(t, "shop", toJSON(t, object("last", "1")))
	await(t, s, "the last object", func() bool { return exists(t, s, "last") })

	check := func(t *testing.T, s *kubestore.Store, turned bool) {
		t.Helper()
		if n := len(s.Faults()); n != len(odd)+1 {
			t.Errorf("%d faults", n)
		}
		for _, f := range s.Faults() {
			if _, ok := odd[f.Key.Name]; !ok && f.Key.Name != "turns" {
				t.Errorf("a fault of %s: %v", f.Key, f.Err)
			}
			if strings.Contains(f.Err.Error(), canary) || !strings.Contains(f.Err.Error(), "want") {
				t.Errorf("the fault of %s is %v", f.Key, f.Err)
			}
			if f.Key.Name != "turns" && exists(t, s, f.Key.Name) {
				t.Errorf("%s is served", f.Key)
			}
		}
		for name := range served {
			if !exists(t, s, name) {
				t.Errorf("%s is not told", name)
			}
		}
		if exists(t, s, "turns") != turned {
			t.Errorf("the last good version of an object is served: %t", !turned)
		}
	}
	check(t, s, true)
	tighten()
	again, _ := w.open(t) // which lists them all
	get(t, again, "last")
	check(t, again, false)

	// What can be read is served, as before.
	for _, name := range []string{"good", "turns"} {
		secrets, _, err := c.Secrets(t.Context(), identity.Workload{Namespace: "shop", Name: name})
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]string)
		for _, s := range secrets {
			got[s.Name] = string(s.Data["password"])
		}
		want := map[string]string{"good": "good value", "turns": "turned"}[name]
		if got[name] != want {
			t.Errorf("workload %s gets %v", name, got)
		}
		for _, bad := range []string{"unknown-scope", "odd-names", "many-keys", "many-workloads"} {
			if _, ok := got[bad]; ok {
				t.Errorf("workload %s gets %s", name, bad)
			}
		}
		cache.Wipe(secrets)
	}

	// Its owner puts right what is theirs, and nobody else does.
	if _, err := s.Apply(t.Context(), owner, object("number-value", "1")); !errors.Is(err, store.ErrNotOwned) {
		t.Errorf("Apply of what is nobody's: %v", err)
	}
	if _, err := s.Apply(t.Context(), "shop.other", object("list-data", "1")); !errors.Is(err, store.ErrNotOwned) {
		t.Errorf("Apply of what is another's: %v", err)
	}
	if !apply(t, s, object("list-data", "right")) || textOf(get(t, s, "list-data")) != "right" {
		t.Error("its owner cannot put it right")
	}
	if err := s.Delete(t.Context(), owner, keyOf("turns")); err != nil || exists(t, s, "turns") {
		t.Errorf("its owner cannot delete it: %v", err)
	}
	for _, f := range s.Faults() {
		if f.Key.Name == "list-data" || f.Key.Name == "turns" {
			t.Errorf("still a fault: %v", f)
		}
	}
	if strings.Contains(log.String(), canary) || strings.Count(log.String(), "cannot be decoded") != len(odd)+1 {
		t.Errorf("the log says:\n%s", fmt.Sprint(log))
	}
	t.Cleanup(func() { <-following })
}
