package hooks

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secret  = "shared-with-the-forge"
	signing = "whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q="
	push    = `{"ref":"refs/heads/main","secret":"not looked into"}`
)

// sources are those of a test.
type sources struct {
	mu      sync.Mutex
	targets map[string]Target
	asked   int
	hints   []string
	hint    func(context.Context) error
	look    func() // as long as Hook takes
}

var errUnreadable = errors.New("the Secret cannot be read")

func (s *sources) Hook(_ context.Context, namespace, name string) (Target, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.look != nil {
		s.look()
	}
	t, ok := s.targets[namespace+"/"+name]
	switch {
	case !ok:
		return Target{}, ErrNoHook
	case t.Secret == nil:
		return Target{}, errUnreadable
	}
	return t, nil
}

func (s *sources) Hint(ctx context.Context, namespace, name string) error {
	s.mu.Lock()
	s.hints = append(s.hints, namespace+"/"+name)
	hint := s.hint
	s.mu.Unlock()
	if hint != nil {
		return hint(ctx)
	}
	return nil
}

func (s *sources) told() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.hints)
}

// A rig is a handler with a source of every type, shop/TYPE.
type rig struct {
	*handler
	*sources
	t   testing.TB
	log *bytes.Buffer
	at  time.Time
	// waits are how long answers were held back.
	waits []time.Duration
}

func newRig(t testing.TB) *rig {
	r := &rig{sources: &sources{targets: map[string]Target{
		"shop/github":     {v1alpha1.WebhookGitHub, []byte(secret)},
		"shop/gitlab":     {v1alpha1.WebhookGitLab, []byte(secret)},
		"shop/gitlab-19":  {v1alpha1.WebhookGitLab, []byte(signing)},
		"shop/gitea":      {v1alpha1.WebhookGitea, []byte(secret)},
		"shop/bitbucket":  {v1alpha1.WebhookBitbucket, []byte(secret)},
		"shop/generic":    {v1alpha1.WebhookGeneric, []byte(secret)},
		"shop/newline":    {v1alpha1.WebhookGeneric, []byte(secret + "\r\n")},
		"shop/empty":      {v1alpha1.WebhookGeneric, []byte{}},
		"shop/only-lines": {v1alpha1.WebhookGitLab, []byte("\n\n")},
		"shop/unreadable": {v1alpha1.WebhookGeneric, nil},
		"shop/of-no-type": {"", []byte(secret)},
	}}, t: t, log: &bytes.Buffer{}, at: time.Unix(1_000_000, 0)}
	r.handler = newHandler(r.sources, slog.New(slog.NewTextHandler(r.log, nil)), prometheus.NewRegistry())
	r.now = func() time.Time { return r.at }
	r.handler.after = func(d time.Duration) <-chan time.Time {
		r.waits = append(r.waits, d)
		now := make(chan time.Time)
		close(now)
		return now
	}
	r.turns.after = func(d time.Duration) <-chan time.Time {
		t.Errorf("somebody waits for %v", d)
		now := make(chan time.Time)
		close(now)
		return now
	}
	return r
}

