package cache

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/answer"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/render"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// A fault is why a version cannot be read.
type fault struct {
	key   string    // of the value that does not open; empty: the object itself
	err   error     // quotes nothing secret
	retry time.Time // when to try again; zero: when the keys or the object change
}

func newFault(v *version, key string, err error) *fault {
	var known *fault
	if errors.As(err, &known) {
		return known
	}
	f := &fault{key: key, err: err}
	if errors.Is(err, encrypt.ErrFuture) {
		if info, err := encrypt.Inspect(v.object.Spec.EncryptedData[key]); err == nil {
			f.retry = info.SealedAt.Add(-encrypt.MaxClockSkew)
		}
	}
	return f
}

// reason returns what kind of fault f is, for a metric.
func (f *fault) reason() string {
	switch {
	case errors.Is(f.err, encrypt.ErrElsewhere):
		return "elsewhere"
	case errors.Is(f.err, encrypt.ErrKeyNotHeld):
		return "key_not_held"
	case errors.Is(f.err, encrypt.ErrFuture):
		return "future"
	case errors.Is(f.err, encrypt.ErrUnbound):
		return "unbound"
	case errors.Is(f.err, encrypt.ErrTooLarge):
		return "too_large"
	case errors.Is(f.err, encrypt.ErrMalformed):
		return "malformed"
	case errors.As(f.err, new(*template.Error)):
		return "template"
	case errors.Is(f.err, errPanic), errors.Is(f.err, render.ErrPanic):
		return "panic"
	}
	return "invalid"
}

// Error says what f is, to whoever may read the object.
func (f *fault) Error() string {
	if f.key == "" {
		return f.err.Error()
	}
	return fmt.Sprintf("key %q: %v", f.key, f.err)
}

func (f *fault) Unwrap() error { return f.err }

// judge takes in that v was seen to open, or that it has a fault, unless v was
// overtaken meanwhile.
func (c *Cache) judge(v *version, f *fault) {
	c.mu.RLock()
	known := f == nil && v.good
	c.mu.RUnlock()
	if known {
		return
	}

	c.mu.Lock()
	o := c.objects[v.key]
	if o == nil || v != o.newest && v != o.last {
		c.mu.Unlock()
		return
	}
	isNew := f != nil && (v.fault == nil || v.fault.reason() != f.reason())
	before := o.served()
	v.good, v.fault = f == nil, f
	if v.good && v == o.newest && o.last != nil {
		c.vault.release(o.last.values())
		o.last = nil
	}
	served := o.served()
	c.reindex(before, served)
	c.mark(v.key)
	c.mu.Unlock()
	if isNew {
		c.report(v, f, served)
	}
}

// report tells of a fault that was just found; served is what readers get
// instead, nil if nothing.
func (c *Cache) report(v *version, f *fault, served *version) {
	c.metrics.unreadable.WithLabelValues(f.reason()).Inc()
	instead := "nothing"
	if served != nil {
		instead = served.id()
	}
	c.log.Warn("an object cannot be read",
		slog.String("object", v.key.String()), slog.String("version", v.id()),
		slog.String("key", f.key), slog.Any("reason", f.err), slog.String("served", instead))
	if !f.retry.IsZero() {
		c.tryAnew()
	}
}

// reportLeftOut tells of versions for which the answers to w have no room.
func (c *Cache) reportLeftOut(w identity.Workload, versions []*version) {
	for _, v := range versions {
		c.log.Warn("an object is left out of a workload's answer, which would be too large with it",
			slog.String("object", v.key.String()), slog.String("version", v.id()),
			slog.String("workload", w.String()), slog.Int("bytes", v.size), slog.Int("limit", answer.MaxSize))
	}
}
