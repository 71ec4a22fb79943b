package rootkey

import (
	"os"
	"strings"
	"testing"
)

// A Safe that dies while it writes a key leaves a temporary file with that key, which is destroyed with the key.
func TestFinishingDestroysWhatKilledWritesLeft(t *testing.T) {
	s := newDirSite(t)
	r := given(t, s, auto)
	for _, name := range []string{".root-key.txt.", ".root-key.txt.retired."} {
		if err := os.WriteFile(s.file(name+strings.Repeat("A", 26)+".tmp"), []byte(keyA), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.starts(keyNew)
	if err := r.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyNew)); err != nil {
		t.Fatal(err)
	}
	r.ring(keyNew)
	if secret, _, _ := strings.Cut(keyA, "\n"); strings.Contains(s.all(), secret) {
		t.Error("the old key is left behind")
	}
}