// sum is the HMAC of a body, in hex.
func sum(key, body string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

func standard(t testing.TB, key, id, at, body string) string {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(key, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, raw)
	mac.Write([]byte(id + "." + at + "." + body))
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// send posts a body; headers are name, value, name, value…
func (r *rig) send(to string, body io.Reader, headers ...string) *http.Response {
	r.t.Helper()
	req := httptest.NewRequestWithContext(r.t.Context(), http.MethodPost, Path+to, body)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	return r.do(req)
}

func (r *rig) do(req *http.Request) *http.Response {
	rec := httptest.NewRecorder()
	r.ServeHTTP(rec, req)
	return rec.Result()
}

func (r *rig) count(result string) int {
	return int(testutil.ToFloat64(r.requests.WithLabelValues(result)))
}

func TestWhoKnowsTheSecretTellsOfAPush(t *testing.T) {
	right := sum(secret, push)
	for _, tt := range []struct {
		name, to string
		headers  []string
	}{
		{"GitHub", "github", []string{"X-GitHub-Event", "push", "X-Hub-Signature", "sha1=" + right[:40], "X-Hub-Signature-256", "sha256=" + right}},
		{"GitLab's secret token", "gitlab", []string{"X-Gitlab-Event", "Push Hook", "X-Gitlab-Token", secret}},
		{"GitLab's signing token", "gitlab-19", []string{"Webhook-Id", "m1", "Webhook-Timestamp", "1700000000", "Webhook-Signature", standard(t, signing, "m1", "1700000000", push)}},
		{"GitLab's signing token while it is changed", "gitlab-19", []string{
			"Webhook-Id", "m1", "Webhook-Timestamp", "1700000000",
			"Webhook-Signature", "v1a,ed25519 " + standard(t, "whsec_b3RoZXI=", "m1", "1700000000", push) + " " + standard(t, signing, "m1", "1700000000", push),
		}},
		{"Gitea", "gitea", []string{"X-Gitea-Signature", right}},
		{"Forgejo", "gitea", []string{"X-Forgejo-Signature", right, "X-Gitea-Signature", right, "X-Hub-Signature-256", "sha256=" + right}},
		{"Gitea posing as GitHub", "gitea", []string{"X-Hub-Signature-256", "sha256=" + right}},
		{"Bitbucket", "bitbucket", []string{"X-Event-Key", "repo:push", "X-Hub-Signature", "sha256=" + right}},
		{"anything", "generic", []string{"X-Signature", "sha256=" + right}},
		{"anything with a secret that ends in a newline", "newline", []string{"X-Signature", "sha256=" + right}},
		{"in capitals", "generic", []string{"X-Signature", "sha256=" + strings.ToUpper(right)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			resp := r.send("shop/"+tt.to, strings.NewReader(push), tt.headers...)
			if resp.StatusCode != http.StatusAccepted || r.told() != 1 || r.hints[0] != "shop/"+tt.to || r.count(accepted) != 1 {
				t.Errorf("%s, told %q", resp.Status, r.hints)
			}
			if resp.Header.Get("X-Request-Id") == "" {
				t.Error("without an id")
			}
		})
	}
}

func TestOthersAreRefused(t *testing.T) {
	right, other := sum(secret, push), sum("another", push)
	for _, tt := range []struct {
		name, to, result string
		headers          []string
	}{
		{"no signature", "github", unsigned, nil},
		{"an empty one", "github", unsigned, []string{"X-Hub-Signature-256", ""}},
		{"another secret's", "github", signature, []string{"X-Hub-Signature-256", "sha256=" + other}},
		{"one with SHA-1", "github", unsigned, []string{"X-Hub-Signature", "sha1=" + right[:40]}},
		{"one that says SHA-1", "github", unsigned, []string{"X-Hub-Signature-256", "sha1=" + right}},
		{"half of it", "github", unsigned, []string{"X-Hub-Signature-256", "sha256=" + right[:32]}},
		{"more than it", "github", unsigned, []string{"X-Hub-Signature-256", "sha256=" + right + "00"}},
		{"no hex", "github", unsigned, []string{"X-Hub-Signature-256", "sha256=" + strings.Repeat("g", 64)}},
		{"two of them", "github", unsigned, []string{"X-Hub-Signature-256", "sha256=" + other, "X-Hub-Signature-256", "sha256=" + right}},
		{"another forge's header", "github", unsigned, []string{"X-Gitea-Signature", right, "X-Signature", "sha256=" + right, "X-Gitlab-Token", secret}},
		{"Bitbucket's header", "github", unsigned, []string{"X-Hub-Signature", "sha256=" + right}},
		{"a wrong signature that a right one follows", "gitea", signature, []string{"X-Forgejo-Signature", other, "X-Gitea-Signature", right}},
		{"a prefix where there is none", "gitea", unsigned, []string{"X-Gitea-Signature", "sha256=" + right}},
		{"no prefix where there is one", "generic", unsigned, []string{"X-Signature", right}},
		{"a wrong token", "gitlab", signature, []string{"X-Gitlab-Token", secret + "x"}},
		{"a part of the token", "gitlab", signature, []string{"X-Gitlab-Token", secret[:5]}},
		{"an empty token", "gitlab", signature, []string{"X-Gitlab-Token", ""}},
		{"no token", "gitlab", unsigned, nil},
		{"two tokens", "gitlab", unsigned, []string{"X-Gitlab-Token", secret, "X-Gitlab-Token", secret}},
		{"a signature instead of a token", "gitlab", unsigned, []string{
			"Webhook-Id", "m1", "Webhook-Timestamp", "1", "Webhook-Signature", "v1," + base64.StdEncoding.EncodeToString(make([]byte, 32)),
		}},
		{"a wrong signature beside the token", "gitlab-19", signature, []string{
			"Webhook-Id", "m1", "Webhook-Timestamp", "1", "Webhook-Signature", standard(t, "whsec_b3RoZXI=", "m1", "1", push), "X-Gitlab-Token", signing,
		}},
		{"the signature of another id", "gitlab-19", signature, []string{
			"Webhook-Id", "m2", "Webhook-Timestamp", "1", "Webhook-Signature", standard(t, signing, "m1", "1", push),
		}},
		{"a signature without a time", "gitlab-19", unsigned, []string{"Webhook-Id", "m1", "Webhook-Signature", standard(t, signing, "m1", "", push)}},
		{"too many signatures", "gitlab-19", unsigned, []string{
			"Webhook-Id", "m1", "Webhook-Timestamp", "1", "Webhook-Signature", strings.Repeat("v0,x ", 4) + standard(t, signing, "m1", "1", push),
		}},
		{"an empty secret, with its HMAC", "empty", misconfigured, []string{"X-Signature", "sha256=" + sum("", push)}},
		{"an empty secret, as a token", "only-lines", misconfigured, []string{"X-Gitlab-Token", ""}},
		{"a secret of newlines, as a token", "only-lines", misconfigured, []string{"X-Gitlab-Token", "\n\n"}},
		{"a Secret that cannot be read", "unreadable", misconfigured, []string{"X-Signature", "sha256=" + sum("", push)}},
		{"a webhook of no type", "of-no-type", unsigned, []string{"X-Signature", "sha256=" + right}},
		{"no such source", "none", noHook, []string{"X-Signature", "sha256=" + right}},
		{"no such source, with the HMAC of nothing", "none", noHook, []string{"X-Signature", "sha256=" + sum("", push), "X-Gitlab-Token", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			resp := r.send("shop/"+tt.to, strings.NewReader(push), tt.headers...)
			if resp.StatusCode != http.StatusUnauthorized || !resp.Close && resp.Header.Get("Connection") != "close" || r.told() != 0 {
				t.Errorf("%s, told %d times", resp.Status, r.told())
			}
			if r.count(tt.result) != 1 {
				t.Errorf("it is not counted as %s", tt.result)
			}
			if line := r.log.String(); !strings.Contains(line, "source=shop/"+tt.to) || strings.Contains(line, secret) || strings.Contains(line, "refs/heads") {
				t.Errorf("the log has %q", line)
			}
		})
	}
}

// A changed body is another forge's word.
func TestASignatureIsOfItsPayload(t *testing.T) {
	r := newRig(t)
	if resp := r.send("shop/generic", strings.NewReader(push+" "), "X-Signature", "sha256="+sum(secret, push)); resp.StatusCode != http.StatusUnauthorized {
		t.Error(resp.Status)
	}
}

// What is told to the one who sent it is the same for whatever is wrong, and so is what was
// read for it.
func TestAnswersDoNotTellSourcesApart(t *testing.T) {
	r := newRig(t)
	var first string
	for _, to := range []string{"shop/none", "nowhere/none", "shop/github", "shop/empty", "shop/unreadable", "shop/gitlab", "shop/gitlab-19", "shop/of-no-type"} {
		for _, headers := range [][]string{nil, {"X-Hub-Signature-256", "sha256=" + sum("another", push)}, {"X-Gitlab-Token", "another"}} {
			body := &countedReader{Reader: strings.NewReader(strings.Repeat("x", 1<<20))}
			resp := r.send(to, body, headers...)
			p := problem.Read(resp)
			p.RequestID = ""
			resp.Header.Del("X-Request-Id")
			resp.Header.Del("Content-Length") // as the id is long
			said := fmt.Sprintf("%+v %v %d bytes", *p, resp.Header, body.n)
			if first == "" {
				first = said
			}
			if said != first || body.n != 1<<20 {
				t.Errorf("%s: %s\nand not %s", to, said, first)
			}
		}
	}
	if r.asked != 24 {
		t.Errorf("asked %d times", r.asked)
	}
}

type countedReader struct {
	io.Reader
	n int
}

func (r *countedReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.n += n
	return n, err
}

// Finding out that a source exists takes a while now and then: its Secret is read.
func TestARefusalTakesAsLongWhateverWasLookedUp(t *testing.T) {
	r := newRig(t)
	for to, looking := range map[string]time.Duration{"shop/none": 0, "shop/github": 30 * time.Millisecond} {
		r.waits, r.look = nil, func() { r.at = r.at.Add(looking) }
		began := r.at
		if resp := r.send(to, strings.NewReader(push)); resp.StatusCode != http.StatusUnauthorized {
			t.Error(resp.Status)
		}
		if len(r.waits) != 1 || r.at.Sub(began)+r.waits[0] != proofTime {
			t.Errorf("%s: it took %v, and then %v", to, r.at.Sub(began), r.waits)
		}
	}
	r.waits = nil
	r.send("shop/github", strings.NewReader(push), "X-Hub-Signature-256", "sha256="+sum(secret, push))
	if len(r.waits) > 0 {
		t.Errorf("who is right waits for %v", r.waits)
	}
}

func TestAForgesTestIsAnsweredAndHintsNothing(t *testing.T) {
	for _, tt := range []struct{ to, header, event, signature string }{
		{"shop/github", "X-GitHub-Event", "ping", "X-Hub-Signature-256"},
		{"shop/bitbucket", "X-Event-Key", "diagnostics:ping", "X-Hub-Signature"},
	} {
		r := newRig(t)
		resp := r.send(tt.to, strings.NewReader(push), tt.header, tt.event, tt.signature, "sha256="+sum(secret, push))
		if resp.StatusCode != http.StatusOK || r.told() != 0 || r.count(ping) != 1 {
			t.Errorf("%s, told %d times", resp.Status, r.told())
		}
		if resp := r.send(tt.to, strings.NewReader(push), tt.header, tt.event); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("unsigned: %s", resp.Status)
		}
	}
}

func TestAPayloadIsOfAnyKind(t *testing.T) {
	r := newRig(t)
	for _, body := range []string{"", "}{", "\x00\xff", "payload=%7B%7D", strings.Repeat("[", 1<<20)} {
		r.at = r.at.Add(time.Hour)
		if resp := r.send("shop/generic", strings.NewReader(body), "X-Signature", "sha256="+sum(secret, body)); resp.StatusCode != http.StatusAccepted {
			t.Errorf("%.10q: %s", body, resp.Status)
		}
	}
}

func TestOnlyPathsOfSourcesAreWebhooks(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{
		"/", "/v1/hooks", "/v1/hooks/", "/v1/hooks/shop", "/v1/hooks/shop/", "/v1/hooks//github", "/v1/hooks/shop/github/", "/v1/hooks/shop/github/more",
		"/v1/hooks/shop/../shop/github", "/v1/hooks/Shop/github", "/v1/hooks/shop/git_hub", "/v1/hooks/shop%2Fgithub", "/v1/hooks/sh%6Fp/git%2fhub", "/v1/hooks/shop/git%00hub",
		"/v1/hooks/" + strings.Repeat("a", 64) + "/github", "/v1/hooks/shop/" + strings.Repeat("a", 254), "/v2/hooks/shop/github", "/v1/secrets",
	} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(push))
		if resp := r.do(req); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, "BREW"} {
		resp := r.do(httptest.NewRequestWithContext(t.Context(), method, "/v1/hooks/shop/github", nil))
		if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != http.MethodPost {
			t.Errorf("%s: %s", method, resp.Status)
		}
	}
	if r.asked != 0 {
		t.Error("a source was asked for")
	}
}

