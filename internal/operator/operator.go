// Package operator lets the cluster decide who operates Safe: a caller's token is
// judged by TokenReview, and what they may do by SubjectAccessReview.
//
// The questions are asked as Kubernetes' own components ask them, over Safe's REST
// clients rather than k8s.io/apiserver, which would double Safe's size. Nothing is
// remembered here; the API server itself remembers for ten seconds whose a token is.
//
// # What is asked for
//
// RBAC grants verbs on resources that exist in no API:
//
//	safes.vsecm.com             in Safe's namespace, name vsecm-safe: get, unseal, seal, sync, override, …
//	encryptedsecrets.vsecm.com  in the object's namespace, by its name: reveal
package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/publication"
)

var (
	// ErrUnauthenticated says that a token proves nothing to this Safe.
	ErrUnauthenticated = errors.New("the token is not valid here")
	// ErrBusy says that too many tokens are being judged. It is worth trying again.
	ErrBusy = errors.New("too many tokens are being judged")
	// ErrUnavailable says that the Kubernetes API gave no answer. Its text is for Safe's
	// log.
	ErrUnavailable = errors.New("the Kubernetes API does not answer")
)

// The resources of [Attributes].
const (
	Safes            = "safes"
	EncryptedSecrets = "encryptedsecrets"
)

// reviewTimeout bounds one question to the API server.
const reviewTimeout = 5 * time.Second

const (
	credentialIDKey = "authentication.kubernetes.io/credential-id"
	anonymousUser   = "system:anonymous"
)

// An Operator is who showed a token, as the API server knows them.
type Operator struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string
	// CredentialID is the token's, as "JTI=" and a UUID; empty where the API server tells
	// none.
	CredentialID string

	from string // where they connect from
}

// Attributes are something that an operator wants to do.
type Attributes struct {
	Verb     string
	Resource string // [Safes] or [EncryptedSecrets]
	// Namespace and Name of the object. Of [Safes] there is one: both are left empty.
	Namespace string
	Name      string
}

// A Reviewer asks the API server. It is safe for concurrent use.
type Reviewer struct {
	client    *kube.Client
	namespace string
	shares    *shares
	timeout   time.Duration
	now       func() time.Time
}

// New returns a reviewer for the Safe of a namespace. client's own rate limit
// should not be below 20 requests a second, or callers wait for it.
func New(client *kube.Client, namespace string) *Reviewer {
	return &Reviewer{
		client: client, namespace: namespace,
		shares: newShares(), timeout: reviewTimeout, now: time.Now,
	}
}

// Authenticate returns whose token it is, if it was issued for audience. from is where it
// comes from, as package attempts tells. Errors: [ErrUnauthenticated], [ErrBusy],
// [ErrUnavailable]; none quotes the token.
func (r *Reviewer) Authenticate(ctx context.Context, token, audience, from string) (Operator, error) {
	// Without an audience the API server would judge for its own.
	if audience == "" || !mayBeFor(audience, token, r.now()) {
		return Operator{}, ErrUnauthenticated
	}
	if err := r.shares.review(from, token, r.now()); err != nil {
		return Operator{}, err
	}
	o, err := r.reviewToken(ctx, token, audience)
	switch {
	case err == nil:
		r.shares.good(token, r.now())
		o.from = from
	case errors.Is(err, ErrUnauthenticated):
		r.shares.refuse(from, r.now())
	}
	return o, err
}

// reviewToken asks the API server about a token.
func (r *Reviewer) reviewToken(ctx context.Context, token, audience string) (Operator, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	var review authenticationv1.TokenReview
	err := r.client.Authentication.Post().Resource("tokenreviews").Body(&authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{audience}},
	}).Do(ctx).Into(&review)
	if err != nil {
		return Operator{}, fmt.Errorf("%w: reviewing a token: %w", ErrUnavailable, kube.Plain(err))
	}
	// An authenticator that knows no audiences returns none, and may have accepted a
	// token that was meant for somebody else.
	status := review.Status
	if !status.Authenticated || !slices.Contains(status.Audiences, audience) {
		return Operator{}, ErrUnauthenticated
	}
	if status.User.Username == "" || status.User.Username == anonymousUser {
		return Operator{}, ErrUnauthenticated
	}
	return operatorOf(status.User), nil
}

func operatorOf(u authenticationv1.UserInfo) Operator {
	o := Operator{Name: u.Username, UID: u.UID, Groups: u.Groups, Extra: make(map[string][]string, len(u.Extra))}
	for key, values := range u.Extra {
		o.Extra[key] = values
	}
	if ids := o.Extra[credentialIDKey]; len(ids) > 0 {
		o.CredentialID = ids[0]
	}
	return o
}

// Authorize tells whether o may do something. Errors: [ErrUnavailable], and [ErrBusy] for
// one who was told too often that they may not.
func (r *Reviewer) Authorize(ctx context.Context, o Operator, a Attributes) (bool, error) {
	if !r.shares.mayAsk(o, r.now()) {
		return false, errDenied
	}
	allowed, err := r.reviewAccess(ctx, o, a)
	if err == nil && !allowed {
		r.shares.deny(o, r.now())
	}
	return allowed, err
}

// reviewAccess asks the API server whether o may do something.
func (r *Reviewer) reviewAccess(ctx context.Context, o Operator, a Attributes) (bool, error) {
	if a.Resource == Safes {
		a.Namespace, a.Name = r.namespace, publication.Name
	}
	extra := make(map[string]authorizationv1.ExtraValue, len(o.Extra))
	for key, values := range o.Extra {
		extra[key] = values
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	var review authorizationv1.SubjectAccessReview
	err := r.client.Authorization.Post().Resource("subjectaccessreviews").Body(&authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: o.Name, UID: o.UID, Groups: o.Groups, Extra: extra,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Group: v1alpha1.Group, Version: v1alpha1.GroupVersion.Version,
				Resource: a.Resource, Verb: a.Verb, Namespace: a.Namespace, Name: a.Name,
			},
		},
	}).Do(ctx).Into(&review)
	if err != nil {
		return false, fmt.Errorf("%w: reviewing access: %w", ErrUnavailable, kube.Plain(err))
	}
	return review.Status.Allowed && !review.Status.Denied, nil
}
