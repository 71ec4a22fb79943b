package cli

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/backup"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A standing is what stands at a place that something is to be restored to.
type standing struct {
	object *v1alpha1.EncryptedSecret // nil: nothing
	file   string                    // that it stands in, or is to stand in
}

// A verdict on what stands at a place, beside what the backup has for it.
type verdict int

const (
	older verdict = iota // or as old, but not sealed to the right recipients, or to nobody at all
	same
	newer // or of another content, where nothing tells which came first
)

// compare compares what stands at a place with what the backup has for it. Values cannot be compared without keys;
// the time at which each was sealed can. why says what is newer.
func compare(is *v1alpha1.EncryptedSecret, was *backup.Object, recipients []encrypt.Recipient) (v verdict, why string) {
	ids := make([]encrypt.KeyID, len(recipients))
	for i, r := range recipients {
		ids[i] = r.KeyID()
	}
	slices.Sort(ids)
	v = same
	resealed := false
	var more []string
	for _, key := range sortedKeys(is.Spec.EncryptedData) {
		archived, both := was.Manifest.Spec.EncryptedData[key]
		if !both {
			more = append(more, key)
			continue
		}
		now, err := encrypt.Inspect(is.Spec.EncryptedData[key])
		if err != nil {
			v = older // nobody can open it
			continue
		}
		then, err := encrypt.Inspect(archived)
		switch {
		case err != nil: // it opened when it was archived
			return newer, fmt.Sprintf("key %s: in the backup: %v", key, err)
		case now.SealedAt.After(then.SealedAt):
			return newer, fmt.Sprintf("key %s was sealed on %s, and the backup's on %s", key, sealedOn(now), sealedOn(then))
		case now.SealedAt.Before(then.SealedAt), now.Check(encrypt.BindingOf(is, key), now.SealedAt) != nil:
			v = older // the second opens nowhere
		case now.Size != len(was.Data[key]):
			return newer, fmt.Sprintf("key %s was sealed at the same time, and is another value", key)
		case !slices.Equal(now.KeyIDs, ids):
			resealed = true
		}
	}
	if len(more) > 0 {
		return newer, "has keys that the backup does not: " + someOf(more)
	}
	for key := range was.Manifest.Spec.EncryptedData {
		if _, has := is.Spec.EncryptedData[key]; !has {
			v = older
		}
	}
	if v == same && !sameSpec(is, was.Manifest) {
		return newer, "is as old, and delivered in another way: nothing tells which of the two came first"
	}
	if v == same && resealed {
		v = older
	}
	return v, ""
}

func sealedOn(i encrypt.Info) string { return i.SealedAt.UTC().Format(time.RFC3339) }

// sameSpec tells whether two objects say the same of their values, but for these themselves.
func sameSpec(a, b *v1alpha1.EncryptedSecret) bool {
	x, y := specOf(a), specOf(b)
	return reflect.DeepEqual(x, y) && encrypt.BindingOf(a, "").TemplateSHA256 == encrypt.BindingOf(b, "").TemplateSHA256
}

// specOf returns a spec without values and template, in the one way of several that it can be written.
func specOf(o *v1alpha1.EncryptedSecret) v1alpha1.EncryptedSecretSpec {
	s := *o.Spec.DeepCopy()
	s.EncryptedData, s.Template = nil, nil
	for _, t := range []*metav1.Time{s.NotBefore, s.ExpiresAt} {
		if t != nil {
			t.Time = t.UTC()
		}
	}
	if s.Scope == "" {
		s.Scope = string(encrypt.Strict)
	}
	slices.Sort(s.Workloads)
	if len(s.Workloads) == 0 {
		s.Workloads = nil
	}
	if d := s.Secret; d != nil {
		if d.Type == "" {
			d.Type = encrypt.DefaultSecretType
		}
		if d.DeletionPolicy == "" {
			d.DeletionPolicy = "Delete"
		}
		if len(d.Metadata.Labels) == 0 {
			d.Metadata.Labels = nil
		}
		if len(d.Metadata.Annotations) == 0 {
			d.Metadata.Annotations = nil
		}
	}
	return s
}
