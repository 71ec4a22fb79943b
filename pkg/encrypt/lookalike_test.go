package encrypt

import (
	"strings"
	"testing"
)

// A document that nobody reads is deleted by a source that read it before.
func TestDocumentsThatLookLikeOursAreFaults(t *testing.T) {
	rest := "metadata: {name: db, namespace: shop}\nspec:\n  encryptedData: {a: YWdl}\n"
	kind := "kind: EncryptedSecret\n"
	item := "- apiVersion: vsecm.com/v1alpha1\n  kind: EncryptedSecret\n"
	nested := "  - apiVersion: vsecm.com/v1alpha1\n    kind: EncryptedSecret\n"
	for name, test := range map[string]struct {
		text string
		line int
	}{
		"a merge key":                  {"<<: {apiVersion: vsecm.com/v1alpha1}\n" + kind + rest, 2},
		"a merge key for both":         {"<<: {apiVersion: vsecm.com/v1alpha1, kind: EncryptedSecret}\nmetadata: {name: db}\nspec: {}\n", 1},
		"a merge of an alias":          {"x: &x {apiVersion: vsecm.com/v1alpha1, kind: EncryptedSecret}\n<<: *x\nmetadata: {name: db}\n", 2},
		"a merge of several":           {"x: &x {apiVersion: vsecm.com/v1alpha1}\ny: &y {kind: EncryptedSecret}\n<<: [*x, *y]\n", 3},
		"a merge beside a kind":        {"kind: Sealed\n<<: {apiVersion: vsecm.com/v1alpha1}\n", 2},
		"an apiVersion by alias":       {"x: &v vsecm.com/v1alpha1\napiVersion: *v\n" + kind + rest, 3},
		"both by alias":                {"x: [&v vsecm.com/v1alpha1, &k EncryptedSecret]\napiVersion: *v\nkind: *k\nmetadata: {name: db}\n", 2},
		"a field's name by alias":      {"x: &v apiVersion\n*v : vsecm.com/v1alpha1\nkind: Sealed\n", 2},
		"a binary apiVersion":          {"apiVersion: !!binary dnNlY20uY29tL3YxYWxwaGEx\n" + kind + rest, 1},
		"a binary kind":                {"apiVersion: v1\nkind: !!binary RW5jcnlwdGVkU2VjcmV0\n", 2},
		"a binary name of a field":     {"!!binary YXBpVmVyc2lvbg==: vsecm.com/v1alpha1\n" + kind + rest, 2},
		"a list of manifests":          {item + item, 1},
		"a list in a list":             {"-\n" + nested, 2},
		"items without a kind":         {"items:\n" + item, 2},
		"items in flow style":          {"items: [{apiVersion: vsecm.com/v1alpha1, kind: EncryptedSecret}]\n", 1},
		"a List in a List":             {"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: List\n  items:\n" + nested, 7},
		"a list, in small letters":     {"apiVersion: v1\nkind: list\nitems:\n" + item, 4},
		"an EncryptedSecretList of v1": {"apiVersion: v1\nkind: EncryptedSecretList\nitems:\n" + item, 2},
		"ours behind others in a List": {"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service}\n" + item, 5},
		"an alias in a List":           {"x: &x {apiVersion: vsecm.com/v1alpha1, kind: EncryptedSecret}\nitems: [*x]\n", 2},
		"a lookalike in a List":        {"apiVersion: v1\nkind: List\nitems:\n- apiversion: vsecm.com/v1alpha1\n  kind: EncryptedSecret\n", 4},
		"apiversion":                   {"apiversion: vsecm.com/v1alpha1\n" + kind + rest, 1},
		"apiVersion and a blank":       {"\"apiVersion \": vsecm.com/v1alpha1\nkind: Sealed\n", 1},
		"no apiVersion":                {kind + "metadata: {name: db}\n", 1},
		"no apiVersion, no kind":       {rest, 3},
		"no apiVersion, Kind":          {"Kind: encryptedsecret\n", 1},
		"no kind":                      {"apiVersion: v1\n" + rest, 4},
		"the core's version":           {"apiVersion: v1alpha1\n" + kind + rest, 2},
		"the group in capitals":        {"apiVersion: VSECM.com/v1alpha1\n" + kind + rest, 1},
		"a blank before the group":     {"apiVersion: \" vsecm.com/v1alpha1\"\n" + kind + rest, 1},
		"a group misspelled":           {"apiVersion: vsecm.co/v1alpha1\n" + kind + rest, 2},
		"JSON, a list of manifests":    {`[{"apiVersion":"vsecm.com/v1alpha1","kind":"EncryptedSecret"}]`, 1},
		"JSON, items":                  {`{"items":[{"apiVersion":"vsecm.com/v1alpha1","kind":"EncryptedSecret"}]}`, 1},
	} {
		ms := ReadManifests("f", []byte(good+"---\n"+test.text), "shop")
		if len(ms.Objects) != 1 || ms.Skipped != 0 || len(ms.Faults) != 1 || ms.Faults[0].Line != test.line+7 {
			t.Errorf("%s: %d objects, %d skipped, faults %v; want one on line %d", name, len(ms.Objects), ms.Skipped, ms.Faults, test.line+7)
			continue
		}
		if text := ms.Faults[0].Error(); !strings.Contains(text, "looks like an EncryptedSecret, but ") && !strings.Contains(text, "a List is not read") {
			t.Errorf("%s: %s", name, text)
		}
		if _, err := SetValues("f", []byte(good+"---\n"+test.text), "shop", "db", map[string]string{"a": "x"}, ""); err == nil {
			t.Errorf("%s: the file was edited", name)
		}
	}
}

