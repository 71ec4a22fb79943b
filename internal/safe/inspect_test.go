package safe_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/internal/workloadapi"
	sdk "github.com/vsecm/kubectl-vsecm/pkg/workload"
)

// inspect runs "safe inspect" as the workload of a socket.
func (w *world) inspect(socket *workloadapi.Socket, args ...string) (code int, out, errOut string) {
	w.t.Helper()
	p := run(w.t, nil, append([]string{"inspect", "--socket", socket.Addr(), "--safe", "https://" + w.at.API}, args...)...)
	code = p.wait(w.t)
	return code, p.stdout.String(), p.stderr.String()
}

// inspected is what "safe inspect -o json" prints.
type inspected struct {
	SPIFFEID, Namespace, Name string
	Expires                   time.Time
	Objects                   []struct {
		sdk.Standing
		Data map[string][]byte
	}
}

// Who a workload is, what it has, and why it has not: by the real programs.
func TestAWorkloadSeesWhoItIsAndWhyItHasNothing(t *testing.T) {
	w := local(t)
	w.start()
	socket := w.listen("db.svid", "spiffe://example.org/workload/db/ns/shop/sa/default/n/db-0", time.Hour)

	code, out, errOut := w.inspect(socket)
	if code != 0 || !strings.Contains(out, "Workload    shop/db\n") || !strings.Contains(out, "It has no secrets: no EncryptedSecret in namespace shop names it.") {
		t.Errorf("exit %d, %s%s", code, out, errOut)
	}

	until := func(at time.Time) option {
		return func(o *v1alpha1.EncryptedSecret) {
			o.Spec.Workloads = []string{"db"}
			o.Spec.ExpiresAt = &metav1.Time{Time: at}
		}
	}
	from := func(at time.Time) option {
		return func(o *v1alpha1.EncryptedSecret) {
			o.Spec.Workloads = []string{"db"}
			o.Spec.NotBefore = &metav1.Time{Time: at}
		}
	}
	day := 24 * time.Hour
	value := map[string]string{"k": marker1}
	w.push(map[string]string{
		"db.yaml":     w.seal("db", value),
		"old.yaml":    w.seal("old", value, until(time.Now().Add(-day).Truncate(time.Second))),
		"early.yaml":  w.seal("early", value, from(time.Now().Add(day).Truncate(time.Second))),
		"theirs.yaml": w.seal("theirs", value),
	})
	w.applied(0)

	code, out, errOut = w.inspect(socket, "-o", "json")
	var got inspected
	if err := json.Unmarshal([]byte(out), &got); code != 0 || err != nil {
		t.Fatalf("exit %d, %v, %s", code, err, errOut)
	}
	var states []string
	for _, o := range got.Objects {
		states = append(states, fmt.Sprintf("%s %s", o.Name, o.State))
		if o.Version == "" || o.Updated.IsZero() || o.Data != nil || (o.Reason == "") != (o.State == sdk.Served) {
			t.Errorf("got %+v", o)
		}
	}
	if want := []string{"db served", "early notYetValid", "old expired"}; !slices.Equal(states, want) {
		t.Errorf("got %q, want %q", states, want)
	}
	if got.SPIFFEID != "spiffe://example.org/workload/db/ns/shop/sa/default/n/db-0" || got.Namespace != "shop" || got.Name != "db" || !got.Expires.After(time.Now()) {
		t.Errorf("got %+v", got)
	}
	if strings.Contains(out, "theirs") {
		t.Errorf("another workload's object is told of: %s", out)
	}

	code, out, _ = w.inspect(socket)
	for _, want := range []string{"\ndb  ", "served", "not yet valid", "in 2", "expired", "it expired at "} {
		if code != 0 || !strings.Contains(out, want) || strings.Contains(out, marker1) {
			t.Errorf("exit %d, %q is not in\n%s", code, want, out)
		}
	}
	if code, out, _ = w.inspect(socket, "--show"); code != 0 || strings.Count(out, marker1) != 1 || !strings.Contains(out, "\ndb/k: "+marker1+"\n") {
		t.Errorf("exit %d, %s", code, out)
	}

	// One that Safe cannot place is told how Safe sees it.
	stranger := w.listen("x.svid", "spiffe://example.org/agent/x", time.Hour)
	code, out, errOut = w.inspect(stranger)
	if code != 3 || !strings.Contains(out, "spiffe://example.org/agent/x") || !strings.Contains(errOut, "spiffe://example.org/agent/x") || !strings.Contains(errOut, "/ns/{namespace}/sa/{name}") {
		t.Errorf("exit %d, %s%s", code, out, errOut)
	}

	if out, err := w.plugin("seal"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	code, out, errOut = w.inspect(socket)
	if code != 2 || !strings.HasPrefix(out, "SPIFFE ID   spiffe://example.org/workload/db/") || !strings.Contains(errOut, "safe is sealed") || !strings.Contains(errOut, "hint: operators unseal Safe") {
		t.Errorf("exit %d, %s%s", code, out, errOut)
	}
}

// A program's watch goes on while its SVID and Safe's own expire and are
// replaced, again and again, and then while Safe is sealed and unsealed. It
// misses no change, and is told of no failure but that.
func TestAWatchGoesOnThroughRotations(t *testing.T) {
	const life = 6 * time.Second // an SVID is replaced at half of it
	w := local(t)
	w.giveSVID(life)
	w.push(map[string]string{"db.yaml": w.seal("db", password("0"))})
	w.start()
	w.applied(0)
	socket := w.listen("db.svid", "spiffe://example.org/ns/shop/sa/db", life)

	var mu sync.Mutex
	var told []error
	client, err := sdk.New(t.Context(), sdk.WithSocket(socket.Addr()), sdk.WithSafe("https://"+w.at.API), sdk.WithObserver(func(err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, err)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	failures := func() (all []error) {
		mu.Lock()
		defer mu.Unlock()
		for _, err := range told {
			if err != nil {
				all = append(all, err)
			}
		}
		return all
	}
	seen := make(chan string, 16)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- client.Watch(ctx, func(s *sdk.Secrets) {
			value, _ := s.Get("db", "password")
			seen <- string(value)
		})
	}()
	if got := <-seen; got != "0" {
		t.Fatalf("at first %q", got)
	}
	for i := 1; i <= 3; i++ {
		_, expires, err := client.Identity()
		if err != nil {
			t.Fatal(err)
		}
		// The connection was opened with this SVID, or an older one.
		wait.For(t, "the SVID has expired", func() error {
			if left := time.Until(expires); left > 0 {
				return fmt.Errorf("for another %v it has not", left)
			}
			return nil
		})
		want := fmt.Sprint(i)
		w.push(map[string]string{"db.yaml": w.seal("db", password(want))})
		if got := <-seen; got != want {
			t.Fatalf("change %d: got %q", i, got)
		}
		if all := failures(); len(all) > 0 {
			t.Fatalf("it failed: %v", all)
		}
	}

	if out, err := w.plugin("seal"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wait.For(t, "the watch is told that Safe is sealed", func() error {
		all := failures()
		if len(all) == 0 || !errors.Is(all[len(all)-1], sdk.ErrSealed) {
			return fmt.Errorf("told %v", all)
		}
		return nil
	})
	if out, err := w.plugin("unseal", "--file", w.dir+"/root-key.txt"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wait.For(t, "Safe is ready", func() error { return w.probe(http.StatusOK) })
	w.push(map[string]string{"db.yaml": w.seal("db", password("unsealed"))})
	// What it had is the same as before, and is not told again.
	if got := <-seen; got != "unsealed" {
		t.Errorf("got %q", got)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v", err)
	}
}
