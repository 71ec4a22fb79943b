package operator

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
)

func TestPromise01_ATokenThatTheAPIServerEchoesIsInNoError(t *testing.T) {
	token := forged(`{"aud":"vsecm-safe/x"}`) + "marker-token-6f4922f4"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(body), token) {
			t.Errorf("asked about %s", body)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"policy refuses `+token+`"}`)
	}))
	t.Cleanup(server.Close)
	client, err := kube.NewClient(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	reviewer := New(client, "vsecm-system")
	_, err = reviewer.Authenticate(context.Background(), token, "vsecm-safe/x", here)
	if !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), token) {
		t.Errorf("authenticating: %v", err)
	}
	_, err = reviewer.Authorize(context.Background(), Operator{Name: token}, Attributes{Verb: "get", Resource: Safes})
	if !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), token) {
		t.Errorf("authorizing: %v", err)
	}
}
