package serve

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/backup"
	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/operator"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

const (
	// maxBackupBody bounds, in bytes, the body of POST /v1/backup: 31 hybrid recipients take 60 KiB.
	maxBackupBody = 256 << 10
	// maxBackups is how many archives are written at a time.
	maxBackups = 2
	// backupStall is how long a reader of an archive may take none of it.
	backupStall = 30 * time.Second
)

// The trailers of an archive. Only with them it is whole.
const (
	// BackupDigest is the SHA-256, in hex, of all that was sent.
	BackupDigest = "Vsecm-Backup-Sha256"
	// BackupResult is a [backup.Result] as JSON, of which the list is cut short.
	BackupResult = "Vsecm-Backup-Result"
)

// maxResult bounds BackupResult, in bytes: a client has 4 KiB for all trailers.
const maxResult = 3 << 10

// Archive is what an archive is made with, beside the cache.
type Archive interface {
	backup.Keys
	// ActiveText and RetiredText return the texts of root keys, which are the caller's to wipe; nil where there are
	// none.
	ActiveText() []byte
	RetiredText() []byte
}

// A backupRequest is the body of POST /v1/backup.
type backupRequest struct {
	Recipients []string `json:"recipients"`
	Passphrase string   `json:"passphrase"`
	// Namespaces; null: all.
	Namespaces     []string `json:"namespaces"`
	IncludeRootKey bool     `json:"includeRootKey"`

	to backup.Recipients
}

// parseBackup reads the body.
func parseBackup(body []byte) (q backupRequest, err error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return q, errors.New(`the body is not {"recipients":…,"namespaces":…,"includeRootKey":…}`)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return q, errors.New("the body is more than one JSON object")
	}
	for _, namespace := range q.Namespaces {
		if err := encrypt.ValidateNamespace(namespace); err != nil {
			return q, fmt.Errorf("namespaces: %w", err)
		}
	}
	if q.Namespaces != nil && len(q.Namespaces) == 0 {
		return q, errors.New("namespaces: none; null stands for all")
	}
	slices.Sort(q.Namespaces)
	q.Namespaces = slices.Compact(q.Namespaces)
	switch {
	case (len(q.Recipients) > 0) == (q.Passphrase != ""):
		return q, errors.New("either recipients or a passphrase is wanted")
	case q.Passphrase != "":
		q.to, err = backup.Passphrase(q.Passphrase)
	default:
		q.to, err = backup.ParseRecipients(q.Recipients)
	}
	return q, err
}

// rights are what the caller needs.
func (q backupRequest) rights() []operator.Attributes {
	wanted := []operator.Attributes{onSafe("backup")}
	if q.IncludeRootKey {
		wanted = append(wanted, onSafe("exportkey"))
	}
	reveal := operator.Attributes{Verb: "reveal", Resource: operator.EncryptedSecrets}
	if q.Namespaces == nil {
		return append(wanted, reveal)
	}
	for _, reveal.Namespace = range q.Namespaces {
		wanted = append(wanted, reveal)
	}
	return wanted
}

// object is what the audit log says is archived, and for whom.
func (q backupRequest) object() string {
	what := "backup of all namespaces"
	if q.Namespaces != nil {
		what = "backup of " + strings.Join(q.Namespaces, ",")
	}
	if q.IncludeRootKey {
		what += " with the root key"
	}
	if q.Passphrase != "" {
		return what + " for a passphrase"
	}
	var ids []string
	for _, r := range q.Recipients {
		ids = append(ids, string(encrypt.KeyIDOf(r)))
	}
	slices.Sort(ids)
	return what + " for " + strings.Join(slices.Compact(ids), ",")
}

// backup answers POST /v1/backup: an archive of secrets, encrypted here, as a stream. What it breaks off in the middle
// has no end and no trailers, and the connection is closed.
func (s *Server) backup(w http.ResponseWriter, r *http.Request, c *call) {
	body, err := readBody(r, maxBackupBody)
	defer clear(body)
	if err != nil {
		s.deny(w, r, c, bodyProblem(err), err.Error())
		return
	}
	q, err := parseBackup(body)
	if err != nil {
		s.deny(w, r, c, problem.BadRequest, err.Error())
		return
	}
	c.object = q.object()
	if !s.may(w, r, c, q.rights()...) {
		return
	}
	switch {
	case s.sealed():
		s.deny(w, r, c, problem.Sealed, "")
		return
	case !s.Cache.Synced():
		w.Header().Set("Retry-After", "1")
		s.deny(w, r, c, problem.Unavailable, "safe is starting")
		return
	case !s.backups.TryAcquire(1):
		s.tooMany(w, r, c, fmt.Sprintf("%d backups are being written; wait for one of them", maxBackups))
		return
	}
	defer s.backups.Release(1)
	if !s.record(w, r, c, audit.Allowed) {
		return
	}
	s.archive(w, r, c, q)
}

