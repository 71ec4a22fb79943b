// Package hooks lets forges tell of pushes: POST /v1/hooks/NAMESPACE/NAME.
//
// What comes is a hint to fetch, and no more: the payload is hashed, and never looked into.
// So the worst that somebody does who has a source's secret, or repeats a request that they
// saw, is that its repository is fetched once a second.
//
// # Who may tell
//
// Who knows the secret that the source and its forge share. By type:
//
//	github     X-Hub-Signature-256: sha256=HEX
//	gitlab     Webhook-Signature: v1,BASE64 (a signing token, whsec_…), or X-Gitlab-Token: SECRET
//	gitea      X-Forgejo-Signature: HEX, X-Gitea-Signature: HEX, or X-Hub-Signature-256: sha256=HEX; Forgejo, too
//	bitbucket  X-Hub-Signature: sha256=HEX; Cloud, and Data Center
//	generic    X-Signature: sha256=HEX
//
// each an HMAC-SHA256 of the body; for a signing token, of Webhook-Id.Webhook-Timestamp.BODY.
//
// A request that proves nothing is answered 401, and nothing that it is answered, nor the
// work that it makes, tells whether there is such a source, or whether its webhook is set
// up wrong: that is in Safe's log and metrics.
//
// # How often
//
// Each source is told at most once a second. Of what comes meanwhile, one request waits for the
// next turn, which is after all of them: no push is missed. One address may fail 100 times,
// and ten times a second from then on; who is right is not counted. (Behind an
// ingress all come from one address.) Beyond that: 429.
package hooks

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/vsecm/kubectl-vsecm/internal/attempts"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

const (
	// Path begins the path of every webhook.
	Path = "/v1/hooks/"

	// MaxBody bounds a payload, in bytes. GitHub sends none that is larger.
	MaxBody = 25 << 20

	// hintTimeout bounds how long a source may take to be told. Forges wait for ten seconds.
	hintTimeout = 8 * time.Second

	// proofTime is how long it takes at least to be told that a request proves nothing: longer than it
	// takes to read a Secret, which is done for sources that exist alone.
	proofTime = 200 * time.Millisecond

	failEvery = 100 * time.Millisecond
	failBurst = 100
	// lineEvery is how often Safe's log says that a source's requests are refused.
	lineEvery = time.Minute
)

// ErrNoHook says that there is no such source, or that it has no webhook.
var ErrNoHook = errors.New("no such webhook")

// A Target is what a source says of its webhook.
type Target struct {
	// Type is one of the webhook types of package v1alpha1.
	Type string
	// Secret is what the forge was given to sign with, as the Secret has it: what ends
	// its lines is left out.
	Secret []byte
}

// Sources are who is told.
type Sources interface {
	// Hook returns a source's webhook. Errors: [ErrNoHook]; any other means that it is not
	// known, such as that its Secret cannot be read. It is called for whatever
	// anybody sends, so it must answer from memory nearly always.
	Hook(ctx context.Context, namespace, name string) (Target, error)
	// Hint has the source look at its repository soon.
	Hint(ctx context.Context, namespace, name string) error
}

// results are what may become of a request.
var results = []string{accepted, ping, noHook, unsigned, signature, misconfigured, tooLarge, tooMany, incomplete, failed, badRequest}

const (
	accepted      = "accepted"
	ping          = "ping"          // a forge's test
	noHook        = "no_hook"       // there is none
	unsigned      = "unsigned"      // nothing is shown that could prove anything
	signature     = "signature"     // it proves nothing
	misconfigured = "misconfigured" // there is a webhook, and Safe has no secret for it
	tooLarge      = "too_large"
	tooMany       = "too_many"
	incomplete    = "incomplete" // the body broke off, or took too long
	failed        = "failed"     // the source could not be told
	badRequest    = "bad_request"
)

type handler struct {
	sources  Sources
	log      *slog.Logger
	requests *prometheus.CounterVec
	// stranger is the secret of webhooks that there are none of.
	stranger []byte

	failures *attempts.Attempts // by address
	lines    *attempts.Attempts // in Safe's log, by source
	turns    turns

	now   func() time.Time
	after func(time.Duration) <-chan time.Time
}

// New returns the handler of all webhooks, and registers its metric.
func New(sources Sources, log *slog.Logger, reg prometheus.Registerer) http.Handler {
	return newHandler(sources, log, reg)
}

func newHandler(sources Sources, log *slog.Logger, reg prometheus.Registerer) *handler {
	h := &handler{
		sources: sources, log: log, stranger: []byte(rand.Text()),
		requests: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name: "vsecm_webhook_requests_total",
			Help: "Requests of forges that tell of pushes, by what became of them.",
		}, []string{"result"}),
		failures: attempts.New(failEvery, failBurst, attempts.Most),
		lines:    attempts.New(lineEvery, 1, attempts.Most),
		now:      time.Now,
		after:    time.After,
	}
	h.turns = newTurns(func() time.Time { return h.now() })
	for _, result := range results {
		h.requests.WithLabelValues(result) // so that the first one is an increase
	}
	return h
}

// ServeHTTP implements [http.Handler].
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := &request{handler: h, w: w, r: r, id: rand.Text()}
	q.serve()
}

