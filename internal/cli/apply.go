package cli

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

const (
	// pluginManager is the field manager of what the plugin applies.
	pluginManager = "kubectl-vsecm"

	// firstVersion is older than any object: applied with it, an object is created where there is
	// none, and is a conflict where there is one.
	firstVersion = "1"
)

// apply has the cluster take an object, on condition that the one that stands there has its UID and resource version,
// and returns what stands there then. force takes it over from other field managers.
func (c *cluster) apply(ctx context.Context, object *v1alpha1.EncryptedSecret, force bool, dryRun []string) (*v1alpha1.EncryptedSecret, error) {
	path := c.objects(v1alpha1.ResourceEncryptedSecrets, object.Namespace, object.Name)
	query := url.Values{"fieldManager": {pluginManager}, "fieldValidation": {"Strict"}, "force": {strconv.FormatBool(force)}}
	for _, how := range dryRun {
		query.Set("dryRun", how)
	}
	path.RawQuery = query.Encode()
	metadata := map[string]any{"namespace": object.Namespace, "name": object.Name, "resourceVersion": object.ResourceVersion}
	if object.UID != "" {
		metadata["uid"] = object.UID
	}
	if len(object.Labels) > 0 {
		metadata["labels"] = object.Labels
	}
	if len(object.Annotations) > 0 {
		metadata["annotations"] = object.Annotations
	}
	body := map[string]any{"apiVersion": v1alpha1.APIVersion, "kind": v1alpha1.KindEncryptedSecret, "metadata": metadata, "spec": object.Spec}
	now := &v1alpha1.EncryptedSecret{}
	err := c.make(ctx, clusterCall{method: http.MethodPatch, path: path, body: body, media: mediaApply}, now)
	return now, err
}
