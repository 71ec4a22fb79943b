package serve

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// Each operator may try to unseal as often as this: enough for every holder of a
	// share to mistype theirs, and nothing to guess a key with.
	unsealEvery = 5 * time.Second
	unsealBurst = 10
	// From each address, tokens that turn out to be worth nothing here may come as often
	// as this. Every pod can have one with Safe's audience: no flood of them is to keep
	// the API server from being asked about others'.
	refusalEvery = time.Second
	refusalBurst = 20
	// maxCallers bounds how many callers are told apart.
	maxCallers = 4096
)

// Attempts bound how often each of many callers may try something.
type attempts struct {
	every       time.Duration
	burst, most int

	mu      sync.Mutex
	callers map[string]*rate.Limiter
}

func newAttempts(every time.Duration, burst, most int) *attempts {
	return &attempts{every: every, burst: burst, most: most, callers: make(map[string]*rate.Limiter)}
}

// take counts an attempt of caller's, and reports whether it had one left.
func (a *attempts) take(caller string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.callers[caller]
	if l == nil {
		if l = a.admit(now); l == nil {
			return false
		}
		a.callers[caller] = l
	}
	return l.AllowN(now, 1)
}

// left reports whether caller has an attempt left, and counts none.
func (a *attempts) left(caller string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.callers[caller]
	return l == nil || l.TokensAt(now) >= 1
}

// admit returns the limit of one more caller; nil where there is no room, even after
// those were forgotten who have all their attempts again.
func (a *attempts) admit(now time.Time) *rate.Limiter {
	if len(a.callers) >= a.most {
		for caller, l := range a.callers {
			if l.TokensAt(now) >= float64(a.burst) {
				delete(a.callers, caller)
			}
		}
	}
	if len(a.callers) >= a.most {
		return nil
	}
	return rate.NewLimiter(rate.Every(a.every), a.burst)
}

// addressOf returns where a connection comes from, as far as one caller can be told
// from another: who has an IPv6 address often has all of its /64.
func addressOf(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	ip := at.Addr().Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	prefix, err := ip.Prefix(64)
	if err != nil {
		return ip.String()
	}
	return prefix.String()
}
