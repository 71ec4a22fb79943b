package safe_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// rekey makes a call of a re-key at the operator's socket, and decodes an answer that is no problem.
func (w *world) rekey(method, body string, to any) (int, error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", w.at.Operator)
		},
	}}
	req, err := http.NewRequest(method, "http://safe/v1/rekey", strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp.StatusCode, fmt.Errorf("%s: %s, %v", resp.Status, answer, err)
	}
	return resp.StatusCode, json.NewDecoder(bytes.NewReader(answer)).Decode(to)
}

// sealTo returns a manifest of shop/db for several recipients.
func (w *world) sealTo(value string, to ...string) string {
	w.t.Helper()
	o := &v1alpha1.EncryptedSecret{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"},
	}
	var recipients []encrypt.Recipient
	for _, text := range to {
		r, err := encrypt.ParseRecipient(text)
		if err != nil {
			w.t.Fatal(err)
		}
		recipients = append(recipients, r)
	}
	sealed, err := encrypt.Seal([]byte(value), encrypt.BindingOf(o, "password"), recipients, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	o.Spec.EncryptedData = map[string]string{"password": sealed}
	text, err := encrypt.MarshalYAML(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// TestFinishesAndAnAbortAtOnceLoseNothing has operators of a Safe on one machine do at once what excludes
// one another. Whoever wins, what the workload reads stays right, and the re-key can be ended.
func TestFinishesAndAnAbortAtOnceLoseNothing(t *testing.T) {
	w := local(t)
	w.push(map[string]string{"db.yaml": w.seal("db", map[string]string{"password": "one"})})
	w.start()
	w.applied(0)
	db := w.workload("db")
	want := map[string]string{"db/password": "one"}
	db.wants(want)

	stop := func() {}
	read := func() {
		ctx, cancel := context.WithCancel(context.Background())
		var reading sync.WaitGroup
		reading.Go(func() {
			for ctx.Err() == nil {
				if a, err := db.get(ctx, "", ""); ctx.Err() == nil && (err != nil || !maps.Equal(a.values, want)) {
					t.Errorf("a read gives %d, %s, %v", a.code, show(a.values), err)
					return
				}
			}
		})
		stop = sync.OnceFunc(func() { cancel(); reading.Wait() })
	}
	read()
	defer func() { stop() }()

	type underWay struct{ Rekey *rootkey.Rekey }
	type ended struct{ Finished bool }
	won := map[string]int{}
	for round := range 6 {
		var now underWay
		if _, err := w.rekey(http.MethodPost, `{"do":"start"}`, &now); err != nil {
			t.Fatal(err)
		}
		finish := func(r *rootkey.Rekey) string {
			return fmt.Sprintf(`{"do":"finish","from":%q,"to":%q,"archive":"none"}`, r.From, r.To)
		}
		// It is needed still.
		var refused ended
		if _, err := w.rekey(http.MethodPost, finish(now.Rekey), &refused); err != nil || refused.Finished {
			t.Fatalf("round %d: it is finished too early: %v", round, err)
		}
		// To both keys: so both ends are possible.
		w.push(map[string]string{"db.yaml": w.sealTo("one", now.Rekey.FromRecipient, now.Rekey.ToRecipient)})
		w.applied(0)
		wait.For(t, "nothing needs the old key", func() error {
			var report struct{ Report struct{ NeedCount int } }
			if _, err := w.rekey(http.MethodPost, `{"do":"check"}`, &report); err != nil || report.Report.NeedCount > 0 {
				return fmt.Errorf("%+v, %v", report, err)
			}
			return nil
		})
		var all sync.WaitGroup
		bodies := []string{finish(now.Rekey), finish(now.Rekey)}
		if round%3 != 2 {
			bodies = append(bodies, `{"do":"abort"}`)
		}
		codes := make([]int, len(bodies))
		for i, body := range bodies {
			all.Go(func() {
				var err error
				if codes[i], err = w.rekey(http.MethodPost, body, &ended{}); err != nil && codes[i] != http.StatusConflict && codes[i] != http.StatusServiceUnavailable {
					t.Errorf("%s: %v", body, err)
				}
			})
		}
		all.Wait()
		var after underWay
		if _, err := w.rekey(http.MethodGet, "", &after); err != nil {
			t.Fatal(err)
		}
		switch {
		case after.Rekey == nil:
			won["finish"]++
		case len(bodies) == 3 && after.Rekey.Aborted && after.Rekey.To == now.Rekey.From:
			won["abort"]++
			var end ended
			if _, err := w.rekey(http.MethodPost, finish(after.Rekey), &end); err != nil || !end.Finished {
				t.Fatalf("round %d: what was aborted is not finished: %v", round, err)
			}
		default:
			t.Fatalf("round %d: %+v after %v", round, after.Rekey, codes)
		}
		if round%2 == 1 { // what is kept is what is held
			stop()
			w.restart()
			db.wants(want)
			read()
		}
	}
	t.Logf("won: %v", won)
}
