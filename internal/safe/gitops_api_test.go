package safe_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// An api is the Kubernetes API as its administrator has it, without a process for every call as
// kubectl is.
type api struct {
	host   string
	client http.Client
}

func (g *gitops) api() *api {
	g.t.Helper()
	config := g.cp.Config()
	tls, err := rest.TLSConfigFor(config)
	if err != nil {
		g.t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: tls, ForceAttemptHTTP2: true}
	g.t.Cleanup(transport.CloseIdleConnections)
	return &api{host: config.Host, client: http.Client{Transport: transport}}
}

// Where things are in the API.
const (
	secretsPath = "/api/v1/namespaces/shop/secrets"
	objectsPath = "/apis/vsecm.com/v1alpha1/namespaces/shop/encryptedsecrets"
	sourcesPath = "/apis/vsecm.com/v1alpha1/namespaces/shop/gitsources"
	leasePath   = "/apis/coordination.k8s.io/v1/namespaces/vsecm-system/leases/vsecm-safe"
)

// open makes a request whose answer, which is no error, is the caller's to read and close.
func (a *api) open(ctx context.Context, method, path, body string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.host+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/merge-patch+json")
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		defer resp.Body.Close()
		said, _ := io.ReadAll(resp.Body)
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, said)
	}
	return resp.Body, nil
}

// do makes a request, and decodes the answer into to.
func (a *api) do(method, path, body string, to any) error {
	answer, err := a.open(context.Background(), method, path, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	return json.NewDecoder(answer).Decode(to)
}

// An observer sees every version of every object of a kind in namespace shop, as the API server tells it to
// who watches. Whatever is wrong is an error of the test.
type observer struct {
	t       testing.TB
	api     *api
	path    string
	of      func(json.RawMessage) (int, error) // which version that is
	deleted func(name string) bool             // whether it may be

	mu     sync.Mutex
	events int
	latest map[string]int  // by name
	gone   map[string]bool // by name
}

// observe begins to look, until the test ends.
func (g *gitops) observe(path string, of func(json.RawMessage) (int, error), deleted func(string) bool) *observer {
	o := &observer{t: g.t, api: g.api(), path: path, of: of, deleted: deleted, latest: map[string]int{}, gone: map[string]bool{}}
	ctx, stop := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		var err error
		for version := "0"; ctx.Err() == nil && err == nil; {
			version, err = o.watch(ctx, version)
		}
		if ctx.Err() == nil {
			o.t.Errorf("watching %s: %v", path, err)
		}
	})
	g.t.Cleanup(func() { stop(); watching.Wait() })
	return o
}

type named struct {
	Metadata struct{ Name, ResourceVersion string }
}

// watch looks until the API server ends the watch, and returns where to go on.
func (o *observer) watch(ctx context.Context, version string) (string, error) {
	stream, err := o.api.open(ctx, http.MethodGet, o.path+"?watch=true&resourceVersion="+version, "")
	if err != nil {
		return version, err
	}
	defer stream.Close()
	for events := json.NewDecoder(stream); ; {
		var e struct {
			Type   string
			Object json.RawMessage
		}
		if events.Decode(&e) != nil {
			return version, nil
		}
		var object named
		if err := json.Unmarshal(e.Object, &object); err != nil || e.Type == "ERROR" {
			return version, fmt.Errorf("%s: %s", e.Type, e.Object)
		}
		version = object.Metadata.ResourceVersion
		o.saw(e.Type, object.Metadata.Name, e.Object)
	}
}

func (o *observer) saw(kind, name string, object json.RawMessage) {
	n, err := o.of(object)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events++
	switch {
	case err != nil:
		o.t.Errorf("%s %s: %v", o.path, name, err)
	case kind == "DELETED" && !o.deleted(name):
		o.t.Errorf("%s %s is deleted, and git has not", o.path, name)
	case kind == "DELETED":
		o.gone[name] = true
		delete(o.latest, name)
	case o.gone[name]:
		o.t.Errorf("%s %s is back, after it was deleted", o.path, name)
	case n < o.latest[name]:
		o.t.Errorf("%s %s is version %d, after %d", o.path, name, n, o.latest[name])
	default:
		o.latest[name] = n
	}
}

// version returns the newest one that was seen; 0 if there is none.
func (o *observer) version(name string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.latest[name]
}

// changes returns how many were seen.
func (o *observer) changes() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.events
}

// reaches waits until a version has been seen.
func (o *observer) reaches(name string, n int) {
	o.t.Helper()
	wait.For(o.t, fmt.Sprintf("%s %s is version %d", o.path, name, n), func() error {
		if now := o.version(name); now < n {
			return fmt.Errorf("it is %d", now)
		}
		return nil
	})
}

// stands fails unless what is there now is exactly this, and waits for what git has deleted: that is
// no part of a commit's being applied for a Secret.
func (o *observer) stands(want map[string]int) {
	o.t.Helper()
	wait.For(o.t, o.path+" are as in git", func() error {
		now, err := o.list()
		if err == nil && !maps.Equal(now, want) {
			err = fmt.Errorf("they are of commits\n%v, and should be\n%v", now, want)
		}
		return err
	})
}

// list returns the version of each that is there now.
func (o *observer) list() (map[string]int, error) {
	var all struct{ Items []json.RawMessage }
	if err := o.api.do(http.MethodGet, o.path, "", &all); err != nil {
		return nil, err
	}
	found := make(map[string]int)
	for _, item := range all.Items {
		var object named
		if err := json.Unmarshal(item, &object); err != nil {
			return nil, err
		}
		n, err := o.of(item)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", object.Metadata.Name, err)
		}
		found[object.Metadata.Name] = n
	}
	return found, nil
}
