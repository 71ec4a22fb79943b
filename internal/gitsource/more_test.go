package gitsource_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func revision(s string) sync.Revision { return sync.Revision(s) }

func condition(s *v1alpha1.GitSource, kind string) metav1.Condition {
	if c := meta.FindStatusCondition(s.Status.Conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// series counts the metrics about a source.
func (w *world) series(source string) int {
	w.t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	n := 0
	for _, f := range families {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if l.GetName() == "source" && l.GetValue() == source {
					n++
				}
			}
		}
	}
	return n
}

// rounds counts how often a git server was asked where branches are.
type rounds struct {
	n, since atomic.Int64
}

func (r *rounds) serve(t testing.TB) *gitserver.Server {
	return gitserver.New(t, gitserver.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if strings.HasSuffix(q.URL.Path, "/info/refs") {
				r.n.Add(1)
			}
			next.ServeHTTP(w, q)
		})
	}})
}

// more tells whether there were n rounds since it last was true.
func (r *rounds) more(n int64) bool {
	now := r.n.Load()
	if now < r.since.Load()+n {
		return false
	}
	r.since.Store(now)
	return true
}
