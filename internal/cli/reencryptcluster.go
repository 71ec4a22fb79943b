package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// ownManagers are the field managers of people who change objects by hand. What another one applied,
// such as Argo CD or Flux, it would put back.
var ownManagers = []string{pluginManager, "kubectl", "kubectl-apply", "kubectl-client-side-apply", "kubectl-create", "kubectl-edit", "kubectl-patch", "kubectl-replace", "kubectl-last-applied", "before-first-apply"}

// A heldObject is an EncryptedSecret in the cluster.
type heldObject struct {
	cluster *cluster
	conn    *connection
	now     func() time.Time

	namespace, name string
	listed          *v1alpha1.EncryptedSecret // for the first load
	standing        *v1alpha1.EncryptedSecret // as load read it, if it has stale values
}

// heldObjects lists the objects of a namespace, or of all.
func heldObjects(ctx context.Context, conn *connection, c *cluster, namespace string, now func() time.Time) ([]bundle, error) {
	var all []bundle
	err := each(ctx, c, c.objects(v1alpha1.ResourceEncryptedSecrets, namespace), "", func(o *v1alpha1.EncryptedSecret) error {
		all = append(all, &heldObject{cluster: c, conn: conn, now: now, namespace: o.Namespace, name: o.Name, listed: o})
		return nil
	})
	return all, wordObjects(missingKind(err, "EncryptedSecrets"), "listing EncryptedSecrets", namespace)
}

func (h *heldObject) place() string { return h.namespace + "/" + h.name }

func (h *heldObject) fault(err error) *encrypt.Fault {
	return &encrypt.Fault{File: h.place(), Namespace: h.namespace, Name: h.name, Err: err}
}

func (h *heldObject) load(ctx context.Context, c *keyChange) ([]*staleValue, []*encrypt.Fault) {
	o := h.listed
	h.listed, h.standing = nil, nil
	if o == nil {
		var fault *encrypt.Fault
		if o, fault = h.read(ctx); fault != nil {
			return nil, []*encrypt.Fault{fault}
		}
	}
	if o == nil {
		return nil, nil
	}
	values, faults := c.stale(encrypt.Manifest{File: h.place(), Object: o}, h.now())
	if len(values) == 0 {
		return nil, faults
	}
	switch managers := otherManagers(o.ManagedFields); {
	case sourceName(o.Labels) != "":
		file := o.Annotations[v1alpha1.AnnotationPath]
		if file == "" {
			file = "its file"
		}
		return nil, append(faults, h.fault(fmt.Errorf("comes from git source %s, and is left: re-encrypt %s in that source's repository, and push", sourceName(o.Labels), file)))
	case len(managers) > 0:
		return nil, append(faults, h.fault(fmt.Errorf("is applied by %s, which would put it back, and is left: re-encrypt it where it comes from", strings.Join(managers, ", "))))
	}
	h.standing = o
	return values, faults
}

// read returns the object as it is now; nil if it was deleted meanwhile.
func (h *heldObject) read(ctx context.Context) (*v1alpha1.EncryptedSecret, *encrypt.Fault) {
	ctx, cancel, err := h.conn.within(ctx, clusterTimeout)
	if err != nil {
		return nil, h.fault(err)
	}
	defer cancel()
	o, err := h.cluster.secret(ctx, h.namespace, h.name)
	if codeOf(err) == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, h.fault(err)
	}
	return o, nil
}

// otherManagers returns the field managers that have the spec of an object, which is owned as a whole, and are
// no person's.
func otherManagers(fields []metav1.ManagedFieldsEntry) (others []string) {
	for _, f := range fields {
		if f.Subresource != "" || f.FieldsV1 == nil || !strings.Contains(f.FieldsV1.GetRawString(), `"f:spec"`) {
			continue
		}
		if !slices.Contains(ownManagers, f.Manager) && !slices.Contains(others, f.Manager) {
			others = append(others, f.Manager)
		}
	}
	slices.Sort(others)
	return others
}

// store has the cluster take the object with the renewed values, on condition that it is what load
// read.
func (h *heldObject) store(ctx context.Context, values []*staleValue) error {
	o := h.standing
	for _, v := range values {
		o.Spec.EncryptedData[v.place.Key] = v.renewed
	}
	ctx, cancel, err := h.conn.within(ctx, clusterTimeout)
	if err != nil {
		return h.fault(err)
	}
	defer cancel()
	path := h.cluster.objects(v1alpha1.ResourceEncryptedSecrets, h.namespace, h.name)
	// What people applied is theirs to have put right here, by whichever program they did.
	path.RawQuery = url.Values{"fieldManager": {pluginManager}, "fieldValidation": {"Strict"}, "force": {strconv.FormatBool(true)}}.Encode()
	body := map[string]any{
		"apiVersion": v1alpha1.APIVersion, "kind": v1alpha1.KindEncryptedSecret, "spec": o.Spec,
		"metadata": map[string]any{"namespace": h.namespace, "name": h.name, "resourceVersion": o.ResourceVersion, "uid": o.UID},
	}
	err = h.cluster.make(ctx, clusterCall{method: http.MethodPatch, path: path, body: body, media: mediaApply}, &v1alpha1.EncryptedSecret{})
	switch {
	case err == nil:
		return nil
	case codeOf(err) == http.StatusConflict:
		err = errors.New("it has changed meanwhile, and is left as it is: do it again")
	}
	return h.fault(err)
}
