package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// A Verify says which commits of a source have to be signed. What it trusts is fixed: for another
// trust, the source is made anew, and its first round judges the tip again.
type Verify struct {
	// Mode is one of [v1alpha1.VerifyNone] (also when empty), [v1alpha1.VerifyHead] and
	// [v1alpha1.VerifyStrict].
	Mode string
	// Trust are the keys whose signatures count.
	Trust *sync.Trust
	// Since is trusted as it is, and the tip has to be it or descend from it; empty for none.
	Since sync.Revision
}

// check returns v without what does not count in its mode.
func (v Verify) check() (Verify, error) {
	switch v.Mode {
	case "", v1alpha1.VerifyNone:
		return Verify{}, nil
	case v1alpha1.VerifyHead, v1alpha1.VerifyStrict:
	default:
		return v, fmt.Errorf("verify: mode %.40q is none of %s, %s and %s", v.Mode, v1alpha1.VerifyNone, v1alpha1.VerifyHead, v1alpha1.VerifyStrict)
	}
	if v.Trust == nil {
		return v, fmt.Errorf("verify: mode %s takes keys to trust", v.Mode)
	}
	if _, err := sync.ParseRevision(string(v.Since)); err != nil {
		return v, fmt.Errorf("verify: since: %w", err)
	}
	return v, nil
}

// A doubt is why a tip was not verified. The same tip is not looked at again before something else was
// applied; time makes no difference to it.
type doubt struct {
	tip     sync.Revision
	applied string
	err     error
}

// verify demands the signatures that the source's configuration does: in mode head that of the tip; in mode
// strict, that of every commit which leads to the tip from what was applied, or from what is trusted
// as it is. A tip that was verified is not looked at again.
func (s *Source) verify(ctx context.Context, tip sync.Revision) error {
	v := s.config.Verify
	if v.Mode == "" || s.checked == tip {
		return nil
	}
	if d := s.doubted; d.tip == tip && d.applied == s.applied.Revision {
		return d.err
	}
	verified, err := s.judge(ctx, tip)
	if errors.Is(err, sync.ErrUnverified) {
		if u, ok := errors.AsType[*sync.UnverifiedError](err); !ok || !u.Passes() {
			s.doubted = doubt{tip, s.applied.Revision, err}
		}
	}
	if err != nil || verified == nil {
		return err
	}
	s.verified, s.checked = *verified, tip
	return nil
}

// judge verifies a tip. A tip that is refused for its history is only judged for itself, and nothing is
// verified then.
func (s *Source) judge(ctx context.Context, tip sync.Revision) (*store.Verified, error) {
	v, applied := s.config.Verify, sync.Revision(s.applied.Revision)
	if v.Since != "" {
		if ok, err := s.leads(ctx, v.Since, tip); err != nil {
			return nil, err
		} else if !ok {
			return nil, fmt.Errorf("%w: %s does not descend from %s, after which it is to be verified (verify.since)", sync.ErrUnverified, tip, v.Since)
		}
	}
	if v.Mode == v1alpha1.VerifyHead {
		signature, err := s.signature(ctx, tip)
		return &store.Verified{Mode: v.Mode, Revision: string(tip), Signer: signature.Signer}, err
	}
	grown, err := s.leads(ctx, applied, tip)
	if err != nil {
		return nil, err
	}
	if !grown && tip != s.accepted {
		_, err := s.signature(ctx, tip)
		return nil, err
	}
	after := cmp.Or(applied, v.Since)
	if v.Since != "" && after != v.Since {
		// Whichever came later.
		ok := false
		if grown { // of a history that is gone nothing can be asked
			if ok, err = s.leads(ctx, v.Since, applied); err != nil {
				return nil, err
			}
		}
		if !ok {
			after = v.Since
		}
	}
	signature, err := s.signatures(ctx, after, tip)
	verified := &store.Verified{Mode: v.Mode, Revision: string(tip), Signer: signature.Signer}
	verified.Since, verified.Pinned = s.verifiedSince(after, tip)
	return verified, err
}

// signatures verifies every commit that leads from one revision to another, and returns the signature of
// that. From nothing, it verifies the tip alone.
func (s *Source) signatures(ctx context.Context, after, tip sync.Revision) (sync.Signature, error) {
	if after == "" || after == tip {
		return s.signature(ctx, tip)
	}
	last, n, err := s.mirror.VerifyNew(ctx, s.config.Verify.Trust, after, tip)
	if tip == s.accepted && errors.Is(err, sync.ErrNoCommit) {
		// What was applied is not in a mirror that was made since: then nothing is known to be older.
		last, n, err = s.mirror.VerifyNew(ctx, s.config.Verify.Trust, "", tip)
	}
	if err == nil && n == 0 {
		return s.signature(ctx, tip) // nothing is new, but what is trusted may be
	}
	return last, err
}

// signature verifies one commit. There is no signature of one that is trusted as it is.
func (s *Source) signature(ctx context.Context, at sync.Revision) (sync.Signature, error) {
	if at == s.config.Verify.Since {
		return sync.Signature{}, nil
	}
	return s.mirror.VerifyCommit(ctx, s.config.Verify.Trust, at)
}

// leads tells whether a revision is another or an ancestor of it.
func (s *Source) leads(ctx context.Context, from, to sync.Revision) (bool, error) {
	err := s.mirror.FastForward(ctx, from, to)
	if errors.Is(err, sync.ErrRewound) {
		return false, nil
	}
	return err == nil, err
}

// verifiedSince returns the commit after which all were verified, in mode strict, and whether it was
// configured.
func (s *Source) verifiedSince(after, tip sync.Revision) (since string, pinned bool) {
	was := s.applied.Verified
	switch {
	case s.config.Verify.Since != "":
		return string(s.config.Verify.Since), true
	case was.Mode == v1alpha1.VerifyStrict:
		return was.Since, was.Pinned
	case after != "":
		return string(after), false
	}
	return string(tip), false
}
