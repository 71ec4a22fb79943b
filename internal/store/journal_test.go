package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/store"
)

func openJournal(t testing.TB, dir string) *store.Journal {
	t.Helper()
	j, err := store.OpenJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

func TestJournalRemembers(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	at := time.Date(2026, 3, 4, 5, 6, 7, 89, time.UTC)
	long := strings.Repeat("n", 63) + "." + strings.Repeat("a", 253)
	for _, source := range []string{"shop.main", "shop.main.dotted", long} {
		if s, err := j.Load(t.Context(), source); err != nil || s != (store.SourceState{}) {
			t.Errorf("before Save: %v, %v", s, err)
		}
		for _, revision := range []string{"aaaa", "bbbb"} {
			if err := j.Save(t.Context(), source, store.SourceState{Revision: revision, AppliedAt: at}); err != nil {
				t.Fatal(err)
			}
		}
		again := openJournal(t, dir)
		if s, err := again.Load(t.Context(), source); err != nil || s.Revision != "bbbb" || !s.AppliedAt.Equal(at) {
			t.Errorf("after reopening: %v, %v", s, err)
		}
	}
}

// A newer Safe goes on from what an older one has left.
func TestJournalReadsWhatOlderVersionsWrote(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	for name, content := range map[string]string{
		"first":  `{"revision":"aaaa","appliedAt":"2026-03-04T05:06:07Z"}`,
		"second": `{"revision":"aaaa","appliedAt":"2026-03-04T05:06:07Z","deletions":{"since":"2026-03-04T05:06:07Z","owned":3,"deleted":2,"waiting":true}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, "sources/shop."+name+".json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := j.Load(t.Context(), "shop."+name)
		if err != nil || s.Revision != "aaaa" || s.AppliedAt.IsZero() || s.Deletions.Waiting != (name == "second") || s.Verified != (store.Verified{}) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
		s.Verified = store.Verified{Mode: "strict", Revision: "bbbb", Signer: "ada", Since: "aaaa", Pinned: true}
		if err := j.Save(t.Context(), "shop."+name, s); err != nil {
			t.Fatal(err)
		}
		if again, err := j.Load(t.Context(), "shop."+name); err != nil || again != s {
			t.Errorf("%s: %+v, %v", name, again, err)
		}
	}
}

func TestJournalRefusesNames(t *testing.T) {
	j := openJournal(t, t.TempDir())
	for _, source := range []string{"", "shop", "shop.", ".main", "../x.y", "shop.../../x", "shop.a/b", "Shop.main", "shop.main\x00"} {
		if _, err := j.Load(t.Context(), source); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("Load(%q): %v", source, err)
		}
		if err := j.Save(t.Context(), source, store.SourceState{Revision: "aaaa"}); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("Save(%q): %v", source, err)
		}
	}
	if err := j.Save(t.Context(), "shop.main", store.SourceState{}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("Save without a revision: %v", err)
	}
}

func TestJournalDoesNotTakeADamagedRecordForNone(t *testing.T) {
	for name, content := range map[string]string{
		"empty":       "",
		"cut off":     `{"revision":"aaaa","applied`,
		"no revision": `{"appliedAt":"2026-03-04T05:06:07Z"}`,
		"two records": `{"revision":"aaaa","appliedAt":"2026-03-04T05:06:07Z"} {}`,
		"huge":        `{"revision":"` + strings.Repeat("a", 1<<20) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j := openJournal(t, dir)
			if err := os.WriteFile(filepath.Join(dir, "sources/shop.main.json"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if s, err := j.Load(t.Context(), "shop.main"); err == nil {
				t.Errorf("Load: %v", s)
			}
			if s, err := j.Load(t.Context(), "shop.other"); err != nil || s.Revision != "" {
				t.Errorf("another source: %v, %v", s, err)
			}
			if err := j.Save(t.Context(), "shop.main", store.SourceState{Revision: "bbbb"}); err != nil {
				t.Fatal(err)
			}
			if s, err := j.Load(t.Context(), "shop.main"); err != nil || s.Revision != "bbbb" {
				t.Errorf("after Save: %v, %v", s, err)
			}
		})
	}
}
