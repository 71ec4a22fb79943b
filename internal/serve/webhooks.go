package serve

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

const (
	// maxHooks is how many connections the webhooks' listener has open at most; a quarter of
	// them, as nobody there says who they are before their one request.
	maxHooks = 4_000
	// certificateEvery is how often the webhooks' certificate is read again at most.
	certificateEvery = 5 * time.Second
	// maxCertificate bounds, in bytes, each of its files.
	maxCertificate = 1 << 20
)

// webhookServer serves forges: one request a connection, so that nobody keeps a place. Forges
// cannot check an SVID, nor always TLS 1.3.
func (s *Server) webhookServer() *http.Server {
	srv := s.plainServer(s.contained(s.Hooks))
	srv.SetKeepAlivesEnabled(false)
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	if s.webhookCertificate != nil {
		srv.TLSConfig = &tls.Config{
			MinVersion: tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return s.webhookCertificate.get()
			},
			SessionTicketsDisabled: true,
		}
	}
	return srv
}

// contained answers where h panics, with nothing of what it panicked with.
func (s *Server) contained(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				s.Log.Error("a webhook failed", "panic", panicText(v), "stack", string(debug.Stack()))
				closeAfter(w)
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		h.ServeHTTP(w, r)
	})
}

// webhookCertificateFault says in Safe's log how the certificate of the webhooks fares.
func (s *Server) webhookCertificateFault(err error) {
	if err == nil {
		s.Log.Info("the webhooks have a certificate")
		return
	}
	s.Log.Error("the certificate of the webhooks cannot be read; one that was read before is shown on", "error", err)
}

// A certificateDir is a certificate in files that somebody renews.
type certificateDir struct {
	dir   string
	now   func() time.Time
	fault func(error) // is told of what is wrong, once, and of nil once it is right

	mu         sync.Mutex
	read       time.Time // when the files were last read
	held       [sha256.Size]byte
	current    *tls.Certificate
	faultShown bool
}

// get returns the certificate as the files have it, or the one before where they hold none,
// such as while they are being written.
func (d *certificateDir) get() (*tls.Certificate, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := d.now(); d.read.IsZero() || now.Sub(d.read) >= certificateEvery {
		d.read = now
		err := d.reload()
		if (err != nil) != d.faultShown {
			d.faultShown = err != nil
			d.fault(err)
		}
	}
	if d.current == nil {
		return nil, errNoCertificate
	}
	return d.current, nil
}

func (d *certificateDir) reload() error {
	crt, err := readBounded(filepath.Join(d.dir, "tls.crt"))
	if err != nil {
		return err
	}
	key, err := readBounded(filepath.Join(d.dir, "tls.key"))
	if err != nil {
		return err
	}
	defer clear(key)
	held := sha256.Sum256(slices.Concat(crt, key))
	if d.current != nil && held == d.held {
		return nil
	}
	loaded, err := tls.X509KeyPair(crt, key)
	if err != nil {
		return fmt.Errorf("%s: %w", d.dir, err)
	}
	d.held, d.current = held, &loaded
	return nil
}

// notAfter returns when the certificate expires; the zero time where there is none.
func (d *certificateDir) notAfter() time.Time {
	c, err := d.get()
	if err != nil {
		return time.Time{}
	}
	return c.Leaf.NotAfter
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxCertificate))
}
