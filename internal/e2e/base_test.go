//go:build linux

package e2e

import "testing"

func TestTwoReplicasComeUpByThemselves(t *testing.T) {
	install(t, "base")
	rollout(t)
	t.Log(plugin(t, "status"))
}
