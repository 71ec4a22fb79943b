package events

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/logs"
)

func TestAnEventIsWhereKubectlShowsIt(t *testing.T) {
	cp := cluster.Start(t)
	client := newClient(t, cp.Config())
	ns := namespace(t, client)
	r := newRecorder(t, client)
	run(t, r)
	about := object(ns, "db")
	about.UID, about.ResourceVersion = "b2a7", "7"
	r.Event(about, true, "Refused", "shop/db.yaml:3:\x1b[31m unknown\nfield "+strings.Repeat("x", 2000))
	r.Event(about, false, "Served", "main@sha1:abc")

	until(t, "two events are there", func() bool { return len(written(t, client, ns)) == 2 })
	for i, want := range []struct{ kind, reason, message string }{
		{"Warning", "Refused", "shop/db.yaml:3: [31m unknown field xxx"},
		{"Normal", "Served", "main@sha1:abc"},
	} {
		e := written(t, client, ns)[i]
		if e.Type != want.kind || e.Reason != want.reason || !strings.HasPrefix(e.Message, want.message) || len(e.Message) > 1024 {
			t.Errorf("%s %s %q", e.Type, e.Reason, e.Message)
		}
		if e.InvolvedObject != about || e.Namespace != ns || !strings.HasPrefix(e.Name, "db.") {
			t.Errorf("%s/%s is about %+v", e.Namespace, e.Name, e.InvolvedObject)
		}
		if e.Count != 1 || e.FirstTimestamp.IsZero() || e.LastTimestamp.IsZero() {
			t.Errorf("%d times from %v to %v", e.Count, e.FirstTimestamp, e.LastTimestamp)
		}
		if e.Source.Component != "vsecm-safe" || e.ReportingController != "vsecm-safe" || e.ReportingInstance != "vsecm-safe-0" {
			t.Errorf("from %+v, %s, %s", e.Source, e.ReportingController, e.ReportingInstance)
		}
	}
	shown, stderr, err := cp.Kubectl(t, cp.Kubeconfig(), "", "events", "-n", ns)
	if err != nil || !strings.Contains(shown, "EncryptedSecret/db") || !strings.Contains(shown, "Refused") {
		t.Errorf("kubectl events: %v\n%s%s", err, shown, stderr)
	}
	if got := testutil.ToFloat64(r.dropped); got != 0 {
		t.Errorf("dropped %v", got)
	}
}

func TestTheSameEventIsCounted(t *testing.T) {
	client := newClient(t, cluster.Start(t).Config())
	ns := namespace(t, client)
	var shift atomic.Int64
	r := newRecorder(t, client)
	r.now = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
	run(t, r)
	tell := func() { r.Event(object(ns, "db"), true, "Unreadable", "key password") }
	count := func(i int) func() bool {
		return func() bool {
			all := written(t, client, ns)
			return len(all) == 1 && int(all[0].Count) == i
		}
	}
	for i := range 3 {
		tell()
		until(t, fmt.Sprint("one event, counted ", i+1), count(i+1))
	}
	if e := written(t, client, ns)[0]; e.LastTimestamp.Before(&e.FirstTimestamp) {
		t.Errorf("last %v, first %v", e.LastTimestamp, e.FirstTimestamp)
	}

	// More than an object may have are counted, and told with the next.
	const many = 2 * objectBurst
	for range many {
		tell()
	}
	shift.Add(int64(2 * time.Minute))
	tell()
	until(t, "all were counted", count(3+many+1))
	if got := testutil.ToFloat64(r.dropped); got != 0 {
		t.Errorf("dropped %v", got)
	}

	// After a while it is news.
	shift.Add(int64(sameWithin))
	tell()
	until(t, "a second event", func() bool { return len(written(t, client, ns)) == 2 })
}

func TestAnEventThatTheAPIServerForgotIsToldAnew(t *testing.T) {
	client := newClient(t, cluster.Start(t).Config())
	ns := namespace(t, client)
	r := newRecorder(t, client)
	run(t, r)
	tell := func() { r.Event(object(ns, "db"), true, "Unreadable", "key password") }
	tell()
	until(t, "it is there", func() bool { return len(written(t, client, ns)) == 1 })
	if err := client.Core.Delete().Namespace(ns).Resource("events").Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	// The recorder may not know yet that the first was written.
	until(t, "the name is known", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		value, ok := r.recent.Get(seriesKey{keyOf(object(ns, "db")), true, "Unreadable", "key password"})
		return ok && value.(*series).name != ""
	})
	tell()
	until(t, "it is there again", func() bool {
		all := written(t, client, ns)
		return len(all) == 1 && all[0].Count == 2
	})
}