// A zeros is a body without an end, which tells how much of it was taken.
type zeros struct{ n atomic.Int64 }

func (z *zeros) Read(b []byte) (int, error) {
	z.n.Add(int64(len(b)))
	return len(b), nil
}

func TestAHugePayloadIsNotTakenIn(t *testing.T) {
	const huge = 100 << 20
	r := newRig(t)
	server := httptest.NewServer(r)
	defer server.Close()
	client := server.Client()
	defer client.CloseIdleConnections()
	send := func(length int64, name string) (*http.Response, int64, error) {
		body := &zeros{}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+Path+name, io.LimitReader(body, huge))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = length
		resp, err := client.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		return resp, body.n.Load(), err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, name := range []string{"shop/github", "shop/none"} {
		for _, length := range []int64{huge, -1} {
			// Who is still writing may see a broken connection instead of the answer.
			resp, taken, err := send(length, name)
			if err == nil && (resp.StatusCode != http.StatusRequestEntityTooLarge || !resp.Close) {
				t.Errorf("%s, length %d: %s, closed: %v", name, length, resp.Status, resp.Close)
			}
			// What was taken includes what was on its way.
			if taken > MaxBody+16<<20 {
				t.Errorf("%s, length %d: %d bytes were sent", name, length, taken)
			}
		}
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("%d bytes of memory were taken", grown)
	}
	if r.count(tooLarge) != 4 || r.told() != 0 {
		t.Errorf("%d were too large", r.count(tooLarge))
	}
}

