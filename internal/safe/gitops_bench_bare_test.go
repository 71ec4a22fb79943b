package safe_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// BenchmarkBareApply is what the first sync of BenchmarkGitSource stands beside: a loop that server-side-applies
// the same EncryptedSecrets and Secrets, and then the same statuses, with as many requests at a time
// and the same client.
func BenchmarkBareApply(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			c := newCluster(b, "base")
			// Safe's own rights, so that the API server has as much to ask RBAC.
			c.kubectl("create", "clusterrolebinding", "bare", "--clusterrole=cluster-admin", "--serviceaccount=vsecm-system:vsecm-safe")
			client := c.cp.ServiceAccountKubeconfig(b, "vsecm-system", "vsecm-safe")
			l := &bareLoop{client: clientOf(b, client), objects: make([]*v1alpha1.EncryptedSecret, n), versions: make([]metav1.ObjectMeta, n)}
			key, err := unseal.Generate(false)
			if err != nil {
				b.Fatal(err)
			}
			g := &gitops{cluster: c}
			inParallel(b, n, func(i int) error {
				o, err := g.sealed(key.Recipient(), nameOf(i), "a value of thirty-two characters")
				l.objects[i] = o
				return err
			})
			var objects, secrets, statuses time.Duration
			for b.Loop() {
				l.round++
				start := time.Now()
				inParallel(b, n, func(i int) error { return l.object(b.Context(), i) })
				objects += time.Since(start)
				start = time.Now()
				inParallel(b, n, func(i int) error { return l.secret(b.Context(), i) })
				secrets += time.Since(start)
				start = time.Now()
				inParallel(b, n, func(i int) error { return l.status(b.Context(), i) })
				statuses += time.Since(start)
			}
			for unit, took := range map[string]time.Duration{"objects-ms": objects, "secrets-ms": secrets, "statuses-ms": statuses} {
				b.ReportMetric(float64(took.Microseconds())/1000/float64(b.N), unit)
			}
		})
	}
}

// A bareLoop applies objects, and does nothing else.
type bareLoop struct {
	client   *kube.Client
	objects  []*v1alpha1.EncryptedSecret
	versions []metav1.ObjectMeta // as the API server has answered
	round    int
}

func (l *bareLoop) apply(ctx context.Context, resource, subresource, manager string, i int, body map[string]any) error {
	client := l.client.VSecM
	if resource == "secrets" {
		client = l.client.Core
	}
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request := client.Patch(types.ApplyPatchType).Namespace("shop").Resource(resource).Name(nameOf(i))
	if subresource != "" {
		request = request.SubResource(subresource)
	}
	answer, err := request.VersionedParams(&metav1.PatchOptions{FieldManager: manager, Force: new(true)}, kube.ParameterCodec).Body(text).DoRaw(ctx)
	if err != nil || resource == "secrets" {
		return err
	}
	var meta metav1.PartialObjectMetadata
	err = json.Unmarshal(answer, &meta)
	l.versions[i] = meta.ObjectMeta
	return err
}

func (l *bareLoop) object(ctx context.Context, i int) error {
	return l.apply(ctx, v1alpha1.ResourceEncryptedSecrets, "", "vsecm-sync", i, map[string]any{
		"apiVersion": v1alpha1.APIVersion, "kind": v1alpha1.KindEncryptedSecret,
		"metadata": map[string]any{
			"name": nameOf(i), "namespace": "shop",
			"labels":      map[string]string{v1alpha1.LabelSource: "shop.platform"},
			"annotations": map[string]string{v1alpha1.AnnotationPath: pathOf(i), "round": strconv.Itoa(l.round)},
		},
		"spec": l.objects[i].Spec,
	})
}

func (l *bareLoop) secret(ctx context.Context, i int) error {
	return l.apply(ctx, "secrets", "", "vsecm-deliver", i, map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
		"metadata": map[string]any{
			"name": nameOf(i), "namespace": "shop",
			"labels": map[string]string{v1alpha1.LabelDelivered: "true"},
			"ownerReferences": []metav1.OwnerReference{{
				APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret, Name: nameOf(i), UID: l.versions[i].UID,
			}},
		},
		"data": map[string]string{"password": base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "value of round %d, thirty-two in all", l.round))},
	})
}

func (l *bareLoop) status(ctx context.Context, i int) error {
	meta := l.versions[i]
	return l.apply(ctx, v1alpha1.ResourceEncryptedSecrets, "status", "vsecm-status", i, map[string]any{
		"apiVersion": v1alpha1.APIVersion, "kind": v1alpha1.KindEncryptedSecret,
		"metadata": map[string]any{"name": nameOf(i), "namespace": "shop", "uid": meta.UID, "resourceVersion": meta.ResourceVersion},
		"status": v1alpha1.EncryptedSecretStatus{
			ObservedGeneration: meta.Generation,
			Conditions: []metav1.Condition{{
				Type: "Ready", Status: metav1.ConditionTrue, Reason: "Delivered", Message: "Secret shop/" + nameOf(i) + " holds its values",
				ObservedGeneration: meta.Generation, LastTransitionTime: metav1.Now(),
			}},
			KeyIDs: []string{strings.Repeat("0123456789abcdef", 2)}, Revision: strings.Repeat("0123456789", 4),
			Secret: &v1alpha1.DeliveredSecret{UID: string(meta.UID), ResourceVersion: meta.ResourceVersion, Generation: meta.Generation, DeliveredAt: metav1.Now()},
		},
	})
}

// clientOf returns a client as Safe has it.
func clientOf(b *testing.B, kubeconfig string) *kube.Client {
	b.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		b.Fatal(err)
	}
	client, err := kube.NewClient(config)
	if err != nil {
		b.Fatal(err)
	}
	return client
}
