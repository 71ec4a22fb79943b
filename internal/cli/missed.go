package cli

import (
	"io"
	"maps"
	"slices"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/publication"
)

// tellMissed names what there is of Safe that was not asked: pods that do not run, and replicas
// that the addresses of --safe do not lead to. asked are the names of those that have
// answered. Where one of the addresses has not, nobody knows which replica that is.
func (f *safeFlag) tellMissed(w io.Writer, all *safes, asked []string) {
	for _, pod := range all.idle {
		prose(w, "note: pod %s was not asked: %s", pod.name, pod.why)
	}
	for _, name := range f.missed(all, asked) {
		prose(w, "note: %s was not asked: --safe does not lead to it", name)
	}
}

// missed returns the replicas that the addresses of --safe do not lead to, as far as that is known.
func (f *safeFlag) missed(all *safes, asked []string) (names []string) {
	if all.published == nil || f.given() == "" || len(asked) < len(all.replicas) {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(all.published.Replicas)) {
		seen := all.published.Replicas[name].Seen
		if !slices.Contains(asked, name) && time.Since(seen) < publication.Stale {
			names = append(names, name)
		}
	}
	return names
}

// shown returns, for each replica that has shown itself in TLS, the name under which it is published.
func (s *safes) shown() []string {
	var names []string
	of := make(map[string]string) // by public key: two addresses may lead to one replica
	for _, r := range s.replicas {
		r.mu.Lock()
		fingerprint, may := r.fingerprint, r.names
		r.mu.Unlock()
		if fingerprint == "" {
			continue
		}
		name, known := of[fingerprint]
		if !known {
			for _, name = range may {
				if !slices.Contains(names, name) {
					break
				}
			}
			of[fingerprint] = name
		}
		names = append(names, name)
	}
	return names
}
