package manifests

import (
	"slices"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// Everything that each account may do beyond what every account may, as the API server tells it. So a
// permission that somebody adds is a line here that somebody has to defend.
var rights = []struct {
	who, namespace string
	want           []string
}{
	{"system:serviceaccount:vsecm-system:vsecm-safe", "vsecm-system", []string{
		"authentication.k8s.io/tokenreviews: create",
		"authorization.k8s.io/subjectaccessreviews: create",
		"configmaps vsecm-safe: get patch watch",
		"configmaps: create",
		"coordination.k8s.io/leases vsecm-safe: get update",
		"coordination.k8s.io/leases: create",
		"events: create patch",
		"secrets vsecm-root-key: patch",
		"secrets: create",
		"secrets: get list watch",
		"vsecm.com/encryptedsecrets/status: patch",
		"vsecm.com/encryptedsecrets: create delete get list patch update watch",
		"vsecm.com/gitsources/status: patch",
		"vsecm.com/gitsources: get list patch watch",
	}},
	{"system:serviceaccount:vsecm-system:vsecm-safe", "shop", []string{
		"authentication.k8s.io/tokenreviews: create",
		"authorization.k8s.io/subjectaccessreviews: create",
		"events: create patch",
		"vsecm.com/encryptedsecrets/status: patch",
		"vsecm.com/encryptedsecrets: create delete get list patch update watch",
		"vsecm.com/gitsources/status: patch",
		"vsecm.com/gitsources: get list patch watch",
	}},
	{"system:serviceaccount:vsecm-system:vsecm-viewer", "vsecm-system", []string{
		"vsecm.com/safes vsecm-safe: get",
	}},
	{"system:serviceaccount:vsecm-system:vsecm-operator", "vsecm-system", []string{
		"vsecm.com/safes vsecm-safe: get seal sync unseal",
	}},
	{"system:serviceaccount:vsecm-system:vsecm-admin", "vsecm-system", []string{
		"vsecm.com/safes vsecm-safe: backup exportkey get override rekey seal sync unseal",
	}},
	{"system:serviceaccount:vsecm-system:vsecm-viewer", "shop", nil},
	{"system:serviceaccount:vsecm-system:vsecm-operator", "shop", nil},
	{"system:serviceaccount:vsecm-system:vsecm-admin", "shop", nil},

	{"vera", "vsecm-system", []string{
		"pods/portforward: create get",
		"pods: get list",
		"serviceaccounts/token vsecm-viewer: create",
	}},
	{"olga", "vsecm-system", []string{
		"pods/portforward: create get",
		"pods: get list",
		"serviceaccounts/token vsecm-operator,vsecm-viewer: create",
	}},
	{"adam", "vsecm-system", []string{
		"pods/portforward: create get",
		"pods: get list",
		"serviceaccounts/token vsecm-admin,vsecm-operator,vsecm-viewer: create",
	}},
	{"vera", "shop", nil},
	{"olga", "shop", nil},
	{"adam", "shop", nil},
	{"dora", "vsecm-system", nil},
	{"dora", "shop", []string{
		"vsecm.com/encryptedsecrets: create delete deletecollection get list patch update watch",
		"vsecm.com/gitsources: create delete deletecollection get list patch update watch",
	}},
	{"walt", "shop", []string{
		"vsecm.com/encryptedsecrets: get list watch",
		"vsecm.com/gitsources: get list watch",
	}},
}

// bindPeople gives each kind of person one, with the commands of docs/operations.md.
func (c cluster) bindPeople() {
	c.Helper()
	c.apply("crds")
	c.apply("base")
	var commands [][]string
	for name, role := range map[string]string{"vera": "vsecm-viewers", "olga": "vsecm-operators", "adam": "vsecm-admins"} {
		commands = append(commands, []string{
			"create", "rolebinding", role, "-n", "vsecm-system", "--clusterrole=" + role, "--user=" + name,
		})
	}
	commands = append(commands,
		[]string{"create", "namespace", "shop"},
		[]string{"create", "rolebinding", "developers", "-n", "shop", "--clusterrole=vsecm-encryptedsecrets-edit", "--user=dora"},
		[]string{"create", "rolebinding", "source-editors", "-n", "shop", "--clusterrole=vsecm-gitsources-edit", "--user=dora"},
		[]string{"create", "rolebinding", "watchers", "-n", "shop", "--clusterrole=vsecm-encryptedsecrets-view", "--user=walt"},
		[]string{"create", "rolebinding", "source-watchers", "-n", "shop", "--clusterrole=vsecm-gitsources-view", "--user=walt"})
	for _, command := range commands {
		c.kubectl(c.kubectl("", append(command, "--dry-run=client", "-o", "yaml")...), "apply", "-f", "-")
	}
}

func TestAccountsAndPeopleMayDoNoMoreThanTheyNeed(t *testing.T) {
	c := cluster{t, shared.Start(t)}
	c.bindPeople()
	// What everybody who is logged in may do: ask about themselves, and read what Safe publishes.
	inShop := c.rules("nobody", "shop")
	everybody := append(slices.Clone(inShop), "configmaps vsecm-safe: get")
	if got := c.rules("nobody", "vsecm-system"); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(everybody))) {
		t.Errorf("everybody may do %v in vsecm-system, and %v elsewhere", got, inShop)
	}
	for _, r := range rights {
		t.Run(r.who+" in "+r.namespace, func(t *testing.T) {
			c := cluster{t, c.ControlPlane}
			got := slices.DeleteFunc(c.rules(r.who, r.namespace), func(rule string) bool {
				return slices.Contains(everybody, rule)
			})
			if !slices.Equal(got, r.want) {
				t.Errorf("may do\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(r.want, "\n  "))
			}
		})
	}
}

