// Package kube is how Safe talks to the Kubernetes API: over REST clients that know
// the few kinds Safe needs.
//
// A generated clientset knows every kind of Kubernetes. Linking it would make Safe's
// program half again as large, and it would hold that in memory for nothing
// (docs/decisions/007).
package kube

import (
	"fmt"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// A Client reaches the API groups that Safe needs. It is safe for concurrent use.
type Client struct {
	Core           rest.Interface // Secrets, ConfigMaps and Events
	VSecM          rest.Interface // EncryptedSecrets and GitSources
	Coordination   rest.Interface // Leases
	Authentication rest.Interface // TokenReviews
	Authorization  rest.Interface // SubjectAccessReviews
}

// scheme knows what Safe reads and writes.
var scheme = newScheme()

// ParameterCodec encodes list, get and patch options into query parameters.
var ParameterCodec = runtime.NewParameterCodec(scheme)

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypes(CoreVersion, &Secret{}, &ConfigMap{}, &Event{})
	s.AddKnownTypes(coordinationv1.SchemeGroupVersion, &coordinationv1.Lease{})
	s.AddKnownTypes(authenticationv1.SchemeGroupVersion, &authenticationv1.TokenReview{})
	s.AddKnownTypes(authorizationv1.SchemeGroupVersion, &authorizationv1.SubjectAccessReview{})
	s.AddKnownTypes(v1alpha1.GroupVersion, &v1alpha1.EncryptedSecret{}, &v1alpha1.EncryptedSecretList{},
		&v1alpha1.GitSource{}, &v1alpha1.GitSourceList{})
	for _, gv := range []schema.GroupVersion{
		CoreVersion, authenticationv1.SchemeGroupVersion, authorizationv1.SchemeGroupVersion, coordinationv1.SchemeGroupVersion, v1alpha1.GroupVersion,
	} {
		metav1.AddToGroupVersion(s, gv)
	}
	return s
}

// NewClient returns a client of the cluster that config names. It does not connect.
func NewClient(config *rest.Config) (*Client, error) {
	// One set of connections for all groups.
	shared, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("connecting to the Kubernetes API: %w", err)
	}
	c := &Client{}
	for _, group := range []struct {
		to   *rest.Interface
		gv   schema.GroupVersion
		path string
	}{
		{&c.Core, CoreVersion, "/api"},
		{&c.VSecM, v1alpha1.GroupVersion, "/apis"},
		{&c.Coordination, coordinationv1.SchemeGroupVersion, "/apis"},
		{&c.Authentication, authenticationv1.SchemeGroupVersion, "/apis"},
		{&c.Authorization, authorizationv1.SchemeGroupVersion, "/apis"},
	} {
		if *group.to, err = clientFor(config, shared, group.gv, group.path); err != nil {
			return nil, fmt.Errorf("making a client of %s: %w", group.gv, err)
		}
	}
	return c, nil
}

func clientFor(config *rest.Config, shared *http.Client, gv schema.GroupVersion, path string) (rest.Interface, error) {
	c := rest.CopyConfig(config)
	c.GroupVersion, c.APIPath = &gv, path
	// The API server shares itself out among its clients (priority and fairness). The five
	// requests a second that client-go would keep to make ten thousand objects half an hour.
	c.QPS = -1
	// A warning is an admission webhook's own words, which may quote what it was shown.
	c.WarningHandler = rest.NoWarnings{}
	c.ContentType = runtime.ContentTypeJSON
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	return rest.RESTClientForConfigAndClient(c, shared)
}
