package deliver_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/deliver"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

func TestPromise01_NoValueIsToldToAnybodyButTheSecret(t *testing.T) {
	const planted = "planted-5c0b3e51-value"
	w := newWorld(t, "planted")
	s := w.safe(t).lead(t)
	values := map[string]string{"a": planted, "b": strings.Repeat("x", 1000) + planted}

	// Delivered, changed, replaced, reverted.
	w.put(t, w.object(t, "db", values, delivered))
	w.settled(t, "db", deliver.ReasonDelivered)
	w.kubectl(t, "", "delete", "secret", "-n", "planted", "db")
	until(t, "it is put back", func() bool { return s.events.count("db", deliver.EventReverted) == 1 })
	w.put(t, w.object(t, "db", values, ofType("example.com/b")))
	w.settled(t, "db", deliver.ReasonDelivered)
	// Refused by the API server, which quotes what it refuses; in the way; broken; elsewhere.
	w.put(t, w.object(t, "docker", map[string]string{".dockerconfigjson": planted}, ofType("kubernetes.io/dockerconfigjson")))
	w.settled(t, "docker", deliver.ReasonDeliveryFailed)
	w.kubectl(t, "", "create", "secret", "generic", "-n", "planted", "theirs")
	w.put(t, w.object(t, "theirs", values, delivered))
	w.settled(t, "theirs", deliver.ReasonSecretExists)
	elsewhere := w.object(t, "elsewhere", nil, delivered)
	elsewhere.Spec.EncryptedData["a"] = sealTo(t, w.key, w.object(t, "db", nil, delivered), "a", planted, time.Now())
	w.put(t, elsewhere)
	w.settled(t, "elsewhere", deliver.ReasonUnreadable)
	s.Refused("planted.main", keyOf(elsewhere), []*encrypt.Fault{{File: "f", Err: encrypt.ErrMalformed}})
	// And by an admission webhook that says again what it was shown, in words and in fields.
	s.wire.answering(func(r *http.Request, body []byte) (int, string) {
		if r.Method != http.MethodPatch || !strings.HasSuffix(r.URL.Path, "/secrets/echoed") {
			return 0, ""
		}
		shown := string(body)
		var secret struct{ Data map[string][]byte }
		_ = json.Unmarshal(body, &secret)
		shown += string(secret.Data["a"])
		answer, err := json.Marshal(map[string]any{
			"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Invalid", "code": 422, "message": shown,
			"details": map[string]any{"causes": []any{map[string]any{"reason": "FieldValueInvalid", "message": shown, "field": "data[" + shown + "]"}}},
		})
		if err != nil {
			t.Error(err)
		}
		return http.StatusUnprocessableEntity, string(answer)
	})
	w.put(t, w.object(t, "echoed", values, delivered))
	w.settled(t, "echoed", deliver.ReasonDeliveryFailed)
	if same(t, "what is delivered", w.dataOf(t, "db"), values); t.Failed() {
		t.FailNow()
	}

	audit, err := os.ReadFile(w.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	status := w.kubectl(t, "", "get", "encryptedsecrets", "-n", "planted", "-o", "yaml")
	for where, text := range map[string]string{
		"log": s.log.String(), "events": s.events.String(), "metrics": s.metrics(t), "status": status, "audit log": string(audit),
	} {
		if len(text) < 100 {
			t.Errorf("the %s has nothing to search: %q", where, text)
		}
		for _, form := range []string{planted, base64.StdEncoding.EncodeToString([]byte(planted))[:24]} {
			if strings.Contains(text, form) {
				t.Errorf("the %s holds a value", where)
			}
		}
	}
	if !strings.Contains(string(audit), "namespaces/planted/secrets/db") {
		t.Error("the audit log knows nothing of the Secret")
	}
}
