package workload

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// An Inspection is what Safe knows about this workload. It holds no values.
type Inspection struct {
	// SPIFFEID is who the workload proved to be, and Expires when the proof
	// ends.
	SPIFFEID string    `json:"spiffeID"`
	Expires  time.Time `json:"expires"`
	// Namespace and Name are the workload that Safe takes it for.
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Objects are all objects that name the workload, sorted by name, also
	// those that it does not get.
	Objects []Standing `json:"objects"`
}

// A Standing is how it stands with one object.
type Standing struct {
	Name string `json:"name"`
	// Version and Updated are those of what is served, or where nothing is,
	// of the object's newest version. Updated is zero where it is not known.
	Version string    `json:"version,omitempty"`
	Updated time.Time `json:"updated,omitzero"`
	State   State     `json:"state"`
	// Reason says, for people, why it is so.
	Reason string `json:"reason,omitempty"`
	// NotBefore and ExpiresAt bound when the object is served; zero where it
	// has no such bound.
	NotBefore time.Time `json:"notBefore,omitzero"`
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
}

// A State is whether a workload gets an object. A newer Safe may know more.
type State string

const (
	// Served: the workload gets the object, or its last good version.
	Served State = "served"
	// Unreadable: Safe cannot open the object.
	Unreadable State = "unreadable"
	// NotYetValid: the object's notBefore has not come.
	NotYetValid State = "notYetValid"
	// Expired: the object's expiresAt has passed.
	Expired State = "expired"
	// LeftOut: the workload has more than fits into an answer.
	LeftOut State = "leftOut"
)

// Inspect asks Safe what it knows about this workload: who it is taken for,
// which objects name it, and for each that it does not get, why.
//
// Errors are those of [Client.Fetch]. [ErrUnauthorized] where Safe takes its
// SPIFFE ID for no workload: the error says why. [ErrNotFound] where Safe is
// too old to tell.
func (c *Client) Inspect(ctx context.Context) (*Inspection, error) {
	var in *Inspection
	_, _, err := c.ask(ctx, question{path: "/v1/inspect", wait: c.answerWait}, func(body []byte) (err error) {
		in, err = parseInspection(body)
		return err
	})
	if err != nil {
		return nil, err
	}
	return in, nil
}

func parseInspection(body []byte) (*Inspection, error) {
	if err := bounded(body); err != nil {
		return nil, err
	}
	var in Inspection
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrBadAnswer, describe(err))
	}
	if name, found := doubledMember(body); found {
		return nil, fmt.Errorf("%w: two members are named %.100q", ErrBadAnswer, name)
	}
	if in.SPIFFEID == "" || in.Objects == nil {
		return nil, fmt.Errorf("%w: no member \"spiffeID\" or \"objects\"", ErrBadAnswer)
	}
	seen := make(map[string]bool, len(in.Objects))
	for _, o := range in.Objects {
		if !isObjectName(o.Name) {
			return nil, fmt.Errorf("%w: %.100q is not the name of a secret", ErrBadAnswer, o.Name)
		}
		if seen[o.Name] {
			return nil, fmt.Errorf("%w: two secrets are named %q", ErrBadAnswer, o.Name)
		}
		seen[o.Name] = true
	}
	slices.SortFunc(in.Objects, func(a, b Standing) int { return strings.Compare(a.Name, b.Name) })
	return &in, nil
}
