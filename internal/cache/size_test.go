package cache

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/answer"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// Whoever writes to the repository may name a workload in any number of
// objects. What that workload gets stays an answer that it can take.
func TestPromise06_ObjectsThatNoAnswerHasRoomForHarmOnlyThemselves(t *testing.T) {
	r := newRoom(t)
	mine := []*version{
		newVersion(r.one("shop", "api", strings.Repeat("own", 1<<18))), // large, and the workload's own
		newVersion(r.one("shop", "zz", "small", "api")),
	}
	var planted []*version
	for i := range 24 {
		// Sorted by name they would come first.
		planted = append(planted, newVersion(r.one("shop", fmt.Sprintf("aa-%02d", i), strings.Repeat("x", 1<<20), "api")))
	}
	first, second := r.cache, r.newCache()
	for _, v := range slices.Concat(mine, planted) {
		first.arrived(t.Context(), v)
	}
	arrivals := slices.Concat(mine, planted)
	slices.Reverse(arrivals)
	for _, v := range arrivals {
		copied := newVersion(v.object)
		second.arrived(t.Context(), copied)
		second.ETag(api) // a view of each state
	}
	got := read(t, first, api)
	if len(got) < 3 || len(got) >= 26 || len(got["api/password"]) != 3<<18 || got["zz/password"] != "small" {
		t.Errorf("%d values are served, of which %d bytes and %q of its own", len(got), len(got["api/password"]), got["zz/password"])
	}
	if n := first.Size(api); n > answer.MaxSize {
		t.Errorf("the answer has up to %d bytes", n)
	}
	if a, b := first.ETag(api), second.ETag(api); a != b {
		t.Errorf("replicas disagree: %s, %s", a, b)
	}
	left := 26 - len(got)
	if n := r.gauge("vsecm_left_out_objects"); n != left {
		t.Errorf("%d objects are counted as left out, of %d", n, left)
	}
	// Of the two caches, the first was asked once: it reports each object once.
	if n := strings.Count(r.log.String(), "left out"); n < left {
		t.Errorf("%d lines in the log, for %d objects:\n%s", n, left, r.log)
	}
	logged := len(r.log.String())
	first.arrived(t.Context(), newVersion(r.one("shop", "one-more", "1", "api")))
	read(t, first, api)
	if text := r.log.String()[logged:]; text != "" {
		t.Errorf("logged again: %s", text)
	}

	for _, v := range planted {
		first.gone(v.key)
	}
	r.expectOf(first, api, 3)
	if n := r.gauge("vsecm_left_out_objects"); n != 0 {
		t.Errorf("%d objects are counted as left out of nothing", n)
	}
}

// The version that is served in place of an unreadable one may be the larger.
func TestAnOlderVersionThatIsTooLargeIsLeftOut(t *testing.T) {
	r := newRoom(t)
	c := r.cache
	for i := range 23 {
		c.arrived(t.Context(), newVersion(r.one("shop", fmt.Sprintf("aa-%02d", i), strings.Repeat("x", 1<<20), "api")))
	}
	c.Seal()
	c.Unseal()
	large := newVersion(r.one("shop", "ab", strings.Repeat("x", 1<<20), "api"))
	bad := newVersion(seal(t, r.other, "shop", "ab", map[string]string{"password": "x"}, "api"))
	c.mu.Lock()
	bad.good = true // believed, so that it is read
	c.replace(store.KeyOf(bad.object), bad, large)
	c.mu.Unlock()
	secrets, _, err := c.Secrets(t.Context(), api)
	defer Wipe(secrets)
	if err != nil || len(secrets) != 23 {
		t.Errorf("%d secrets, %v", len(secrets), err)
	}
}
