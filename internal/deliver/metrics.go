package deliver

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// Results of a delivery, as the metric has them.
const (
	resultDelivered = "delivered"
	resultUnchanged = "unchanged" // the API server found that the Secret was so already
	resultFailed    = "failed"
)

type metrics struct {
	deliveries *prometheus.CounterVec
	opened     prometheus.Counter
	reverted   prometheus.Counter
}

func register(reg prometheus.Registerer, c *Controller) *metrics {
	m := &metrics{
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vsecm_deliveries_total", Help: "Kubernetes Secrets that were written, or were to be.",
		}, []string{"result"}),
		opened: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vsecm_delivery_opened_total", Help: "Values that were decrypted to deliver them, or to see that they open.",
		}),
		reverted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vsecm_delivery_reverted_total", Help: "Kubernetes Secrets that others had changed or deleted, and that were put back.",
		}),
	}
	for _, result := range []string{resultDelivered, resultUnchanged, resultFailed} {
		m.deliveries.WithLabelValues(result)
	}
	reg.MustRegister(m.deliveries, m.opened, m.reverted, &objectsCollector{c: c})
	return m
}

var descObjects = prometheus.NewDesc("vsecm_object_conditions",
	"EncryptedSecrets by how they fare: condition Ready, Reconciling, Stalled, or Unknown before anybody looked, and reason. Only the replica that leads tells.",
	[]string{"condition", "reason"}, nil)

var descWaiting = prometheus.NewDesc("vsecm_delivery_waiting",
	"EncryptedSecrets that wait to be looked at: that their values open, and that their Kubernetes Secrets are as they ask. Only the replica that leads tells.",
	nil, nil)

// An objectsCollector counts objects when it is asked, which costs nothing while nobody asks.
type objectsCollector struct{ c *Controller }

// Describe implements [prometheus.Collector].
func (oc *objectsCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- descObjects
	ch <- descWaiting
}

// Collect implements [prometheus.Collector].
func (oc *objectsCollector) Collect(ch chan<- prometheus.Metric) {
	l := oc.c.leading()
	if l == nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(descWaiting, prometheus.GaugeValue, float64(l.queue.Len()))
	// A store that has yet to read its objects would keep whoever asks waiting.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	objects, err := oc.c.config.Store.List(ctx)
	if err != nil {
		return
	}
	keys := make(map[store.Key]struct{}, len(objects))
	for _, o := range objects {
		keys[store.KeyOf(o)] = struct{}{}
	}
	for _, f := range oc.c.config.Store.Faults() {
		keys[f.Key] = struct{}{}
	}
	counts := make(map[[2]string]int)
	for key := range keys {
		if standing, ok := oc.c.config.Store.Standing(key); ok {
			counts[conditionOf(standing.Status)]++
		}
	}
	for labels, n := range counts {
		ch <- prometheus.MustNewConstMetric(descObjects, prometheus.GaugeValue, float64(n), labels[0], labels[1])
	}
}

// conditionOf returns the condition that counts, and its reason.
func conditionOf(status *v1alpha1.EncryptedSecretStatus) [2]string {
	if status != nil {
		for _, kind := range []string{condition.Stalled, condition.Reconciling, condition.Ready} {
			if c := meta.FindStatusCondition(status.Conditions, kind); c != nil {
				return [2]string{kind, c.Reason}
			}
		}
	}
	return [2]string{"Unknown", ""}
}
