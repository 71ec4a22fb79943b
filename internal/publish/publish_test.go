package publish

import (
	"log/slog"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/publication"
)

func text(t *testing.T, r publication.Replica) string {
	t.Helper()
	s, err := r.Text()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAReplicaWritesItsOwnEntryAndThoseOfTheGone(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	me := publication.Replica{State: "sealed", CertificateSHA256: "ab", Version: "v1"}
	at := func(r publication.Replica, age time.Duration) string {
		r.Seen = now.Add(-age)
		return text(t, r)
	}
	unsealed := me
	unsealed.State = "unsealed"
	for name, tt := range map[string]struct {
		there  map[string]string
		bundle string
		set    []string
		gone   []string
	}{
		"at first":                  {set: []string{"replica.me"}},
		"with a bundle":             {bundle: "pem", set: []string{"replica.me", "bundle"}},
		"unchanged":                 {there: map[string]string{"replica.me": at(me, time.Minute)}},
		"the same bundle":           {there: map[string]string{"replica.me": at(me, time.Minute), "bundle": "pem"}, bundle: "pem"},
		"another bundle":            {there: map[string]string{"replica.me": at(me, time.Minute), "bundle": "old"}, bundle: "pem", set: []string{"bundle"}},
		"another state":             {there: map[string]string{"replica.me": at(unsealed, time.Minute)}, set: []string{"replica.me"}},
		"grown old":                 {there: map[string]string{"replica.me": at(me, 6*time.Minute)}, set: []string{"replica.me"}},
		"spoilt":                    {there: map[string]string{"replica.me": "x"}, set: []string{"replica.me"}},
		"others that live":          {there: map[string]string{"replica.me": at(me, 0), "replica.you": at(me, 20*time.Minute)}},
		"others that are gone":      {there: map[string]string{"replica.me": at(me, 0), "replica.you": at(me, time.Hour)}, gone: []string{"replica.you"}},
		"entries that are none":     {there: map[string]string{"replica.me": at(me, 0), "replica.you": "x"}, gone: []string{"replica.you"}},
		"none beside one who lives": {there: map[string]string{"replica.me": at(me, 0), "replica.you": "x", "replica.her": at(me, 0)}, gone: []string{"replica.you"}},
		"the record is not touched": {there: map[string]string{"replica.me": at(me, 0), "recipient": "age1x", "keyID": "id", "note": "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := New(nil, "vsecm-system", "me", slog.New(slog.DiscardHandler))
			change, err := p.change(tt.there, Self{Replica: me, Bundle: tt.bundle}, now)
			if err != nil {
				t.Fatal(err)
			}
			if len(change) != len(tt.set)+len(tt.gone) {
				t.Errorf("%v", change)
			}
			for _, key := range tt.set {
				if change[key] == nil {
					t.Errorf("%s is not set: %v", key, change)
				}
			}
			for _, key := range tt.gone {
				if value, there := change[key]; !there || value != nil {
					t.Errorf("%s is not taken away: %v", key, change)
				}
			}
			if v := change["replica.me"]; v != nil {
				want := me
				want.Seen = now
				if *v != text(t, want) {
					t.Errorf("wrote %s", *v)
				}
			}
		})
	}
}