func TestDocumentsThatMentionUsAreNotOurs(t *testing.T) {
	for name, text := range map[string]string{
		"labels and annotations": "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: a\n  labels: {vsecm.com/managed: 'true'}\n  annotations: {vsecm.com/source: vsecm.com/v1alpha1}\n",
		"a Secret of ours":       "apiVersion: v1\nkind: Secret\nmetadata:\n  name: a\n  ownerReferences:\n  - {apiVersion: vsecm.com/v1alpha1, kind: EncryptedSecret, name: a, uid: b}\n",
		"a Kustomization":        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [vsecm.com/db.yaml]\npatches:\n- target: {group: vsecm.com, kind: EncryptedSecret}\n  patch: |\n    apiVersion: vsecm.com/v1alpha1\n    kind: EncryptedSecret\n",
		"a bare Kustomization":   "resources: [vsecm.com/db.yaml]\npatches:\n- target: {group: vsecm.com, version: v1alpha1, kind: EncryptedSecret}\n",
		"kustomize's names":      "nameReference:\n- kind: EncryptedSecret\n  group: vsecm.com\n  fieldSpecs: [{kind: Deployment, path: spec}]\n",
		"a CRD":                  "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: encryptedsecrets.vsecm.com}\nspec:\n  group: vsecm.com\n  names: {kind: EncryptedSecret, listKind: EncryptedSecretList, plural: encryptedsecrets}\n  versions: [{schema: {properties: {spec: {properties: {encryptedData: {}}}}}}]\n",
		"RBAC":                   "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: a}\nrules:\n- apiGroups: [vsecm.com]\n  resources: [encryptedsecrets, vsecm.com/x]\n",
		"an Argo CD Application": "apiVersion: argoproj.io/v1alpha1\nkind: Application\nspec:\n  ignoreDifferences:\n  - group: vsecm.com\n    kind: EncryptedSecret\n    jsonPointers: [/spec/encryptedData]\n",
		"a policy":               "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nspec:\n  rules:\n  - match: {any: [{resources: {kinds: [vsecm.com/v1alpha1/EncryptedSecret]}}]}\n    generate: {apiVersion: vsecm.com/v1alpha1, kind: EncryptedSecret}\n",
		"a GitSource":            "apiVersion: vsecm.com/v1alpha1\nkind: GitSource\nmetadata: {name: a}\n",
		"a List with a GitSource": "apiVersion: v1\nkind: List\nitems:\n- apiVersion: vsecm.com/v1alpha1\n  kind: GitSource\n" +
			"- apiVersion: apps/v1\n  kind: Deployment\n  metadata: {labels: {vsecm.com/x: y}}\n",
		"a SealedSecret":           "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: a}\nspec:\n  encryptedData: {a: AgB}\n",
		"a List of SealedSecrets":  "apiVersion: v1\nkind: List\nitems:\n- apiVersion: bitnami.com/v1alpha1\n  kind: SealedSecret\n  spec:\n    encryptedData: {a: AgB}\n",
		"a ConfigMap of manifests": "apiVersion: v1\nkind: ConfigMap\ndata:\n  a.yaml: |\n    apiVersion: vsecm.com/v1alpha1\n    kind: EncryptedSecret\n",
		"values of a chart":        "encryptedData: {a: b}\nextraObjects:\n- apiVersion: vsecm.com/v1alpha1\n  kind: EncryptedSecret\n  spec: {encryptedData: {a: b}}\n",
		"merges and anchors":       "x: &x {a: b}\ny:\n  <<: *x\n  z: vsecm.com/v1alpha1\n",
		"a merge of others":        "x: &x {a: b}\n<<: *x\nz: !t w\n",
		"a whole object, merged":   "apiVersion: v1\nkind: ConfigMap\n<<: {metadata: {name: a}}\ndata: {a: vsecm.com/v1alpha1}\n",
		"a patch":                  "- op: replace\n  path: /spec/encryptedData\n  value: vsecm.com/v1alpha1\n",
		"text":                     "vsecm.com/v1alpha1\n",
	} {
		ms := ReadManifests("f", []byte(text), "")
		if len(ms.Objects) != 0 || ms.Skipped != 1 || len(ms.Faults) != 0 {
			t.Errorf("%s: %d objects, %d skipped, faults %v", name, len(ms.Objects), ms.Skipped, ms.Faults)
		}
	}
}
