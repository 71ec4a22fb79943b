package serve

import (
	"net/http"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

// perStanding is the bytes that an object takes in an inspection, and those of its standing, at
// most: its name has 253, and what is wrong with it is said in a sentence.
const perStanding = 1 << 10

// An inspection is the answer to GET /v1/inspect: who a workload is, and what Safe has for it.
type inspection struct {
	SPIFFEID  string     `json:"spiffeID"`
	Namespace string     `json:"namespace"`
	Name      string     `json:"name"`
	Expires   time.Time  `json:"expires"` // of the SVID
	Objects   []standing `json:"objects"`
}

// A standing is how an object fares that names the workload.
type standing struct {
	Name      string    `json:"name"`
	Version   string    `json:"version,omitempty"`
	Updated   time.Time `json:"updated,omitzero"`
	State     string    `json:"state"`
	Reason    string    `json:"reason,omitempty"`
	NotBefore time.Time `json:"notBefore,omitzero"`
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
}

// inspect answers GET /v1/inspect. It tells a workload nothing of others: neither their names
// nor those of objects that they alone may read.
func (s *Server) inspect(w http.ResponseWriter, r *http.Request, c *call) {
	if r.URL.RawQuery != "" {
		c.refuse(w, problem.BadRequest, "this call takes no query")
		return
	}
	if !s.mayRead(w, c) {
		return
	}
	// No secret is in it, but a client may leave many unread as well.
	ctx, workload := r.Context(), c.peer.workload
	leave, err := s.budget.enter(ctx, workload, perStanding*s.Cache.ObjectsIn(workload.Namespace))
	if err != nil {
		s.failed(w, c, err)
		return
	}
	defer leave()
	standings, err := s.Cache.Explain(ctx, workload)
	if err != nil {
		s.failed(w, c, err)
		return
	}
	told := inspection{
		SPIFFEID: c.peer.id.String(), Namespace: workload.Namespace, Name: workload.Name,
		Expires: c.peer.notAfter.UTC(), Objects: make([]standing, len(standings)),
	}
	for i, of := range standings {
		told.Objects[i] = standing{
			Name: of.Name, Version: of.Version, Updated: of.Updated.UTC(), State: string(of.State), Reason: of.Reason,
			NotBefore: of.NotBefore.UTC(), ExpiresAt: of.ExpiresAt.UTC(),
		}
	}
	c.answerJSON(w, told)
}
