// Package serve is Safe's listeners: the API over TLS, the operator's Unix socket, the
// webhooks, the probes and the metrics.
//
// # The API
//
//	GET  /v1/secrets      a workload's secrets, over SPIFFE mTLS
//	GET  /v1/inspect      who a workload is, and how its secrets fare
//	GET  /workload/v1/secrets
//	                      its own secret, for clients of VMware Secrets Manager
//	GET  /v1/recipient    the public key, for anyone
//	GET  /v1/seal-status  whether Safe holds its root key, for anyone
//	GET  /v1/status       how Safe fares, for operators, as all that follows
//	POST /v1/unseal       the root key
//	POST /v1/seal         drops it, and all that was opened with it
//	POST /v1/reveal       one object's values
//	POST /v1/reencrypt    sealed values, sealed anew for the active root key
//	POST /v1/backup       an archive of secrets, encrypted
//	POST /v1/sync         fetches every source now, or one
//	GET  /v1/rekey        which root keys are held, and what re-key is under way
//	POST /v1/rekey        replaces the root key, step by step
//
// While Safe is sealed it answers status, seal status, recipient and unseal; of all
// else a caller who may do it learns that it is sealed.
//
// # Operators
//
// On the TLS listener an operator shows a token, which [Operators] judges. Its audience
// is made from the public key that Safe showed on that very connection, so it is
// worth nothing anywhere else. On the Unix socket, of mode 0600, an operator is who
// can open it, and need not show anything.
//
// What an operator does is on record before it is done, or it is not done. What
// changes something has two lines: that it was allowed, and how it ended. Each
// operator's attempts to unseal that fail are counted, and how often the cluster is asked
// about tokens is for [Operators] to bound.
//
// # Workloads
//
// A workload is who its X.509-SVID says ([identity.Mapper]). One that is
// known and has no secrets gets an empty list rather than 404: it can watch
// for its first secret as for any change, and 404 keeps one meaning, that the
// path does not exist. With ?watch=1 and an If-None-Match that still holds,
// the answer waits for a change, for about a minute, and then is 304.
//
// HEAD gives the ETag and decrypts nothing. Errors are problems (see package
// problem); every call but a probe's is one line of the audit log, written
// when the call ends. What never becomes a call is neither: of a request that is
// not HTTP (400), or has too large a header (431), and of a handshake that fails,
// net/http disposes by itself.
//
// # Limits
//
// Each listener has a bounded number of connections, on the TLS listener also each
// address, and those who have not said who they are; and each connection of
// HTTP/2 has one of requests. One connection may hold 8 watches open, one workload
// 10,000; a workload has 1,000 requests a second, after 30,000 at once (429). The answers that their clients have not read yet are bounded in bytes,
// for each workload (429) and in all (503). What is longer than the client would
// take is not sent: package cache leaves out what an answer has no room for.
package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/vsecm/kubectl-vsecm/internal/attempts"
	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/operator"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	// idleTimeout is how long a workload's connection is kept between calls,
	// anonymousIdle one of somebody who did not say who they are.
	idleTimeout    = 2 * time.Minute
	anonymousIdle  = 30 * time.Second
	maxHeaderBytes = 16 << 10
	// stopWait is how long Run waits for open requests when it ends.
	stopWait = 10 * time.Second
)

// RootKey is the seal of Safe, as [rootkey.Keeper] keeps it.
type RootKey interface {
	// Status tells what anyone may know.
	Status() rootkey.Status
	// Recipient returns the public key to encrypt for; false if there is none yet.
	Recipient() (encrypt.Recipient, bool)
	// Unseal takes the text of the root key, and leaves wiping it to the caller. accept is
	// the key id that the operator named, or empty. Errors: those of
	// [unseal.Parse], [rootkey.ErrWrongKey], [rootkey.ErrConfirm],
	// [rootkey.ErrUnavailable]; none quotes the text.
	Unseal(ctx context.Context, text []byte, accept encrypt.KeyID) error
	// UnsealWithShare takes one share of the root key, and leaves wiping it to the caller. set may be
	// nil. Errors, beside those of Unseal: [unseal.ErrOtherSet], [unseal.ErrForged],
	// [unseal.ErrDuplicate], [unseal.ErrDamagedSet], [rootkey.ErrSetNeeded],
	// [rootkey.ErrTooManySets]; none quotes the share.
	UnsealWithShare(ctx context.Context, share unseal.Share, set *unseal.ShareSet, accept encrypt.KeyID) error
	// ResetShares drops the shares that were given, of these sets or of all.
	ResetShares(sets ...unseal.SetID)
	// Seal drops the root key. Where an error says that it could not be made to last
	// ([rootkey.ErrUnavailable]), it was dropped all the same.
	Seal(ctx context.Context) error
}

