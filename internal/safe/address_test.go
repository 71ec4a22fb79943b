package safe

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
)

func TestWhatOnlySafeCanReachIsNoRepository(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
	log := slog.New(slog.DiscardHandler)
	rule := newAddressRule(t.Context(), nil, &rest.Config{Host: "https://192.0.2.7:6443"}, log)
	for address, want := range map[string]string{
		"127.0.0.1":              "own",
		"127.8.9.10":             "own",
		"::1":                    "own",
		"::ffff:127.0.0.1":       "own",
		"64:ff9b::7f00:1":        "own",
		"0.0.0.0":                "nobody's",
		"::":                     "nobody's",
		"224.0.0.1":              "nobody's",
		"169.254.169.254":        "link-local",
		"::ffff:169.254.169.254": "link-local",
		"64:ff9b::a9fe:a9fe":     "link-local",
		"fe80::1%eth0":           "link-local",
		"fd00:ec2::254":          "link-local",
		"100.100.100.200":        "link-local",
		"64:ff9b::a83f:8110":     "link-local",
		"192.0.0.192":            "link-local",
		"10.96.0.1":              "the API server's",
		"192.0.2.7":              "the API server's",
		"::ffff:192.0.2.7":       "the API server's",

		"10.96.0.2":   "",
		"192.168.1.1": "",
		"140.82.1.1":  "",
		"fd00::1":     "",
	} {
		err := rule.refuse(netip.MustParseAddr(address))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
	rule = newAddressRule(t.Context(), []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, &rest.Config{Host: "127.0.0.1:1"}, log)
	if err := rule.refuse(netip.MustParseAddr("::ffff:127.0.0.1")); err != nil {
		t.Errorf("what was allowed is refused: %v", err)
	}
	if err := rule.refuse(netip.MustParseAddr("::1")); err == nil {
		t.Error("what was not allowed is reached")
	}
}
