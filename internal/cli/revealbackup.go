package cli

import (
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/backup"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// fromBackup takes what was asked for from an archive. left is what did not open when that was made.
func (o revealOptions) fromBackup() (rs []revealed, left []error, err error) {
	a, err := openArchive(o.streams, o.backup, o.keys.identities)
	if err != nil {
		return nil, nil, err
	}
	defer a.close()
	defer tellWaiting(o.streams, "reading "+o.backup)()
	told := make(map[string]bool)
	_, err = a.read(func(object *backup.Object) error {
		if !o.wants(object.Namespace, object.Name) {
			object.Wipe()
			return nil
		}
		r, lacks := o.archived(object)
		left = append(left, lacks...)
		if len(r.data) > 0 || len(lacks) == 0 && o.key == "" {
			rs = append(rs, r)
			told[object.Name] = true
		}
		if len(lacks) > 0 {
			told[object.Name] = true
		}
		return nil
	})
	if err != nil {
		return rs, nil, err // what was read until then is not to be believed
	}
	if len(rs) == 0 && len(left) > 0 {
		return nil, nil, errors.Join(left[:min(len(left), maxTold)]...)
	}
	return rs, left, o.found(o.backup, len(rs), func(name string) bool { return told[name] })
}

// archived returns what is to be shown of an object, and what of it did not open.
func (o revealOptions) archived(object *backup.Object) (r revealed, lacks []error) {
	manifest := object.Manifest
	at := place{object.Namespace, object.Name}
	if manifest == nil {
		lacks = append(lacks, fmt.Errorf("%s: its manifest was not valid when the backup was made: %w", at, object.Fault))
		manifest = &v1alpha1.EncryptedSecret{ObjectMeta: metav1.ObjectMeta{Namespace: object.Namespace, Name: object.Name}}
		if object.Type != "" {
			manifest.Spec.Secret = &v1alpha1.SecretDelivery{Type: object.Type}
		}
	}
	r = revealed{manifest: encrypt.Manifest{Object: manifest}, data: object.Data}
	for _, key := range sortedKeys(manifest.Spec.EncryptedData) {
		if _, has := r.data[key]; !has && (o.key == "" || o.key == key) {
			lacks = append(lacks, fmt.Errorf("%s: key %s did not open when the backup was made", at, key))
		}
	}
	if o.key != "" {
		for key, value := range r.data {
			if key != o.key {
				clear(value)
				delete(r.data, key)
			}
		}
	}
	return r, lacks
}
