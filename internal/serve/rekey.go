package serve

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/rekey"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// Rekey replaces the root key. [rootkey.Keeper] and [unseal.Gate] do most of it.
type Rekey interface {
	// Held returns the active key and the others; the first is empty while Safe is sealed.
	Held() (active encrypt.KeyID, others []encrypt.KeyID)
	// RetiredText returns the text of the others; nil if there is none. It is the caller's to wipe.
	RetiredText() []byte

	Rekeying() (rootkey.Rekey, bool)
	Staged() []encrypt.KeyID
	// StageRekey and StartRekey leave wiping the text to the caller. Errors of all these: [rootkey.ErrSealed],
	// [rootkey.ErrNoRekey], [rootkey.ErrRekeying] and others of package rootkey, and those of [unseal.Parse].
	StageRekey(ctx context.Context, text []byte) (encrypt.KeyID, error)
	UnstageRekey(ctx context.Context)
	StartRekey(ctx context.Context, text []byte, by string) (r rootkey.Rekey, began bool, err error)
	AbortRekey(ctx context.Context, by string) (rootkey.Rekey, error)
	FinishRekey(ctx context.Context, from, to encrypt.KeyID) error

	// Check finds out what the active key does not open alone. Errors that are told apart: [rekey.ErrSealed],
	// [rekey.ErrChanged], [ErrNotLeading], [rekey.ErrUnavailable], ctx's.
	Check(context.Context) (rekey.Report, error)
}

// A RekeyStatus is what GET /v1/rekey answers.
type RekeyStatus struct {
	Active Recipient `json:"active"`
	// Retired are the ids of the keys that still open what is sealed to them, Staged those that were handed to this
	// replica for a re-key which has not begun.
	Retired []encrypt.KeyID `json:"retired"`
	Staged  []encrypt.KeyID `json:"staged"`
	// Store is where the root key is kept: secret, file or memory.
	Store string         `json:"store"`
	Rekey *rootkey.Rekey `json:"rekey,omitempty"` // that is under way
	// Replica is the name of this one of several. Leads tells whether it is the one that can check and finish.
	Replica string `json:"replica,omitempty"`
	Leads   bool   `json:"leads"`
}

// rekeyStatus answers GET /v1/rekey.
func (s *Server) rekeyStatus(w http.ResponseWriter, r *http.Request, c *call) {
	if !s.may(w, r, c, onSafe("get")) {
		return
	}
	active, others := s.Rekey.Held()
	if s.sealed() || active == "" {
		s.deny(w, r, c, problem.Sealed, "")
		return
	}
	if !s.record(w, r, c, audit.Allowed) {
		return
	}
	now := s.Status()
	st := RekeyStatus{
		Active: Recipient{KeyID: string(active)}, Store: s.RootKey.Status().Store, Staged: s.Rekey.Staged(),
		Replica: now.Replica, Leads: now.Leads || now.Replica == "",
	}
	under, rekeying := s.Rekey.Rekeying()
	if rekeying {
		st.Rekey = &under
	}
	// A replica that has not taken the new key yet has another active one than is published.
	known, _ := s.RootKey.Recipient()
	for _, text := range []string{known.String(), under.FromRecipient, under.ToRecipient} {
		if text != "" && encrypt.KeyIDOf(text) == active {
			st.Active.Recipient = text
		}
	}
	st.Retired = without(others, st.Staged)
	if st.Staged == nil {
		st.Staged = []encrypt.KeyID{}
	}
	c.answerJSON(w, st)
}

// without returns ids without others; never nil.
func without(ids, others []encrypt.KeyID) []encrypt.KeyID {
	left := make([]encrypt.KeyID, 0, len(ids))
	for _, id := range ids {
		if !slices.Contains(others, id) {
			left = append(left, id)
		}
	}
	return left
}

