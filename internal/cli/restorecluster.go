package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A clusterDestination is the cluster of the kubeconfig, in the person's own name.
type clusterDestination struct {
	o       *restoreOptions
	p       *project
	cluster *cluster

	mu      sync.Mutex
	resolve func(encrypt.Rule) ([]encrypt.Recipient, error)
}

func newClusterDestination(o *restoreOptions, p *project) (*clusterDestination, error) {
	cluster, err := o.conn.toCluster()
	if err != nil {
		return nil, err
	}
	return &clusterDestination{o: o, p: p, cluster: cluster, resolve: o.recipients.once(p)}, nil
}

func (c *clusterDestination) close() { c.cluster.close() }

// Each is a call or two, which are mostly waited for.
func (*clusterDestination) width() int { return 8 }

// begin sees that the cluster knows the kind, has the namespaces, and has a Safe that opens what is to be applied.
func (c *clusterDestination) begin(ctx context.Context, places []place) error {
	ctx, cancel, err := c.o.conn.within(ctx, clusterTimeout)
	if err != nil {
		return err
	}
	defer cancel()
	var missing []string
	for i, at := range places {
		if i > 0 && places[i-1].namespace == at.namespace {
			continue // they are sorted
		}
		var answer struct{}
		err := c.cluster.call(ctx, http.MethodGet, c.cluster.path(at.namespace), nil, &answer)
		switch {
		case codeOf(err) == http.StatusNotFound:
			missing = append(missing, at.namespace)
		case err != nil && codeOf(err) != http.StatusForbidden: // who may not look may be allowed to apply
			return wordObjects(err, "looking for namespace "+at.namespace, "")
		}
	}
	if len(missing) > 0 {
		return withHint(fmt.Errorf("%s has not all of the namespaces: %s", c.cluster, someOf(missing)),
			"make them first, with what else belongs to them, or choose others with -n: kubectl create namespace %s", missing[0])
	}
	if len(places) > 0 {
		kinds := v1alpha1.KindEncryptedSecret + "s"
		_, err := c.cluster.names(ctx, c.cluster.objects(v1alpha1.ResourceEncryptedSecrets, places[0].namespace))
		if err := missingKind(err, kinds); codeOf(err) != http.StatusForbidden && err != nil {
			return wordObjects(err, "listing "+kinds, places[0].namespace)
		}
	}
	return c.checkRecipients(ctx, places)
}

// checkRecipients resolves whom to seal to before anything is applied. A project file may be another cluster's, and
// what is sealed for that is lost on this one.
func (c *clusterDestination) checkRecipients(ctx context.Context, places []place) error {
	own := ""
	if published, err := c.cluster.publication(ctx, string(c.o.recipients.namespace)); err == nil {
		own = published.KeyID
	}
	for _, at := range places {
		recipients, err := c.recipients(at)
		if err != nil {
			return err
		}
		opens := false
		for _, r := range recipients {
			opens = opens || string(r.KeyID()) == own
		}
		if own != "" && !opens && !c.o.recipients.flagged() {
			by := encrypt.ProjectFile
			if c.o.recipients.explicit() {
				by = "$" + recipientsVariable // which may have been set for another cluster, long ago
			}
			return withHint(fmt.Errorf("the Safe of %s could not open %s: its key %s is not among those that %s names", c.cluster, at, own, by),
				"is this the right cluster? See --context; if it is, name its key with --recipient: 'kubectl vsecm recipient' prints it")
		}
	}
	return nil
}

// recipients finds them by the rule of the path that 'register' takes.
func (c *clusterDestination) recipients(at place) ([]encrypt.Recipient, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resolve(c.p.rule(at.name + ".yaml"))
}

func (c *clusterDestination) standing(ctx context.Context, at place) (is standing, left string, err error) {
	ctx, cancel, err := c.o.conn.within(ctx, clusterTimeout)
	if err != nil {
		return is, "", err
	}
	defer cancel()
	object, err := c.cluster.secret(ctx, at.namespace, at.name)
	switch {
	case codeOf(err) == http.StatusNotFound:
		return is, "", nil
	case err != nil:
		return is, "", c.word(err, "reading "+at.String(), at.namespace)
	case sourceName(object.Labels) != "":
		file := object.Annotations[v1alpha1.AnnotationPath]
		if file != "" {
			file = ", " + file
		}
		return is, fmt.Sprintf("it comes from git source %s%s, which would put it back: restore it there, with --to-dir, and push", sourceName(object.Labels), file), nil
	}
	is.object = object
	return is, "", nil
}

// word words what the API server refused. What it says of one object, or one namespace, says nothing of others.
func (c *clusterDestination) word(err error, doing, namespace string) error {
	said := wordObjects(err, doing, namespace)
	switch codeOf(err) {
	case http.StatusForbidden, http.StatusNotFound, http.StatusConflict, http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge:
		return failedError{said}
	}
	return said
}

func (c *clusterDestination) put(ctx context.Context, is standing, d *draft) (left string, err error) {
	all, err := d.whole()
	if err != nil {
		return "", failedError{err}
	}
	object := *d.object
	object.Spec.EncryptedData = all
	object.ResourceVersion = firstVersion
	if is.object != nil {
		object.UID, object.ResourceVersion = is.object.UID, is.object.ResourceVersion
	}
	ctx, cancel, err := c.o.conn.within(ctx, clusterTimeout)
	if err != nil {
		return "", err
	}
	defer cancel()
	var dryRun []string
	if c.o.dryRun {
		dryRun = dryRunServer.ask()
	}
	_, err = c.cluster.apply(ctx, &object, c.o.overwrite, dryRun)
	var refused *clusterError
	at := place{object.Namespace, object.Name}
	switch {
	case err == nil:
		return "", nil
	case errors.As(err, &refused) && refused.managers:
		return "somebody applied it by other means, and may again (--overwrite takes it over): " + strings.TrimSpace(refused.said), nil
	case codeOf(err) == http.StatusConflict:
		return "", failedError{withHint(fmt.Errorf("applying %s: it has changed meanwhile, and is left as it is", at), "do it again")}
	}
	return "", c.word(err, "applying "+at.String(), at.namespace)
}
