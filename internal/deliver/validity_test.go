package deliver_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/deliver"
)

// A clock is ahead of the machine's by as much as it is set to.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

// set puts the clock, and has s look at every object again.
func (c *clock) set(s *safe, ahead time.Duration) {
	c.mu.Lock()
	c.ahead = ahead
	c.mu.Unlock()
	s.Retry()
}

func (c *clock) option(config *deliver.Config) { config.Now = c.now }

// valid gives an object a window, of which either end may be zero.
func valid(from, until time.Time) option {
	return func(o *v1alpha1.EncryptedSecret) {
		o.Spec.NotBefore, o.Spec.ExpiresAt = moment(from), moment(until)
	}
}

func moment(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t.UTC().Truncate(time.Second)}
}

const (
	hour = time.Hour
	day  = 24 * hour
)

func soonOf(o *v1alpha1.EncryptedSecret) string {
	if c := meta.FindStatusCondition(o.Status.Conditions, deliver.ConditionExpiresSoon); c != nil {
		return c.Reason
	}
	return ""
}

func TestSecretIsThereWithinItsWindow(t *testing.T) {
	w := newWorld(t, "window")
	c := &clock{}
	s := w.safe(t, c.option).lead(t)
	start := time.Now()
	end := start.Add(30 * day)
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered, valid(start.Add(2*day), end)))
	w.put(t, w.object(t, "plain", map[string]string{"a": "1"}, valid(start.Add(2*day), end)))

	o := w.settled(t, "db", deliver.ReasonNotYetValid)
	if !meta.IsStatusConditionTrue(o.Status.Conditions, condition.Reconciling) || !strings.Contains(messageOf(o), moment(start.Add(2*day)).Format(time.RFC3339)) ||
		len(o.Status.KeyIDs) != 1 || w.secret(t, "db") != nil {
		t.Errorf("it says %q, of %+v", messageOf(o), o.Status)
	}
	w.settled(t, "plain", deliver.ReasonNotYetValid)

	c.set(s, 2*day)
	o = w.settled(t, "db", deliver.ReasonDelivered)
	w.settled(t, "plain", deliver.ReasonServed)
	same(t, "data", w.dataOf(t, "db"), map[string]string{"a": "1"})
	if soon := soonOf(o); soon != "" {
		t.Errorf("with four weeks left it says %s", soon)
	}

	for _, step := range []struct {
		left time.Duration
		soon string
	}{{7*day - hour, deliver.ReasonWithinWeek}, {2 * day, deliver.ReasonWithinWeek}, {day - hour, deliver.ReasonWithinDay}, {hour, deliver.ReasonWithinDay}} {
		c.set(s, 30*day-step.left)
		expiresSoon(t, w, "db", step.soon)
		s.Retry()
		w.idle(t)
		w.settled(t, "db", deliver.ReasonDelivered)
	}
	// Who takes over does not tell it again.
	s.stop()
	late := w.safe(t, c.option).lead(t)
	w.idle(t)
	if told := late.events.of("db"); len(told) != 0 {
		t.Errorf("told again: %v", told)
	}

	c.set(late, 30*day)
	o = w.settled(t, "db", deliver.ReasonExpired)
	if !meta.IsStatusConditionTrue(o.Status.Conditions, condition.Stalled) || soonOf(o) != "" || o.Status.Secret != nil || w.secret(t, "db") != nil {
		t.Errorf("it expired: %+v", o.Status)
	}
	w.settled(t, "plain", deliver.ReasonExpired)
	s.events.saying(t, "db", deliver.ReasonDelivered, deliver.EventExpiresSoon, deliver.EventExpiresSoon)
	late.events.saying(t, "db", deliver.EventWithdrawn, deliver.ReasonExpired)
	late.events.saying(t, "plain", deliver.ReasonExpired)

	// A later time, and it is there again.
	w.put(t, w.object(t, "db", map[string]string{"a": "2"}, delivered, valid(time.Time{}, start.Add(100*day))))
	w.settled(t, "db", deliver.ReasonDelivered)
	same(t, "data", w.dataOf(t, "db"), map[string]string{"a": "2"})
}

// expiresSoon waits until the status of an object says how soon it expires.
func expiresSoon(t *testing.T, w *world, name, soon string) {
	t.Helper()
	until(t, "it is said that "+name+" expires "+soon, func() bool { return soonOf(w.get(t, name)) == soon })
}