// Operators judges the tokens of operators, as [operator.Reviewer] does.
type Operators interface {
	// Authenticate returns whose token it is that came from there ([attempts.From]). Errors:
	// [operator.ErrUnauthenticated], [operator.ErrBusy]; any other means that it could not be
	// judged.
	Authenticate(ctx context.Context, token, audience, from string) (operator.Operator, error)
	// Authorize tells whether an operator may do something. Errors: [operator.ErrBusy]; any
	// other means that it could not be judged.
	Authorize(context.Context, operator.Operator, operator.Attributes) (bool, error)
}

// A Config is what Safe's listeners need. All fields are required that do not say
// otherwise.
type Config struct {
	// Source gives Safe's own SVID, and the bundle that clients are verified
	// with. While it has no valid one, the certificate below is shown. nil: there is no
	// SPIFFE, and no workload is served.
	Source interface {
		x509svid.Source
		x509bundle.Source
	}
	// Workloads maps clients' SPIFFE IDs, as an [identity.Mapper] does. Its
	// trust domain is Safe's. It is not asked before Source has an SVID, nor without
	// SPIFFE.
	Workloads interface {
		TrustDomain() spiffeid.TrustDomain
		Workload(spiffeid.ID) (identity.Workload, error)
	}
	// Certificate is shown where there is no valid SVID ([SelfSigned]). Without a Leaf it
	// is none, and handshakes fail then.
	Certificate tls.Certificate
	// Cache holds the secrets.
	Cache *cache.Cache
	// RootKey is the seal.
	RootKey RootKey
	// Keys opens what is to be sealed anew. It holds the root key if RootKey is unsealed.
	Keys Keys
	// Archive holds the root keys that archives are made with.
	Archive Archive
	// Namespace that Safe is installed in; empty where there is no cluster.
	Namespace string
	// Operators judges tokens. nil: no operator is served on the TLS listener.
	Operators Operators

	Audit *audit.Log
	Log   *slog.Logger
	// Metrics is registered with, and served.
	Metrics *prometheus.Registry

	// Status returns, of what GET /v1/status shows, the version, the replica's name, what
	// is unreadable, and the sources. The server fills in the rest.
	Status func() Status
	// Sync fetches a source now, or every one where its name is empty, for POST /v1/sync, and
	// takes the word of an operator. Errors that are told apart: [ErrNoSource],
	// [ErrNotLeading], [reconcile.ErrNothingWaits] if there is no word to give.
	Sync func(ctx context.Context, source string, o reconcile.Override) error
	// Rekey replaces the root key.
	Rekey Rekey

	// Hooks answers what comes to the webhooks' listener ([hooks.New]). nil: that is not served.
	Hooks http.Handler
	// WebhookCertificate is the directory with the certificate of that listener: tls.crt and
	// tls.key, as a Secret of type kubernetes.io/tls is mounted. Empty: plain HTTP.
	WebhookCertificate string
}

// Listeners are where a [Server] serves. Those that are nil are left out.
type Listeners struct {
	API       net.Listener // TLS is added to it
	Liveness  net.Listener
	Readiness net.Listener
	Metrics   net.Listener
	Operator  net.Listener // of [ListenOperator]
	Webhooks  net.Listener // TLS is added to it where there is a certificate
}

// A Server serves Safe's listeners.
type Server struct {
	Config
	metrics *metrics
	watches *watchLimit
	budget  *budget

	webhookCertificate *certificateDir // nil: the webhooks are served over plain HTTP

	requests  *attempts.Attempts // of workloads, each of which has an account
	unseals   *attempts.Attempts // that fail, by actor and credential
	unsealing *attempts.Attempts // that fail, everybody's
	backups   *semaphore.Weighted
	strangers *attempts.Attempts // lines in the audit log, by address
	flooded   rate.Sometimes     // says that there were too many of those

	// stopping ends when Run begins to stop, and with it every watch.
	stopping context.Context
	stop     context.CancelFunc

	// Tests replace these.
	now          func() time.Time
	hold         func() time.Duration
	age          func() time.Duration
	readTimeout  time.Duration
	writeTimeout time.Duration
	backupStall  time.Duration

	anonymousIdle time.Duration
	connections   int // to the TLS listener
}

