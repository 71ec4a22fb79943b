package gitsource_test

import (
	"bufio"
	"bytes"
	"io"
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

// corrupt replaces text in what the API server answers to lists and watches of GitSources, which are lines.
func (w *world) corrupt(from, to string) {
	faulty := func(next http.RoundTripper, r *http.Request) (*http.Response, error) {
		answer, err := next.RoundTrip(r)
		if err == nil && strings.Contains(r.URL.Path, "/gitsources") {
			answer.Body = &replacing{bufio.NewReader(answer.Body), answer.Body, nil, from, to}
		}
		return answer, err
	}
	w.faulty.Store(&faulty)
}

type replacing struct {
	*bufio.Reader
	io.Closer
	line     []byte
	from, to string
}

func (r *replacing) Read(p []byte) (int, error) {
	if len(r.line) == 0 {
		line, err := r.ReadBytes('\n')
		if len(line) == 0 {
			return 0, err
		}
		r.line = bytes.ReplaceAll(line, []byte(r.from), []byte(r.to))
	}
	n := copy(p, r.line)
	r.line = r.line[n:]
	return n, nil
}
