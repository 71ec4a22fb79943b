package condition

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestOnlyWhatIsTrueIsListedBesideReady(t *testing.T) {
	for name, c := range map[string]struct {
		state State
		want  map[string]metav1.ConditionStatus
	}{
		"current":     {Current, map[string]metav1.ConditionStatus{Ready: "True"}},
		"progressing": {Progressing, map[string]metav1.ConditionStatus{Ready: "False", Reconciling: "True"}},
		"failed":      {Failed, map[string]metav1.ConditionStatus{Ready: "False", Stalled: "True"}},
	} {
		t.Run(name, func(t *testing.T) {
			conditions := []metav1.Condition{
				{Type: Reconciling, Status: "True"}, {Type: Stalled, Status: "True"}, {Type: Ready, Status: "Unknown"},
			}
			if !Set(&conditions, Verdict{c.state, "Why", "because"}, 3, time.Unix(100, 0)) {
				t.Error("nothing was changed")
			}
			if len(conditions) != len(c.want) {
				t.Errorf("conditions are %+v", conditions)
			}
			for kind, status := range c.want {
				if got := meta.FindStatusCondition(conditions, kind); got == nil || got.Status != status || got.Reason != "Why" || got.ObservedGeneration != 3 {
					t.Errorf("%s is %+v", kind, got)
				}
			}
			if Set(&conditions, Verdict{c.state, "Why", "because"}, 3, time.Unix(200, 0)) {
				t.Error("what is said already was said again")
			}
		})
	}
}

func TestTheTimeIsThatOfTheTransition(t *testing.T) {
	var conditions []metav1.Condition
	Set(&conditions, Verdict{Failed, "A", ""}, 1, time.Unix(100, 0))
	Set(&conditions, Verdict{Failed, "B", "more"}, 2, time.Unix(200, 0))
	if at := meta.FindStatusCondition(conditions, Ready).LastTransitionTime.Unix(); at != 100 {
		t.Errorf("it is not ready since %d", at)
	}
}

func TestALongMessageIsCut(t *testing.T) {
	var conditions []metav1.Condition
	Set(&conditions, Verdict{Failed, "A", strings.Repeat("x", maxMessage+1)}, 1, time.Unix(100, 0))
	if n := len(conditions[0].Message); n != maxMessage {
		t.Errorf("the message has %d bytes", n)
	}
}
