package validity

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

func TestPhases(t *testing.T) {
	var none time.Time
	a, b := time.Unix(1_000_000_000, 0), time.Unix(2_000_000_000, 0)
	const ns = time.Nanosecond
	tests := map[string]struct {
		window     Window
		now        time.Time
		want       Phase
		last, next time.Time
	}{
		"all time":                     {Window{}, a, Valid, none, none},
		"before it begins":             {Window{a, b}, a.Add(-ns), NotYet, none, a},
		"its first moment":             {Window{a, b}, a, Valid, a, b},
		"its last moment":              {Window{a, b}, b.Add(-ns), Valid, a, b},
		"the moment it expires":        {Window{a, b}, b, Expired, b, none},
		"long after":                   {Window{a, b}, b.Add(1e18), Expired, b, none},
		"without an end":               {Window{NotBefore: a}, b, Valid, a, none},
		"without a beginning":          {Window{ExpiresAt: b}, a, Valid, none, b},
		"one that ends first, early":   {Window{b, a}, a.Add(-ns), NotYet, none, a},
		"one that ends first, between": {Window{b, a}, a, Expired, a, none},
		"one that ends first, late":    {Window{b, a}, b, Expired, a, none},
		"one without a moment, before": {Window{a, a}, a.Add(-ns), NotYet, none, a},
		"one without a moment":         {Window{a, a}, a, Expired, a, none},
		"another time zone":            {Window{a.In(time.FixedZone("", 3600)), b}, a, Valid, a, b},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.window.At(tt.now); got != tt.want {
				t.Errorf("the phase is %d, want %d", got, tt.want)
			}
			if got := tt.window.Next(tt.now); !got.Equal(tt.next) {
				t.Errorf("it changes at %s, want %s", got, tt.next)
			}
			if got := tt.window.Last(tt.now); !got.Equal(tt.last) {
				t.Errorf("it began at %s, want %s", got, tt.last)
			}
		})
	}
}

func TestWindowOfAnObject(t *testing.T) {
	o := &v1alpha1.EncryptedSecret{}
	if w := Of(o); w != (Window{}) {
		t.Errorf("without fields it is %v", w)
	}
	from, to := metav1.NewTime(time.Unix(1, 0).In(time.FixedZone("", 7200))), metav1.NewTime(time.Unix(2, 0))
	o.Spec.NotBefore, o.Spec.ExpiresAt = &from, &to
	if w := Of(o); w != (Window{time.Unix(1, 0).UTC(), time.Unix(2, 0).UTC()}) {
		t.Errorf("it is %v", w)
	}
}
