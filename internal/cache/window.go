package cache

import (
	"log/slog"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/validity"
)

// windows are those of the objects that have one, and the time in which all their phases stay as they are. It is
// guarded by Cache.mu.
type windows struct {
	of          map[store.Key]validity.Window
	from, until time.Time // from is in it, until is not; zero: without end
}

func newWindows() windows { return windows{of: make(map[store.Key]validity.Window)} }

// same tells whether at now all phases are what they were at the last look.
func (ws *windows) same(now time.Time) bool {
	return !now.Before(ws.from) && (ws.until.IsZero() || now.Before(ws.until))
}

// begin takes in the window of the object of key, and returns its phase.
func (ws *windows) begin(key store.Key, w validity.Window, now time.Time) validity.Phase {
	if w == (validity.Window{}) {
		delete(ws.of, key)
		return validity.Valid
	}
	ws.of[key] = w
	ws.narrow(w, now)
	return w.At(now)
}

func (ws *windows) end(key store.Key) { delete(ws.of, key) }

// narrow cuts the time down to that in which the phase of w stays as it is at now.
func (ws *windows) narrow(w validity.Window, now time.Time) {
	if last := w.Last(now); last.After(ws.from) {
		ws.from = last
	}
	if next := w.Next(now); !next.IsZero() && (ws.until.IsZero() || next.Before(ws.until)) {
		ws.until = next
	}
}

// A turned is an object whose phase became another.
type turned struct {
	newest *version
	phase  validity.Phase
}

// turn looks at the clock, and takes in the phases of all objects if it is another time than before. It returns those
// that are in another one now. c.mu is held.
func (c *Cache) turn() (all []turned) {
	now := c.now()
	if c.windows.same(now) {
		return nil
	}
	c.windows.from, c.windows.until = time.Time{}, time.Time{}
	for key, w := range c.windows.of {
		c.windows.narrow(w, now)
		o, phase := c.objects[key], w.At(now)
		if o.phase == phase {
			continue
		}
		before := o.served()
		o.phase = phase
		if o.last != nil && phase != validity.Valid {
			// It is as if the object were deleted: what is served when its time comes follows from its newest version alone,
			// as on a replica that was begun meanwhile.
			c.vault.release(o.last.values())
			o.last = nil
		}
		c.reindex(before, o.served())
		c.mark(key)
		all = append(all, turned{o.newest, phase})
	}
	// The timer is for another moment now.
	c.tryAnew()
	return all
}

// reportTurned tells of objects that are in another phase.
func (c *Cache) reportTurned(all []turned) {
	for _, t := range all {
		message := "an object is valid from now on"
		switch t.phase {
		case validity.Expired:
			message = "an object has expired, and is not served any more"
		case validity.NotYet:
			message = "an object is not valid yet, as the clock was set back, and is not served"
		}
		c.log.Info(message, slog.String("object", t.newest.key.String()), slog.String("version", t.newest.id()))
	}
}
