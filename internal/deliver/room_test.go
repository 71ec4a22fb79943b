package deliver

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// After etcd was restored, resource versions are lower than those that are known.
func TestRoomFollowsAClusterThatIsSetBack(t *testing.T) {
	looks := make(map[string]int)
	r := &room{look: func(name string) { looks[name]++ }, wants: map[string]struct{}{"lost": {}, "old": {}}, secrets: make(map[string]secretMeta)}
	at := func(name, version string) any {
		return &received{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "u", ResourceVersion: version}}
	}
	list := func(version string, secrets ...any) {
		t.Helper()
		if err := (*mirror)(r).Replace(secrets, version); err != nil {
			t.Fatal(err)
		}
	}
	list("90", at("old", "80"), at("lost", "85"))
	r.wrote("old", secretMeta{uid: "u", version: "95"})
	list("92", at("old", "80"), at("lost", "85")) // from before that write
	if m, _ := r.secret("old"); m == nil || m.version != "95" {
		t.Errorf("a list from before a write undid it: %+v", m)
	}
	clear(looks)
	list("50", at("old", "40"))
	if m, _ := r.secret("old"); m == nil || m.version != "40" {
		t.Errorf("known is %+v", m)
	}
	if m, _ := r.secret("lost"); m != nil {
		t.Errorf("known is %+v, which is gone", m)
	}
	if looks["old"] == 0 || looks["lost"] == 0 {
		t.Errorf("looked at: %v", looks)
	}
}
