// Package workload gives a program its secrets. It asks Safe for them over
// mTLS, with the X.509-SVID that the SPIFFE Workload API gives to the process.
//
// A program that reads its secrets once:
//
//	secrets, err := workload.Fetch(ctx)
//	if err != nil { … }
//	password, ok := secrets.Get("db", "password")
//
// One that follows their changes, for as long as ctx lasts:
//
//	err := workload.Watch(ctx, func(s *workload.Secrets) {
//		password, ok := s.Get("db", "password")
//		…
//	})
//
// Both find the Workload API at $SPIFFE_ENDPOINT_SOCKET, and Safe at
// $VSECM_SAFE_ENDPOINT_URL or [DefaultURL]. They share one client, which lives
// as long as the process. A program that needs another Safe, or wants to end
// its client, makes its own with [New].
//
// What Safe sends is checked before it is used: its identity, the size of its
// answer, and every name in it. No error, and nothing that is logged, holds a
// value.
package workload

import (
	"context"
	"errors"
)

var (
	// ErrNoIdentity says that the Workload API gave no X.509-SVID in time, or
	// no new one before the last expired: it is not there, or this process is
	// not registered with it.
	ErrNoIdentity = errors.New("no X.509-SVID from the SPIFFE Workload API")
	// ErrUnauthorized says that Safe does not let this workload in.
	ErrUnauthorized = errors.New("safe refused this workload")
	// ErrNotFound says that what was asked is not there: an older Safe, or
	// not a Safe at all.
	ErrNotFound = errors.New("safe does not know this call")
	// ErrSealed says that Safe holds no root key until operators unseal it.
	ErrSealed = errors.New("safe is sealed")
	// ErrUnavailable says that Safe cannot be reached, or cannot answer now.
	// Trying again later may help.
	ErrUnavailable = errors.New("safe is unavailable")
	// ErrWrongSafe says that who answered is not Safe.
	ErrWrongSafe = errors.New("the server is not Safe")
	// ErrBadAnswer says that an answer of Safe's is not what the API says:
	// too large, cut short, malformed, or with a name that must not become a
	// path.
	ErrBadAnswer = errors.New("safe's answer is not usable")
	// ErrClosed says that the client was closed.
	ErrClosed = errors.New("the client is closed")
)

// Fetch returns all secrets of this workload, with the client that the process
// shares. See [Client.Fetch]; where there is no identity yet, the error is
// [ErrNoIdentity], and the next call tries again.
func Fetch(ctx context.Context) (*Secrets, error) {
	c, err := shared.get(ctx)
	if err != nil {
		return nil, err
	}
	return c.Fetch(ctx)
}

// Watch calls fn with the secrets of this workload, and again after each
// change, until ctx ends, with the client that the process shares. See
// [Client.Watch]; where there is no identity at the beginning, it returns
// [ErrNoIdentity].
func Watch(ctx context.Context, fn func(*Secrets)) error {
	c, err := shared.get(ctx)
	if err != nil {
		return err
	}
	return c.Watch(ctx, fn)
}

// shared is the one client of [Fetch] and [Watch]: a source of SVIDs, and a
// connection to Safe, are worth keeping as long as the process runs.
var shared = newSharedClient()

// A sharedClient makes its client when it is first needed. One that could not
// be made is made anew at the next call.
type sharedClient struct {
	turn   chan struct{} // holds one token; who has it may use client
	client *Client
}

func newSharedClient() *sharedClient {
	s := &sharedClient{turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

func (s *sharedClient) get(ctx context.Context) (*Client, error) {
	select {
	case <-s.turn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { s.turn <- struct{}{} }()
	if s.client == nil {
		c, err := New(ctx)
		if err != nil {
			return nil, err
		}
		s.client = c
	}
	return s.client, nil
}
