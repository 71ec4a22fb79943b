package cli

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// fromFile opens the manifests of a file that were asked for.
func (o revealOptions) fromFile() (rs []revealed, err error) {
	manifests, err := o.manifests()
	if err != nil {
		return nil, err
	}
	keys, err := o.keys.open(o.streams)
	if err != nil {
		return nil, err
	}
	defer keys.wipe()
	var faults []*encrypt.Fault
	for _, m := range manifests {
		r, fs := o.open(m, keys)
		rs = append(rs, r)
		faults = append(faults, fs...)
	}
	if len(faults) > 0 {
		err := faultsError(faults)
		if errors.Is(err, encrypt.ErrKeyNotHeld) {
			err = withHint(err, "%s", keys)
		}
		return rs, err
	}
	return rs, nil
}

// manifests returns those that NAMEs and -n choose.
func (o revealOptions) manifests() ([]encrypt.Manifest, error) {
	data, err := readBounded(o.streams, o.file, encrypt.MaxFileSize)
	if err != nil {
		return nil, err
	}
	p, err := findProject()
	if err != nil {
		return nil, err
	}
	ms := encrypt.ReadManifests(o.file, data, p.rule(o.file).Namespace)
	if len(ms.Faults) > 0 {
		return nil, faultsError(ms.Faults)
	}
	chosen := slices.DeleteFunc(ms.Objects, func(m encrypt.Manifest) bool {
		_, has := m.Object.Spec.EncryptedData[o.key]
		return !o.wants(m.Object.Namespace, m.Object.Name) || o.key != "" && !has
	})
	return chosen, o.found(inputName(o.file), len(chosen), func(name string) bool {
		return slices.ContainsFunc(chosen, func(m encrypt.Manifest) bool { return m.Object.Name == name })
	})
}

// wants tells whether a secret of a file or a backup was asked for.
func (o revealOptions) wants(namespace, name string) bool {
	return (len(o.names) == 0 || slices.Contains(o.names, name)) && (o.namespace == "" || o.namespace == namespace)
}

// found tells whether what was found in a file or a backup is what was asked for.
func (o revealOptions) found(where string, n int, has func(name string) bool) error {
	if n == 0 {
		return withHint(fmt.Errorf("%s: nothing in it that was asked for", where), "%s", o.looksInto())
	}
	for _, name := range o.names {
		if !has(name) {
			if o.key != "" {
				return withHint(fmt.Errorf("%s: there is no %s with key %s in it", where, name, o.key), "%s", o.looksInto())
			}
			return withHint(fmt.Errorf("%s: there is no %s in it", where, name), "%s", o.looksInto())
		}
	}
	if o.key != "" && n > 1 {
		return withHint(fmt.Errorf("%s: %d manifests have key %s", where, n, o.key), "choose one with NAME and -n")
	}
	return nil
}

// looksInto says what shows what there is, without a value.
func (o revealOptions) looksInto() string {
	if o.backup != "" {
		return "'kubectl vsecm backup list' shows what is in it"
	}
	return "'kubectl vsecm inspect' shows what is in it"
}

func (o revealOptions) open(m encrypt.Manifest, keys encrypt.Keys) (revealed, []*encrypt.Fault) {
	r := revealed{manifest: m, data: make(map[string][]byte)}
	var faults []*encrypt.Fault
	for _, key := range sortedKeys(m.Object.Spec.EncryptedData) {
		if o.key != "" && key != o.key {
			continue
		}
		value, err := encrypt.Open(m.Object.Spec.EncryptedData[key], encrypt.BindingOf(m.Object, key), keys, o.now())
		if err != nil {
			faults = append(faults, m.Fault(encrypt.DataField(key), err))
			continue
		}
		r.data[key] = value
	}
	return r, faults
}