func TestWhatIsInNoNamespaceIsToldOfInDefault(t *testing.T) {
	client := newClient(t, cluster.Start(t).Config())
	r := newRecorder(t, client)
	run(t, r)
	r.Event(kube.ObjectReference{APIVersion: "v1", Kind: "Namespace", Name: "shop"}, false, "InNoNamespace", "x")
	until(t, "it is there", func() bool {
		for _, e := range written(t, client, "default") {
			if e.Reason == "InNoNamespace" {
				return true
			}
		}
		return false
	})
}

// What is not permitted, or cannot be, is not tried again, and holds nothing up.
func TestOneThatCannotBeWrittenIsDroppedAndSaidOnce(t *testing.T) {
	cp := cluster.Start(t)
	client := newClient(t, cp.Config())
	ns := namespace(t, client)
	nobody, err := clientcmd.BuildConfigFromFlags("", cp.UserKubeconfig(t, "nobody"))
	if err != nil {
		t.Fatal(err)
	}
	forbidden, forbiddenLog := newLoggedRecorder(t, newClient(t, nobody))
	run(t, forbidden)
	missing, missingLog := newLoggedRecorder(t, client)
	run(t, missing)
	for i := range 3 {
		forbidden.Event(object(ns, "db"), true, "Unreadable", fmt.Sprint(i))
		missing.Event(object("no-such-namespace", "db"), true, "Unreadable", fmt.Sprint(i))
	}
	missing.Event(object(ns, "db"), true, "Unreadable", "this one can")
	for r, log := range map[*Recorder]*logs.Buffer{forbidden: forbiddenLog, missing: missingLog} {
		until(t, "three are dropped", func() bool { return testutil.ToFloat64(r.dropped) == 3 })
		if n := strings.Count(log.String(), "cannot be written"); n != 1 {
			t.Errorf("said %d times:\n%s", n, log)
		}
	}
	until(t, "the one that can is there", func() bool { return len(written(t, client, ns)) == 1 })
}

func TestWhileTheAPIServerIsAwayEventsWaitALittle(t *testing.T) {
	cp := controlplane.Start(t)
	client := newClient(t, cp.Config())
	ns := namespace(t, client)
	var shift atomic.Int64
	r, log := newLoggedRecorder(t, client)
	r.now = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
	r.timing.pause = time.Millisecond
	cp.StopAPIServer(t)
	run(t, r)
	for i := range 5 {
		r.Event(object(ns, "old"), true, "Unreadable", fmt.Sprint(i))
	}
	until(t, "it was tried", func() bool { return strings.Contains(log.String(), "cannot be written") })
	if got := testutil.ToFloat64(r.dropped); got != 0 {
		t.Errorf("dropped %v before their time", got)
	}
	shift.Add(int64(r.timing.patience))
	until(t, "all are dropped", func() bool { return testutil.ToFloat64(r.dropped) == 5 })

	// What happened shortly before it is back is told.
	r.Event(object(ns, "new"), true, "Unreadable", "x")
	cp.StartAPIServer(t)
	until(t, "it is there", func() bool {
		all := written(t, client, ns)
		return len(all) == 1 && all[0].InvolvedObject.Name == "new"
	})
	if n := strings.Count(log.String(), "cannot be written"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
}

// An API server that takes requests and never answers.
func TestCallersDoNotWaitForAnAPIServerThatHangs(t *testing.T) {
	config := cluster.Start(t).Config()
	var hung atomic.Int32
	config.Wrap(func(http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			hung.Add(1)
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
	})
	r := newRecorder(t, newClient(t, config))
	run(t, r)
	const events = 4 * queueLength
	for i := range events {
		r.Event(object("shop", fmt.Sprint("db-", i)), true, "Unreadable", "x")
	}
	if got := testutil.ToFloat64(r.dropped); got < events-queueLength-2 {
		t.Errorf("dropped %v of %d", got, events)
	}
	until(t, "one is tried", func() bool { return hung.Load() > 0 })
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