// rules returns what someone may do in a namespace, a sorted line for each rule.
func (c cluster) rules(who, namespace string) []string {
	c.Helper()
	// They may not read the schemas that kubectl would check this by.
	args := []string{"create", "-f", "-", "-o", "json", "--validate=false", "--as=" + who}
	for _, group := range groupsOf(who) {
		args = append(args, "--as-group="+group)
	}
	answer := decode(c.T, []byte(c.kubectl(jsonText(c.T, authorizationv1.SelfSubjectRulesReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authorization.k8s.io/v1", Kind: "SelfSubjectRulesReview"},
		Spec:     authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace},
	}), args...)))[0]
	var review authorizationv1.SelfSubjectRulesReview
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(answer.Object, &review); err != nil {
		c.Fatal(err)
	}
	if review.Status.Incomplete {
		c.Fatalf("the API server does not know all that %s may do: %s", who, review.Status.EvaluationError)
	}
	var rules []string
	for _, rule := range review.Status.ResourceRules {
		slices.Sort(rule.Verbs)
		slices.Sort(rule.ResourceNames)
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				line := resource
				if group != "" {
					line = group + "/" + resource
				}
				if len(rule.ResourceNames) > 0 {
					line += " " + strings.Join(rule.ResourceNames, ",")
				}
				rules = append(rules, line+": "+strings.Join(rule.Verbs, " "))
			}
		}
	}
	slices.Sort(rules)
	return rules
}

