package operator

import (
	"crypto/sha256"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"github.com/vsecm/kubectl-vsecm/internal/attempts"
)

// Whoever can connect to Safe can make it ask the API server about a token: 20 a second, and
// 40 at once, in three shares, none of which can take from another.
const (
	// Of port-forwards, whose connections all come from loopback: of all operators, and of
	// nobody who may not forward ports.
	loopbackRate, loopbackBurst = 10, 20
	// Of addresses none of whose tokens was refused lately.
	cleanRate, cleanBurst = 6, 12
	// Of the others. Any pod can have a token for Safe, with which it may do nothing.
	refusedRate, refusedBurst = 4, 8
)

const (
	// Of one address, so many tokens are reviewed; loopback has its share instead.
	addressEvery, addressBurst = 500 * time.Millisecond, 10
	// From one address, so many may be refused, and as long as not all of these are
	// back, it belongs to those of which some were refused. Not for loopback: one who
	// forwards ports is not to be refused for another.
	refusalEvery, refusalBurst = 30 * time.Second, 20
	// Of one token that proved good, so many are reviewed: it must not take what is others'.
	tokenEvery, tokenBurst = time.Second, 20
	// So many calls with one token of one account may be forbidden. An account is often
	// several people's; a token is one's.
	denialEvery, denialBurst = 5 * time.Second, 20
)

// Shares bound how often the API server is asked, so that nobody can keep it from being
// asked about others.
type shares struct {
	loopback, clean, refused *rate.Limiter

	addresses *attempts.Attempts // reviews
	refusals  *attempts.Attempts // by address: tokens refused, calls forbidden
	tokens    *attempts.Attempts // reviews of tokens that proved good
	denials   *attempts.Attempts // by account and token: calls forbidden
}

func newShares() *shares {
	return &shares{
		loopback:  rate.NewLimiter(loopbackRate, loopbackBurst),
		clean:     rate.NewLimiter(cleanRate, cleanBurst),
		refused:   rate.NewLimiter(refusedRate, refusedBurst),
		addresses: attempts.New(addressEvery, addressBurst, attempts.Most),
		refusals:  attempts.New(refusalEvery, refusalBurst, attempts.Most),
		tokens:    attempts.New(tokenEvery, tokenBurst, attempts.Most),
		denials:   attempts.New(denialEvery, denialBurst, attempts.Most),
	}
}

// These are [ErrBusy] with the reason, for the caller.
var (
	errAddressRefused = fmt.Errorf("%w: too many from this address were refused", ErrBusy)
	errAddressBusy    = fmt.Errorf("%w, of them too many from this address", ErrBusy)
	errTokenBusy      = fmt.Errorf("%w, of them this one too often", ErrBusy)
	errDenied         = fmt.Errorf("%w: too many calls with this one were forbidden", ErrBusy)
)

// review takes the room for one review of a token from an address.
func (s *shares) review(from, token string, now time.Time) error {
	if !s.tokens.Left(fingerprint(token), now) {
		return errTokenBusy
	}
	share := s.clean
	switch {
	case from == attempts.Loopback:
		share = s.loopback
	case !s.refusals.Left(from, now):
		return errAddressRefused
	case !s.addresses.Take(from, now):
		return errAddressBusy
	case s.refusals.Spent(from, now):
		share = s.refused
	}
	if !share.AllowN(now, 1) {
		return ErrBusy
	}
	return nil
}

// good remembers that a token was. Only of those there is a count: the others are as many
// as anybody likes to make up.
func (s *shares) good(token string, now time.Time) { s.tokens.Take(fingerprint(token), now) }

// refuse remembers that an address sent a token that was worth nothing here.
func (s *shares) refuse(from string, now time.Time) {
	if from != attempts.Loopback {
		s.refusals.Take(from, now)
	}
}

// mayAsk tells whether an operator was not forbidden too much lately.
func (s *shares) mayAsk(o Operator, now time.Time) bool { return s.denials.Left(o.caller(), now) }

// deny remembers that an operator was forbidden a call.
func (s *shares) deny(o Operator, now time.Time) {
	s.denials.Take(o.caller(), now)
	s.refuse(o.from, now)
}

// caller tells operators apart: people who share an account have tokens of their own.
func (o Operator) caller() string { return o.Name + "\x00" + o.CredentialID }

// fingerprint stands for a token, which is not kept.
func fingerprint(token string) string {
	sum := sha256.Sum256([]byte(token))
	return string(sum[:])
}
