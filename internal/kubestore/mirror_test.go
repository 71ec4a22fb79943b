package kubestore

import (
	"log/slog"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// What is told late, of before a write, never undoes it in memory, whatever comes when.
func TestWhatIsToldLateUndoesNothing(t *testing.T) {
	key := store.Key{Namespace: "shop", Name: "db"}
	at := func(uid types.UID, version string) *received {
		meta := metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, UID: uid}
		r := &received{ObjectMeta: meta, object: &v1alpha1.EncryptedSecret{ObjectMeta: meta}}
		r.ResourceVersion = version
		r.object.Spec.Scope = version // says which one it is
		return r
	}
	type step func(s *Store)
	told := func(uid types.UID, version string) step {
		return func(s *Store) { _ = (*mirror)(s).Update(at(uid, version)) }
	}
	ended := func(uid types.UID, version string) step {
		return func(s *Store) { _ = (*mirror)(s).Delete(at(uid, version)) }
	}
	listed := func(version string, objects ...*received) step {
		return func(s *Store) {
			var list []any
			for _, o := range objects {
				list = append(list, o)
			}
			_ = (*mirror)(s).Replace(list, version)
		}
	}
	wrote := func(uid types.UID, version string) step { return func(s *Store) { s.saw(at(uid, version)) } }
	removed := func(uid types.UID, version string) step { return func(s *Store) { s.vanished(key, uid, version) } }

	for name, tt := range map[string]struct {
		steps []step
		want  string // the version that is served; empty: none
	}{
		"told after it was written":           {[]step{wrote("a", "10"), told("a", "10")}, "10"},
		"what was before it, told after it":   {[]step{told("a", "7"), wrote("a", "10"), told("a", "8"), told("a", "9")}, "10"},
		"what came after it":                  {[]step{wrote("a", "10"), told("a", "9"), told("a", "11")}, "11"},
		"answered after it was told":          {[]step{told("a", "10"), wrote("a", "10")}, "10"},
		"answered after its successor":        {[]step{told("a", "10"), told("a", "11"), wrote("a", "10")}, "11"},
		"answered after its end":              {[]step{told("a", "10"), ended("a", "11"), wrote("a", "10")}, ""},
		"of two answers, the later first":     {[]step{wrote("a", "11"), wrote("a", "10")}, "11"},
		"of 9 and 10, the longer is newer":    {[]step{wrote("a", "10"), told("a", "9")}, "10"},
		"made anew, the old one's end late":   {[]step{told("a", "7"), removed("a", "7"), wrote("b", "10"), ended("a", "9")}, "10"},
		"a list from before it":               {[]step{wrote("a", "10"), listed("9")}, "10"},
		"a list from before it, with another": {[]step{wrote("a", "10"), listed("9", at("a", "8"))}, "10"},
		"a list from after its end":           {[]step{wrote("a", "10"), listed("12")}, ""},
		"deleted, then told late":             {[]step{told("a", "7"), removed("a", "9"), told("a", "8"), told("a", "9")}, ""},
		"deleted unseen, then told late":      {[]step{removed("a", "9"), told("a", "8"), ended("a", "10")}, ""},
		"deleted, and in an old list":         {[]step{told("a", "7"), removed("a", "7"), listed("8", at("a", "7"))}, ""},
		"deleted, and there is a new one":     {[]step{told("a", "7"), removed("a", "7"), told("b", "9")}, "9"},
		"a cluster set back to a backup":      {[]step{told("a", "70"), listed("20", at("a", "15")), told("a", "21")}, "21"},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(&kube.Client{}, slog.New(slog.DiscardHandler))
			listed("5")(s) // writes wait for the first list
			for _, do := range tt.steps {
				do(s)
			}
			got := ""
			if o := s.memory.Lookup(key); o != nil {
				got = o.Spec.Scope
			}
			if got != tt.want {
				t.Errorf("served is %q, want %q", got, tt.want)
			}
			// In the end it remembers nothing of what it has heard of.
			listed("100", at("z", "99"))(s)
			if len(s.gone) > 0 || len(s.writes) > 0 {
				t.Errorf("it still remembers %v %v", s.gone, s.writes)
			}
		})
	}
}
