// Package condition says how an object fares in the conditions that kstatus, and by
// that kubectl wait, Argo CD and Flux, know: Ready, Reconciling and Stalled
// (sigs.k8s.io/cli-utils, package kstatus).
package condition

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Types of conditions. Reconciling and Stalled are there only while they are true.
const (
	Ready       = "Ready"
	Reconciling = "Reconciling"
	Stalled     = "Stalled"
)

// maxMessage is what the CRDs allow.
const maxMessage = 32768

// A Verdict is how an object fares.
type Verdict struct {
	// State is one of the three.
	State State
	// Reason, in CamelCase, is for programs, and Message for people: what is wrong, and what to do.
	Reason, Message string
}

// A State is what there is to wait for.
type State int

const (
	// Current: the object is as it should be.
	Current State = iota
	// Progressing: it will be, or may be after another try, without anybody's help.
	Progressing
	// Failed: somebody has to change something.
	Failed
)

// Set brings conditions up to date with v, and reports whether that changed anything. When a condition came to
// be true or false is kept.
func Set(conditions *[]metav1.Condition, v Verdict, generation int64, now time.Time) (changed bool) {
	message := v.Message
	if len(message) > maxMessage {
		message = message[:maxMessage-3] + "..."
	}
	at := metav1.NewTime(now.UTC().Truncate(time.Second))
	set := func(kind string, status metav1.ConditionStatus) {
		changed = meta.SetStatusCondition(conditions, metav1.Condition{
			Type: kind, Status: status, Reason: v.Reason, Message: message, ObservedGeneration: generation, LastTransitionTime: at,
		}) || changed
	}
	ready := metav1.ConditionFalse
	if v.State == Current {
		ready = metav1.ConditionTrue
	}
	set(Ready, ready)
	for kind, state := range map[string]State{Reconciling: Progressing, Stalled: Failed} {
		if v.State == state {
			set(kind, metav1.ConditionTrue)
		} else {
			changed = meta.RemoveStatusCondition(conditions, kind) || changed
		}
	}
	return changed
}

// Is tells whether the conditions say v, of that generation.
func Is(conditions []metav1.Condition, v Verdict, generation int64) bool {
	c := append([]metav1.Condition(nil), conditions...)
	return !Set(&c, v, generation, time.Unix(0, 0))
}
