package safe_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/config"
	"github.com/vsecm/kubectl-vsecm/internal/safe"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/logs"
)

// TestRunInThisProcess lets the race detector see Safe at work, and TestMain
// whether a goroutine of it outlives it.
func TestRunInThisProcess(t *testing.T) {
	w := local(t)
	w.push(map[string]string{"db.yaml": w.seal("db", password("one"))})
	w.giveSVID(time.Hour)
	cfg, err := config.Load(w.config)
	w.must(err)
	for range 2 { // the second finds what the first has left
		ctx, stop := context.WithCancel(t.Context())
		started := make(chan safe.Started, 1)
		ended := make(chan error, 1)
		log, audit := &logs.Buffer{}, &logs.Buffer{}
		go func() {
			ended <- safe.Run(ctx, cfg, safe.RootKey{}, slog.New(slog.NewJSONHandler(log, nil)), audit, func(s safe.Started) { started <- s })
		}()
		select {
		case s := <-started:
			if s.Recipient.Recipient != w.key.Recipient().String() || s.Operator != cfg.Listen.Operator {
				t.Errorf("started as %+v", s)
			}
			w.at = logLine{API: s.API.String(), Readiness: s.Readiness.String(), Metrics: s.Metrics.String(), Operator: s.Operator}
		case err := <-ended:
			t.Fatalf("Safe ended: %v", err)
		}
		w.workload("db").wants(one)
		w.applied(0)
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Safe ended with %v\n%s", err, log)
		}
	}
}

// What fails at the start leaves nothing open: the data directory can be taken
// at once.
func TestRunThatFailsLeavesNothingBehind(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*world, *config.Config)
	}{
		{"a credential is missing", func(_ *world, c *config.Config) {
			c.Sources[0].Username, c.Sources[0].PasswordFile = "bot", "/nowhere"
		}},
		{"a CA is missing", func(_ *world, c *config.Config) { c.Sources[0].CAFile = "/nowhere" }},
		{"a URL of no use", func(_ *world, c *config.Config) { c.Sources[0].URL = "ssh://example.com/x" }},
		{"an address of no use", func(_ *world, c *config.Config) { c.Listen.Metrics = "256.0.0.1:1" }},
		{"an operator's socket that is a file", func(w *world, c *config.Config) { w.write(c.Listen.Operator, "x") }},
		{"a Workload API of no use", func(_ *world, c *config.Config) { c.SPIFFE.Socket = "ftp://x" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := local(t)
			w.giveSVID(time.Hour)
			cfg, err := config.Load(w.config)
			w.must(err)
			tt.spoil(w, cfg)
			for range 2 {
				err := safe.Run(t.Context(), cfg, safe.RootKey{}, slog.New(slog.DiscardHandler), &logs.Buffer{}, func(safe.Started) { t.Error("it started") })
				if err == nil || errors.Is(err, context.Canceled) {
					t.Errorf("it ended with %v", err)
				}
			}
			left, err := filepath.Glob(filepath.Join(w.data, "operator.sock"))
			if err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
			_ = os.Remove(cfg.Listen.Operator)
			w.start()
		})
	}
}
