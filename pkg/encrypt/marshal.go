package encrypt

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// document is a manifest as people write it: what says who it is first, the
// long lines last.
type document struct {
	APIVersion string           `yaml:"apiVersion" json:"apiVersion"`
	Kind       string           `yaml:"kind" json:"kind"`
	Metadata   documentMetadata `yaml:"metadata" json:"metadata"`
	Spec       documentSpec     `yaml:"spec" json:"spec"`
}

type documentMetadata struct {
	Name        string            `yaml:"name" json:"name"`
	Namespace   string            `yaml:"namespace" json:"namespace"`
	Labels      map[string]string `yaml:"labels,omitempty" json:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty" json:"annotations,omitempty"`
}

type documentSpec struct {
	Scope         string            `yaml:"scope" json:"scope"`
	Workloads     []string          `yaml:"workloads,omitempty" json:"workloads,omitempty"`
	EncryptedData map[string]string `yaml:"encryptedData" json:"encryptedData"`
	Secret        *documentSecret   `yaml:"secret,omitempty" json:"secret,omitempty"`
	Template      *documentTemplate `yaml:"template,omitempty" json:"template,omitempty"`
	NotBefore     string            `yaml:"notBefore,omitempty" json:"notBefore,omitempty"`
	ExpiresAt     string            `yaml:"expiresAt,omitempty" json:"expiresAt,omitempty"`
}

type documentSecret struct {
	Type           string          `yaml:"type" json:"type"`
	Metadata       *secretMetadata `yaml:"metadata,omitempty" json:"metadata,omitempty"`
	Immutable      bool            `yaml:"immutable,omitempty" json:"immutable,omitempty"`
	DeletionPolicy string          `yaml:"deletionPolicy,omitempty" json:"deletionPolicy,omitempty"`
}

type secretMetadata struct {
	Labels      map[string]string `yaml:"labels,omitempty" json:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty" json:"annotations,omitempty"`
}

func documentOf(o *v1alpha1.EncryptedSecret) document {
	d := document{
		APIVersion: v1alpha1.APIVersion,
		Kind:       v1alpha1.KindEncryptedSecret,
		Metadata: documentMetadata{
			Name: o.Name, Namespace: o.Namespace,
			Labels: orNone(o.Labels), Annotations: orNone(o.Annotations),
		},
		Spec: documentSpec{
			Scope:         o.Spec.Scope,
			Workloads:     append([]string(nil), o.Spec.Workloads...),
			EncryptedData: o.Spec.EncryptedData,
		},
	}
	if d.Spec.Scope == "" {
		d.Spec.Scope = string(Strict)
	}
	if s := o.Spec.Secret; s != nil {
		d.Spec.Secret = &documentSecret{Type: s.Type, Immutable: s.Immutable, DeletionPolicy: s.DeletionPolicy}
		if s.Type == "" {
			d.Spec.Secret.Type = DefaultSecretType
		}
		if len(s.Metadata.Labels)+len(s.Metadata.Annotations) > 0 {
			d.Spec.Secret.Metadata = &secretMetadata{Labels: orNone(s.Metadata.Labels), Annotations: orNone(s.Metadata.Annotations)}
		}
	}
	if t := o.Spec.Template; t != nil {
		d.Spec.Template = &documentTemplate{Data: make(map[string]documentTemplateValue, len(t.Data))}
		for key, v := range t.Data {
			d.Spec.Template.Data[key] = documentTemplateValue{Text: (*text)(v.Text), JSON: structure(v.JSON), YAML: structure(v.YAML)}
		}
	}
	if t := o.Spec.NotBefore; t != nil {
		d.Spec.NotBefore = t.UTC().Format(time.RFC3339)
	}
	if t := o.Spec.ExpiresAt; t != nil {
		d.Spec.ExpiresAt = t.UTC().Format(time.RFC3339)
	}
	return d
}

// orNone has an empty map be none, as which it is written.
func orNone(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return m
}

// MarshalYAML writes objects as YAML documents, for people to read.
func MarshalYAML(objects ...*v1alpha1.EncryptedSecret) ([]byte, error) {
	var out bytes.Buffer
	for i, o := range objects {
		if i > 0 {
			out.WriteString("---\n")
		}
		if err := marshalYAML(&out, o); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// marshalYAML lets short names stand for the sealed values while the YAML library
// writes: it looks at every character of a text several times, and base64
// is always plain. For a thousand manifests that is a fifth of all that encrypting them
// takes.
func marshalYAML(out *bytes.Buffer, o *v1alpha1.EncryptedSecret) error {
	d := documentOf(o)
	stand := "x" + rand.Text() // what no other text in the document holds
	var names []string
	d.Spec.EncryptedData = make(map[string]string, len(o.Spec.EncryptedData))
	for key, sealed := range o.Spec.EncryptedData {
		if !isSealedText(sealed) {
			d.Spec.EncryptedData[key] = sealed
			continue
		}
		name := stand + strconv.Itoa(len(names)) + "x"
		names = append(names, name, sealed)
		d.Spec.EncryptedData[key] = name
	}
	var text strings.Builder
	e := yaml.NewEncoder(&text)
	e.SetIndent(2)
	if err := e.Encode(d); err != nil {
		return err
	}
	if err := e.Close(); err != nil {
		return err
	}
	_, err := strings.NewReplacer(names...).WriteString(out, text.String())
	return err
}

// isSealedText tells whether s is base64 of an age file, which YAML needs no
// quotes for.
func isSealedText(s string) bool {
	if !strings.HasPrefix(s, "YWdl") {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c < '+' || c > 'z' || c > '9' && c < 'A' && c != '=' || c > 'Z' && c < 'a' || c > '+' && c < '/' {
			return false
		}
	}
	return true
}

// MarshalJSON writes objects as JSON documents, one after the other.
func MarshalJSON(objects ...*v1alpha1.EncryptedSecret) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetIndent("", "  ")
	for _, o := range objects {
		if err := e.Encode(documentOf(o)); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}
