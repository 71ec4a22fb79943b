package serve

import (
	"net/http"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
)

// A Status is what GET /v1/status answers. It holds no secret.
type Status struct {
	Version string `json:"version"`
	// Replica is the name of this one of several; empty where there is one.
	Replica string `json:"replica,omitempty"`
	// Leader is the name of the replica that fetches and delivers; empty where there is one
	// replica, or nobody leads. Leads tells whether it is this one.
	Leader string `json:"leader,omitempty"`
	Leads  bool   `json:"leads,omitempty"`
	// The seal's state, and the root key's.
	rootkey.Status
	// Synced tells whether every stored object is being served.
	Synced bool `json:"synced"`
	// Objects is how many of them there are.
	Objects int `json:"objects"`
	// Unreadable are the stored objects that are not served, and why.
	Unreadable []string `json:"unreadable,omitempty"`
	// SVID is Safe's own; nil where it has none.
	SVID *SVID `json:"svid,omitempty"`
	// Sources, as they were configured.
	Sources []reconcile.Status `json:"sources"`
}

// An SVID is Safe's own X.509-SVID, as a status shows it.
type SVID struct {
	ID       string    `json:"id"`
	NotAfter time.Time `json:"notAfter"`
}

// A Recipient is the public half of the root key.
type Recipient struct {
	Recipient string `json:"recipient"` // age1pq1… or age1…
	KeyID     string `json:"keyID"`
}

// status answers GET /v1/status.
func (s *Server) status(w http.ResponseWriter, r *http.Request, c *call) {
	if !s.may(w, r, c, onSafe("get")) || !s.record(w, r, c, audit.Allowed) {
		return
	}
	st := s.Status()
	st.Status = s.RootKey.Status()
	st.Synced, st.Objects = s.Cache.Synced(), s.Cache.Objects()
	if s.Source != nil {
		// An expired one is shown too: that is what an operator looks for.
		if svid, err := s.Source.GetX509SVID(); err == nil {
			st.SVID = &SVID{ID: svid.ID.String(), NotAfter: svid.Certificates[0].NotAfter.UTC()}
		}
	}
	if st.Sources == nil {
		st.Sources = []reconcile.Status{}
	}
	c.answerJSON(w, st)
}

// sealStatus answers GET /v1/seal-status.
func (s *Server) sealStatus(w http.ResponseWriter, c *call) { c.answerJSON(w, s.RootKey.Status()) }

// recipient answers GET /v1/recipient.
func (s *Server) recipient(w http.ResponseWriter, c *call) {
	to, ok := s.RootKey.Recipient()
	if !ok {
		c.refuse(w, problem.Unavailable, "there is no root key yet")
		return
	}
	c.answerJSON(w, Recipient{Recipient: to.String(), KeyID: string(to.KeyID())})
}

// sealed tells whether Safe holds no root key, or serves nothing yet with the one that it
// holds.
func (s *Server) sealed() bool {
	return s.Cache.Sealed() || s.RootKey.Status().State != rootkey.Unsealed
}