// New returns a server, and registers its metrics.
func New(c Config) (*Server, error) {
	stopping, stop := context.WithCancel(context.Background())
	s := &Server{
		Config:    c,
		watches:   newWatchLimit(maxWatches),
		budget:    newBudget(maxBytes, maxWorkloadBytes, roomWait),
		requests:  attempts.New(requestEvery, requestBurst, attempts.Most),
		unseals:   attempts.New(unsealEvery, unsealBurst, attempts.Most),
		unsealing: attempts.New(allUnsealsEvery, allUnsealsBurst, 1),
		backups:   semaphore.NewWeighted(maxBackups),
		strangers: attempts.New(lineEvery, lineBurst, attempts.Most),
		flooded:   rate.Sometimes{Interval: time.Minute},

		stopping: stopping,
		stop:     stop,

		now:          time.Now,
		hold:         holdFor,
		age:          connectionAge,
		readTimeout:  readTimeout,
		writeTimeout: writeTimeout,
		backupStall:  backupStall,

		anonymousIdle: anonymousIdle,
		connections:   maxConnections,
	}
	var err error
	if c.WebhookCertificate != "" {
		s.webhookCertificate = &certificateDir{dir: c.WebhookCertificate, now: func() time.Time { return s.now() }, fault: s.webhookCertificateFault}
	}
	if s.metrics, err = newMetrics(c.Metrics, s); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return s, nil
}

// Run serves until ctx ends or a listener fails, then ends every watch, lets
// other requests finish for up to ten seconds, and closes the listeners. It is
// called once.
func (s *Server) Run(ctx context.Context, l Listeners) error {
	defer s.stop()
	group, ctx := errgroup.WithContext(ctx)
	run := func(listener net.Listener, most int, name string, srv *http.Server) {
		if listener == nil {
			return
		}
		if most > 0 {
			listener = netutil.LimitListener(listener, most)
		}
		serve := srv.Serve
		if srv.TLSConfig != nil {
			serve = func(l net.Listener) error { return srv.ServeTLS(l, "", "") }
		}
		group.Go(func() error {
			if err := serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve %s: %w", name, err)
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			s.stop()
			return shutDown(srv, name)
		})
	}
	behindDoor := func(l net.Listener, most int, refused prometheus.Counter) net.Listener {
		if l == nil {
			return nil
		}
		return connectionListener{l, s.now, s.age, newDoor(most), refused.Inc}
	}
	run(behindDoor(l.API, s.connections, s.metrics.connectionsRefused), 0, "the API", s.apiServer())
	if s.Hooks != nil {
		run(behindDoor(l.Webhooks, maxHooks, s.metrics.webhooksRefused), 0, "the webhooks", s.webhookServer())
	}
	run(l.Liveness, maxProbes, "liveness", s.probeServer(s.live))
	run(l.Readiness, maxProbes, "readiness", s.probeServer(s.ready))
	run(l.Metrics, maxScrapes, "metrics", s.plainServer(s.metricsHandler()))
	// Whoever may open the socket may stop Safe as well.
	run(l.Operator, 0, "the operator's socket", s.operatorServer())
	return group.Wait()
}

// shutDown lets open requests finish, and cuts off those that do not.
func shutDown(srv *http.Server, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopWait)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("stop %s: %w", name, err), srv.Close())
	}
	return nil
}

// plainServer returns a server whose every request is short. Its limits are
// those of the other ones as well.
func (s *Server) plainServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       s.readTimeout,
		WriteTimeout:      s.writeTimeout,
		IdleTimeout:       s.anonymousIdle,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
	}
}

// probeServer returns a server whose connections end with their answer, so that
// nobody keeps those that the kubelet needs.
func (s *Server) probeServer(probe http.HandlerFunc) *http.Server {
	srv := s.plainServer(probe)
	srv.SetKeepAlivesEnabled(false)
	return srv
}
