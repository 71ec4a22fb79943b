package gitsource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

const (
	// headsAtOnce is how many repositories [Controller.ReadHeads] reads at a time: one that does not answer is
	// not to hold up all others, and what is read is in memory.
	headsAtOnce = 4
	// sourcesPage is how many GitSources are asked for at once.
	sourcesPage = 500
)

// errTakenUp says that a GitSource is not followed as it now is.
var errTakenUp = &notRunningError{"it was just created or changed, which is being taken up: try again"}

// ReadHeads fetches every GitSource that there is, and has visit see the manifests there ([reconcile.Source.ReadHead]).
// visit is called by several goroutines. There is a [reconcile.Head] for each GitSource, by namespace and name; that of
// one that cannot be read, be it suspended or at fault, says why.
//
// Which GitSources there are the API server is asked, and no cache: the last one to be created must not be missed.
// Errors, beside those of asking and ctx's: [ErrNotLeading], also where another replica came to lead meanwhile.
func (c *Controller) ReadHeads(ctx context.Context, visit func(source string, m encrypt.Manifest)) ([]reconcile.Head, error) {
	t := c.currentTerm()
	if t == nil {
		return nil, ErrNotLeading
	}
	listed, err := c.listSources(ctx)
	if err != nil {
		return nil, err
	}
	heads := make([]reconcile.Head, len(listed))
	var group errgroup.Group
	group.SetLimit(headsAtOnce)
	for i := range listed {
		group.Go(func() error {
			heads[i] = c.readHead(ctx, t, &listed[i], visit)
			return nil
		})
	}
	_ = group.Wait() // every head has its own error
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// Reading takes minutes. What was created or changed meanwhile was not read.
	if heads, err = c.unreadSince(ctx, listed, heads); err != nil {
		return nil, err
	}
	if c.currentTerm() != t {
		return nil, ErrNotLeading
	}
	return heads, nil
}

// unreadSince adds to the heads those of GitSources that are not the ones that were listed.
func (c *Controller) unreadSince(ctx context.Context, listed []metav1.PartialObjectMetadata, heads []reconcile.Head) ([]reconcile.Head, error) {
	now, err := c.listSources(ctx)
	if err != nil {
		return nil, err
	}
	read := make(map[store.Key]int, len(listed))
	for i, l := range listed {
		read[store.Key{Namespace: l.Namespace, Name: l.Name}] = i
	}
	for _, n := range now {
		key := store.Key{Namespace: n.Namespace, Name: n.Name}
		i, known := read[key]
		switch {
		case !known:
			heads = append(heads, reconcile.Head{Source: ownerOf(key), Err: errTakenUp})
		case listed[i].UID != n.UID || listed[i].Generation != n.Generation:
			heads[i].Err = errTakenUp
		}
	}
	return heads, nil
}

func (c *Controller) currentTerm() *term {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.term != nil && c.term.ctx.Err() != nil {
		return nil
	}
	return c.term
}

// listSources returns the GitSources that there are at this moment, by namespace and name.
func (c *Controller) listSources(ctx context.Context) ([]metav1.PartialObjectMetadata, error) {
	var all []metav1.PartialObjectMetadata
	for next := ""; ; {
		list, err := c.listPage(ctx, next)
		if err != nil {
			return nil, fmt.Errorf("listing the GitSources: %w", kube.Plain(err))
		}
		all = append(all, list.Items...)
		if next = list.Continue; next == "" {
			return all, nil
		}
	}
}

func (c *Controller) listPage(ctx context.Context, next string) (*metav1.PartialObjectMetadataList, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	data, err := answerOf(c.config.Client.VSecM.Get().Resource(v1alpha1.ResourceGitSources).
		VersionedParams(&metav1.ListOptions{Limit: sourcesPage, Continue: next}, kube.ParameterCodec).
		SetHeader("Accept", metadataListOnly).Do(ctx))
	if err != nil {
		return nil, err
	}
	list := new(metav1.PartialObjectMetadataList)
	if err := json.Unmarshal(data, list); err != nil {
		return nil, errors.New("the answer cannot be decoded")
	}
	return list, nil
}

// readHead reads that of one GitSource, if it is followed as the API server has it.
func (c *Controller) readHead(ctx context.Context, t *term, listed *metav1.PartialObjectMetadata, visit func(string, encrypt.Manifest)) reconcile.Head {
	key := store.Key{Namespace: listed.Namespace, Name: listed.Name}
	head := reconcile.Head{Source: ownerOf(key)}
	c.mu.Lock()
	r, known := t.runners[key], c.known[key]
	c.mu.Unlock()
	if r == nil || known == nil || known.UID != listed.UID || known.Generation != listed.Generation {
		head.Err = errTakenUp
		return head
	}
	if wanted, err := settingsOf(known, c.config.Namespace, c.config.MinInterval); err == nil && !wanted.suspend && !r.runs(wanted) {
		head.Err = errTakenUp
		return head
	}
	err := r.use(ctx, func(ctx context.Context, s *reconcile.Source) error {
		head = s.ReadHead(ctx, func(m encrypt.Manifest) { visit(ownerOf(key), m) })
		return nil
	})
	switch {
	case err != nil:
		head.Err = err
	case errors.Is(head.Err, context.Canceled) && ctx.Err() == nil && t.ctx.Err() == nil:
		head.Err = errTakenUp // it was stopped, for another to take its place
	}
	return head
}

// runs tells whether nothing else runs than what is wanted.
func (r *runner) runs(wanted *settings) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running == nil || r.running.settings.equal(wanted)
}