// rekey answers POST /v1/rekey. Its line is written once it is known what is to be done, with the ids of keys and
// never a key.
func (s *Server) rekey(w http.ResponseWriter, r *http.Request, c *call) {
	if !s.may(w, r, c, onSafe("rekey")) {
		return
	}
	body, err := readBody(r, maxRekeyBody)
	defer clear(body)
	if err != nil {
		s.deny(w, r, c, bodyProblem(err), err.Error())
		return
	}
	q, err := parseRekeyCall(body)
	defer clear(q.key)
	if err != nil {
		s.deny(w, r, c, problem.BadRequest, err.Error())
		return
	}
	c.object = q.onRecord()
	switch {
	case q.knowsKey() && !s.may(w, r, c, onSafe("exportkey")):
		return
	case q.force && !s.may(w, r, c, onSafe("override")):
		return
	case s.sealed():
		s.deny(w, r, c, problem.Sealed, "")
		return
	}
	if !s.record(w, r, c, audit.Allowed) {
		return
	}
	switch q.do {
	case "check":
		s.checkRekey(w, r, c)
	case "archive":
		s.archiveRetired(w, r, c, q)
	case "finish":
		s.finishRekey(w, r, c, q)
	default:
		s.changeRekey(w, r, c, q)
	}
}

// changeRekey does what is soon done. Who goes away does not leave it half done.
func (s *Server) changeRekey(w http.ResponseWriter, r *http.Request, c *call, q rekeyCall) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), shortTimeout)
	defer cancel()
	var answer any
	var err error
	switch q.do {
	case "stage":
		var in struct {
			KeyID encrypt.KeyID `json:"keyID"`
		}
		in.KeyID, err = s.Rekey.StageRekey(ctx, q.key)
		answer = in
	case "unstage":
		s.Rekey.UnstageRekey(ctx)
		answer = struct{}{}
	case "start":
		var in struct {
			Rekey rootkey.Rekey `json:"rekey"`
			Began bool          `json:"began"`
		}
		in.Rekey, in.Began, err = s.Rekey.StartRekey(ctx, q.key, c.actor)
		c.object = ofRekey(q.onRecord(), in.Rekey)
		answer = in
	case "abort":
		var in struct {
			Rekey rootkey.Rekey `json:"rekey"`
		}
		in.Rekey, err = s.Rekey.AbortRekey(ctx, c.actor)
		c.object = ofRekey(q.onRecord(), in.Rekey)
		answer = in
	}
	if err != nil {
		s.rekeyFailed(w, r, c, err)
		return
	}
	s.ended(r, c, audit.OK)
	c.answerJSON(w, answer)
}

// ofRekey adds to what is on record which re-key it was.
func ofRekey(object string, r rootkey.Rekey) string {
	if r.To == "" {
		return object
	}
	return fmt.Sprintf("%s from=%s to=%s", object, r.From, r.To)
}

func (s *Server) checkRekey(w http.ResponseWriter, r *http.Request, c *call) {
	report, err := s.Rekey.Check(r.Context())
	if err != nil {
		s.rekeyFailed(w, r, c, err)
		return
	}
	answer := struct {
		Rekey  *rootkey.Rekey `json:"rekey,omitempty"`
		Report rekey.Report   `json:"report"`
	}{Report: report}
	if under, ok := s.Rekey.Rekeying(); ok {
		answer.Rekey = &under
	}
	s.ended(r, c, audit.OK)
	c.answerJSON(w, answer)
}

