package safe_test

import (
	"encoding/base64"
	"os"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
)

// TestPromise01_GitDeliveryLeavesNothing lets values travel from git to a Kubernetes Secret, be faulty, be edited, and
// looks for them, and for the credentials, in everything that is left or shown on the way.
func TestPromise01_GitDeliveryLeavesNothing(t *testing.T) {
	const gitPassword, token = "marker-1f0e3dad-git", "marker-98f13708-hook"
	const inClear = "marker-3c59dc04-unencrypted"
	g := harmed(t, gitserver.Options{TLS: true, Username: "bot", Password: gitPassword})
	gives := func(password string) {
		t.Helper()
		g.gives("git", map[string]string{"username": "bot", "password": password, "ca.crt": string(g.server.CA)})
	}
	gives(gitPassword)
	g.gives("hook", map[string]string{"token": token})
	s := g.stream("platform", g.repo, g.url, "suspend: true")
	s.commit(map[string]string{"db": marker1, "api": marker3})
	s.spec("secretRef: {name: git}", "webhook: {type: github, secretRef: {name: hook}}")
	s.well()
	s.has(map[string]string{"db": marker1, "api": marker3})

	// A webhook, good and bad.
	for _, r := range g.replicas {
		accepted(t, r, func() hook { return signedHook("platform", token) })
		if _, err := signedHook("platform", token+"x").send(t, r); err != nil {
			t.Error(err)
		}
	}
	// Faults, and among them somebody's who forgot to encrypt.
	s.repo.Commit(map[string]string{
		"db.json":  strings.Replace(s.to("db", "password="+marker2), `"spec":{`, `"spec":{"allowAll":true,`, 1),
		"new.json": `{"apiVersion":"vsecm.com/v1alpha1","kind":"EncryptedSecret","metadata":{"name":"new","namespace":"shop"},"spec":{"encryptedData":{"password":"` + inClear + `"}}}`,
		"api.json": strings.Replace(s.to("other", "password="+marker3), `"other"`, `"api"`, 1),
	})
	s.look()
	s.stalls("Faults", "api.json")
	s.objectSays("api", "False", "Refused")
	s.told("new.json:1")
	s.commit(map[string]string{"db": marker2, "api": marker3, "new": marker3})
	s.look()
	s.well()
	s.has(map[string]string{"db": marker2, "api": marker3})
	// Drift, of the Secret and of the object.
	patch := `{"data":{"password":"` + base64.StdEncoding.EncodeToString([]byte("edited")) + `"}}`
	g.kubectl("patch", "secret", "db", "-n", "shop", "--type=merge", "-p", patch)
	g.event("db", "Reverted")
	s.has(map[string]string{"db": marker2})
	g.kubectl("patch", "encryptedsecret", "db", "-n", "shop", "--type=merge", "-p", `{"spec":{"encryptedData":{"password":"YWdlLWVuY3J5cHRpb24ub3JnL3Yx"}}}`)
	g.event("db", "Restored")
	// A wrong password.
	gives(gitPassword + "x")
	s.stalls("AuthenticationFailed")
	gives(gitPassword)
	s.well()
	s.has(map[string]string{"db": marker2, "api": marker3})

	all := make(haystack)
	all["objects, sources and events"] = []byte(g.kubectl("get", "encryptedsecrets,gitsources,events,configmaps,leases", "-A", "-o", "yaml", "--show-managed-fields"))
	all["Secrets without what they hold"] = []byte(g.kubectl("get", "secrets", "-A", "-o", `jsonpath={range .items[*]}{.metadata}{"\n"}{end}`))
	for _, r := range g.replicas {
		_, metrics, err := plain(r.at.Metrics, "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		all["metrics of "+r.name] = []byte(metrics)
		r.process.stop(t)
		all["log of "+r.name], all["audit log of "+r.name] = []byte(r.process.stderr.String()), []byte(r.process.stdout.String())
	}
	all.add(t, "left", g.dir)
	all.add(t, "left", s.repo.Dir)
	auditLog, err := os.ReadFile(g.cp.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	all["the API server's audit log"] = auditLog
	if places := all.find(marker1, marker2, marker3, gitPassword, token, inClear); len(places) > 0 {
		t.Errorf("found:\n%s", strings.Join(places, "\n"))
	}

	// What was searched is what it is taken for, and there was something to find.
	for place, has := range map[string]string{
		"objects, sources and events": "Reverted", "Secrets without what they hold": "vsecm.com/delivered", "the API server's audit log": `"resource":"encryptedsecrets"`,
		"metrics of safe-0": "vsecm_deliveries_total", "log of safe-0": `"msg"`, "log of safe-1": `"msg"`, "audit log of safe-0": "db", "audit log of safe-1": "db",
	} {
		if !strings.Contains(string(all[place]), has) {
			t.Errorf("%s: there is no %q in what was searched:\n%.500s", place, has, all[place])
		}
	}
	mirrors := 0
	for place := range all {
		if strings.Contains(place, "/mirrors-safe-") && strings.Contains(place, "/shop.platform/") && len(all[place]) > len(place) {
			mirrors++
		}
	}
	if mirrors == 0 {
		t.Error("no mirror was searched")
	}
	etcd := make(haystack)
	etcd.add(t, "", g.cp.EtcdDir())
	if len(etcd.find(marker2)) == 0 {
		t.Error("not even in etcd, where the Kubernetes Secret is, is there a value: the search finds nothing")
	}
}
