package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// fromSafe has Safe open what was asked for. Of everything there is, left is what cannot be shown, and why.
func (o revealOptions) fromSafe(ctx context.Context) (rs []revealed, left []error, err error) {
	places, err := o.asked(ctx)
	if err != nil {
		return nil, nil, err
	}
	finding, cancel, err := o.safe.conn.within(ctx, statusTimeout)
	if err != nil {
		return nil, nil, err
	}
	defer cancel()
	all, err := o.safe.open(finding, adminAccount)
	if err != nil {
		return nil, nil, err
	}
	defer all.close()
	if len(places) > 1 {
		defer tellWaiting(o.streams, fmt.Sprintf("asking Safe for %d secrets", len(places)))()
	}
	var errs []error
	for _, at := range places {
		r, err := o.ask(ctx, all, at)
		if err == nil && o.key != "" {
			if _, has := r.data[o.key]; !has {
				wipe(r.data)
				err = fmt.Errorf("%s %w %s", at, errNoSuchKey, o.key)
			}
		}
		switch {
		case err == nil:
			rs = append(rs, r)
		case o.everything() && ofOneSecret(err):
			left = append(left, err)
		case len(o.names) > 1 && ofOneSecret(err):
			errs = append(errs, err) // each name that is wrong is told
		default:
			return rs, nil, err
		}
	}
	if len(rs) == 0 && len(left) > 0 {
		errs = left[:min(len(left), maxTold)]
	}
	return rs, left, errors.Join(errs...)
}

// asked returns the places of the secrets that were asked for.
func (o revealOptions) asked(ctx context.Context) ([]place, error) {
	namespace := o.namespace
	if namespace == "" && !o.allNamespaces {
		var err error
		if namespace, err = o.safe.conn.namespace(); err != nil {
			return nil, err
		}
		if err := encrypt.ValidateNamespace(namespace); err != nil {
			return nil, fmt.Errorf("--namespace: %w", err)
		}
	}
	var asked []place
	for _, name := range o.names {
		asked = append(asked, place{namespace, name})
	}
	if len(o.names) > 0 {
		return asked, nil
	}
	cluster, err := o.safe.conn.toCluster()
	if err != nil {
		return nil, err
	}
	defer cluster.close()
	err = each(ctx, cluster, cluster.objects(v1alpha1.ResourceEncryptedSecrets, namespace), "", func(item *listedSecret) error {
		_, has := item.Spec.EncryptedData[o.key]
		if o.key == "" || has {
			asked = append(asked, place{item.Metadata.Namespace, item.Metadata.Name})
		}
		return nil
	})
	kinds := v1alpha1.KindEncryptedSecret + "s"
	switch {
	case err != nil:
		return nil, wordObjects(missingKind(err, kinds), "listing "+kinds, namespace)
	case len(asked) == 0:
		return nil, errors.New("there is nothing in the cluster that was asked for")
	}
	return asked, nil
}

// A place is that of an EncryptedSecret.
type place struct{ namespace, name string }

func (p place) String() string { return p.namespace + "/" + p.name }

var errNoSuchKey = errors.New("has no key")

// ofOneSecret tells whether an error is about one secret alone, and another may yet be shown.
func ofOneSecret(err error) bool {
	switch refusedAs(err) {
	case problem.NotFound, problem.Unreadable, problem.Forbidden:
		return true
	}
	return errors.Is(err, errNoSuchKey)
}

// ask asks one replica after the other, until one has an answer: any of them serves.
func (o revealOptions) ask(ctx context.Context, all *safes, p place) (revealed, error) {
	body, err := json.Marshal(map[string]string{"namespace": p.namespace, "name": p.name})
	if err != nil {
		return revealed{}, err
	}
	ctx, cancel, err := o.safe.conn.within(ctx, statusTimeout)
	if err != nil {
		return revealed{}, err
	}
	defer cancel()
	var errs []error
	for i, r := range all.replicas {
		text, err := askInTurn(ctx, r, len(all.replicas)-i, body)
		if err == nil {
			defer clear(text)
			return o.take(r, text, p)
		}
		errs = append(errs, o.advise(err, r, p))
		if !anotherMayDo(err) || ctx.Err() != nil {
			break
		}
	}
	all.adviseTokens(errs)
	return revealed{}, errors.Join(errs...)
}

// connectWait is how long a replica may take to be connected to while there is another to ask.
const connectWait = 5 * time.Second

// askInTurn asks a replica, the first of those that are left, in its share of the time: one that
// hangs leaves the others theirs.
func askInTurn(ctx context.Context, r *replica, left int, body []byte) ([]byte, error) {
	if deadline, has := ctx.Deadline(); has && left > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
		r.patience = connectWait
	}
	return r.act(ctx, http.MethodPost, "/v1/reveal", body, "application/json")
}

func anotherMayDo(err error) bool {
	switch refusedAs(err) {
	case problem.Sealed, problem.Unavailable, problem.Timeout, problem.Internal:
		return true
	}
	return errors.Is(err, errUnreachable) || errors.Is(err, errForAnother)
}

func (o revealOptions) advise(err error, r *replica, p place) error {
	if r.remote && refusedAs(err) == problem.Forbidden {
		return withHint(err, "ask for a binding of service account %s/%s to ClusterRole vsecm-reveal in namespace %s, or name your team's account with --service-account",
			r.source.namespace, r.source.account, p.namespace)
	}
	return err
}

func (o revealOptions) take(r *replica, text []byte, p place) (revealed, error) {
	var answer struct {
		Namespace string            `json:"namespace"`
		Name      string            `json:"name"`
		Type      string            `json:"type"`
		Data      map[string][]byte `json:"data"`
		Sealed    map[string]string `json:"sealed"`
	}
	if err := decode(r, text, &answer); err != nil {
		return revealed{}, err
	}
	if answer.Namespace != p.namespace || answer.Name != p.name {
		wipe(answer.Data)
		return revealed{}, fmt.Errorf("%s: its answer is for another secret", r.name)
	}
	object := &v1alpha1.EncryptedSecret{ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: p.name}}
	if answer.Type != "" {
		object.Spec.Secret = &v1alpha1.SecretDelivery{Type: answer.Type}
	}
	return revealed{manifest: encrypt.Manifest{Object: object}, data: answer.Data, sealed: answer.Sealed}, nil
}
