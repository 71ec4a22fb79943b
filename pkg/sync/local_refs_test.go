package sync

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
)

func FuzzParseRef(f *testing.F) {
	id := strings.Repeat("0123456789", 4)
	for _, seed := range []string{id + "\n", id, "ref: refs/heads/main\n", "ref: refs/../../x", "ref: HEAD", "ref: /refs/x", id + " x", strings.Repeat("0", 40), ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		h, target, err := parseRef(text)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("error: %v", err)
			}
			return
		}
		if h.IsZero() == (target == "") {
			t.Errorf("both or neither: %s, %q", h, target)
		}
		if target != "" && (!filepath.IsLocal(string(target)) || !strings.HasPrefix(filepath.Clean(string(target)), "refs/")) {
			t.Errorf("stands for %q", target)
		}
	})
}

func FuzzParsePackedRefs(f *testing.F) {
	id := strings.Repeat("0123456789", 4)
	for _, seed := range []string{
		"# pack-refs with: peeled fully-peeled sorted \n" + id + " refs/heads/main\n", id + " refs/tags/v1\n^" + id + "\n",
		"^" + id + "\n", id + " refs/heads/main", id + " refs/heads/main\n" + id + " refs/heads/main\n", "x\n", "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := parsePackedRefs(text, plumbing.ReferenceName("refs/heads/main"))
		if err == nil && !strings.Contains(strings.ToLower(string(text)), h.String()+" refs/heads/main\n") {
			t.Errorf("%s out of nowhere", h)
		}
		if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNoBranch) {
			t.Errorf("error: %v", err)
		}
	})
}