// finishRekey destroys the keys that are retired, if the active one opens alone all that there is, or if the caller says
// that it is to be done all the same.
func (s *Server) finishRekey(w http.ResponseWriter, r *http.Request, c *call, q rekeyCall) {
	under, err := s.underWay(q)
	if err != nil {
		s.rekeyFailed(w, r, c, err)
		return
	}
	report, err := s.Rekey.Check(r.Context())
	switch {
	case err != nil:
		s.rekeyFailed(w, r, c, err)
		return
	case report.KeyID != q.to:
		s.end(w, r, c, problem.Unavailable, fmt.Sprintf("this replica has not taken the new key yet: %s is active here", report.KeyID))
		return
	}
	c.object = fmt.Sprintf("%s needs=%d unread=%d", q.onRecord(), report.NeedCount, len(report.Unread))
	answer := struct {
		Finished bool         `json:"finished"`
		Report   rekey.Report `json:"report"`
	}{Report: report}
	if report.Blocked() && !q.force {
		if !under {
			s.rekeyFailed(w, r, c, rootkey.ErrNoRekey)
			return
		}
		s.ended(r, c, audit.Failed)
		c.answerJSON(w, answer)
		return
	}
	if r.Context().Err() != nil { // nobody waits for it any more, so nothing is destroyed
		s.rekeyFailed(w, r, c, r.Context().Err())
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), shortTimeout)
	defer cancel()
	if err := s.Rekey.FinishRekey(ctx, q.from, q.to); err != nil {
		s.rekeyFailed(w, r, c, err)
		return
	}
	answer.Finished = true
	s.ended(r, c, audit.OK)
	c.answerJSON(w, answer)
}

// underWay tells whether the re-key is under way as far as this replica knows. It may be finished, so that to finish it
// again is no mistake, or this replica may not have heard of it: whoever writes decides. That another is under way is
// an error.
func (s *Server) underWay(q rekeyCall) (bool, error) {
	under, ok := s.Rekey.Rekeying()
	if ok && (under.From != q.from || under.To != q.to) {
		return false, &rootkey.RekeyingError{Rekey: under}
	}
	return ok, nil
}

// archiveRetired answers with the retired keys, in an age file for whom the caller names.
func (s *Server) archiveRetired(w http.ResponseWriter, r *http.Request, c *call, q rekeyCall) {
	archive, ids, err := s.retiredArchive(q.recipients)
	if err != nil {
		s.rekeyFailed(w, r, c, err)
		return
	}
	for _, id := range ids {
		c.object += " key=" + string(id)
	}
	// What nobody put on record nobody gets: the answer is the key.
	if !s.record(w, r, c, audit.OK) {
		return
	}
	c.answerJSON(w, struct {
		Archive string          `json:"archive"`
		KeyIDs  []encrypt.KeyID `json:"keyIDs"`
	}{base64.StdEncoding.EncodeToString(archive), ids})
}

// errNothingRetired says that there is no key that an archive could hold.
var errNothingRetired = fmt.Errorf("%w: there is no retired key", rootkey.ErrNoRekey)

// errArchiveLocked says that an archive would be worth nothing.
var errArchiveLocked = errors.New("to: this is the recipient of a key that is to go, which would be locked in with itself: name another")

// retiredArchive returns the retired keys as they are kept in RETIRED_TXT, in an age file, and their ids.
func (s *Server) retiredArchive(to []encrypt.Recipient) ([]byte, []encrypt.KeyID, error) {
	text := s.Rekey.RetiredText()
	defer clear(text)
	if text == nil {
		return nil, nil, errNothingRetired
	}
	keys, err := unseal.ParseAll(text)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		for _, k := range keys {
			k.Wipe()
		}
	}()
	staged := s.Rekey.Staged()
	keys = slices.DeleteFunc(keys, func(k *unseal.RootKey) bool {
		if !slices.Contains(staged, k.KeyID()) {
			return false
		}
		k.Wipe()
		return true
	})
	if len(keys) == 0 {
		return nil, nil, errNothingRetired
	}
	slices.SortFunc(keys, func(a, b *unseal.RootKey) int { return strings.Compare(string(a.KeyID()), string(b.KeyID())) })
	var archive bytes.Buffer
	recipients, err := nativeRecipients(to)
	if err != nil {
		return nil, nil, err
	}
	sealed, err := age.Encrypt(&archive, recipients...)
	if err != nil {
		return nil, nil, err
	}
	var ids []encrypt.KeyID
	for i, k := range keys {
		if slices.ContainsFunc(to, func(r encrypt.Recipient) bool { return r.KeyID() == k.KeyID() }) {
			return nil, nil, errArchiveLocked
		}
		if err := writeKey(sealed, k, i > 0); err != nil {
			return nil, nil, err
		}
		ids = append(ids, k.KeyID())
	}
	if err := sealed.Close(); err != nil {
		return nil, nil, err
	}
	return archive.Bytes(), ids, nil
}

