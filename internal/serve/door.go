package serve

import (
	"math/rand/v2"
	"sync"

	"github.com/vsecm/kubectl-vsecm/internal/attempts"
)

// maxConnections is how many connections the TLS listener has open at most; each takes some
// 50 KiB.
const maxConnections = 10_000

// A door bounds the connections of the TLS listener, so that nobody takes all of them:
//
//   - One address may have a tenth.
//   - A tenth is for loopback alone, where port-forwards come from: an operator's come in
//     however many others there are.
//   - Strangers have not said who they are: they have not finished their handshake, have
//     not sent a call since, or show neither SVID nor token. Of the connections that one
//     address, loopback, and all others together may have, they may have a quarter.
//
// Where there are as many strangers, or as many connections and some of them strangers',
// a stranger makes room for the next, by lot: so a flood of silent connections does not keep
// out who needs a moment to say who they are, and neither does a rush of those who
// mean it, of whom the first, or the last, would all be cut off just before they
// have. Who finds no room is cut off at once.
type door struct {
	lot func(n int) int // below n

	mu        sync.Mutex
	loopback  *room
	others    *room
	addresses map[string]*room // parts of others
	address   int              // how large those are
}

// A room is where connections are.
type room struct {
	most, mostStrangers int
	open                int
	strangers           []*connection
}

func newRoom(most int) *room { return &room{most: most, mostStrangers: max(most/4, 1)} }

func (r *room) full() bool { return r.open >= r.most || len(r.strangers) >= r.mostStrangers }

func newDoor(most int) *door {
	tenth := max(most/10, 1)
	return &door{
		lot: rand.IntN, loopback: newRoom(tenth), others: newRoom(most - tenth),
		addresses: make(map[string]*room), address: tenth,
	}
}

// enter lets c in, and returns the connection that made room for it, if one had to, which is
// to be cut off. If c cannot come in, that is c itself.
func (d *door) enter(c *connection) (out *connection) {
	d.mu.Lock()
	defer d.mu.Unlock()
	rooms := d.roomsOf(c)
	for _, r := range rooms {
		if !r.full() {
			continue
		}
		if len(r.strangers) == 0 {
			return c
		}
		// Who made room in an address's room made it in that of all, too.
		out = r.strangers[d.lot(len(r.strangers))]
		break
	}
	if out != nil {
		d.remove(out)
	}
	if c.from != attempts.Loopback {
		d.addresses[c.from] = rooms[0]
	}
	c.inside, c.stranger = true, true
	for i, r := range rooms {
		r.open++
		c.places[i] = len(r.strangers)
		r.strangers = append(r.strangers, c)
	}
	return out
}

// roomsOf returns the rooms of a connection, the smallest first.
func (d *door) roomsOf(c *connection) []*room {
	if c.from == attempts.Loopback {
		return []*room{d.loopback}
	}
	own := d.addresses[c.from]
	if own == nil {
		own = newRoom(d.address)
	}
	return []*room{own, d.others}
}

// know says that c is no stranger's any more.
func (d *door) know(c *connection) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.recognise(c)
}

func (d *door) recognise(c *connection) {
	if !c.inside || !c.stranger {
		return
	}
	c.stranger = false
	for i, r := range d.roomsOf(c) {
		last := len(r.strangers) - 1
		moved := r.strangers[last]
		r.strangers[c.places[i]], moved.places[i] = moved, c.places[i]
		r.strangers[last] = nil
		r.strangers = r.strangers[:last]
	}
}

// leave says that c is closed. It may be said more than once.
func (d *door) leave(c *connection) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.remove(c)
}

func (d *door) remove(c *connection) {
	if !c.inside {
		return
	}
	d.recognise(c)
	c.inside = false
	for _, r := range d.roomsOf(c) {
		r.open--
	}
	if own := d.addresses[c.from]; own != nil && own.open == 0 {
		delete(d.addresses, c.from)
	}
}
