package publication

import (
	"errors"
	"reflect"
	"testing"
	"time"
)

func TestWhatIsPublishedIsReadBack(t *testing.T) {
	r := Replica{
		State: "sealed", CertificateSHA256: "ab", SPIFFEID: "spiffe://example.org/safe", Version: "v1",
		Seen: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	text, err := r.Text()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(map[string]string{
		KeyRecipient: "age1x", KeyID: "id", KeyBundle: "pem", ReplicaPrefix + "safe-0": text, "note": "somebody's",
	})
	want := &Publication{Recipient: "age1x", KeyID: "id", Bundle: "pem", Replicas: map[string]Replica{"safe-0": r}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := Parse(nil); err != nil || got.Recipient != "" || len(got.Replicas) != 0 {
		t.Errorf("of nothing: %+v, %v", got, err)
	}
}

func TestAnEntryThatIsNoneIsAnError(t *testing.T) {
	for _, text := range []string{"", "sealed", "[]", `{"seen":"yesterday"}`} {
		p, err := Parse(map[string]string{KeyRecipient: "age1x", ReplicaPrefix + "safe-0": text, ReplicaPrefix + "safe-1": `{"certificateSHA256":"ab"}`})
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", text, err)
		}
		// It harms only itself.
		want := &Publication{Recipient: "age1x", Replicas: map[string]Replica{"safe-1": {CertificateSHA256: "ab"}}}
		if !reflect.DeepEqual(p, want) {
			t.Errorf("%q: %+v", text, p)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("replica.safe-0", `{"state":"sealed","certificateSHA256":"ab","version":"v1","seen":"2026-01-02T03:04:05Z"}`)
	f.Add("recipient", "age1x")
	f.Add("replica.", "")
	f.Fuzz(func(t *testing.T, key, value string) {
		p, err := Parse(map[string]string{key: value})
		if p == nil || err != nil && (!errors.Is(err, ErrMalformed) || len(p.Replicas) > 0) {
			t.Errorf("%+v, %v", p, err)
		}
	})
}
