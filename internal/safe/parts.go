package safe

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/serve"
)

func newMetrics() *prometheus.Registry {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return metrics
}

// closeAudit gives what is still to be written a moment, though ctx has ended.
func closeAudit(ctx context.Context, auditor *audit.Log) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), auditDrain)
	defer stop()
	if err := auditor.Close(ctx); err != nil {
		return fmt.Errorf("closing the audit log: %w", err)
	}
	return nil
}

// runServer serves until ctx ends.
func runServer(ctx context.Context, server *serve.Server, listeners serve.Listeners, log *slog.Logger) error {
	err := server.Run(ctx, listeners)
	if err != nil && ctx.Err() != nil {
		// The group returns what ended it; this came after.
		log.Warn("not every request ended in time", "error", err)
		return nil
	}
	return err
}

// addressOf returns where l listens, for the log.
func addressOf(l net.Listener) string {
	if l == nil {
		return text(nil)
	}
	return text(l.Addr())
}
