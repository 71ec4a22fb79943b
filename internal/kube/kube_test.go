package kube

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// An admission webhook, or a proxy, that says again what it was shown.
func echo(t *testing.T, status int) *Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		shown := strings.NewReplacer("\n", " ", `"`, "'").Replace(string(body))
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Warning", `299 - "`+shown+`"`)
		w.WriteHeader(status)
		if status != http.StatusOK {
			_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"`+shown+`"}`)
			return
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	client, err := NewClient(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestPromise01_NothingThatTheAPIServerEchoesIsLogged(t *testing.T) {
	var log bytes.Buffer
	klog.LogToStderr(false)
	klog.SetOutput(&log)
	t.Cleanup(func() { klog.LogToStderr(true) })
	const token = "marker-token-6f4922f4"
	for _, status := range []int{http.StatusOK, http.StatusForbidden} {
		err := echo(t, status).Authentication.Post().Resource("tokenreviews").
			Body(&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}).
			Do(context.Background()).Error()
		if (err != nil) != (status != http.StatusOK) {
			t.Fatalf("%d: %v", status, err)
		}
		if err == nil {
			continue
		}
		if !strings.Contains(err.Error(), token) {
			t.Errorf("the server did not echo: %v", err)
		}
		if got := Plain(err).Error(); got != "the API server answered 403 Forbidden" {
			t.Errorf("Plain says %q", got)
		}
	}
	klog.Flush()
	if strings.Contains(log.String(), token) {
		t.Errorf("logged: %s", log.String())
	}
}

// An admission webhook chooses the reason of its refusal itself.
func TestPromise01_NoReasonButKubernetesOwnIsRepeated(t *testing.T) {
	for reason, want := range map[metav1.StatusReason]string{
		metav1.StatusReasonInvalid:           "the API server answered 422 Invalid",
		"":                                   "the API server answered 422 Unprocessable Entity",
		"password is hunter2, which is weak": "the API server answered 422 Unprocessable Entity",
		"hunter2":                            "the API server answered 422 Unprocessable Entity",
	} {
		err := &apierrors.StatusError{ErrStatus: metav1.Status{Code: http.StatusUnprocessableEntity, Reason: reason, Message: "hunter2"}}
		if got := Plain(err).Error(); got != want {
			t.Errorf("of %q Plain says %q", reason, got)
		}
	}
}
