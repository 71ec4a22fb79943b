package safe

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vsecm/kubectl-vsecm/internal/config"
	"github.com/vsecm/kubectl-vsecm/internal/workloadapi"
)

// A Workload API that refuses for good, as go-spiffe takes it, ends neither Safe nor its
// hope.
func TestAWorkloadAPIThatRefusesIsAskedAgain(t *testing.T) {
	dir, err := os.MkdirTemp("", "svid") // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 100)
	refusing := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		asked <- struct{}{}
		return status.Error(codes.InvalidArgument, "no")
	}))
	var serving sync.WaitGroup
	serving.Go(func() { _ = refusing.Serve(listener) })

	ctx, cancel := context.WithCancel(context.Background())
	self := &ownIdentity{config: config.SPIFFE{Socket: "unix://" + path}, log: slog.New(slog.DiscardHandler)}
	ready := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { self.run(ctx, func() { close(ready) }, func() {}) })
	t.Cleanup(func() { cancel(); running.Wait() })
	<-asked
	<-asked
	if _, err := self.GetX509SVID(); err == nil {
		t.Error("it has an SVID")
	}
	refusing.Stop()
	serving.Wait()

	ca, err := workloadapi.NewCA(spiffeid.RequireTrustDomainFromString("example.org"))
	if err != nil {
		t.Fatal(err)
	}
	socket, err := ca.Listen(path, spiffeid.RequireFromString("spiffe://example.org/safe"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(socket.Close)
	select {
	case <-ready:
	case <-time.After(time.Minute):
		t.Fatal("it does not ask again")
	}
	if svid, err := self.GetX509SVID(); err != nil || svid.ID.String() != "spiffe://example.org/safe" {
		t.Errorf("%v, %v", svid, err)
	}
}
