package workloadapi

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	testDomain = spiffeid.RequireTrustDomainFromString("example.org")
	testID     = spiffeid.RequireFromString("spiffe://example.org/ns/shop/sa/db")
)

func listen(t *testing.T, life time.Duration) *Socket {
	t.Helper()
	ca, err := NewCA(testDomain)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ca.Listen(filepath.Join(t.TempDir(), "s"), testID, life)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func source(t *testing.T, s *Socket) *workloadapi.X509Source {
	t.Helper()
	src, err := workloadapi.NewX509Source(t.Context(), workloadapi.WithClientOptions(workloadapi.WithAddr(s.Addr())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	})
	return src
}

func TestTheRealClientGetsAnSVIDThatVerifies(t *testing.T) {
	src := source(t, listen(t, time.Hour))
	svid, err := src.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	id, _, err := x509svid.Verify(svid.Certificates, src)
	if err != nil || id != testID {
		t.Errorf("got %v, %v", id, err)
	}
}

func TestRotationIsStreamed(t *testing.T) {
	s := listen(t, time.Hour)
	src := source(t, s)
	before, err := src.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Rotate(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := src.WaitUntilUpdated(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := src.GetX509SVID()
	if err != nil || after.Certificates[0].Equal(before.Certificates[0]) {
		t.Errorf("the SVID is the same after rotation (%v)", err)
	}
}

func TestAnSVIDIsReplacedWithoutBeingAsked(t *testing.T) {
	s := listen(t, 2*time.Second)
	first, changed := s.current()
	<-changed
	if second, _ := s.current(); second.Certificates[0].Equal(first.Certificates[0]) {
		t.Error("the SVID was replaced by itself")
	}
}

func TestRevocationAndReturn(t *testing.T) {
	s := listen(t, time.Hour)
	client, err := workloadapi.New(t.Context(), workloadapi.WithAddr(s.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	s.Revoke()
	if _, err := client.FetchX509SVID(t.Context()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v, want PermissionDenied", err)
	}
	if _, err := client.FetchX509Bundles(t.Context()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v, want PermissionDenied", err)
	}
	if err := s.Rotate(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if svid, err := client.FetchX509SVID(t.Context()); err != nil || svid.ID != testID {
		t.Errorf("got %v, %v", svid, err)
	}
}

func TestBundles(t *testing.T) {
	s := listen(t, time.Hour)
	client, err := workloadapi.New(t.Context(), workloadapi.WithAddr(s.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	set, err := client.FetchX509Bundles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b, err := set.GetX509BundleForTrustDomain(testDomain); err != nil || !b.Equal(s.ca.Bundle()) {
		t.Errorf("got %v, %v", b, err)
	}
}

func TestJWTIsUnimplemented(t *testing.T) {
	client, err := workloadapi.New(t.Context(), workloadapi.WithAddr(listen(t, time.Hour).Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: "x"}); status.Code(err) != codes.Unimplemented {
		t.Errorf("got %v, want Unimplemented", err)
	}
	if _, err := client.FetchJWTBundles(t.Context()); status.Code(err) != codes.Unimplemented {
		t.Errorf("got %v, want Unimplemented", err)
	}
}

func TestTheSecurityHeaderIsDemanded(t *testing.T) {
	s := listen(t, time.Hour)
	conn, err := grpc.NewClient(s.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := workload.NewSpiffeWorkloadAPIClient(conn)
	for name, ctx := range map[string]context.Context{
		"missing": t.Context(),
		"wrong":   metadata.AppendToOutgoingContext(t.Context(), securityHeader, "yes"),
		"twice":   metadata.AppendToOutgoingContext(t.Context(), securityHeader, "true", securityHeader, "true"),
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := client.FetchX509SVID(ctx, &workload.X509SVIDRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
				t.Errorf("got %v, want InvalidArgument", err)
			}
			if _, err := client.ValidateJWTSVID(ctx, &workload.ValidateJWTSVIDRequest{}); status.Code(err) != codes.InvalidArgument {
				t.Errorf("got %v, want InvalidArgument", err)
			}
		})
	}
}
