package safe_test

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// BenchmarkReplica starts a replica of Safe in a real cluster of so many EncryptedSecrets, one
// hybrid value each, whose root key is kept in the Secret: from the start of the process
// until it is ready, and the memory that it then takes. Then it is sealed and unsealed: from the
// operator's call until it is ready.
func BenchmarkReplica(b *testing.B) {
	for _, n := range []int{0, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			c := newCluster(b, "base")
			r := c.start("safe-0")
			c.is(r, "unsealed")
			ciphertext := c.fill(b, n)
			var ready, unsealed, idle, anonymous float64
			for b.Loop() {
				b.StopTimer()
				r.process.stop(b)
				c.gone(r)
				kubeconfig := c.cp.ServiceAccountKubeconfig(b, "vsecm-system", "vsecm-safe")
				b.StartTimer()
				start := time.Now()
				r = c.launchAs("safe-0", kubeconfig)
				c.ready(r, http.StatusOK)
				ready += float64(time.Since(start).Microseconds()) / 1000
				b.StopTimer()
				// It leads, and looks at every object once; then it gives back what that took.
				wait.For(b, "it has looked at every object", func() error { return c.lookedAt(r) })
				time.Sleep(settled)
				idle += r.process.memory(b, "VmRSS")
				anonymous += r.process.memory(b, "RssAnon")

				c.published(r)
				c.must(c.olga, "", "seal")
				text := c.kubectl("get", "secret", "vsecm-root-key", "-n", "vsecm-system", "-o", "go-template={{.data.KEY_TXT | base64decode}}")
				start = time.Now()
				c.must(c.olga, text, "unseal", "--file", "-")
				c.ready(r, http.StatusOK)
				unsealed += float64(time.Since(start).Microseconds()) / 1000
				b.StartTimer()
			}
			b.ReportMetric(ready/float64(b.N), "ms-to-ready")
			b.ReportMetric(unsealed/float64(b.N), "ms-to-unsealed")
			b.ReportMetric(idle/float64(b.N), "MiB-resident")
			b.ReportMetric(anonymous/float64(b.N), "MiB-anonymous")
			b.ReportMetric(64+1.5*float64(ciphertext)/(1<<20), "MiB-aim")
		})
	}
}

// fill puts so many EncryptedSecrets into the cluster, and returns how many bytes of
// ciphertext they hold.
func (c *cluster) fill(b *testing.B, n int) (ciphertext int) {
	b.Helper()
	client, err := kube.NewClient(c.cp.Config())
	if err != nil {
		b.Fatal(err)
	}
	recipient, err := encrypt.ParseRecipient(strings.TrimSpace(c.must(c.dana, "", "recipient")))
	if err != nil {
		b.Fatal(err)
	}
	const writers = 8
	sizes, errs := make([]int, writers), make([]error, writers)
	var wait sync.WaitGroup
	for k := range writers {
		wait.Go(func() {
			for i := k; i < n && errs[k] == nil; i += writers {
				o := &v1alpha1.EncryptedSecret{
					TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret},
					ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("s%d", i)},
				}
				sealed, err := encrypt.Seal([]byte("a value of thirty-two characters"), encrypt.BindingOf(o, "password"), []encrypt.Recipient{recipient}, time.Now())
				if err != nil {
					errs[k] = err
					return
				}
				o.Spec.EncryptedData = map[string]string{"password": sealed}
				sizes[k] += len(sealed)
				errs[k] = client.VSecM.Post().Namespace("shop").Resource(v1alpha1.ResourceEncryptedSecrets).Body(o).Do(b.Context()).Error()
			}
		})
	}
	wait.Wait()
	for k := range writers {
		if errs[k] != nil {
			b.Fatal(errs[k])
		}
		ciphertext += sizes[k]
	}
	return ciphertext
}

// lookedAt tells what keeps a replica that leads from having looked at every object.
func (c *cluster) lookedAt(r *replica) error {
	_, body, err := plain(r.at.Metrics, "/metrics")
	if err != nil {
		return err
	}
	if !strings.Contains(body, "\nvsecm_delivery_waiting 0\n") {
		return errors.New("it does not lead, or objects wait")
	}
	return nil
}
