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

// runOnline has Safe open one secret.
func (o revealOptions) runOnline(ctx context.Context) error {
	if err := encrypt.ValidateName(o.name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	namespace := o.namespace
	if namespace == "" {
		var err error
		if namespace, err = o.safe.conn.namespace(); err != nil {
			return err
		}
	}
	if err := encrypt.ValidateNamespace(namespace); err != nil {
		return fmt.Errorf("--namespace: %w", err)
	}
	ctx, cancel, err := o.safe.conn.within(ctx, statusTimeout)
	if err != nil {
		return err
	}
	defer cancel()
	all, err := o.safe.open(ctx, adminAccount)
	if err != nil {
		return err
	}
	defer all.close()
	r, err := o.ask(ctx, all, namespace)
	if err != nil {
		return err
	}
	defer wipe(r.data)
	if o.key != "" {
		if _, has := r.data[o.key]; !has {
			return fmt.Errorf("%s/%s has no key %s", namespace, o.name, o.key)
		}
	}
	return o.print([]revealed{r})
}

// ask asks one replica after the other, until one has an answer: any of them serves.
func (o revealOptions) ask(ctx context.Context, all *safes, namespace string) (revealed, error) {
	body, err := json.Marshal(map[string]string{"namespace": namespace, "name": o.name})
	if err != nil {
		return revealed{}, err
	}
	var errs []error
	for i, r := range all.replicas {
		text, err := askInTurn(ctx, r, len(all.replicas)-i, body)
		if err == nil {
			defer clear(text)
			return o.take(r, text, namespace)
		}
		errs = append(errs, o.advise(err, r, namespace))
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

func (o revealOptions) advise(err error, r *replica, namespace string) error {
	if r.remote && refusedAs(err) == problem.Forbidden {
		return withHint(err, "ask for a binding of service account %s/%s to ClusterRole vsecm-reveal in namespace %s, or name your team's account with --service-account",
			r.source.namespace, r.source.account, namespace)
	}
	return err
}

func (o revealOptions) take(r *replica, text []byte, namespace string) (revealed, error) {
	var answer struct {
		Namespace string            `json:"namespace"`
		Name      string            `json:"name"`
		Type      string            `json:"type"`
		Data      map[string][]byte `json:"data"`
	}
	if err := decode(r, text, &answer); err != nil {
		return revealed{}, err
	}
	if answer.Namespace != namespace || answer.Name != o.name {
		wipe(answer.Data)
		return revealed{}, fmt.Errorf("%s: its answer is for another secret", r.name)
	}
	object := &v1alpha1.EncryptedSecret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: o.name}}
	if answer.Type != "" {
		object.Spec.Secret = &v1alpha1.SecretDelivery{Type: answer.Type}
	}
	return revealed{manifest: encrypt.Manifest{Object: object}, data: answer.Data}, nil
}
