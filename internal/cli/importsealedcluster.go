package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/sealedsecrets"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// An unsealedSecret is a Kubernetes Secret, which sealed-secrets may have made. It holds plaintext.
type unsealedSecret struct {
	Metadata struct {
		Name              string                  `json:"name"`
		Namespace         string                  `json:"namespace"`
		Labels            map[string]string       `json:"labels"`
		Annotations       map[string]string       `json:"annotations"`
		OwnerReferences   []metav1.OwnerReference `json:"ownerReferences"`
		CreationTimestamp metav1.Time             `json:"creationTimestamp"`
	} `json:"metadata"`
	Type      string            `json:"type"`
	Immutable bool              `json:"immutable"`
	Data      map[string][]byte `json:"data"`
}

// errNoSealed: the controller has made nothing that is left.
var errNoSealed = errors.New("there is no Secret that sealed-secrets has made")

func (o *importSealedSecretsOptions) runFromCluster(ctx context.Context, p *project) error {
	namespaces := o.namespaces
	switch {
	case o.allNamespaces:
		namespaces = []string{""}
	case len(namespaces) == 0:
		namespace, err := o.conn.namespaceOrDefault("")
		if err != nil {
			return err
		}
		namespaces = []string{namespace}
	}
	cluster, err := o.conn.toCluster()
	if err != nil {
		return err
	}
	defer cluster.close()
	in := unsealedSecrets{ctx: ctx, cluster: cluster, namespaces: namespaces}
	i := &importing{importFlags: &o.importFlags, p: p, candidates: in.candidates, besides: in.besides}
	return i.run(ctx, "importing what sealed-secrets made in "+cluster.String())
}

// unsealedSecrets are the Secrets of a cluster that sealed-secrets has made.
type unsealedSecrets struct {
	ctx        context.Context // of the one run that they are read in
	cluster    *cluster
	namespaces []string // an empty one: all
}

// errTaken ends a list that nobody wants more of.
var errTaken = errors.New("nobody wants more")

func (u *unsealedSecrets) candidates(yield func(importCandidate, error) bool) {
	found := false
	for _, namespace := range u.namespaces {
		err := each(u.ctx, u.cluster, u.path(namespace), "", func(s *unsealedSecret) error {
			defer wipe(s.Data)
			if !s.made() {
				return nil
			}
			found = true
			if !yield(s.candidate(), nil) {
				return errTaken
			}
			return nil
		})
		switch {
		case errors.Is(err, errTaken):
			return
		case err != nil:
			yield(importCandidate{}, wordObjects(err, "reading Secrets", namespace))
			return
		}
	}
	if !found {
		where := "the cluster"
		if all := strings.Join(u.namespaces, ", "); all != "" {
			where = "namespace " + all
		}
		yield(importCandidate{}, withHint(fmt.Errorf("%w in %s", errNoSealed, where),
			"those that it makes name a SealedSecret as their owner; -n or -A look elsewhere, and 'import secret' takes those without one"))
	}
}

func (u *unsealedSecrets) path(namespace string) *url.URL {
	if namespace == "" {
		return u.cluster.base.JoinPath("api", "v1", "secrets")
	}
	return u.cluster.path(namespace, "secrets")
}

// made tells whether a Secret is sealed-secrets'.
func (s *unsealedSecret) made() bool {
	for _, owner := range s.Metadata.OwnerReferences {
		if owner.Kind == sealedsecrets.Kind && strings.HasPrefix(owner.APIVersion, sealedsecrets.Group+"/") {
			return true
		}
	}
	return false
}

// candidate takes the values over, which are the Secret's no more.
func (s *unsealedSecret) candidate() importCandidate {
	c := importCandidate{
		source: "Secret " + s.Metadata.Namespace + "/" + s.Metadata.Name, secret: s.Metadata.Name,
		object: newImported(s.Metadata.Namespace, s.Metadata.Name), created: s.Metadata.CreationTimestamp.Time,
	}
	if err := encrypt.ValidateSecretType(s.Type); err != nil {
		c.err = fmt.Errorf("type: %w", err)
		return c
	}
	if len(s.Data) == 0 {
		c.err = leftError{sealedsecrets.ErrEmpty.Error()}
		return c
	}
	annotations := make(map[string]string)
	for name, text := range s.Metadata.Annotations {
		if !sealedsecrets.OfTools(name) {
			annotations[name] = text
		}
	}
	c.deliverAs(v1alpha1.SecretDelivery{
		Type: s.Type, Immutable: s.Immutable, Metadata: v1alpha1.SecretMetadata{Labels: s.Metadata.Labels, Annotations: annotations},
	})
	c.values, s.Data = s.Data, nil
	return c
}

func (u *unsealedSecrets) besides(s *importSummary) []string {
	if s.Imported == 0 || s.DryRun {
		return nil
	}
	return append([]string{"values are what the controller made of them: templates and wide scopes are in the manifests alone, which --private-key opens"}, sealedAdoption(s)...)
}
