// Package publish keeps a replica's own entry in what Safe publishes (see package
// publication), for as long as the replica lives.
package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/publication"
)

const (
	// lookEvery is how often the replica looks whether it has changed; an SVID
	// goes without a word.
	lookEvery = 2 * time.Second
	// checkEvery is how often it looks whether the ConfigMap still says so.
	checkEvery = time.Minute
	// renewAfter is the age at which an entry is written anew. Others take the
	// replica for gone at [publication.Stale].
	renewAfter = 5 * time.Minute

	callTimeout = 10 * time.Second
	leaveWait   = 3 * time.Second
)

// A Self is what a replica says of itself.
type Self struct {
	// Replica is its entry; Seen is filled in.
	Replica publication.Replica
	// Bundle is the SPIFFE trust bundle, PEM; empty without SPIFFE.
	Bundle string
}

// A Publisher writes one replica's entry.
type Publisher struct {
	client    *kube.Client
	namespace string
	name      string // of the replica
	log       *slog.Logger
	news      chan struct{}

	// Tests replace these.
	lookEvery, checkEvery time.Duration
}

// New returns a publisher for the replica of this name, which is a pod's.
func New(client *kube.Client, namespace, name string, log *slog.Logger) *Publisher {
	return &Publisher{
		client: client, namespace: namespace, name: name, log: log, news: make(chan struct{}, 1),
		lookEvery: lookEvery, checkEvery: checkEvery,
	}
}

// Look has Run look at once whether the replica has changed.
func (p *Publisher) Look() {
	select {
	case p.news <- struct{}{}:
	default: // it is about to
	}
}

// Run publishes what self returns, and publishes it anew when that has changed
// (changed gives a channel that closes then), when it is gone, and when it has become
// old, until ctx ends. Then it takes the entry away. While the API server cannot be
// reached it goes on trying.
func (p *Publisher) Run(ctx context.Context, self func() Self, changed func() <-chan struct{}) {
	defer p.leave(ctx)
	look := time.NewTicker(p.lookEvery)
	defer look.Stop()
	var (
		said    Self
		checked time.Time
		failing bool
	)
	for {
		again := changed()
		if now := self(); now != said || time.Since(checked) >= p.checkEvery {
			err := p.publish(ctx, now)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && !failing:
				p.log.Warn("publishing how to recognise this replica failed; trying again", "error", err)
			case err == nil && failing:
				p.log.Info("published how to recognise this replica")
			}
			if failing = err != nil; !failing {
				said, checked = now, time.Now()
			}
		}
		if failing {
			// A state that changes while the API server is away wakes nobody.
			again = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-p.news:
		case <-look.C:
		}
	}
}

// publish makes the ConfigMap say s, and takes out those who are gone.
func (p *Publisher) publish(ctx context.Context, s Self) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var there kube.ConfigMap
	err := p.client.Core.Get().Namespace(p.namespace).Resource("configmaps").Name(publication.Name).Do(ctx).Into(&there)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	missing := err != nil
	change, err := p.change(there.Data, s, time.Now())
	if err != nil || len(change) == 0 {
		return err
	}
	if missing {
		err := p.create(ctx, change)
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
		// Another replica was quicker.
	}
	return p.patch(ctx, change)
}

// change returns what is to be written of the data that is there; nil values are
// taken away.
func (p *Publisher) change(there map[string]string, s Self, now time.Time) (map[string]*string, error) {
	change := make(map[string]*string)
	old, err := publication.Parse(there)
	if err != nil {
		// Somebody wrote into it. What is not an entry is taken out below.
		p.log.Warn("what is published was changed by somebody else", "error", err)
	}
	own := publication.ReplicaPrefix + p.name
	s.Replica.Seen = now.UTC().Truncate(time.Second)
	var was publication.Replica
	fresh := json.Unmarshal([]byte(there[own]), &was) == nil && s.Replica.Seen.Sub(was.Seen) < renewAfter
	was.Seen = s.Replica.Seen
	if !fresh || was != s.Replica {
		text, err := s.Replica.Text()
		if err != nil {
			return nil, fmt.Errorf("encoding this replica's entry: %w", err)
		}
		change[own] = &text
	}
	if s.Bundle != "" && there[publication.KeyBundle] != s.Bundle {
		change[publication.KeyBundle] = &s.Bundle
	}
	for key := range there {
		if key == own || !publication.IsReplica(key) {
			continue
		}
		// What is no entry was never seen.
		if now.Sub(old.Replicas[key[len(publication.ReplicaPrefix):]].Seen) > publication.Stale {
			change[key] = nil
		}
	}
	return change, nil
}

func (p *Publisher) create(ctx context.Context, change map[string]*string) error {
	cm := &kube.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: publication.Name},
		Data:       make(map[string]string),
	}
	for key, value := range change {
		if value != nil {
			cm.Data[key] = *value
		}
	}
	return p.client.Core.Post().Namespace(p.namespace).Resource("configmaps").Body(cm).Do(ctx).Error()
}

// patch writes single keys: each replica has its own, and none reads before it writes.
func (p *Publisher) patch(ctx context.Context, change map[string]*string) error {
	body, err := json.Marshal(map[string]any{"data": change})
	if err != nil {
		return err
	}
	return p.client.Core.Patch(types.MergePatchType).Namespace(p.namespace).Resource("configmaps").Name(publication.Name).
		Body(body).Do(ctx).Error()
}

// leave takes the replica's entry away. One that it could not take away grows old.
func (p *Publisher) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWait)
	defer cancel()
	err := p.patch(ctx, map[string]*string{publication.ReplicaPrefix + p.name: nil})
	if err != nil && !apierrors.IsNotFound(err) && !errors.Is(err, context.DeadlineExceeded) {
		p.log.Debug("taking this replica's entry away failed", "error", err)
	}
}
