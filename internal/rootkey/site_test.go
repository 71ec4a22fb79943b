package rootkey

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/publication"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// A site is where tests see what is kept from outside.
type site interface {
	place() Place
	// put makes a state by hand. An empty text is no key, "EMPTY" an empty one; an empty
	// mark is none.
	put(key, mark, record string)
	mount(text string)
	// What is kept, and all of it as one text.
	key() string
	marked() bool
	record() string
	all() string
}

const emptyText = "EMPTY"

// sites runs a test at both kinds of place.
func sites(t *testing.T, test func(t *testing.T, s site)) {
	t.Run("file", func(t *testing.T) { test(t, newDirSite(t)) })
	t.Run("secret", func(t *testing.T) { test(t, newSecretSite(t, cluster.Start(t))) })
}

type dirSite struct {
	t   *testing.T
	dir string
}

func newDirSite(t *testing.T) *dirSite { return &dirSite{t, t.TempDir()} }

func (d *dirSite) file(name string) string { return filepath.Join(d.dir, name) }
func (d *dirSite) place() Place            { return NewDirPlace(d.file("root-key.txt"), d.dir) }
func (d *dirSite) mount(string)            { d.t.Fatal("a file is not mounted") }
func (d *dirSite) key() string             { return d.read("root-key.txt") }
func (d *dirSite) record() string          { return strings.TrimSpace(d.read("recipient.txt")) }

func (d *dirSite) put(key, mark, record string) {
	d.t.Helper()
	for name, text := range map[string]string{"root-key.txt": key, "sealed": mark, "recipient.txt": record} {
		if text == "" {
			if err := os.Remove(d.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				d.t.Fatal(err)
			}
			continue
		}
		if text == emptyText {
			text = ""
		}
		if err := os.WriteFile(d.file(name), []byte(text), 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *dirSite) read(name string) string {
	text, err := os.ReadFile(d.file(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.t.Fatal(err)
	}
	return string(text)
}

func (d *dirSite) marked() bool {
	_, err := os.Stat(d.file("sealed"))
	return err == nil
}

func (d *dirSite) all() string {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%s: %q\n", e.Name(), d.read(e.Name()))
	}
	return b.String()
}

type secretSite struct {
	t         *testing.T
	client    *kube.Client
	namespace string
	mounted   string
}

func newSecretSite(t *testing.T, cp *controlplane.ControlPlane) *secretSite {
	t.Helper()
	client, err := kube.NewClient(cp.Config())
	if err != nil {
		t.Fatal(err)
	}
	text, err := client.Core.Post().Resource("namespaces").SetHeader("Content-Type", runtime.ContentTypeJSON).
		Body([]byte(`{"apiVersion":"v1","kind":"Namespace","metadata":{"generateName":"safe-"}}`)).DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var namespace metav1.PartialObjectMetadata
	if err := json.Unmarshal(text, &namespace); err != nil {
		t.Fatal(err)
	}
	return &secretSite{t: t, client: client, namespace: namespace.Name, mounted: filepath.Join(t.TempDir(), "key.txt")}
}

func (s *secretSite) place() Place {
	return NewSecretPlace(s.client, s.namespace, "vsecm-root-key", s.mounted)
}

func (s *secretSite) mount(text string) {
	if err := os.WriteFile(s.mounted, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// remove deletes an object, if it is there.
func (s *secretSite) remove(resource, name string) {
	s.t.Helper()
	err := s.client.Core.Delete().Namespace(s.namespace).Resource(resource).Name(name).Do(s.t.Context()).Error()
	if err != nil && !apierrors.IsNotFound(err) {
		s.t.Fatal(err)
	}
}

// create puts an object in the place of the one that there is: a Safe that runs may be quick to
// make one of its own.
func (s *secretSite) create(resource, name string, object runtime.Object) {
	s.t.Helper()
	wait.Until(s.t, name+" is created", func() bool {
		err := s.client.Core.Post().Namespace(s.namespace).Resource(resource).Body(object).Do(s.t.Context()).Error()
		if apierrors.IsAlreadyExists(err) {
			s.remove(resource, name)
			return false
		}
		if err != nil {
			s.t.Fatal(err)
		}
		return true
	})
}

func (s *secretSite) put(key, mark, record string) {
	s.t.Helper()
	s.remove("secrets", "vsecm-root-key")
	s.remove("configmaps", publication.Name)
	if key != "" || mark != "" {
		secret := &kube.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}}
		secret.Namespace, secret.Name = s.namespace, "vsecm-root-key"
		if key != "" {
			secret.Data = map[string][]byte{DataKey: []byte(strings.TrimPrefix(key, emptyText)), "other": []byte("kept as it is")}
		}
		if mark != "" {
			secret.Annotations = map[string]string{AnnotationSealed: strings.TrimSpace(mark)}
		}
		s.create("secrets", secret.Name, secret)
	}
	if record != "" {
		cm := &kube.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, Data: map[string]string{publication.KeyRecipient: record}}
		cm.Namespace, cm.Name = s.namespace, publication.Name
		s.create("configmaps", cm.Name, cm)
	}
}

func (s *secretSite) secret() *kube.Secret {
	s.t.Helper()
	var secret kube.Secret
	if err := s.client.Core.Get().Namespace(s.namespace).Resource("secrets").Name("vsecm-root-key").Do(s.t.Context()).Into(&secret); err != nil && !apierrors.IsNotFound(err) {
		s.t.Fatal(err)
	}
	return &secret
}

func (s *secretSite) published() map[string]string {
	s.t.Helper()
	var cm kube.ConfigMap
	if err := s.client.Core.Get().Namespace(s.namespace).Resource("configmaps").Name(publication.Name).Do(s.t.Context()).Into(&cm); err != nil && !apierrors.IsNotFound(err) {
		s.t.Fatal(err)
	}
	return cm.Data
}

func (s *secretSite) key() string    { return string(s.secret().Data[DataKey]) }
func (s *secretSite) record() string { return s.published()[publication.KeyRecipient] }

func (s *secretSite) marked() bool {
	_, marked := s.secret().Annotations[AnnotationSealed]
	return marked
}

func (s *secretSite) all() string {
	secret := s.secret()
	return fmt.Sprintf("%s %v %q %q", secret.ResourceVersion, secret.Annotations, secret.Data, s.published())
}
