package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// lastAppliedAnnotation repeats a whole object. It is kubectl's, and nothing to edit.
const lastAppliedAnnotation = "kubectl.kubernetes.io/last-applied-configuration"

// openBySafe has Safe open manifests, if what it has is what they hold.
func (o *editOptions) openBySafe(ctx context.Context, manifests []encrypt.Manifest) (rs []revealed, err error) {
	finding, cancel, err := o.safe.conn.within(ctx, statusTimeout)
	if err != nil {
		return nil, err
	}
	defer cancel()
	if _, err := o.safe.conn.cluster(); errors.Is(err, errNoCluster) && o.safe.given() == "" {
		return nil, withHint(errors.New("no root key given, and no cluster to ask Safe in"),
			"name the key's file with --root-key, its shares with --share, another recipient's identity with -i, or Safe with --safe")
	}
	all, err := o.safe.open(finding, adminAccount)
	if err != nil {
		return nil, err
	}
	defer all.close()
	reveal := revealOptions{streams: o.streams, safe: o.safe}
	for _, m := range manifests {
		at := place{m.Object.Namespace, m.Object.Name}
		r, err := reveal.ask(ctx, all, at)
		if refusedAs(err) == problem.NotFound && o.ofFile() {
			return rs, withHint(err, "Safe opens what it serves: push or apply %s first, or open it with --root-key", m.File)
		}
		if err != nil {
			return rs, err
		}
		r.manifest = m
		rs = append(rs, r)
		if err := o.isOf(r); err != nil {
			return rs, err
		}
	}
	return rs, nil
}

// isOf tells whether the values that Safe has opened are those that a manifest holds, and may: it may serve an older
// version of an object, or a newer one, and somebody may have put its values below other readers or another delivery,
// which nobody is to seal them for by editing something else.
func (o *editOptions) isOf(r revealed) error {
	object := r.manifest.Object
	at := place{object.Namespace, object.Name}
	bound := encrypt.BindingOf(object, "")
	for _, key := range sortedKeys(object.Spec.EncryptedData) {
		bound.Key = key
		info, err := encrypt.Inspect(object.Spec.EncryptedData[key])
		if err == nil {
			err = info.Check(bound, o.now())
		}
		if err != nil {
			return withHint(r.manifest.Fault(encrypt.DataField(key), err), "have the manifest say what the value was sealed for; then what is changed by 'edit' is sealed anew")
		}
	}
	if len(r.sealed) == 0 && len(r.data) > 0 {
		return withHint(fmt.Errorf("%s: this Safe does not say which values it has opened", at), "it is older than this plugin: upgrade it, or open the manifest with --root-key")
	}
	want := make(map[string]string, len(object.Spec.EncryptedData))
	for key, sealed := range object.Spec.EncryptedData {
		sum := sha256.Sum256([]byte(sealed))
		want[key] = hex.EncodeToString(sum[:])
	}
	if maps.Equal(want, r.sealed) {
		return nil
	}
	if o.ofFile() {
		return withHint(fmt.Errorf("%s: Safe has other values of %s than this file", r.manifest.File, at),
			"pull or push, and wait until Safe has what is in the file; or open the file with --root-key")
	}
	return withHint(fmt.Errorf("%s: Safe has opened other values than the cluster has of it now", at), "it may be about to take them up: try again; 'kubectl vsecm list' tells how it fares")
}

