package manifests

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
)

// modes are the overlays that have Safe in them, and what each sets.
var modes = map[string][]string{
	"base":   {"VSECM_MIRROR_DIR=/mirrors"},
	"manual": {"VSECM_MIRROR_DIR=/mirrors", "VSECM_ROOT_KEY_INPUT_MODE_MANUAL=true"},
	"memory": {"VSECM_MIRROR_DIR=/mirrors", "VSECM_ROOT_KEY_STORE=memory"},
	"spire":  {"SPIFFE_ENDPOINT_SOCKET=unix:///spiffe-workload-api/spire-agent.sock", "VSECM_MIRROR_DIR=/mirrors"},
}

func TestEachModeSetsItsVariablesAndVolumes(t *testing.T) {
	c := cluster{t, shared.Start(t)}
	for mode, want := range modes {
		t.Run(mode, func(t *testing.T) {
			deployment := find(t, c.render(c.path(mode)), "Deployment", "vsecm-safe")
			var got []string
			env, _, _ := unstructured.NestedSlice(mainContainer(t, deployment), "env")
			for _, entry := range env {
				variable := entry.(map[string]any)
				if value, ok := variable["value"]; ok {
					got = append(got, variable["name"].(string)+"="+value.(string))
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("sets %v, want %v", got, want)
			}
			// In memory mode there is no root key to mount; elsewhere it need not be there yet.
			volumes, _, _ := unstructured.NestedSlice(deployment.Object, "spec", "template", "spec", "volumes")
			mounts, _, _ := unstructured.NestedSlice(mainContainer(t, deployment), "volumeMounts")
			if len(volumes) != len(mounts) {
				t.Errorf("%d volumes, %d mounts", len(volumes), len(mounts))
			}
			text := jsonText(t, volumes)
			// The root is read-only, and git repositories have to be somewhere, within bounds.
			if !strings.Contains(text, `{"emptyDir":{"sizeLimit":"8Gi"},"name":"mirrors"}`) ||
				!strings.Contains(jsonText(t, mounts), `{"mountPath":"/mirrors","name":"mirrors"}`) {
				t.Errorf("no place for mirrors: volumes are %s, mounts %s", text, jsonText(t, mounts))
			}
			if has := strings.Contains(text, "vsecm-root-key"); has == (mode == "memory") {
				t.Errorf("volumes are %s", text)
			}
			if strings.Contains(text, "vsecm-root-key") && !strings.Contains(text, `"optional":true`) {
				t.Errorf("Safe cannot start before there is a root key: %s", text)
			}
		})
	}
}

// Pod Security only warns of a Deployment, whose pods it then refuses one by one.
func TestPodSecurityLetsSafeRun(t *testing.T) {
	c := cluster{t, shared.Start(t)}
	c.apply("crds")
	c.apply("base")
	for mode := range modes {
		t.Run(mode, func(t *testing.T) {
			c := cluster{t, c.ControlPlane}
			deployment := find(t, c.render(c.path(mode)), "Deployment", "vsecm-safe")
			template, _, _ := unstructured.NestedMap(deployment.Object, "spec", "template")
			pod := unstructured.Unstructured{Object: template}
			pod.SetAPIVersion("v1")
			pod.SetKind("Pod")
			pod.SetNamespace("vsecm-system")
			pod.SetName("vsecm-safe-" + mode)
			c.kubectl(jsonText(t, pod.Object), "create", "--dry-run=server", "--validate=strict", "-f", "-")

			// Each of these is what the level forbids, so it is in force.
			for _, field := range [][]string{
				{"spec", "securityContext", "runAsNonRoot"},
				{"spec", "securityContext", "seccompProfile"},
			} {
				weaker := pod.DeepCopy()
				unstructured.RemoveNestedField(weaker.Object, field...)
				_, stderr, err := c.Kubectl(t, c.Kubeconfig(), jsonText(t, weaker.Object), "create", "--dry-run=server", "-f", "-")
				if err == nil || !strings.Contains(stderr, `violates PodSecurity "restricted`) {
					t.Errorf("without %s: %v: %s", field[len(field)-1], err, stderr)
				}
			}
		})
	}
}

func TestWhatSelectsSafesPodsFindsThem(t *testing.T) {
	c := cluster{t, shared.Start(t)}
	objects := c.render(c.path("base"))
	deployment := find(t, objects, "Deployment", "vsecm-safe")
	podLabels, _, _ := unstructured.NestedStringMap(deployment.Object, "spec", "template", "metadata", "labels")
	for kind, path := range map[string][]string{
		"Deployment":          {"spec", "selector", "matchLabels"},
		"Service":             {"spec", "selector"},
		"PodDisruptionBudget": {"spec", "selector", "matchLabels"},
		"NetworkPolicy":       {"spec", "podSelector", "matchLabels"},
	} {
		selector, found, err := unstructured.NestedStringMap(find(t, objects, kind, "vsecm-safe").Object, path...)
		if !found || err != nil || len(selector) == 0 {
			t.Errorf("%s has no selector", kind)
			continue
		}
		if !labels.SelectorFromSet(selector).Matches(labels.Set(podLabels)) {
			t.Errorf("%s selects %v, pods are %v", kind, selector, podLabels)
		}
	}
	// The plugin looks for this label.
	if podLabels["app.kubernetes.io/name"] != "vsecm-safe" {
		t.Errorf("pods are %v", podLabels)
	}
}

func TestOnlyTheServerHasATokenMounted(t *testing.T) {
	c := cluster{t, shared.Start(t)}
	objects := c.render(c.path("base"))
	var accounts []string
	for _, object := range objects {
		if object.GetKind() == "ServiceAccount" {
			accounts = append(accounts, object.GetName())
			if mount, found, _ := unstructured.NestedBool(object.Object, "automountServiceAccountToken"); mount || !found {
				t.Errorf("pods of %s get a token unless they say otherwise", object.GetName())
			}
		}
	}
	slices.Sort(accounts)
	if want := []string{"vsecm-admin", "vsecm-operator", "vsecm-safe", "vsecm-viewer"}; !slices.Equal(accounts, want) {
		t.Errorf("accounts are %v, want %v", accounts, want)
	}
	deployment := find(t, objects, "Deployment", "vsecm-safe")
	if mount, _, _ := unstructured.NestedBool(deployment.Object, "spec", "template", "spec", "automountServiceAccountToken"); !mount {
		t.Error("Safe has no token")
	}
}

// Whoever looks for a port by its name, here or in an Ingress, finds it.
func TestPortsAreReachable(t *testing.T) {
	c := cluster{t, shared.Start(t)}
	objects := c.render(c.path("base"))
	container := mainContainer(t, find(t, objects, "Deployment", "vsecm-safe"))
	numbers := map[string]float64{}
	for _, entry := range container["ports"].([]any) {
		port := entry.(map[string]any)
		numbers[port["name"].(string)] = port["containerPort"].(float64)
	}
	service, _, _ := unstructured.NestedSlice(find(t, objects, "Service", "vsecm-safe").Object, "spec", "ports")
	served := map[string]float64{}
	for _, entry := range service {
		port := entry.(map[string]any)
		if _, ok := numbers[port["targetPort"].(string)]; !ok {
			t.Errorf("the Service leads to %v, which no container has", port["targetPort"])
		}
		served[port["name"].(string)] = port["port"].(float64)
	}
	if want := map[string]float64{"api": 8443, "webhooks": 8444}; !maps.Equal(served, want) {
		t.Errorf("the Service has %v, want %v", served, want)
	}
	policy := find(t, objects, "NetworkPolicy", "vsecm-safe")
	rules, _, _ := unstructured.NestedSlice(policy.Object, "spec", "ingress")
	var open []string
	for _, entry := range rules {
		rule := entry.(map[string]any)
		for _, port := range rule["ports"].([]any) {
			name := port.(map[string]any)["port"].(string)
			if _, ok := numbers[name]; !ok {
				t.Errorf("the NetworkPolicy opens %s, which no container has", name)
			}
			if rule["from"] == nil {
				open = append(open, name)
			}
		}
	}
	if want := []string{"api", "webhooks"}; !slices.Equal(open, want) {
		t.Errorf("open to everybody are %v, want %v", open, want)
	}
}

// The component goes on top of any mode, also one with arguments of its own.
func TestWebhooksGetTheirCertificate(t *testing.T) {
	c := cluster{t, shared.Start(t)}
	c.apply("crds")
	for mode := range modes {
		dir := t.TempDir()
		if err := os.CopyFS(filepath.Join(dir, "safe"), os.DirFS(folder)); err != nil {
			t.Fatal(err)
		}
		text := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [safe/" + mode + "]\ncomponents: [safe/components/webhook-certificate]\n"
		if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c.kubectl("", "apply", "-k", dir, "--server-side=false", "--validate=strict", "--dry-run=server")
		container := mainContainer(t, find(t, c.render(dir), "Deployment", "vsecm-safe"))
		if got := jsonText(t, container["args"]); got != `["serve","--webhook-certificate=/webhook-certificate"]` {
			t.Errorf("%s: Safe is started with %s", mode, got)
		}
		if got := jsonText(t, container["volumeMounts"]); !strings.Contains(got, `{"mountPath":"/webhook-certificate","name":"webhook-certificate","readOnly":true}`) ||
			!strings.Contains(got, "/mirrors") {
			t.Errorf("%s: mounts are %s", mode, got)
		}
	}
}