func TestTheLargestPayloadIsTaken(t *testing.T) {
	r := newRig(t)
	body := strings.Repeat("x", MaxBody)
	if resp := r.send("shop/generic", strings.NewReader(body), "X-Signature", "sha256="+sum(secret, body)); resp.StatusCode != http.StatusAccepted {
		t.Error(resp.Status)
	}
	body += "x"
	if resp := r.send("shop/generic", io.MultiReader(strings.NewReader(body)), "X-Signature", "sha256="+sum(secret, body)); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Error(resp.Status)
	}
}

func TestAPayloadThatBreaksOffIsNone(t *testing.T) {
	r := newRig(t)
	broken := io.MultiReader(strings.NewReader(push), &failing{})
	if resp := r.send("shop/generic", broken, "X-Signature", "sha256="+sum(secret, push)); resp.StatusCode != http.StatusBadRequest || r.count(incomplete) != 1 {
		t.Error(resp.Status)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestASourceThatCannotBeToldIsAFault(t *testing.T) {
	r := newRig(t)
	r.hint = func(context.Context) error { return errors.New("the API server does not answer") }
	resp := r.send("shop/generic", strings.NewReader(push), "X-Signature", "sha256="+sum(secret, push))
	if p := problem.Read(resp); p.Type != problem.Unavailable || r.count(failed) != 1 || r.count(accepted) != 0 {
		t.Errorf("%+v", p)
	}
	if !strings.Contains(r.log.String(), "does not answer") {
		t.Errorf("the log has %s", r.log)
	}
}

// A forge that hangs up has pushed all the same.
func TestAHintOutlivesItsRequest(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	r.hint = func(ctx context.Context) error {
		cancel()
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("it has no bound")
		}
		return ctx.Err()
	}
	req := httptest.NewRequestWithContext(ctx, http.MethodPost, Path+"shop/gitlab", strings.NewReader(push))
	req.Header.Set("X-Gitlab-Token", secret)
	if resp := r.do(req); resp.StatusCode != http.StatusAccepted {
		t.Error(resp.Status)
	}
}

func TestAnAddressThatFailsOftenHasToWait(t *testing.T) {
	r := newRig(t)
	from := func(address string, headers ...string) int {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, Path+"shop/gitlab", strings.NewReader(push))
		req.RemoteAddr = address
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp := r.do(req)
		if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
			t.Error("without a time to wait for")
		}
		return resp.StatusCode
	}
	for range 1000 { // who is right is not counted
		r.at = r.at.Add(hintEvery)
		if code := from("192.0.2.1:1", "X-Gitlab-Token", secret); code != http.StatusAccepted {
			t.Fatal(code)
		}
	}
	for i := range failBurst {
		if code := from("192.0.2.1:1"); code != http.StatusUnauthorized {
			t.Fatalf("failure %d: %d", i, code)
		}
	}
	asked := r.asked
	if code := from("192.0.2.1:2"); code != http.StatusTooManyRequests {
		t.Error(code)
	}
	if code := from("192.0.2.1:2", "X-Gitlab-Token", secret); code != http.StatusTooManyRequests || r.asked != asked {
		t.Error(code)
	}
	r.at = r.at.Add(hintEvery)
	if code := from("192.0.2.2:1", "X-Gitlab-Token", secret); code != http.StatusAccepted {
		t.Errorf("another address: %d", code)
	}
	r.at = r.at.Add(hintEvery)
	if code := from("192.0.2.1:1", "X-Gitlab-Token", secret); code != http.StatusAccepted {
		t.Errorf("a second later: %d", code)
	}
	if n := strings.Count(r.log.String(), "\n"); n > 2 {
		t.Errorf("the log has %d lines", n)
	}
}
