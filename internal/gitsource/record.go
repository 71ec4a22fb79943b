package gitsource

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

const (
	// patience is how long one request to the API server may take.
	patience = 10 * time.Second
	// maxRequest bounds what is repeated of the annotation that asks for a round.
	maxRequest = 1024
)

// errReplaced says that a GitSource is gone, or that another one has taken its place.
var errReplaced = errors.New("the GitSource was deleted, or replaced by another of its name")

// A record is the status of one GitSource, and by that the journal of its source. There is one status and
// one who writes it, as a whole: so what applies commits and what judges them do not erase one
// another's part.
type record struct {
	client *kube.Client
	key    store.Key
	uid    types.UID
	// lease ends when another replica may lead: from then on nothing is written.
	lease context.Context
	// held is [Config.Held].
	held func(context.Context) error

	mu     sync.Mutex
	status v1alpha1.GitSourceStatus
	// written is the status as the API server has it, encoded; nil if that is not known.
	written []byte
	// stands is the revision in the status that the API server has, as far as is known.
	stands string
}

var _ reconcile.Journal = (*record)(nil)

// openRecord asks the API server, and no cache, for the status: what is older than the last leader's last word could
// let a branch go back to where it was before.
func openRecord(ctx context.Context, client *kube.Client, key store.Key) (*record, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := readSource(ctx, client, key)
	if err != nil {
		return nil, err
	}
	now := &record{client: client, key: key, uid: r.UID, status: r.status, stands: r.status.Revision}
	if now.written, err = json.Marshal(&now.status); err != nil {
		return nil, err
	}
	return now, nil
}

// readSource asks the API server for a GitSource.
func readSource(ctx context.Context, client *kube.Client, key store.Key) (*received, error) {
	data, err := answerOf(client.VSecM.Get().Namespace(key.Namespace).Resource(v1alpha1.ResourceGitSources).Name(key.Name).Do(ctx))
	if apierrors.IsNotFound(err) {
		return nil, errReplaced
	} else if err != nil {
		return nil, fmt.Errorf("reading GitSource %s: %w", key, kube.Plain(err))
	}
	r := &received{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("reading GitSource %s: %w", key, err)
	}
	return r, nil
}

// Load implements [reconcile.Journal].
func (r *record) Load(context.Context, string) (store.SourceState, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	state := store.SourceState{Revision: r.status.Revision, Begun: r.status.BegunRevision}
	if r.status.AppliedAt != nil {
		state.AppliedAt = r.status.AppliedAt.UTC()
	}
	if d := r.status.Deletions; d != nil {
		state.Deletions = store.Deletions{Since: d.Since.UTC(), Owned: int(d.Owned), Deleted: int(d.Deleted), Waiting: d.Waiting}
	}
	if v := r.status.Verification; v != nil {
		state.Verified = store.Verified{Mode: v.Mode, Revision: v.Revision, Signer: v.Signer, Since: v.Since, Pinned: v.Pinned}
	}
	return state, nil
}

// Save implements [reconcile.Journal]. When it fails, whether the API server has it is not known; the next write
// says what stands.
func (r *record) Save(ctx context.Context, _ string, state store.SourceState) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.status
	r.status.Revision, r.status.AppliedAt, r.status.BegunRevision = state.Revision, timeOf(state.AppliedAt), state.Begun
	r.status.Deletions, r.status.Verification = nil, nil
	if d := state.Deletions; d != (store.Deletions{}) {
		r.status.Deletions = &v1alpha1.GitDeletions{
			Since: metav1.NewTime(d.Since.UTC()), Owned: int64(d.Owned), Deleted: int64(d.Deleted), Waiting: d.Waiting,
		}
	}
	if v := state.Verified; v != (store.Verified{}) {
		r.status.Verification = &v1alpha1.GitVerified{Mode: v.Mode, Revision: v.Revision, Signer: cut(v.Signer, maxText), Since: v.Since, Pinned: v.Pinned}
	}
	if err := r.write(ctx); err != nil {
		r.status = before
		return fmt.Errorf("recording the revision: %w", err)
	}
	return nil
}

func timeOf(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	m := metav1.NewTime(t.UTC())
	return &m
}

// change changes the status, and writes it if it is another then. What could not be written is by the next call. The record
// of what was applied is not for change to touch.
func (r *record) change(ctx context.Context, change func(*v1alpha1.GitSourceStatus)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.status)
	return r.write(ctx)
}

// handled returns the request for a round that was followed last.
func (r *record) handled() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status.LastHandledSyncRequest
}

// write brings the API server up to date. r.mu is held.
//
// It writes on condition that the GitSource is the same, and that the revision is the one which was read or written here
// last: what a leader sent that has lost the Lease may arrive late, and must not take the next
// one's record back. Where another revision stands, it is written once the API server says that this replica leads still. That is what a JSON patch can demand; of a status that is applied or merged, the API server
// overlooks the UID, and a resource version would change with the spec.
func (r *record) write(ctx context.Context) error {
	status, err := json.Marshal(&r.status)
	if err != nil {
		return err
	}
	if bytes.Equal(status, r.written) {
		return nil
	}
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	patch := []operation{{"test", "/metadata/uid", r.uid}}
	if r.stands != "" {
		patch = append(patch, operation{"test", "/status/revision", r.stands})
	}
	body, err := json.Marshal(append(patch, operation{"add", "/status", json.RawMessage(status)}))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer context.AfterFunc(r.lease, cancel)()
	if err := errors.Join(r.lease.Err(), ctx.Err()); err != nil {
		return err
	}
	r.written = nil
	_, err = answerOf(r.client.VSecM.Patch(types.JSONPatchType).Namespace(r.key.Namespace).Resource(v1alpha1.ResourceGitSources).
		Name(r.key.Name).SubResource("status").
		VersionedParams(&metav1.PatchOptions{FieldManager: kubestore.StatusManager}, kube.ParameterCodec).Body(body).Do(ctx))
	switch {
	case apierrors.IsNotFound(err):
		return errReplaced
	case apierrors.IsInvalid(err):
		return r.refused(ctx, err)
	case err != nil:
		return fmt.Errorf("writing the status of GitSource %s: %w", r.key, kube.Plain(err))
	}
	r.written, r.stands = status, r.status.Revision
	return nil
}

// errOvertaken says that somebody else has written the revision.
var errOvertaken = errors.New("somebody else has changed the record in the status of the GitSource: it is written again if this replica still leads")

// refused finds out why a write was not done. r.mu is held.
func (r *record) refused(ctx context.Context, err error) error {
	now, readErr := readSource(ctx, r.client, r.key)
	switch {
	case readErr != nil:
		return readErr
	case now.UID != r.uid:
		return errReplaced
	case now.status.Revision != r.stands:
		if r.held != nil {
			// After it was read: what a newer leader records is another revision once more, or was not recorded before.
			if err := r.held(ctx); err != nil {
				return fmt.Errorf("%w: %w", errOvertaken, err)
			}
		}
		r.stands = now.status.Revision
		return errOvertaken
	}
	return fmt.Errorf("writing the status of GitSource %s: %w", r.key, kube.Plain(err))
}
