package sync

import (
	"context"
	"errors"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
)

// A mirror that turns out to be damaged is built again in the same round; a
// connection of ssh has served its one request by then.
func TestSSHSessionBringsTwice(t *testing.T) {
	server := gitserver.NewSSH(t)
	repo := server.Repo("r.git")
	repo.Commit(map[string]string{"a.yaml": "1"})
	remote := Remote{URL: server.URL + "/r.git", Branch: gitserver.Branch, Identity: server.Identity, KnownHosts: server.KnownHosts}
	tmp := t.TempDir()
	src, err := remote.source(tmp, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	ctx := context.Background()
	s, err := src.open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for range 2 {
		store, err := openObjectStore(t.TempDir(), tmp, DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		defer store.close()
		if err := s.bring(ctx, store, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := store.commit(s.tip()); err != nil {
			t.Error(err)
		}
	}
	repo.Commit(map[string]string{"a.yaml": "2"})
	if err := s.bring(ctx, nil, nil); err == nil || errors.Is(err, ErrMalformed) {
		t.Errorf("after the branch moved: %v", err)
	}
}