// writeKey writes a key's text, after a blank line if it is not the first.
func writeKey(to interface{ Write([]byte) (int, error) }, k *unseal.RootKey, after bool) error {
	text := k.Text()
	defer clear(text)
	if after {
		if _, err := to.Write([]byte("\n")); err != nil {
			return err
		}
	}
	_, err := to.Write(text)
	return err
}

// nativeRecipients returns recipients for an age file without a binding.
func nativeRecipients(rs []encrypt.Recipient) ([]age.Recipient, error) {
	var all []age.Recipient
	for _, r := range rs {
		var key age.Recipient
		var err error
		if r.Hybrid() {
			key, err = age.ParseHybridRecipient(r.String())
		} else {
			key, err = age.ParseX25519Recipient(r.String())
		}
		if err != nil {
			return nil, err
		}
		all = append(all, key)
	}
	return all, nil
}

// rekeyFailed answers why a call was not done. The errors that it shows quote nothing of a key.
func (s *Server) rekeyFailed(w http.ResponseWriter, r *http.Request, c *call, err error) {
	var other *rootkey.RekeyingError
	switch {
	case errors.Is(err, rootkey.ErrSealed), errors.Is(err, rekey.ErrSealed), errors.Is(err, unseal.ErrShut):
		s.end(w, r, c, problem.Sealed, "")
	case errors.As(err, &other):
		s.end(w, r, c, problem.OtherRekey, describeRekey(other.Rekey))
	case errors.Is(err, rootkey.ErrRekeying):
		s.end(w, r, c, problem.OtherRekey, err.Error())
	case errors.Is(err, rootkey.ErrNoRekey):
		s.end(w, r, c, problem.NoRekey, err.Error())
	case errors.Is(err, rootkey.ErrNotStaged), errors.Is(err, rootkey.ErrTooManyStaged):
		s.end(w, r, c, problem.NotStaged, err.Error())
	case errors.Is(err, rootkey.ErrOtherKind), errors.Is(err, rootkey.ErrActiveKey), errors.Is(err, rootkey.ErrWrongKey):
		s.end(w, r, c, problem.WrongKey, err.Error())
	case errors.Is(err, unseal.ErrMalformed), errors.Is(err, unseal.ErrMismatch), errors.Is(err, unseal.ErrNone),
		errors.Is(err, rootkey.ErrNotMemory), errors.Is(err, rootkey.ErrKeyWanted), errors.Is(err, errArchiveLocked):
		s.end(w, r, c, problem.BadRequest, err.Error())
	case errors.Is(err, ErrNotLeading):
		s.end(w, r, c, problem.NotLeading, notLeading(s.Status().Leader))
	case errors.Is(err, rekey.ErrChanged), errors.Is(err, rekey.ErrUnavailable), errors.Is(err, rootkey.ErrNotHeld), errors.Is(err, rootkey.ErrUnheard):
		s.end(w, r, c, problem.Unavailable, err.Error())
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		s.end(w, r, c, problem.Timeout, "")
	default:
		s.rootKeyFailed(w, r, c, err)
	}
}

// describeRekey says which re-key is under way.
func describeRekey(r rootkey.Rekey) string {
	text := fmt.Sprintf("a re-key from %s to %s is under way, since %s, by %s", r.From, r.To, r.Started.UTC().Format(time.RFC3339), r.By)
	if r.Aborted {
		text += "; it was aborted, and is to be finished"
	}
	return strings.ToValidUTF8(text, "?")
}
