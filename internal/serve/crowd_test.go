package serve

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"golang.org/x/sync/errgroup"
)

// A crowd is the pods of a workload, in a process of their own so that what Safe's takes
// can be told from it. Each has an SVID of its own and one connection, on which it
// watches; when it is answered, it watches on. They come from 127.0.0.2 and so on,
// perAddress from each.
type crowd struct {
	t   testing.TB
	in  *json.Encoder // to the process
	out *json.Decoder
}

// crowdVariable makes the tests' program a crowd ([beCrowd]).
const crowdVariable = "VSECM_SERVE_TEST_CROWD"

const perAddress = 250

// A pod is what a crowd is told of each of its members.
type pod struct {
	Chain, Key []byte
}

// An assembly is what a crowd is told at its start, before its pods.
type assembly struct {
	Address string
	HTTP2   bool
	ETag    string
	Bundle  []byte
	Pods    int
}

// A delivery tells when each pod of a crowd had an answer, in Unix nanoseconds.
type delivery struct {
	At []int64
}

// assemble brings a crowd of n pods of the workload db of shop, who wait at url for a
// change. What there is for them is known by etag.
func (s *safe) assemble(url *url.URL, n int, http2 bool, etag string) *crowd {
	s.t.Helper()
	cmd := exec.Command(must(os.Executable())(s.t))
	cmd.Env = append(os.Environ(), crowdVariable+"=1")
	cmd.Stderr = os.Stderr
	in, out := must(cmd.StdinPipe())(s.t), must(cmd.StdoutPipe())(s.t)
	check(s.t, cmd.Start())
	s.t.Cleanup(func() {
		check(s.t, in.Close())
		_ = cmd.Wait()
	})
	c := &crowd{t: s.t, in: json.NewEncoder(in), out: json.NewDecoder(bufio.NewReader(out))}
	bundle := must(s.ca.Bundle().Marshal())(s.t)
	check(s.t, c.in.Encode(assembly{url.Host, http2, etag, bundle, n}))
	for i := range n {
		id := spiffeid.RequireFromString(fmt.Sprintf("spiffe://example.org/workload/db/ns/shop/sa/db/n/db-%d", i))
		chain, key, err := must(s.ca.Issue(id, time.Now().Add(24*time.Hour)))(s.t).Marshal()
		check(s.t, err)
		check(s.t, c.in.Encode(pod{chain, key}))
	}
	return c
}

// delivered waits until each pod has an answer, and returns how long after since that was.
func (c *crowd) delivered(since time.Time) []time.Duration {
	c.t.Helper()
	var d delivery
	check(c.t, c.out.Decode(&d))
	took := make([]time.Duration, len(d.At))
	for i, at := range d.At {
		took[i] = time.Duration(at - since.UnixNano())
	}
	return took
}

// beCrowd is the process of a crowd. It ends when its standard input does.
func beCrowd() int {
	in, out := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	if err := runCrowd(in, out); err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		return 1
	}
	return 0
}

func runCrowd(in *json.Decoder, out *json.Encoder) error {
	var a assembly
	if err := in.Decode(&a); err != nil {
		return err
	}
	bundle, err := x509bundle.Parse(testDomain, a.Bundle)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	connecting := make(chan struct{}, 16)
	answers := make(chan int64, a.Pods)
	for i := range a.Pods {
		var p pod
		if err := in.Decode(&p); err != nil {
			return err
		}
		svid, err := x509svid.Parse(p.Chain, p.Key)
		if err != nil {
			return err
		}
		connecting <- struct{}{}
		group.Go(func() error {
			watch, err := connect(ctx, a, bundle, svid, 2+i/perAddress)
			<-connecting
			if err != nil {
				return err
			}
			return watchOn(watch, a.ETag, answers)
		})
	}
	group.Go(func() error { // whoever started the crowd ends it
		defer cancel()
		if err := in.Decode(&struct{}{}); !errors.Is(err, io.EOF) {
			return err
		}
		return io.EOF
	})
	group.Go(func() error {
		for {
			var d delivery
			for range a.Pods {
				select {
				case at := <-answers:
					d.At = append(d.At, at)
				case <-ctx.Done():
					return nil
				}
			}
			if err := out.Encode(d); err != nil {
				return err
			}
		}
	})
	<-ctx.Done()
	// The connections end with the process.
	if err := context.Cause(ctx); !errors.Is(err, io.EOF) && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// watchOn watches for one change after the other.
func watchOn(watch func(etag string) (*http.Response, error), etag string, answers chan<- int64) error {
	for {
		resp, err := watch(etag)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			return err
		}
		switch resp.StatusCode {
		case http.StatusOK:
			answers <- time.Now().UnixNano()
			etag = resp.Header.Get("ETag")
		case http.StatusNotModified:
		default:
			return errors.New(resp.Status)
		}
	}
}

// connect returns what watches on a new connection.
func connect(ctx context.Context, a assembly, bundle *x509bundle.Bundle, svid *x509svid.SVID, address int) (func(etag string) (*http.Response, error), error) {
	config := tlsconfig.MTLSClientConfig(svid, bundle, tlsconfig.AuthorizeID(spiffeid.RequireFromString(safeID)))
	do, err := dial(ctx, a, config, address)
	if err != nil {
		return nil, err
	}
	return func(etag string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+a.Address+"/v1/secrets?watch=1", nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("If-None-Match", etag)
		return do(req)
	}, nil
}

// dial returns what sends requests on a new connection.
func dial(ctx context.Context, a assembly, config *tls.Config, address int) (func(*http.Request) (*http.Response, error), error) {
	if a.HTTP2 {
		transport := &http.Transport{TLSClientConfig: config, DialContext: from(address).DialContext, Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP2(true)
		conn, err := transport.NewClientConn(ctx, "https", a.Address)
		if err != nil {
			return nil, err
		}
		return conn.RoundTrip, nil
	}
	raw, err := from(address).DialContext(ctx, "tcp", a.Address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return roundTripper(conn), nil
}

// roundTripper sends requests of HTTP/1.1 on conn.
func roundTripper(conn net.Conn) func(*http.Request) (*http.Response, error) {
	r := bufio.NewReader(conn)
	return func(req *http.Request) (*http.Response, error) {
		if err := req.Write(conn); err != nil {
			return nil, err
		}
		return http.ReadResponse(r, req)
	}
}