// A request is one that came.
type request struct {
	*handler
	w  http.ResponseWriter
	r  *http.Request
	id string

	from            string
	namespace, name string
}

func (q *request) serve() {
	var ok bool
	if q.namespace, q.name, ok = parse(q.r); !ok {
		q.refuse(badRequest, problem.NotFound, "a webhook is "+Path+"NAMESPACE/NAME")
		return
	}
	if q.r.Method != http.MethodPost {
		q.w.Header().Set("Allow", http.MethodPost)
		q.refuse(badRequest, problem.MethodNotAllowed, "a webhook takes POST")
		return
	}
	q.from = attempts.From(q.r.RemoteAddr)
	if !q.failures.Left(q.from, q.now()) {
		q.w.Header().Set("Retry-After", "1")
		q.refuse(tooMany, problem.TooManyRequests, "too many requests from this address proved nothing")
		return
	}
	began := q.now()
	result := q.verify()
	switch result {
	case accepted:
		q.accept()
	case tooLarge:
		q.failures.Take(q.from, q.now())
		q.refuse(result, problem.TooLarge, "a webhook's payload has 25 MiB at most")
	case incomplete:
		q.failures.Take(q.from, q.now())
		q.refuse(result, problem.BadRequest, "the payload broke off, or did not come in time")
	default:
		q.failures.Take(q.from, q.now())
		if wait := proofTime - q.now().Sub(began); wait > 0 {
			select {
			case <-q.after(wait):
			case <-q.r.Context().Done():
			}
		}
		q.refuse(result, problem.Unauthorized, "there is no such webhook, or the signature is not right for it")
	}
}

// parse returns which source a request is about.
func parse(r *http.Request) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(r.URL.Path, Path)
	namespace, name, cut := strings.Cut(rest, "/")
	if !ok || !cut || r.URL.RawPath != "" || encrypt.ValidateNamespace(namespace) != nil || encrypt.ValidateName(name) != nil {
		return "", "", false
	}
	return namespace, name, true
}

// verify tells who sent the request: accepted, or why it is refused. It does the same work
// whether or not there is such a webhook.
func (q *request) verify() string {
	if q.r.ContentLength > MaxBody {
		return tooLarge
	}
	target, err := q.sources.Hook(q.r.Context(), q.namespace, q.name)
	target.Secret = trimLine(target.Secret)
	fault := ""
	switch {
	case errors.Is(err, ErrNoHook):
		fault = noHook
	case err != nil:
		fault = misconfigured
	case len(target.Secret) == 0:
		// An HMAC with an empty key is one that anybody can make.
		fault, err = misconfigured, errors.New("the secret is empty")
	}
	if fault != "" {
		target.Secret = q.stranger
	}
	p := proofOf(target, q.r.Header)
	if _, err := io.Copy(p, http.MaxBytesReader(q.w, q.r.Body, MaxBody)); err != nil {
		if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
			return tooLarge
		}
		return incomplete
	}
	holds := p.holds()
	switch {
	case fault != "":
	case !p.shown():
		fault, err = unsigned, errors.New("it is not signed as a webhook of this type is")
	case !holds:
		fault, err = signature, errors.New("the signature is not of this secret and this payload")
	default:
		return accepted
	}
	if q.lines.Take(q.namespace+"/"+q.name, q.now()) {
		q.log.Warn("a webhook was refused", "source", q.namespace+"/"+q.name, "type", target.Type, "address", q.from, "request", q.id, "error", err)
	}
	return fault
}

// trimLine leaves out what ends the last line, which no forge has in a secret and many a file does.
func trimLine(secret []byte) []byte {
	for len(secret) > 0 && (secret[len(secret)-1] == '\n' || secret[len(secret)-1] == '\r') {
		secret = secret[:len(secret)-1]
	}
	return secret
}

// accept passes a forge's word on.
func (q *request) accept() {
	if q.r.Header.Get("X-GitHub-Event") == "ping" || q.r.Header.Get("X-Event-Key") == "diagnostics:ping" {
		q.answer(ping, http.StatusOK)
		return
	}
	// The push has happened, also where the forge does not wait.
	ctx := context.WithoutCancel(q.r.Context())
	err := q.turns.take(q.namespace+"/"+q.name, func() error {
		ctx, cancel := context.WithTimeout(ctx, hintTimeout)
		defer cancel()
		return q.sources.Hint(ctx, q.namespace, q.name)
	})
	if err != nil {
		q.log.Warn("a source could not be told of a push", "source", q.namespace+"/"+q.name, "request", q.id, "error", err)
		q.refuse(failed, problem.Unavailable, "the source could not be told; it looks at its repository by itself, too")
		return
	}
	q.answer(accepted, http.StatusAccepted)
}

func (q *request) answer(result string, code int) {
	q.requests.WithLabelValues(result).Inc()
	q.w.Header().Set("X-Request-Id", q.id)
	q.w.WriteHeader(code)
}

// refuse answers with a problem, and ends the connection: a payload that nobody read may
// still be on its way.
func (q *request) refuse(result string, t problem.Type, detail string) {
	q.requests.WithLabelValues(result).Inc()
	q.w.Header().Set("Connection", "close")
	problem.Write(q.w, t, detail, q.id)
}
