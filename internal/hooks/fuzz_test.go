package hooks

import (
	"net/http"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// Whatever the headers hold, who does not show what only the secret makes is refused.
func FuzzProof(f *testing.F) {
	right := sum(secret, push)
	for _, v := range []string{"", right, "sha256=" + right, "sha256=" + right[:63], "sha1=" + right, secret, "v1," + right, standard(f, signing, "id", "1", push), "v1, v1,= v1a,x"} {
		f.Add(v, v)
	}
	types := []string{v1alpha1.WebhookGitHub, v1alpha1.WebhookGitLab, v1alpha1.WebhookGitea, v1alpha1.WebhookBitbucket, v1alpha1.WebhookGeneric, ""}
	headers := []string{
		"X-Hub-Signature-256", "X-Hub-Signature", "X-Gitea-Signature", "X-Forgejo-Signature", "X-Gitlab-Token", "X-Signature", "Webhook-Signature",
	}
	f.Fuzz(func(t *testing.T, value, id string) {
		for _, typ := range types {
			for _, key := range []string{secret, signing} {
				for _, header := range headers {
					h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {"1"}}
					h.Set(header, value)
					p := proofOf(Target{typ, []byte(key)}, h)
					_, _ = p.Write([]byte(push))
					if !p.holds() {
						continue
					}
					signed := strings.Contains(strings.ToLower(value), sum(key, push)) ||
						key == signing && strings.Contains(value, standard(t, signing, id, "1", push))
					if !signed && (header != "X-Gitlab-Token" || value != key) || typ == "" {
						t.Errorf("%s takes %s: %q", typ, header, value)
					}
				}
			}
		}
	})
}
