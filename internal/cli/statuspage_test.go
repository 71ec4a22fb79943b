package cli

import (
	"errors"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

func TestTheFirstLineSaysItAll(t *testing.T) {
	up := status{State: unsealed, Synced: true}
	starting := status{State: unsealed}
	sealed := status{State: "sealed", Synced: true, Reason: "sealed by an operator"}
	fresh := status{State: uninitialised}
	warned := status{State: unsealed, Synced: true, Reason: "the Secret is gone"}
	good := sourceStatus{Source: "shop/a"}
	bad := sourceStatus{Source: "shop/b", Error: "gone"}
	suspended := sourceStatus{Source: "shop/c", object: &listedSource{Spec: v1alpha1.GitSourceSpec{Suspend: true}}}
	away := errors.New("away")
	for _, tt := range []struct {
		name     string
		replicas []status
		away     int
		sources  []sourceStatus
		secrets  *secretCounts
		want     string
		paint    paint
	}{
		{"all is well", []status{up, up}, 0, []sourceStatus{good}, &secretCounts{Total: 1, Ready: 1},
			"Safe is unsealed: 2 of 2 replicas ready; 1 source in sync; 1 secret delivered.", green},
		{"some did not arrive", []status{up, up}, 0, []sourceStatus{good, good, suspended}, &secretCounts{Total: 121, Ready: 120},
			"Safe is unsealed: 2 of 2 replicas ready; 2 of 3 sources in sync, 1 suspended; 120 secrets delivered, 1 not.", red},
		{"a source is at fault", []status{up}, 0, []sourceStatus{good, bad}, &secretCounts{},
			"Safe is unsealed: 1 of 1 replica ready; 1 of 2 sources in sync; no secrets yet.", red},
		{"sealed", []status{sealed, sealed}, 0, nil, nil, "Safe is sealed: 0 of 2 replicas ready.", yellow},
		{"sealed in part", []status{up, sealed}, 0, nil, nil, "Safe is sealed in part: 1 of 2 replicas ready.", yellow},
		{"never unsealed", []status{fresh}, 0, nil, nil, "Safe is waiting for its first root key: 0 of 1 replica ready.", yellow},
		{"starting", []status{up, starting}, 0, nil, nil, "Safe is unsealed: 1 of 2 replicas ready.", red},
		{"one does not answer", []status{up}, 1, nil, nil, "Safe is unsealed: 1 of 2 replicas ready, 1 without an answer.", red},
		{"none answers", nil, 2, nil, &secretCounts{Total: 2, Ready: 2}, "Safe is away: 0 of 2 replicas ready, 2 without an answer; 2 secrets delivered.", red},
		{"something will go wrong at the next restart", []status{warned, up}, 0, nil, nil, "Safe is unsealed: 2 of 2 replicas ready, with a warning.", yellow},
		{"older than sealing", []status{{Synced: true}}, 0, nil, nil, "Safe is unsealed: 1 of 1 replica ready.", green},
	} {
		l := &look{replicas: tt.replicas, sources: tt.sources, all: &safes{replicas: make([]*replica, len(tt.replicas)+tt.away)}, errs: make([]error, len(tt.replicas))}
		for range tt.away {
			l.errs = append(l.errs, away)
		}
		if tt.secrets != nil {
			l.overview = &overview{Secrets: tt.secrets}
		}
		if got, p := (statusOptions{}).verdict(l); got != tt.want || p != tt.paint {
			t.Errorf("%s: got %q in %q", tt.name, got, p)
		}
	}
}
