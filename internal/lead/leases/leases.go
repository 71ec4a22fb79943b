// Package leases reads and writes Leases over Safe's own REST client, with the few methods
// of client-go's typed client that its leader election uses.
package leases

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
)

const resource = "leases"

// A LeasesGetter gives the Leases of a namespace.
type LeasesGetter interface {
	Leases(namespace string) LeaseInterface
}

// A LeaseInterface reads and writes the Leases of a namespace. Its errors are those of
// package apierrors.
type LeaseInterface interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (*coordinationv1.Lease, error)
	Create(ctx context.Context, lease *coordinationv1.Lease, opts metav1.CreateOptions) (*coordinationv1.Lease, error)
	Update(ctx context.Context, lease *coordinationv1.Lease, opts metav1.UpdateOptions) (*coordinationv1.Lease, error)
}

// New returns the Leases that a client reaches.
func New(client *kube.Client) LeasesGetter { return getter{client.Coordination} }

type getter struct{ client rest.Interface }

func (g getter) Leases(namespace string) LeaseInterface { return leases{g.client, namespace} }

type leases struct {
	client    rest.Interface
	namespace string
}

func (l leases) Get(ctx context.Context, name string, opts metav1.GetOptions) (*coordinationv1.Lease, error) {
	return answer(ctx, l.client.Get().Namespace(l.namespace).Resource(resource).Name(name).
		VersionedParams(&opts, kube.ParameterCodec))
}

func (l leases) Create(ctx context.Context, lease *coordinationv1.Lease, opts metav1.CreateOptions) (*coordinationv1.Lease, error) {
	return answer(ctx, l.client.Post().Namespace(l.namespace).Resource(resource).
		VersionedParams(&opts, kube.ParameterCodec).Body(lease))
}

func (l leases) Update(ctx context.Context, lease *coordinationv1.Lease, opts metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	return answer(ctx, l.client.Put().Namespace(l.namespace).Resource(resource).Name(lease.Name).
		VersionedParams(&opts, kube.ParameterCodec).Body(lease))
}

func answer(ctx context.Context, request *rest.Request) (*coordinationv1.Lease, error) {
	lease := &coordinationv1.Lease{}
	if err := request.Do(ctx).Into(lease); err != nil {
		return nil, err
	}
	return lease, nil
}