// TestWindowBeginsAndEndsByItself has nobody ask for another look.
func TestWindowBeginsAndEndsByItself(t *testing.T) {
	w := newWorld(t, "by-itself")
	s := w.safe(t).lead(t)
	from := time.Now().Truncate(time.Second).Add(2 * time.Second)
	to := from.Add(3 * time.Second)
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered, valid(from, to)))
	until(t, "it is delivered", func() bool { return s.events.count("db", deliver.ReasonDelivered) == 1 })
	if now := time.Now(); now.Before(from) {
		t.Errorf("it was delivered at %s, before %s", now, from)
	}
	w.settled(t, "db", deliver.ReasonExpired)
	if now := time.Now(); now.Before(to) || w.secret(t, "db") != nil {
		t.Errorf("at %s it is withdrawn, before %s, or is there still", now, to)
	}
}

func TestSecretThatIsRetainedStaysBeyondItsWindow(t *testing.T) {
	w := newWorld(t, "retained-window")
	c := &clock{}
	s := w.safe(t, c.option).lead(t)
	end := time.Now().Add(10 * day)
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, retained, valid(time.Time{}, end)))
	w.settled(t, "db", deliver.ReasonDelivered)
	c.set(s, 10*day)
	o := w.settled(t, "db", deliver.ReasonExpired)
	if !strings.Contains(messageOf(o), "stays as it is") || o.Status.Secret == nil {
		t.Errorf("it says %q, of %+v", messageOf(o), o.Status)
	}
	same(t, "data", w.dataOf(t, "db"), map[string]string{"a": "1"})
	// Now it is to go.
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered, valid(time.Time{}, end)))
	until(t, "the Secret is gone", func() bool { return w.secret(t, "db") == nil })
	if o := w.settled(t, "db", deliver.ReasonExpired); o.Status.Secret != nil || strings.Contains(messageOf(o), "stays") {
		t.Errorf("it says %q, of %+v", messageOf(o), o.Status)
	}
}

func TestAdoptedSecretIsEmptiedOutsideTheWindow(t *testing.T) {
	w := newWorld(t, "adopted-window")
	c := &clock{}
	s := w.safe(t, c.option).lead(t)
	end := time.Now().Add(10 * day)
	w.kubectl(t, "", "create", "secret", "generic", "-n", "adopted-window", "db", "--from-literal=other=stays")
	w.kubectl(t, "", "annotate", "secret", "-n", "adopted-window", "db", "vsecm.com/adopt=true")
	uid := w.secret(t, "db").UID
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered, valid(time.Time{}, end)))
	w.settled(t, "db", deliver.ReasonDelivered)
	same(t, "data", w.dataOf(t, "db"), map[string]string{"a": "1", "other": "stays"})

	c.set(s, 10*day)
	w.settled(t, "db", deliver.ReasonExpired)
	same(t, "data of what expired", w.dataOf(t, "db"), map[string]string{"other": "stays"})
	// Put back by somebody else, it is taken out again.
	w.kubectl(t, "", "patch", "secret", "-n", "adopted-window", "db", "--type=merge", `-p={"metadata":{"labels":{"x":"y"}}}`)
	s.Retry()
	w.idle(t)
	emptied := w.secret(t, "db")
	if len(emptied.Data) != 1 || emptied.UID != uid {
		t.Errorf("it is %+v", emptied)
	}
	s.events.saying(t, "db", deliver.EventAdopted, deliver.EventWithdrawn, deliver.ReasonExpired)

	c.set(s, 0)
	w.settled(t, "db", deliver.ReasonDelivered)
	same(t, "data when it is valid again", w.dataOf(t, "db"), map[string]string{"a": "1", "other": "stays"})
	if s.events.count("db", deliver.EventReverted) != 0 {
		t.Error("that is told as if somebody had changed it")
	}
}

func TestWhatIsWithdrawnStaysAway(t *testing.T) {
	w := newWorld(t, "away")
	c := &clock{}
	s := w.safe(t, c.option).lead(t)
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered, valid(time.Time{}, time.Now().Add(10*day))))
	w.settled(t, "db", deliver.ReasonDelivered)
	kept := w.kubectl(t, "", "get", "secret", "-n", "away", "db", "-o", "yaml")
	c.set(s, 10*day)
	w.settled(t, "db", deliver.ReasonExpired)
	// A backup brings it back, with its owner.
	kept = strings.ReplaceAll(kept, "  resourceVersion:", "  generateName:")
	w.kubectl(t, kept, "create", "-f", "-")
	until(t, "it is gone again", func() bool { return w.secret(t, "db") == nil })
	// One of that name that is somebody else's is left alone.
	w.kubectl(t, "", "create", "secret", "generic", "-n", "away", "db", "--from-literal=a=theirs")
	s.Retry()
	w.idle(t)
	same(t, "data", w.dataOf(t, "db"), map[string]string{"a": "theirs"})
}