// What matters most, in the words in which it is promised.
func TestWhoMayAndWhoMayNot(t *testing.T) {
	c := cluster{t, shared.Start(t)}
	c.bindPeople()
	const accounts = "system:serviceaccount:vsecm-system:"
	tests := []struct {
		who, namespace, verb, group, resource, name string
		want                                        bool
	}{
		{accounts + "vsecm-safe", "vsecm-system", "get", "", "secrets", "vsecm-root-key", true},
		{accounts + "vsecm-safe", "vsecm-system", "get", "", "secrets", "git-credentials", true},
		{accounts + "vsecm-safe", "vsecm-system", "patch", "", "secrets", "git-credentials", false},
		{accounts + "vsecm-safe", "vsecm-system", "delete", "", "secrets", "vsecm-root-key", false},
		{accounts + "vsecm-safe", "vsecm-system", "update", "coordination.k8s.io", "leases", "vsecm-safe", true},
		{accounts + "vsecm-safe", "vsecm-system", "update", "coordination.k8s.io", "leases", "another", false},
		{accounts + "vsecm-safe", "shop", "create", "coordination.k8s.io", "leases", "", false},
		{accounts + "vsecm-safe", "vsecm-system", "delete", "", "configmaps", "vsecm-safe", false},
		{accounts + "vsecm-safe", "shop", "get", "", "secrets", "", false},
		{accounts + "vsecm-safe", "shop", "create", "", "secrets", "", false},
		{accounts + "vsecm-safe", "shop", "list", "", "secrets", "", false},
		{accounts + "vsecm-safe", "shop", "delete", "vsecm.com", "encryptedsecrets", "", true},
		{accounts + "vsecm-safe", "shop", "deletecollection", "vsecm.com", "encryptedsecrets", "", false},
		{accounts + "vsecm-safe", "shop", "create", "vsecm.com", "gitsources", "", false},
		{accounts + "vsecm-safe", "shop", "delete", "vsecm.com", "gitsources", "main", false},

		// What a status says is Safe's word alone.
		{"dora", "shop", "patch", "vsecm.com", "gitsources", "main", true},
		{"dora", "shop", "patch", "vsecm.com", "gitsources/status", "main", false},
		{"dora", "shop", "update", "vsecm.com", "gitsources/status", "main", false},
		{"dora", "shop", "patch", "vsecm.com", "encryptedsecrets/status", "db", false},
		{"dora", "shop", "update", "vsecm.com", "encryptedsecrets/status", "db", false},
		{"walt", "shop", "patch", "vsecm.com", "gitsources", "main", false},
		{accounts + "vsecm-admin", "vsecm-system", "patch", "vsecm.com", "gitsources/status", "main", false},
		{accounts + "vsecm-safe", "vsecm-system", "create", "", "serviceaccounts/token", "", false},
		{accounts + "vsecm-safe", "shop", "impersonate", "", "users", "", false},

		{accounts + "vsecm-viewer", "vsecm-system", "get", "vsecm.com", "safes", "vsecm-safe", true},
		{accounts + "vsecm-viewer", "vsecm-system", "unseal", "vsecm.com", "safes", "vsecm-safe", false},
		{accounts + "vsecm-operator", "vsecm-system", "unseal", "vsecm.com", "safes", "vsecm-safe", true},
		{accounts + "vsecm-operator", "vsecm-system", "override", "vsecm.com", "safes", "vsecm-safe", false},
		{accounts + "vsecm-operator", "vsecm-system", "exportkey", "vsecm.com", "safes", "vsecm-safe", false},
		{accounts + "vsecm-admin", "vsecm-system", "exportkey", "vsecm.com", "safes", "vsecm-safe", true},
		{accounts + "vsecm-operator", "vsecm-system", "unseal", "vsecm.com", "safes", "another", false},
		{accounts + "vsecm-operator", "shop", "unseal", "vsecm.com", "safes", "vsecm-safe", false},

		{accounts + "vsecm-safe", "shop", "reveal", "vsecm.com", "encryptedsecrets", "db", false},
		{accounts + "vsecm-viewer", "shop", "reveal", "vsecm.com", "encryptedsecrets", "db", false},
		{accounts + "vsecm-operator", "shop", "reveal", "vsecm.com", "encryptedsecrets", "db", false},
		{accounts + "vsecm-admin", "shop", "reveal", "vsecm.com", "encryptedsecrets", "db", false},
		{"adam", "shop", "reveal", "vsecm.com", "encryptedsecrets", "db", false},
		{"dora", "shop", "reveal", "vsecm.com", "encryptedsecrets", "db", false},
		{accounts + "vsecm-safe", "shop", "reencrypt", "vsecm.com", "encryptedsecrets", "", false},
		{accounts + "vsecm-viewer", "shop", "reencrypt", "vsecm.com", "encryptedsecrets", "", false},
		{accounts + "vsecm-operator", "shop", "reencrypt", "vsecm.com", "encryptedsecrets", "", false},
		{accounts + "vsecm-admin", "shop", "reencrypt", "vsecm.com", "encryptedsecrets", "", false},
		{"adam", "shop", "reencrypt", "vsecm.com", "encryptedsecrets", "", false},
		{"dora", "shop", "reencrypt", "vsecm.com", "encryptedsecrets", "db", false},

		// The accounts reach nothing of the cluster itself: what they may do, Safe does.
		{accounts + "vsecm-admin", "vsecm-system", "get", "", "secrets", "vsecm-root-key", false},
		{accounts + "vsecm-admin", "vsecm-system", "get", "", "pods", "", false},
		{"adam", "vsecm-system", "get", "", "secrets", "vsecm-root-key", false},
		{"adam", "vsecm-system", "unseal", "vsecm.com", "safes", "vsecm-safe", false},
		{"adam", "vsecm-system", "update", "", "configmaps", "vsecm-safe", false},
		{"nobody", "vsecm-system", "get", "", "configmaps", "vsecm-safe", true},
		{"nobody", "vsecm-system", "list", "", "configmaps", "", false},
		{"nobody", "vsecm-system", "get", "", "secrets", "vsecm-root-key", false},
	}
	// The question that Safe asks, all at once. kubectl's own, auth can-i, loses the group of a resource
	// that the API server does not have.
	var list []any
	for _, test := range tests {
		review := authorizationv1.SubjectAccessReview{}
		review.TypeMeta = metav1.TypeMeta{APIVersion: "authorization.k8s.io/v1", Kind: "SubjectAccessReview"}
		resource, subresource, _ := strings.Cut(test.resource, "/")
		review.Spec = authorizationv1.SubjectAccessReviewSpec{
			User: test.who, Groups: groupsOf(test.who),
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: test.namespace, Verb: test.verb, Group: test.group, Resource: resource, Subresource: subresource, Name: test.name,
			},
		}
		list = append(list, review)
	}
	text := jsonText(t, map[string]any{"apiVersion": "v1", "kind": "List", "items": list})
	answers := decode(t, []byte(c.kubectl(text, "create", "-f", "-", "-o", "json")))
	if len(answers) != len(tests) {
		t.Fatalf("%d answers to %d questions", len(answers), len(tests))
	}
	for i, test := range tests {
		if got, _, _ := unstructured.NestedBool(answers[i].Object, "status", "allowed"); got != test.want {
			t.Errorf("in %s, may %s %s %s.%s %s: %v, want %v", test.namespace, test.who, test.verb, test.resource, test.group, test.name, got, test.want)
		}
	}
}

