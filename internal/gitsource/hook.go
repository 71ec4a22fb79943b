package gitsource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	gosync "sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/hooks"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

const (
	// hookManager is the field manager of the annotation that hints are passed on with.
	hookManager = "vsecm-hook"
	// hintPause is the least time between two hints about one source that are passed on.
	hintPause = time.Second
	// hintTries is how often a hint is passed on that does not arrive: then the next look is not far.
	hintTries = 5
	// unreadPause is how long it is not tried again to read a Secret that the API server did not give.
	unreadPause = 5 * time.Second
)

// A hook is what is known of a source's webhook, or why nothing is. It counts until the
// Secret or the source changes, and not for long in any case: who calls is not known yet, and must
// not make the API server work.
type hook struct {
	mu     gosync.Mutex
	until  time.Time
	target hooks.Target
	err    error
}

var _ hooks.Sources = (*Controller)(nil)

// Hook implements [hooks.Sources].
func (c *Controller) Hook(ctx context.Context, namespace, name string) (hooks.Target, error) {
	key := store.Key{Namespace: namespace, Name: name}
	c.mu.Lock()
	r := c.known[key]
	if r == nil || r.fault != nil || r.spec.Webhook == nil {
		c.mu.Unlock()
		return hooks.Target{}, hooks.ErrNoHook
	}
	h := c.hooks[key]
	if h == nil {
		h = &hook{}
		c.hooks[key] = h
	}
	c.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := c.now(); !now.Before(h.until) {
		var unread *secretError
		h.target, h.err = c.readHook(context.WithoutCancel(ctx), key, r.spec.Webhook)
		h.until = now.Add(c.config.Retry)
		if errors.As(h.err, &unread) && unread.passes() {
			h.until = now.Add(min(unreadPause, c.config.Retry))
		}
	}
	return h.target, h.err
}

func (c *Controller) readHook(ctx context.Context, key store.Key, w *v1alpha1.GitWebhook) (hooks.Target, error) {
	const field = "spec.webhook.secretRef"
	secretKey := store.Key{Namespace: key.Namespace, Name: w.SecretRef.Name}
	if !validSecretName(secretKey, c.config.Namespace) {
		return hooks.Target{}, fmt.Errorf("%s.name: want the name of a Secret that is not Safe's own", field)
	}
	s, err := c.readSecret(ctx, field, secretKey)
	if err != nil {
		return hooks.Target{}, err
	}
	token := strings.TrimRight(string(s.data[keyToken]), "\r\n")
	if token == "" {
		return hooks.Target{}, &secretError{reasonBad, fmt.Sprintf("%s: Secret %s: %s is missing or empty", field, secretKey, keyToken)}
	}
	return hooks.Target{Type: w.Type, Secret: []byte(token)}, nil
}

// Hint implements [hooks.Sources]: the source looks at its repository soon, whichever replica leads.
func (c *Controller) Hint(ctx context.Context, namespace, name string) error {
	key := store.Key{Namespace: namespace, Name: name}
	c.mu.Lock()
	r, t := c.known[key], c.term
	var own *runner
	if t != nil {
		own = t.runners[key]
	}
	c.mu.Unlock()
	switch {
	case r == nil:
		return ErrNoSource
	case r.spec.Suspend:
		return nil
	case own == nil:
		c.hints.add(key, c.now())
		return nil
	}
	err := own.use(ctx, func(_ context.Context, s *reconcile.Source) error { s.Hint(); return nil })
	if errors.Is(err, ErrNotRunning) {
		return nil // its status says why
	}
	return err
}

// hints are those that the leader is still to be told of: at most one about a source, since it
// does not matter how often it was given.
type hints struct {
	added chan struct{}

	mu      gosync.Mutex
	pending map[store.Key]*pendingHint
	sent    map[store.Key]time.Time
}

type pendingHint struct {
	next  time.Time
	tries int
}

func newHints() *hints {
	return &hints{added: make(chan struct{}, 1), pending: make(map[store.Key]*pendingHint), sent: make(map[store.Key]time.Time)}
}

func (h *hints) add(key store.Key, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pending[key] != nil {
		return
	}
	next := now
	if sent, ok := h.sent[key]; ok && now.Before(sent.Add(hintPause)) {
		next = sent.Add(hintPause)
	}
	h.pending[key] = &pendingHint{next: next}
	select {
	case h.added <- struct{}{}:
	default:
	}
}

// due returns the hints whose time has come, which are no longer pending, and when the next one is; zero for never.
func (h *hints) due(now time.Time) (due map[store.Key]*pendingHint, next time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	due = make(map[store.Key]*pendingHint)
	for key, at := range h.sent {
		if !now.Before(at.Add(hintPause)) {
			delete(h.sent, key)
		}
	}
	for key, p := range h.pending {
		if left := p.next.Sub(now); left > 0 {
			if next == 0 || left < next {
				next = left
			}
			continue
		}
		due[key] = p
		delete(h.pending, key)
		h.sent[key] = now
	}
	return due, next
}

// again has a hint tried again that did not arrive, unless that was in vain often enough.
func (h *hints) again(key store.Key, p *pendingHint, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.tries++; p.tries >= hintTries {
		return false
	}
	if h.pending[key] == nil {
		p.next = now.Add(hintPause << p.tries)
		h.pending[key] = p
	}
	return true
}

// sendHints passes hints on until ctx ends.
func (c *Controller) sendHints(ctx context.Context) {
	for {
		due, next := c.hints.due(c.now())
		for key, p := range due {
			if err := c.sendHint(ctx, key); err != nil && ctx.Err() == nil && !c.hints.again(key, p, c.now()) {
				c.config.Log.Warn("the leader could not be told of a push", "source", ownerOf(key), "error", err)
			}
		}
		if len(due) > 0 {
			continue
		}
		timer := time.NewTimer(next)
		if next == 0 {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-c.hints.added:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// sendHint has the leader see that a source is to look at its repository.
func (c *Controller) sendHint(ctx context.Context, key store.Key) error {
	r := c.lookup(key)
	if r == nil {
		return nil
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":         r.UID,
		"annotations": map[string]string{v1alpha1.AnnotationSyncRequested: c.now().UTC().Format(time.RFC3339Nano)},
	}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = c.config.Client.VSecM.Patch(types.MergePatchType).Namespace(key.Namespace).Resource(v1alpha1.ResourceGitSources).Name(key.Name).
		VersionedParams(&metav1.PatchOptions{FieldManager: hookManager}, kube.ParameterCodec).
		SetHeader("Content-Type", "application/merge-patch+json").Body(body).Do(ctx).Error()
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it is another by now, which begins with a look
	} else if err != nil {
		return kube.Plain(err)
	}
	return nil
}
