package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// maxObjectFile bounds an object's file, in bytes. It is the bound on a file
// of manifests, so whatever came through git fits.
const maxObjectFile = 2 << 20

// objectFile is an object as its file holds it: a manifest, which the plugin
// and kubectl read too. The API types are not used for it because their JSON
// tags would need each file to be converted to JSON first, which doubles the
// time to open a directory. go-yaml v2 is used and not v3, whose check for
// doubled keys is quadratic in their number.
type objectFile struct {
	APIVersion string       `yaml:"apiVersion"`
	Kind       string       `yaml:"kind"`
	Metadata   metadataFile `yaml:"metadata"`
	Spec       specFile     `yaml:"spec"`
}

type metadataFile struct {
	Namespace   string            `yaml:"namespace,omitempty"`
	Name        string            `yaml:"name,omitempty"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

type specFile struct {
	Scope         string            `yaml:"scope,omitempty"`
	Workloads     []string          `yaml:"workloads,omitempty"`
	EncryptedData map[string]string `yaml:"encryptedData"`
	Secret        *deliveryFile     `yaml:"secret,omitempty"`
	Template      any               `yaml:"template,omitempty"`
	NotBefore     string            `yaml:"notBefore,omitempty"`
	ExpiresAt     string            `yaml:"expiresAt,omitempty"`
}

type deliveryFile struct {
	Type           string       `yaml:"type,omitempty"`
	Metadata       metadataFile `yaml:"metadata,omitempty"`
	Immutable      bool         `yaml:"immutable,omitempty"`
	DeletionPolicy string       `yaml:"deletionPolicy,omitempty"`
}

// encodeObject returns the file of an object.
func encodeObject(o *v1alpha1.EncryptedSecret) ([]byte, error) {
	var e templateEncoder
	template, err := e.encode(o.Spec.Template)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", KeyOf(o), err)
	}
	f := objectFile{
		APIVersion: v1alpha1.APIVersion,
		Kind:       v1alpha1.KindEncryptedSecret,
		Metadata:   metadataFile{Namespace: o.Namespace, Name: o.Name, Labels: o.Labels, Annotations: o.Annotations},
		Spec: specFile{
			Scope:         o.Spec.Scope,
			Workloads:     o.Spec.Workloads,
			EncryptedData: o.Spec.EncryptedData,
			Template:      template,
			NotBefore:     encodeTime(o.Spec.NotBefore),
			ExpiresAt:     encodeTime(o.Spec.ExpiresAt),
		},
	}
	if s := o.Spec.Secret; s != nil {
		f.Spec.Secret = &deliveryFile{
			Type:           s.Type,
			Metadata:       metadataFile{Labels: s.Metadata.Labels, Annotations: s.Metadata.Annotations},
			Immutable:      s.Immutable,
			DeletionPolicy: s.DeletionPolicy,
		}
	}
	data, err := yaml.Marshal(&f)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", KeyOf(o), err)
	}
	data = e.finish(data)
	if len(data) > maxObjectFile {
		return nil, fmt.Errorf("%s %w: %d bytes, of at most %d", KeyOf(o), ErrInvalid, len(data), maxObjectFile)
	}
	return data, nil
}

// decodeObject reads the file of an object, strictly. Errors quote nothing of
// the file but names.
func decodeObject(data []byte) (*v1alpha1.EncryptedSecret, error) {
	if len(data) > maxObjectFile {
		return nil, fmt.Errorf("more than %d bytes", maxObjectFile)
	}
	var f objectFile
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.SetStrict(true)
	if err := d.Decode(&f); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("empty file")
		}
		return nil, err
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document")
	}
	if f.APIVersion != v1alpha1.APIVersion || f.Kind != v1alpha1.KindEncryptedSecret {
		return nil, fmt.Errorf("%.80q of %.80q is not an %s of %s", f.Kind, f.APIVersion, v1alpha1.KindEncryptedSecret, v1alpha1.APIVersion)
	}
	o := &v1alpha1.EncryptedSecret{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret},
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   f.Metadata.Namespace,
			Name:        f.Metadata.Name,
			Labels:      f.Metadata.Labels,
			Annotations: f.Metadata.Annotations,
		},
		Spec: v1alpha1.EncryptedSecretSpec{
			Scope:         f.Spec.Scope,
			Workloads:     f.Spec.Workloads,
			EncryptedData: f.Spec.EncryptedData,
		},
	}
	if s := f.Spec.Secret; s != nil {
		if s.Metadata.Namespace != "" || s.Metadata.Name != "" {
			return nil, errors.New("spec.secret.metadata: the Secret bears the name of its object")
		}
		o.Spec.Secret = &v1alpha1.SecretDelivery{
			Type:           s.Type,
			Metadata:       v1alpha1.SecretMetadata{Labels: s.Metadata.Labels, Annotations: s.Metadata.Annotations},
			Immutable:      s.Immutable,
			DeletionPolicy: s.DeletionPolicy,
		}
	}
	var err error
	if o.Spec.Template, err = decodeTemplate(f.Spec.Template); err != nil {
		return nil, err
	}
	if o.Spec.NotBefore, err = decodeTime("spec.notBefore", f.Spec.NotBefore); err != nil {
		return nil, err
	}
	if o.Spec.ExpiresAt, err = decodeTime("spec.expiresAt", f.Spec.ExpiresAt); err != nil {
		return nil, err
	}
	if err := KeyOf(o).Validate(); err != nil {
		return nil, err
	}
	return o, nil
}