// inCluster edits an object in the cluster.
func (o *editOptions) inCluster(ctx context.Context, p *project) error {
	namespace, err := o.safe.conn.namespaceOrDefault(o.manifest.namespace)
	if err != nil {
		return err
	}
	c, err := o.safe.conn.toCluster()
	if errors.Is(err, errNoCluster) {
		return withHint(fmt.Errorf("there is no file %s, and no cluster to look for an object of that name in", o.what), "name a file, or a kubeconfig with --kubeconfig or in $KUBECONFIG")
	}
	if err != nil {
		return err
	}
	defer c.close()
	at := place{namespace, o.what}
	s := o.session(at.String())
	if err := s.editor.check(); err != nil {
		return err
	}
	is, err := o.standing(ctx, c, at)
	if err != nil {
		return err
	}
	opened, err := o.open(ctx, []encrypt.Manifest{{Object: is}})
	defer opened.wipe()
	if err != nil {
		return err
	}
	e, err := o.editing(p, p.rule(o.what+".yaml"), "in the cluster", opened.rs[0], opened.own)
	if err != nil {
		return err
	}
	applied, repeats := e.plain.Object.Annotations[lastAppliedAnnotation]
	delete(e.plain.Object.Annotations, lastAppliedAnnotation)
	s.all = append(s.all, e)
	if err := s.run(); err != nil {
		return err
	}
	if repeats {
		if e.result.Annotations == nil {
			e.result.Annotations = make(map[string]string)
		}
		e.result.Annotations[lastAppliedAnnotation] = applied
	}
	if err := o.change(ctx, c, e); err != nil {
		return o.keep(err, s.all)
	}
	fmt.Fprintf(o.streams.Out, "%s edited (%s)\n", shownName(o.what), e.said())
	return nil
}

// standing reads an object, and tells whether it may be edited in the cluster.
func (o *editOptions) standing(ctx context.Context, c *cluster, at place) (*v1alpha1.EncryptedSecret, error) {
	ctx, cancel, err := o.safe.conn.within(ctx, clusterTimeout)
	if err != nil {
		return nil, err
	}
	defer cancel()
	is, err := c.secret(ctx, at.namespace, at.name)
	switch {
	case codeOf(err) == http.StatusNotFound:
		return nil, withHint(notThere(err, v1alpha1.KindEncryptedSecret, at.namespace, at.name), "there is no file %s either; 'kubectl vsecm list' shows what there is", at.name)
	case err != nil:
		return nil, notThere(err, v1alpha1.KindEncryptedSecret, at.namespace, at.name)
	case sourceName(is.Labels) != "":
		return nil, ofSource(is, "edit")
	}
	return is, nil
}

// change has the cluster take an edited object, on condition that it is still the one that was opened. Only what was
// edited is said, so that fields stay their managers'.
func (o *editOptions) change(ctx context.Context, c *cluster, e *editing) error {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value,omitempty"`
	}
	operations := []operation{
		{"replace", "/metadata/resourceVersion", e.was.ResourceVersion},
		{"replace", "/spec", e.result.Spec},
	}
	for _, part := range []struct {
		path    string
		was, is map[string]string
	}{{"/metadata/labels", e.was.Labels, e.result.Labels}, {"/metadata/annotations", e.was.Annotations, e.result.Annotations}} {
		switch {
		case maps.Equal(part.was, part.is):
		case len(part.is) == 0:
			operations = append(operations, operation{Op: "remove", Path: part.path})
		default:
			operations = append(operations, operation{"add", part.path, part.is})
		}
	}
	ctx, cancel, err := o.safe.conn.within(ctx, clusterTimeout)
	if err != nil {
		return err
	}
	defer cancel()
	path := c.objects(v1alpha1.ResourceEncryptedSecrets, e.was.Namespace, e.was.Name)
	path.RawQuery = url.Values{"fieldManager": {pluginManager}, "fieldValidation": {"Strict"}}.Encode()
	var now struct{}
	err = c.make(ctx, clusterCall{method: http.MethodPatch, path: path, body: operations, media: "application/json-patch+json"}, &now)
	switch codeOf(err) {
	case http.StatusConflict:
		return fmt.Errorf("changing %s: it has changed meanwhile, and is left as it is", e.place())
	case http.StatusNotFound:
		return fmt.Errorf("changing %s: it was deleted meanwhile", e.place())
	}
	return wordObjects(err, "changing "+e.place().String(), e.was.Namespace)
}
