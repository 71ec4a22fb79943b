package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Safe answers, so that only this tells that what is in place is not what Safe has.
func TestAMetricTellsOfWhatIsNotDelivered(t *testing.T) {
	s := newStatus(time.Now)
	m := newMetrics(s)
	is := func(want int) {
		t.Helper()
		const name = "vsecm_agent_delivery_failing"
		text := fmt.Sprintf("# HELP %[1]s 1 while what Safe has, or that it has nothing, is not what is in place, else 0.\n# TYPE %[1]s gauge\n%[1]s %[2]d\n", name, want)
		if err := testutil.GatherAndCompare(m.registry, strings.NewReader(text), name); err != nil {
			t.Error(err)
		}
	}
	is(0)
	s.inPlace(time.Now())
	s.safeAnswers()
	s.delivered()
	is(0)
	s.deliveryFails(kindNothing, ErrNothing)
	is(1)
	if !s.report().Ready {
		t.Error("it is not ready, though a version is in place")
	}
	s.delivered()
	is(0)
}
