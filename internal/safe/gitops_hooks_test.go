package safe_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// A hook is what a forge sends.
type hook struct {
	source, header, signature string
	event                     string
	body                      io.Reader
	size                      int64 // -1: it is not said
}

// signedHook is what GitHub sends of a push to a source shop/NAME.
func signedHook(source, secret string) hook {
	body := fmt.Sprintf(`{"ref":"refs/heads/main","repository":{"full_name":"shop/%s"}}`, source)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return hook{source, "X-Hub-Signature-256", "sha256=" + hex.EncodeToString(mac.Sum(nil)), "push", strings.NewReader(body), int64(len(body))}
}

// send sends it to a replica, and returns what that answers.
func (h hook) send(t *testing.T, r *replica) (int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.at.Webhooks+"/v1/hooks/shop/"+h.source, h.body)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = h.size
	req.Header.Set("X-GitHub-Event", h.event)
	if h.signature != "" {
		req.Header.Set(h.header, h.signature)
	}
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, nil
}

// accepted waits until a replica takes a hook: it may not yet know the source as it is now.
func accepted(t *testing.T, r *replica, hook func() hook) {
	t.Helper()
	answered(t, r, hook, http.StatusAccepted)
}

func answered(t *testing.T, r *replica, hook func() hook, want int) {
	t.Helper()
	wait.For(t, r.name+" takes the webhook", func() error {
		code, err := hook().send(t, r)
		if err == nil && code != want {
			err = fmt.Errorf("it answers %d", code)
		}
		return err
	})
}

// measures waits until a metric of a replica is what is wanted.
func (g *gitops) measures(r *replica, metric, want string) {
	g.t.Helper()
	(&world{t: g.t, at: r.at}).measures(metric, want)
}

// TestAWebhookBringsAPushAtOnce has a forge tell each replica of pushes to a source that looks once an hour; and others
// who know no secret, or send too much.
func TestAWebhookBringsAPushAtOnce(t *testing.T) {
	t.Parallel()
	g := harmed(t, gitserver.Options{})
	g.gives("hook", map[string]string{"token": "it-was-agreed"})
	g.repo.Commit(map[string]string{"README": "nothing yet"})
	s := g.stream("platform", g.repo, g.url, "webhook: {type: github, secretRef: {name: hook}}")
	s.well()
	leader := g.leader()
	follower := g.replicas[0]
	if follower == leader {
		follower = g.replicas[1]
	}
	push := func() hook { return signedHook("platform", "it-was-agreed") }
	objects := map[string]string{}
	for i, r := range []*replica{follower, leader, follower} {
		objects["db"] = fmt.Sprint("by ", i)
		s.commit(objects)
		accepted(t, r, push)
		s.well()
		s.has(objects)
	}
	s.objectSays("db", "True", "Delivered")

	g.step("a replay changes nothing", func(t *testing.T) {
		before, source := s.object("db"), s.gitSource("platform")
		for range 3 {
			accepted(t, leader, push)
			accepted(t, follower, push)
		}
		// What was hinted at is looked at before what is asked for then.
		s.look()
		wait.For(t, "the round is over", func() error {
			if now := s.gitSource("platform"); now.Status.LastHandledSyncRequest != now.Annotations[v1alpha1.AnnotationSyncRequested] {
				return errors.New("it is not")
			}
			return nil
		})
		if now := s.object("db"); now.ResourceVersion != before.ResourceVersion {
			t.Error("the object was written")
		}
		if now := s.gitSource("platform"); now.Status.Revision != source.Status.Revision || len(now.Status.Conditions) != 1 {
			t.Errorf("the source says %+v", now.Status)
		}
		s.well()
	})
	g.step("what proves nothing does nothing", func(t *testing.T) {
		// One that nobody has told of a push, which a hint may still be on its way from.
		quiet := g.stream("quiet", g.server.Repo("quiet.git"), g.server.URL+"/quiet.git", "webhook: {type: github, secretRef: {name: hook}}")
		seen := quiet.commit(map[string]string{"calm": "one"})
		quiet.look()
		quiet.well()
		before := quiet.gitSource("quiet")
		push := func() hook { return signedHook("quiet", "it-was-agreed") }
		for _, r := range g.replicas {
			answered(t, r, func() hook { h := push(); h.event = "ping"; return h }, http.StatusOK)
		}
		quiet.commit(map[string]string{"calm": "two"})
		foreign := signedHook("quiet", "it-was-guessed")
		none := push()
		none.signature = ""
		older := push()
		older.header = "X-Hub-Signature"
		of := push()
		of.source = "another"
		changed := push()
		changed.body = strings.NewReader(strings.Repeat("x", int(changed.size)))
		for name, h := range map[string]hook{"a wrong signature": foreign, "none": none, "another header": older, "another source": of, "another payload": changed} {
			for _, r := range g.replicas {
				body, err := io.ReadAll(h.body)
				if err != nil {
					t.Fatal(err)
				}
				h.body = bytes.NewReader(body)
				code, err := h.send(t, r)
				if code != http.StatusUnauthorized {
					t.Errorf("%s: %s answers %d, %v", name, r.name, code, err)
				}
				h.body = bytes.NewReader(body)
			}
		}
		for _, size := range []int64{100 << 20, -1} {
			for _, r := range g.replicas {
				h := push()
				h.body, h.size = io.LimitReader(zeros{}, 100<<20), size
				// Safe does not wait until all of it has come: the connection may break first.
				if code, err := h.send(t, r); err == nil && code != http.StatusRequestEntityTooLarge {
					t.Errorf("%d bytes: %s answers %d", size, r.name, code)
				}
			}
		}
		for _, r := range g.replicas {
			g.measures(r, `vsecm_webhook_requests_total{result="too_large"}`, "2")
			quiet.fetches("calm", "password", "one")
			s.fetches("db", "password", objects["db"])
		}
		if now := quiet.gitSource("quiet"); now.Annotations[v1alpha1.AnnotationSyncRequested] != before.Annotations[v1alpha1.AnnotationSyncRequested] || now.Status.SeenRevision != seen {
			t.Errorf("the source was told: %+v", now.ObjectMeta)
		}
		// Who is refused is none of the forge's business.
		accepted(t, follower, push)
		quiet.well()
		quiet.has(map[string]string{"calm": "two"})
	})
	g.step("another secret", func(t *testing.T) {
		g.gives("hook", map[string]string{"token": "agreed-anew\n"})
		for i, r := range g.replicas {
			objects["db"] = fmt.Sprint("anew ", i)
			s.commit(objects)
			accepted(t, r, func() hook { return signedHook("platform", "agreed-anew") })
			s.well()
			if code, err := push().send(t, r); code != http.StatusUnauthorized {
				t.Errorf("%s answers who knows the old one %d, %v", r.name, code, err)
			}
		}
		s.has(objects)
	})
	if out, errOut, code := s.vsecm(s.olga, "", "status"); code != 0 {
		t.Errorf("in the end, status ends with %d:\n%s%s", code, out, errOut)
	}
}

// zeros has no end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
