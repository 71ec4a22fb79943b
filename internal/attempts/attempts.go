// Package attempts bounds how often each of many callers may try something.
//
// Every caller has a burst of attempts, and one more after each interval, until they have
// all of them again. Callers are told apart by a name that they cannot choose freely:
// where they connect from ([From]), or who they were found to be. So many are
// remembered at most; those for whom there is no room share the attempts of one, so that
// nobody gains attempts by being one too many, or by having others forgotten.
package attempts

import (
	"net/netip"
	"sync"
	"time"
)

// Most is how many callers are worth telling apart.
const Most = 4096

// An Attempts is safe for concurrent use.
type Attempts struct {
	every time.Duration
	burst time.Duration // as the time in which all of it is back
	most  int

	mu      sync.Mutex
	callers map[string]*account
	rest    account   // of those for whom there is no room
	swept   time.Time // when there was last an attempt to make room
}

// An account holds the time when all attempts of a caller are back. Its zero value has all
// of them.
type account struct{ back time.Time }

// New returns attempts of callers who have burst each, and one back after every so long.
// most callers are told apart.
func New(every time.Duration, burst, most int) *Attempts {
	return &Attempts{every: every, burst: time.Duration(burst) * every, most: most, callers: make(map[string]*account)}
}

// Take counts an attempt of caller's, and reports whether they had one left. One that they
// did not have is not counted.
func (a *Attempts) Take(caller string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.find(caller, now)
	if c == nil {
		c = &account{}
		a.callers[caller] = c
	}
	if !a.has(c, now) {
		return false
	}
	if c.back.Before(now) {
		c.back = now
	}
	c.back = c.back.Add(a.every)
	return true
}

// Give returns an attempt that caller took, and that turned out to be none.
func (a *Attempts) Give(caller string, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// Who was forgotten meanwhile has all of them.
	if c := a.find(caller, now); c != nil {
		c.back = c.back.Add(-a.every)
	}
}

// Left reports whether caller has an attempt left, and counts none.
func (a *Attempts) Left(caller string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.find(caller, now)
	return c == nil || a.has(c, now)
}

// Spent reports whether caller has fewer attempts than all, and counts none.
func (a *Attempts) Spent(caller string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.find(caller, now)
	return c != nil && c.back.After(now)
}

func (a *Attempts) has(c *account, now time.Time) bool {
	return c.back.Sub(now)+a.every <= a.burst
}

// find returns the account of caller; nil if they have none, and there is room for it.
func (a *Attempts) find(caller string, now time.Time) *account {
	if c := a.callers[caller]; c != nil {
		return c
	}
	// Who is one too many must not make every call sweep.
	if len(a.callers) >= a.most && now.Sub(a.swept) >= a.every {
		a.swept = now
		for caller, c := range a.callers {
			if !c.back.After(now) {
				delete(a.callers, caller)
			}
		}
	}
	if len(a.callers) >= a.most {
		return &a.rest
	}
	return nil
}

// Loopback is where all connections come from that were forwarded to Safe's pod: those of
// every operator who uses port-forwards.
const Loopback = "loopback"

// From returns where a connection comes from, as far as one caller can be told from
// another: who has an IPv6 address often has all of its /64. What is no address stays as
// it is.
func From(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	ip := at.Addr().Unmap().WithZone("")
	if ip.IsLoopback() {
		return Loopback
	}
	if ip.Is4() {
		return ip.String()
	}
	prefix, err := ip.Prefix(64)
	if err != nil {
		return ip.String()
	}
	return prefix.String()
}