// archive writes the archive that was allowed, and puts on record how that ended.
func (s *Server) archive(w http.ResponseWriter, r *http.Request, c *call, q backupRequest) {
	contents := s.contents(q)
	defer clear(contents.RootKey)
	defer clear(contents.RetiredKeys)
	if q.IncludeRootKey && contents.RootKey == nil {
		s.ended(r, c, audit.Failed)
		c.refuse(w, problem.Sealed, "")
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/age")
	h["Cache-Control"] = noStore
	h.Set("Trailer", BackupDigest+", "+BackupResult)
	out := &stallingWriter{to: w, control: http.NewResponseController(w), stall: s.backupStall, sum: sha256.New()}
	result, err := backup.Write(r.Context(), out, q.to, contents)
	if err == nil {
		s.ended(r, c, audit.OK)
		c.outcome, c.code = audit.OK, http.StatusOK
		h.Set(BackupDigest, hex.EncodeToString(out.sum.Sum(nil)))
		h.Set(BackupResult, shortResult(result))
		return
	}
	s.ended(r, c, audit.Failed)
	s.Log.Warn("a backup was broken off", "request", c.id, "error", err, "bytes", out.written)
	if out.written > 0 {
		c.outcome, c.code = audit.Failed, http.StatusOK
		panic(http.ErrAbortHandler) // nobody is to take it for a whole one
	}
	h.Del("Trailer")
	switch {
	case errors.Is(err, backup.ErrSealed):
		c.refuse(w, problem.Sealed, "")
	case errors.Is(err, context.DeadlineExceeded):
		c.refuse(w, problem.Timeout, "")
	case errors.Is(err, backup.ErrTooLarge):
		c.refuse(w, problem.BadRequest, err.Error())
	default:
		c.refuse(w, problem.Internal, "")
	}
}

// contents returns what is archived, as of now.
func (s *Server) contents(q backupRequest) backup.Contents {
	at := s.now()
	st, sources, objects := s.instant()
	c := backup.Contents{
		Created: at,
		Safe:    backup.Safe{Version: st.Version, Replica: st.Replica, Namespace: s.Namespace},
		Sources: sources, Namespaces: q.Namespaces, Keys: s.Archive,
		Objects: make([]backup.Item, 0, len(objects)),
	}
	if recipient, known := s.RootKey.Recipient(); known {
		c.Safe.KeyID, c.Safe.Recipient = recipient.KeyID(), recipient.String()
	}
	for _, o := range objects {
		if q.Namespaces == nil || slices.Contains(q.Namespaces, o.Newest.Object.Namespace) {
			c.Objects = append(c.Objects, backup.Item{Newest: versionOf(o.Newest), Before: versionOf(o.Before)})
		}
	}
	if q.Namespaces == nil {
		c.Faults = st.Unreadable
	}
	if q.IncludeRootKey {
		c.RootKey, c.RetiredKeys = s.rootKeys()
	}
	return c
}

// rootKeys returns the texts of all root keys as of one moment: between the two, a re-key could have made the active
// one of a key that then is in neither.
func (s *Server) rootKeys() (active, retired []byte) {
	for {
		turn := s.Archive.Turn()
		active, retired = s.Archive.ActiveText(), s.Archive.RetiredText()
		if s.Archive.Turn() == turn {
			return active, retired
		}
		clear(active)
		clear(retired)
	}
}

func versionOf(v cache.Stored) backup.Version { return backup.Version{Object: v.Object, ID: v.Version} }

// instant returns the objects of one moment, and how the sources stood at it.
func (s *Server) instant() (Status, []backup.Source, []cache.Instant) {
	// A source may be applying a revision meanwhile. It says so, or it is seen to be at another one after.
	const tries = 5
	for try := 1; ; try++ {
		st := s.Status()
		sources := sourcesOf(st)
		objects := s.Cache.Snapshot()
		if try == tries || slices.Equal(sources, sourcesOf(s.Status())) {
			return st, sources, objects
		}
	}
}

func sourcesOf(st Status) []backup.Source {
	sources := make([]backup.Source, 0, len(st.Sources))
	for _, s := range st.Sources {
		ref := ""
		switch {
		case s.Commit != "":
			ref = s.Commit
		case s.Tag != "":
			ref = "refs/tags/" + s.Tag
		case s.Branch != "":
			ref = "refs/heads/" + s.Branch
		}
		sources = append(sources, backup.Source{
			Name: s.Source, URL: s.URL, Ref: ref, Revision: s.Revision, AppliedAt: s.AppliedAt.UTC().Truncate(time.Second), Applying: s.Applying,
		})
	}
	return sources
}

// shortResult returns a result as JSON that has room in a trailer.
func shortResult(result backup.Result) string {
	for {
		text, err := json.Marshal(result)
		if err != nil {
			panic(err)
		}
		n := len(result.Unreadable)
		if len(text) <= maxResult || n == 0 {
			return string(text)
		}
		result.Unreadable = result.Unreadable[:n/2]
	}
}

// A stallingWriter has a client that takes nothing for a while cut off, however long the whole takes.
type stallingWriter struct {
	to      http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
	sum     hash.Hash
	written int64
}

func (w *stallingWriter) Write(p []byte) (int, error) {
	if err := w.control.SetWriteDeadline(time.Now().Add(w.stall)); err != nil {
		return 0, err
	}
	n, err := w.to.Write(p)
	w.sum.Write(p[:n])
	w.written += int64(n)
	return n, err
}
