package workloadapi

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// securityHeader must be on every call, so that a page in a browser or a
// program that was tricked into a request cannot make one.
const securityHeader = "workload.spiffe.io"

// A Socket is a Workload API that gives one identity to whoever connects.
type Socket struct {
	ca   *CA
	id   spiffeid.ID
	life time.Duration
	path string

	server *grpc.Server
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	svid    *x509svid.SVID // nil: revoked
	changed chan struct{}  // is closed when svid changes
}

// Listen serves the Workload API at the Unix socket path, which must not
// exist. Whoever connects is id and gets SVIDs that are valid for life, the
// next one at half of it.
func (ca *CA) Listen(path string, id spiffeid.ID, life time.Duration) (*Socket, error) {
	svid, err := ca.Issue(id, time.Now().Add(life))
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for the Workload API: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Socket{
		ca: ca, id: id, life: life, path: path, stop: stop,
		server: grpc.NewServer(grpc.UnaryInterceptor(demandHeaderUnary), grpc.StreamInterceptor(demandHeaderStream)),
		svid:   svid, changed: make(chan struct{}),
	}
	workload.RegisterSpiffeWorkloadAPIServer(s.server, &service{socket: s})
	s.wg.Go(func() {
		// It ends when Close stops the server, and then without an error.
		_ = s.server.Serve(listener)
	})
	s.wg.Go(func() { s.rotate(ctx) })
	return s, nil
}

// Addr returns the address as SPIFFE_ENDPOINT_SOCKET has it.
func (s *Socket) Addr() string { return "unix://" + s.path }

// ID returns the identity that the socket gives.
func (s *Socket) ID() spiffeid.ID { return s.id }

// Rotate issues a new SVID, valid until notAfter, and streams it to whoever is
// connected.
func (s *Socket) Rotate(notAfter time.Time) error {
	svid, err := s.ca.Issue(s.id, notAfter)
	if err != nil {
		return err
	}
	s.set(svid)
	return nil
}

// Revoke takes the identity away: calls and open streams get PermissionDenied,
// until the next Rotate.
func (s *Socket) Revoke() { s.set(nil) }

// Close ends every stream, removes the socket and waits for the server's end.
func (s *Socket) Close() {
	s.stop()
	s.server.Stop()
	s.wg.Wait()
}

// rotate replaces each SVID at half of its life.
func (s *Socket) rotate(ctx context.Context) {
	for {
		svid, changed := s.current()
		var due <-chan time.Time
		if svid != nil {
			due = time.After(time.Until(svid.Certificates[0].NotAfter) - s.life/2)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-due:
			// Signing with a key in memory does not fail; were it to, the
			// SVID that there is would be served until it expires.
			if err := s.Rotate(time.Now().Add(s.life)); err != nil {
				return
			}
		}
	}
}

func (s *Socket) set(svid *x509svid.SVID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.svid = svid
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Socket) current() (svid *x509svid.SVID, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.svid, s.changed
}

// A service answers the calls of the standard. Embedding the generated type
// answers those of JWT and WIT with Unimplemented.
type service struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	socket *Socket
}

var errNoIdentity = status.Error(codes.PermissionDenied, "no identity issued")

func (s *service) FetchX509SVID(_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	return s.stream(stream.Context(), func(svid *x509svid.SVID) error {
		key, err := x509.MarshalPKCS8PrivateKey(svid.PrivateKey)
		if err != nil {
			return status.Error(codes.Internal, "cannot encode the key")
		}
		var chain []byte
		for _, cert := range svid.Certificates {
			chain = append(chain, cert.Raw...)
		}
		return stream.Send(&workload.X509SVIDResponse{Svids: []*workload.X509SVID{{
			SpiffeId:    svid.ID.String(),
			X509Svid:    chain,
			X509SvidKey: key,
			Bundle:      s.socket.ca.cert.Raw,
		}}})
	})
}

func (s *service) FetchX509Bundles(_ *workload.X509BundlesRequest, stream grpc.ServerStreamingServer[workload.X509BundlesResponse]) error {
	return s.stream(stream.Context(), func(*x509svid.SVID) error {
		return stream.Send(&workload.X509BundlesResponse{Bundles: map[string][]byte{
			s.socket.ca.trustDomain.IDString(): s.socket.ca.cert.Raw,
		}})
	})
}

// stream sends now and after every change, until the caller leaves.
func (s *service) stream(ctx context.Context, send func(*x509svid.SVID) error) error {
	for {
		svid, changed := s.socket.current()
		if svid == nil {
			return errNoIdentity
		}
		if err := send(svid); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-changed:
		}
	}
}

func demandHeader(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(securityHeader); len(v) != 1 || v[0] != "true" {
		return status.Error(codes.InvalidArgument, "security header missing from request")
	}
	return nil
}

func demandHeaderUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := demandHeader(ctx); err != nil {
		return nil, err
	}
	return handle(ctx, req)
}

func demandHeaderStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := demandHeader(stream.Context()); err != nil {
		return err
	}
	return handle(srv, stream)
}
