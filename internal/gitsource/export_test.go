package gitsource

import (
	"context"
	"encoding/json"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// CheckSpec says what is wrong with a GitSource, in JSON, where Safe's own namespace is home.
func CheckSpec(data, home string) error {
	var r received
	if err := json.Unmarshal([]byte(data), &r); err != nil {
		return err
	}
	_, err := settingsOf(&r, home, minInterval)
	return err
}

// CheckCredentials says what is wrong with a Secret's data.
func CheckCredentials(data map[string][]byte, ssh bool) error {
	_, err := credentialsOf(data, ssh)
	return err
}

// OpenJournal opens the record of a GitSource until lease ends. Held says whether it has, by the API server's word.
func OpenJournal(ctx context.Context, client *kube.Client, key store.Key, lease context.Context, held func(context.Context) error) (reconcile.Journal, error) {
	r, err := openRecord(ctx, client, key)
	if err != nil {
		return nil, err
	}
	r.lease, r.held = lease, held
	return r, nil
}

// Cut is what bounds texts of others'.
var Cut = cut

// Pass passes a hint on at a time, and returns how many were due.
func Pass(times ...time.Duration) (due []int) {
	h := newHints()
	began := time.Unix(1000, 0)
	for _, at := range times {
		h.add(store.Key{Namespace: "shop", Name: "main"}, began.Add(at))
		all, _ := h.due(began.Add(at))
		due = append(due, len(all))
	}
	return due
}
