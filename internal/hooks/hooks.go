// Package hooks lets forges tell of pushes.
package hooks

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrNoHook says that there is no such source, or that it has no webhook.
var ErrNoHook = errors.New("no such webhook")

// A Target is what a source says of its webhook.
type Target struct {
	// Type is one of the webhook types of package v1alpha1.
	Type string
	// Secret is what the forge was given to sign with.
	Secret []byte
}

// Sources are who is told.
type Sources interface {
	// Hook returns a source's webhook. Errors: [ErrNoHook]; any other means that it could not be
	// found out. It is called for each request that might be a forge's, so it must not
	// ask anybody else.
	Hook(ctx context.Context, namespace, name string) (Target, error)
	// Hint has the source look at its repository soon.
	Hint(ctx context.Context, namespace, name string) error
}

// New returns the handler of POST /v1/hooks/NAMESPACE/NAME.
func New(sources Sources, log *slog.Logger, reg prometheus.Registerer) http.Handler {
	return http.NotFoundHandler()
}