func TestUnreadableComesBeforeNotYetValid(t *testing.T) {
	w := newWorld(t, "early")
	c := &clock{}
	s := w.safe(t, c.option).lead(t)
	begin := time.Now().Add(10 * day)
	spoilt := func(o *v1alpha1.EncryptedSecret) { o.Spec.Workloads = append(o.Spec.Workloads, "thief") }
	bad := w.object(t, "bad", map[string]string{"a": "1"}, delivered, valid(begin, time.Time{}))
	spoilt(bad)
	over := w.object(t, "over", map[string]string{"a": "1"}, delivered, valid(time.Time{}, begin))
	spoilt(over)
	w.put(t, bad)
	w.put(t, w.object(t, "template", map[string]string{"a": "1"}, delivered, valid(begin, time.Time{}), templated(map[string]string{"b": "{{ .c }}"})))
	w.put(t, over)
	w.settled(t, "bad", deliver.ReasonUnreadable)
	w.settled(t, "template", deliver.ReasonTemplateFailed)
	w.settled(t, "over", deliver.ReasonUnreadable)
	c.set(s, 10*day)
	w.settled(t, "over", deliver.ReasonExpired)
	for _, name := range []string{"bad", "template", "over"} {
		if w.secret(t, name) != nil {
			t.Errorf("%s was delivered", name)
		}
	}
}

func TestForbiddenToWithdrawIsACondition(t *testing.T) {
	w := newWorld(t, "forbidden-window")
	c := &clock{}
	s := w.safe(t, c.option).lead(t)
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered, valid(time.Time{}, time.Now().Add(10*day))))
	w.settled(t, "db", deliver.ReasonDelivered)
	w.kubectl(t, "", "delete", "rolebinding", "-n", "forbidden-window", "vsecm-deliver")
	c.set(s, 10*day)
	o := w.settled(t, "db", deliver.ReasonDeliveryForbidden)
	if o.Status.Secret == nil || w.secret(t, "db") == nil {
		t.Error("what was delivered is forgotten")
	}
	w.grant(t)
	w.settled(t, "db", deliver.ReasonExpired)
	if w.secret(t, "db") != nil {
		t.Error("it is there still")
	}
}

// A replica that does not know yet that the object was given more time takes nothing away.
func TestReplicaThatIsBehindWithdrawsNothing(t *testing.T) {
	w := newWorld(t, "behind-window")
	c := &clock{}
	var b *behind
	late := w.safe(t, c.option, func(config *deliver.Config) { b = &behind{Store: config.Store}; config.Store = b })
	s := w.safe(t, c.option).lead(t)
	start := time.Now()
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered, valid(time.Time{}, start.Add(10*day))))
	o := w.settled(t, "db", deliver.ReasonDelivered)
	until(t, "the late one knows", func() bool {
		is, ok := late.store.Standing(keyOf(o))
		return ok && is.Status != nil && is.Status.Secret != nil
	})
	b.freeze(t, keyOf(o))
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered, valid(time.Time{}, start.Add(90*day))))
	c.set(s, 10*day)
	w.settled(t, "db", deliver.ReasonDelivered)
	s.stop()
	uid := w.secret(t, "db").UID

	late.lead(t)
	until(t, "it has tried", func() bool { return b.askedFor() > 3 })
	if now := w.secret(t, "db"); now == nil || now.UID != uid {
		t.Errorf("the Secret is %v", now)
	}
	b.thaw()
	late.Retry()
	w.idle(t)
	w.settled(t, "db", deliver.ReasonDelivered)
	if told := late.events.of("db"); len(told) != 0 || w.secret(t, "db").UID != uid {
		t.Errorf("told %v", told)
	}
}

func TestPromise06_AnObjectThatExpiresLeavesTheOthers(t *testing.T) {
	w := newWorld(t, "expiring")
	c := &clock{}
	s := w.safe(t, c.option).lead(t)
	w.put(t, w.object(t, "stays", map[string]string{"a": "1"}, delivered))
	w.put(t, w.object(t, "later", map[string]string{"a": "1"}, delivered, valid(time.Time{}, time.Now().Add(90*day))))
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered, valid(time.Time{}, time.Now().Add(10*day))))
	versions := make(map[string]string)
	for _, name := range []string{"stays", "later", "db"} {
		w.settled(t, name, deliver.ReasonDelivered)
		versions[name] = w.secret(t, name).ResourceVersion
	}
	opened := s.opened(t)
	c.set(s, 10*day)
	w.settled(t, "db", deliver.ReasonExpired)
	for _, name := range []string{"stays", "later"} {
		w.settled(t, name, deliver.ReasonDelivered)
		if now := w.secret(t, name); now == nil || now.ResourceVersion != versions[name] {
			t.Errorf("%s was written", name)
		}
	}
	if n := s.opened(t); n != opened {
		t.Errorf("%v values were opened for that", n-opened)
	}
}