// groupsOf returns the groups that the API server puts someone into.
func groupsOf(who string) []string {
	if strings.HasPrefix(who, "system:serviceaccount:vsecm-system:") {
		return []string{"system:serviceaccounts", "system:serviceaccounts:vsecm-system", "system:authenticated"}
	}
	return []string{"system:authenticated"}
}

func TestPeopleGetTokensOfTheirAccountsOnly(t *testing.T) {
	c := cluster{t, shared.Start(t)}
	c.bindPeople()
	may := map[string][]string{
		"vera":   {"vsecm-viewer"},
		"olga":   {"vsecm-viewer", "vsecm-operator"},
		"adam":   {"vsecm-viewer", "vsecm-operator", "vsecm-admin"},
		"dora":   nil,
		"nobody": nil,
	}
	for person, accounts := range may {
		kubeconfig := c.UserKubeconfig(t, person)
		for _, account := range []string{"vsecm-safe", "vsecm-viewer", "vsecm-operator", "vsecm-admin"} {
			_, stderr, err := c.Kubectl(t, kubeconfig, "", "create", "token", account, "-n", "vsecm-system", "--audience=vsecm-safe/test")
			switch want := slices.Contains(accounts, account); {
			case want && err != nil:
				t.Errorf("%s gets no token of %s: %s", person, account, stderr)
			case !want && (err == nil || !strings.Contains(stderr, "is forbidden")):
				t.Errorf("%s and a token of %s: %v: %s", person, account, err, stderr)
			}
		}
	}
}

func TestRevealAndReencryptAreGrantedByNamespace(t *testing.T) {
	c := cluster{t, shared.Start(t)}
	c.bindPeople()
	c.kubectl("", "create", "namespace", "vault")
	for _, verb := range []string{"reveal", "reencrypt"} {
		granted := "vsecm.com/encryptedsecrets: " + verb
		if got := c.rules("system:serviceaccount:vsecm-system:vsecm-admin", "vault"); slices.Contains(got, granted) {
			t.Errorf("before it is bound it may do %v", got)
		}
		c.kubectl("", "create", "rolebinding", "vsecm-"+verb, "-n", "vault", "--clusterrole=vsecm-"+verb, "--serviceaccount=vsecm-system:vsecm-admin")
		if got := c.rules("system:serviceaccount:vsecm-system:vsecm-admin", "vault"); !slices.Contains(got, granted) {
			t.Errorf("may do %v", got)
		}
		if got := c.rules("system:serviceaccount:vsecm-system:vsecm-admin", "shop"); slices.Contains(got, granted) {
			t.Errorf("in another namespace it may do %v", got)
		}
	}
}
