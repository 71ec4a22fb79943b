package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// A draft is an object whose values are still to be sealed.
type draft struct {
	object     *v1alpha1.EncryptedSecret
	values     map[string][]byte
	recipients []encrypt.Recipient
	target     *target
	place      string // of the input, for errors
	// begins and ends are the times to set in what is there already; nil: none.
	begins, ends *metav1.Time

	sealed map[string]string
}

// check finds what can be found before any value is read or sealed.
func (d *draft) check() error {
	if d.object.Spec.Secret != nil && d.object.Name == encrypt.RootKeySecret {
		return fmt.Errorf("a Secret named %s is never delivered", encrypt.RootKeySecret)
	}
	if len(d.values) > encrypt.MaxKeys {
		return fmt.Errorf("%d keys, of at most %d", len(d.values), encrypt.MaxKeys)
	}
	return encrypt.BindingOf(d.object, "any").Validate()
}

func (d *draft) wrap(err error) error {
	if d.place == "" {
		return err
	}
	return fmt.Errorf("%s: %w", d.place, err)
}

// sealAll seals the values of every draft, on every core.
func sealAll(ctx context.Context, drafts []*draft, now time.Time) error {
	return onEveryCore(ctx, len(drafts), func(i int) error { return drafts[i].seal(now) })
}

func (d *draft) seal(now time.Time) error {
	if err := d.try(); err != nil {
		return d.wrap(err)
	}
	d.sealed = make(map[string]string, len(d.values))
	place := encrypt.BindingOf(d.object, "")
	for _, key := range slices.Sorted(maps.Keys(d.values)) {
		place.Key = key
		sealed, err := encrypt.Seal(d.values[key], place, d.recipients, now)
		if err != nil {
			return d.wrap(fmt.Errorf("%s/%s key %s: %w", d.object.Namespace, d.object.Name, key, err))
		}
		d.sealed[key] = sealed
	}
	return nil
}

// try runs the template, if there is one, where all values are at hand: in the cluster, nobody can look into them.
func (d *draft) try() error {
	if d.object.Spec.Template == nil {
		return nil
	}
	field := func(err error) error {
		return fmt.Errorf("%s/%s: spec.template.data.%w", d.object.Namespace, d.object.Name, err)
	}
	parsed, err := template.Parse(d.object.Spec.Template)
	if err != nil {
		return field(err)
	}
	has := func(key string) bool {
		_, sealed := d.object.Spec.EncryptedData[key]
		_, given := d.values[key]
		return sealed || given
	}
	if err := parsed.Check(has); err != nil {
		return withHint(field(err), "it has %s", keysOf(&v1alpha1.EncryptedSecret{Spec: v1alpha1.EncryptedSecretSpec{EncryptedData: d.names()}}))
	}
	size := 0
	for _, value := range d.values {
		size += len(value)
	}
	for key := range d.object.Spec.EncryptedData {
		if _, given := d.values[key]; !given {
			return nil
		}
	}
	made, err := parsed.Execute(d.values, parsed.MaxSize(size))
	if err != nil {
		return field(err)
	}
	wipe(made)
	return nil
}

// names returns the keys that the object has or gets.
func (d *draft) names() map[string]string {
	all := make(map[string]string)
	maps.Copy(all, d.object.Spec.EncryptedData)
	for key := range d.values {
		all[key] = ""
	}
	return all
}

// whole returns all sealed values of the object: those that it has, and those of the draft.
func (d *draft) whole() (map[string]string, error) {
	all := maps.Clone(d.object.Spec.EncryptedData)
	if all == nil {
		all = make(map[string]string)
	}
	maps.Copy(all, d.sealed)
	size := 0
	for key, sealed := range all {
		size += len(key) + len(sealed)
	}
	if size > encrypt.MaxObjectSize || len(all) > encrypt.MaxKeys {
		return nil, withHint(d.wrap(fmt.Errorf("%s/%s would hold %d sealed bytes in %d keys, of at most %d bytes and %d keys: a cluster stores no larger object",
			d.object.Namespace, d.object.Name, size, len(all), encrypt.MaxObjectSize, encrypt.MaxKeys)), "spread the keys over several objects")
	}
	return all, nil
}
