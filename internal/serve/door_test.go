package serve

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/attempts"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// An afar is a listener to which 127.0.0.N, for N from 2, is 192.0.2.N.
type afar struct{ net.Listener }

func (l afar) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return farConn{c}, nil
}

type farConn struct{ net.Conn }

func (c farConn) RemoteAddr() net.Addr {
	at := *c.Conn.RemoteAddr().(*net.TCPAddr)
	if n := at.IP.To4()[3]; n > 1 {
		at.IP = net.IPv4(192, 0, 2, n)
	}
	return &at
}

// from connects as 127.0.0.n.
func from(n int) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(n))}}
}

func at(n int) func(*http.Transport) {
	return func(t *http.Transport) { t.DialContext = from(n).DialContext }
}

// silent opens connections on which nothing is said.
func (s *safe) silent(n, connections int) {
	s.t.Helper()
	host := must(url.Parse(s.url))(s.t).Host
	for range connections {
		c := must(from(n).DialContext(s.t.Context(), "tcp", host))(s.t)
		s.t.Cleanup(func() { _ = c.Close() })
	}
}

func (s *safe) cutOff() string {
	s.t.Helper()
	text := string(do(s.t, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, http.MethodGet, s.metricsURL).body)
	_, after, _ := strings.Cut(text, "\nvsecm_connections_refused_total ")
	n, _, _ := strings.Cut(after, "\n")
	return n
}

func TestSilentConnectionsShutNobodyOut(t *testing.T) {
	for name, addresses := range map[string][]int{
		"of one address":    {2},
		"of many addresses": {2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21},
		"over loopback":     {1},
		"from everywhere":   {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newOperated(t, func(s *safe) {
				s.connections, s.afar = 40, true
			})
			s.withDB(theValue)
			// Who has said who they are keeps their connection.
			known := s.client(svc("shop", "db"), http1, at(2))
			do(t, known, http.MethodGet, s.url+"/v1/secrets").values(t)
			for _, n := range addresses {
				s.silent(n, 60)
			}
			wait.Until(t, "they were let in or cut off", func() bool { return s.cutOff() >= "1" })
			known.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
				return nil, fmt.Errorf("the connection was cut off")
			}
			do(t, known, http.MethodGet, s.url+"/v1/secrets").values(t)
			// Others get one: at loopback, at the address that they come from, elsewhere.
			for _, n := range []int{1, 2, 100} {
				wait.Until(t, "a workload is served", func() bool {
					r, err := try(t.Context(), s.client(svc("shop", "db"), at(n)), http.MethodGet, s.url+"/v1/secrets")
					return err == nil && r.StatusCode == http.StatusOK
				})
				wait.Until(t, "an operator is served", func() bool {
					r, err := try(t.Context(), s.client("", at(n)), http.MethodGet, s.url+"/v1/recipient")
					return err == nil && r.StatusCode == http.StatusOK
				})
			}
		})
	}
}

func TestAConnectionForWhichThereIsNoRoomIsCutOff(t *testing.T) {
	s := newSafe(t, func(s *safe) { s.connections = 20 }) // two of them for loopback
	first, second := s.client(svc("shop", "db"), http1), s.client(svc("shop", "api"), http1)
	do(t, first, http.MethodGet, s.url+"/v1/secrets")
	do(t, second, http.MethodGet, s.url+"/v1/secrets")
	third := s.client(svc("shop", "web"), http1)
	if r, err := try(t.Context(), third, http.MethodGet, s.url+"/v1/secrets"); err == nil {
		t.Fatalf("a third connection was served: %s", r.Status)
	}
	if n := s.cutOff(); n != "1" {
		t.Errorf("%s connections were cut off", n)
	}
	first.CloseIdleConnections()
	wait.Until(t, "there is room again", func() bool {
		_, err := try(t.Context(), third, http.MethodGet, s.url+"/v1/secrets")
		return err == nil
	})
}

func TestTheDoorKeepsRoomForEverybody(t *testing.T) {
	d := newDoor(400) // 40 for loopback and for each address, of which 10 strangers'; 360 for others, 90 strangers'
	come := func(from string) (*connection, bool) {
		c := &connection{Conn: farConn{}, from: from, door: d}
		return c, d.enter(c) != c
	}
	var inside []*connection
	known := 0
	for range 1000 { // of one address, who all say who they are
		if c, ok := come("192.0.2.1"); ok {
			d.know(c)
			inside = append(inside, c)
			known++
		}
	}
	if known != 40 {
		t.Errorf("%d connections of one address", known)
	}
	for i := range 1000 { // strangers
		if c, ok := come(fmt.Sprint("198.51.100.", i%100)); ok {
			inside = append(inside, c)
		}
		if c, ok := come("203.0.113.1"); ok {
			inside = append(inside, c)
		}
	}
	if n := len(d.others.strangers); n != 90 || d.others.open != 130 {
		t.Errorf("%d strangers among %d", n, d.others.open)
	}
	if n := len(d.addresses["203.0.113.1"].strangers); n > 10 {
		t.Errorf("%d strangers of one address", n)
	}
	for i := range 400 { // and of those who say who they are
		if c, ok := come(fmt.Sprint("10.0.0.", i)); ok {
			d.know(c)
			inside = append(inside, c)
		}
	}
	if d.others.open != 360 || len(d.others.strangers) != 0 {
		t.Errorf("%d others, %d of them strangers", d.others.open, len(d.others.strangers))
	}
	if _, ok := come("10.1.1.1"); ok {
		t.Error("there are more than all")
	}
	for range 39 {
		c, ok := come(attempts.Loopback)
		if !ok {
			t.Fatal("there is no room for loopback")
		}
		d.know(c)
		inside = append(inside, c)
	}
	last, _ := come(attempts.Loopback)
	if next, ok := come(attempts.Loopback); !ok || last.inside || !next.inside {
		t.Error("a stranger makes no room at loopback")
	} else {
		inside = append(inside, next)
	}
	for range 2 {
		for _, c := range inside {
			d.leave(c)
		}
	}
	if d.loopback.open+d.others.open+len(d.addresses)+len(d.loopback.strangers)+len(d.others.strangers) != 0 {
		t.Errorf("left over: %d, %d, %d addresses", d.loopback.open, d.others.open, len(d.addresses))
	}
}

// Of the strangers, it is anybody's lot to make room; none was cut off by who comes next.
func TestWhichStrangerMakesRoomIsByLot(t *testing.T) {
	d := newDoor(160) // 4 strangers at loopback
	var lots []int
	d.lot = func(n int) int { lots = append(lots, n); return 2 }
	var came []*connection
	for range 5 {
		c := &connection{Conn: farConn{}, from: attempts.Loopback, door: d}
		came = append(came, c)
		if out := d.enter(c); len(came) == 5 && out != came[2] || len(came) < 5 && out != nil {
			t.Errorf("%d came, and one was cut off", len(came))
		}
	}
	if len(lots) != 1 || lots[0] != 4 || came[2].inside || !came[4].inside {
		t.Errorf("drawn of %v", lots)
	}
}
