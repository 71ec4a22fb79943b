package sync

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"testing"
)

func TestProxyIsNotTheRepositorysAddress(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Host) }))
	t.Cleanup(proxy.Close)
	address, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(a netip.Addr) error {
		if a.IsLoopback() || a.IsLinkLocalUnicast() {
			return errors.New("no")
		}
		return nil
	}
	toProxy := func(*http.Request) (*url.URL, error) { return address, nil }
	c := &proxyChooser{
		direct: &http.Transport{DialContext: newDialer(refuse, 0).DialContext}, proxied: &http.Transport{Proxy: toProxy},
		proxy: toProxy, refuse: refuse,
	}
	t.Cleanup(c.CloseIdleConnections)
	get := func(host string) error {
		req, err := http.NewRequest(http.MethodGet, "http://"+host+"/r.git", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.RoundTrip(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if body, _ := io.ReadAll(res.Body); string(body) != host {
			t.Errorf("proxy was asked for %s", body)
		}
		return nil
	}
	for _, host := range []string{"192.0.2.1", "git.example.com", "[2001:db8::1]:8080", "1.example.com"} {
		if err := get(host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	for _, host := range []string{"127.0.0.1", "127.0.0.1:80", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "localhost", "LOCALHOST.", "a.localhost", "127.1", "2130706433", "0x7f000001", "0x7F.1"} {
		if err := get(host); !errors.Is(err, ErrAddress) {
			t.Errorf("%s: %v", host, err)
		}
	}
	c.proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	if err := get(address.Host); !errors.Is(err, ErrAddress) {
		t.Errorf("the proxy's address without the proxy: %v", err)
	}
}
