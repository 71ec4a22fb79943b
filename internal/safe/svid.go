package safe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/vsecm/kubectl-vsecm/internal/config"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
)

var errNoSVID = errors.New("the SPIFFE Workload API has given no X.509-SVID yet")

// An ownIdentity is who Safe is and whom it trusts, once the Workload API has
// said so. That may be long after Safe's start: until then nobody can connect
// to the workload API, while probes, metrics and the operator's socket answer.
type ownIdentity struct {
	config config.SPIFFE
	log    *slog.Logger
	known  atomic.Pointer[knownIdentity]
}

type knownIdentity struct {
	svids     *workloadapi.X509Source
	workloads *identity.Mapper
}

// newOwnIdentity returns an identity that is yet to be learnt. An address that can never be
// one is an error.
func newOwnIdentity(c config.SPIFFE, log *slog.Logger) (*ownIdentity, error) {
	if c.Socket != "" {
		if err := workloadapi.ValidateAddress(c.Socket); err != nil {
			return nil, fmt.Errorf("the SPIFFE Workload API's address %q: %w", c.Socket, err)
		}
	}
	return &ownIdentity{config: c, log: log}, nil
}

const (
	// firstSVIDPause and longestSVIDPause bound how long run waits before it begins anew.
	firstSVIDPause   = time.Second
	longestSVIDPause = time.Minute
	// svidCheck is how often run looks whether the SVID has expired.
	svidCheck = 15 * time.Second
)

// run takes the identity from the Workload API and follows its rotation until ctx ends. It calls ready when it first
// has one, and then, and whenever it has one after it had none, again. Whatever is wrong with the Workload API, Safe
// goes on without: operators need it most then.
func (o *ownIdentity) run(ctx context.Context, ready, again func()) {
	o.log.Info("waiting for an SVID", "socket", o.config.Socket)
	ready = sync.OnceFunc(ready)
	for pause := firstSVIDPause; ; pause = min(2*pause, longestSVIDPause) {
		err := o.follow(ctx, func() {
			pause = firstSVIDPause
			ready()
			again()
		})
		if ctx.Err() != nil {
			return
		}
		o.log.Error("the SPIFFE Workload API gives no SVID; trying again", "socket", o.config.Socket, "error", err, "after", pause.String())
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

var errExpired = errors.New("the SVID has expired and no new one came")

// follow is one try of run. It returns when ctx ends, and when go-spiffe, which tries most
// things again by itself, has given up.
func (o *ownIdentity) follow(ctx context.Context, ready func()) error {
	svids, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(
		workloadapi.WithAddr(o.config.Socket), workloadapi.WithLogger(spiffeLog{o.log})))
	if err != nil {
		return err
	}
	defer svids.Close()
	svid, err := svids.GetX509SVID()
	if err != nil {
		return err
	}
	workloads, err := o.config.Mapper(svid.ID.TrustDomain())
	if err != nil {
		return err
	}
	o.known.Store(&knownIdentity{svids, workloads})
	ready()
	tick := time.NewTicker(svidCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if svid, err := svids.GetX509SVID(); err != nil {
			return err
		} else if time.Since(svid.Certificates[0].NotAfter) > svidCheck {
			return errExpired
		}
	}
}

// GetX509SVID returns Safe's SVID, for [x509svid.Source].
func (o *ownIdentity) GetX509SVID() (*x509svid.SVID, error) {
	if k := o.known.Load(); k != nil {
		return k.svids.GetX509SVID()
	}
	return nil, errNoSVID
}

// GetX509BundleForTrustDomain returns whom Safe trusts, for
// [x509bundle.Source].
func (o *ownIdentity) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	if k := o.known.Load(); k != nil {
		return k.svids.GetX509BundleForTrustDomain(td)
	}
	return nil, errNoSVID
}

// TrustDomain returns Safe's own trust domain.
func (o *ownIdentity) TrustDomain() spiffeid.TrustDomain {
	if k := o.known.Load(); k != nil {
		return k.workloads.TrustDomain()
	}
	return spiffeid.TrustDomain{}
}

// Workload tells which workload id belongs to.
func (o *ownIdentity) Workload(id spiffeid.ID) (identity.Workload, error) {
	if k := o.known.Load(); k != nil {
		return k.workloads.Workload(id)
	}
	return identity.Workload{}, errNoSVID
}

// A spiffeLog is Safe's log as go-spiffe writes to it. What that calls errors
// it tries again by itself.
type spiffeLog struct{ *slog.Logger }

func (l spiffeLog) Debugf(format string, args ...any) { l.Debug(fmt.Sprintf(format, args...)) }
func (l spiffeLog) Infof(format string, args ...any)  { l.Debug(fmt.Sprintf(format, args...)) }
func (l spiffeLog) Warnf(format string, args ...any)  { l.Warn(fmt.Sprintf(format, args...)) }
func (l spiffeLog) Errorf(format string, args ...any) { l.Warn(fmt.Sprintf(format, args...)) }
