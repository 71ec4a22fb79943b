package monitoring

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const folder = "../../safe/monitoring"

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	check(t, err)
	return string(text)
}

func readYAML(t *testing.T, into any, path ...string) {
	t.Helper()
	check(t, yaml.Unmarshal([]byte(read(t, path...)), into))
}

// promtool runs Prometheus' own tool, which hack/prepare provides.
func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	if out, err := tryPromtool(t, stdin, args...); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func tryPromtool(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		path = "../../.cache/promtool/promtool"
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestTheRulesAlertWhenTheyShouldAndOnlyThen(t *testing.T) {
	promtool(t, "", "check", "rules", filepath.Join(folder, "rules.yaml"))
	promtool(t, "", "test", "rules", "testdata/alerts.yaml")
}

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func rules(t *testing.T) (all []rule) {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []rule `json:"rules"`
		} `json:"groups"`
	}
	readYAML(t, &file, folder, "rules.yaml")
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) < 20 {
		t.Fatalf("%d rules", len(all))
	}
	return all
}

func TestEveryAlertIsTestedAndExplained(t *testing.T) {
	docs, tests := read(t, "../../docs/monitoring.md"), read(t, "testdata/alerts.yaml")
	known := map[string]bool{}
	for _, r := range rules(t) {
		known[r.Alert] = true
		if !strings.Contains(tests, `alertname="`+r.Alert+`",alertstate="firing"`) && !strings.Contains(tests, "alertname: "+r.Alert+"\n") {
			t.Errorf("no test has %s", r.Alert)
		}
		if !strings.Contains(docs, "`"+r.Alert+"`") {
			t.Errorf("docs/monitoring.md does not say what to do about %s", r.Alert)
		}
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s: labels %v, annotations %v", r.Alert, r.Labels, r.Annotations)
		}
	}
	for _, name := range regexp.MustCompile("`(VSecM[A-Za-z]+)`").FindAllStringSubmatch(docs, -1) {
		if !known[name[1]] {
			t.Errorf("docs/monitoring.md has %s, which is no alert", name[1])
		}
	}
}

func TestTheOperatorsRulesAreTheSame(t *testing.T) {
	_, groups, _ := strings.Cut(read(t, folder, "rules.yaml"), "\ngroups:")
	indented := regexp.MustCompile(`(?m)^(.)`).ReplaceAllString("groups:"+groups, "  $1")
	if got := read(t, folder, "PrometheusRule.yaml"); !strings.HasSuffix(got, "\nspec:\n"+indented) {
		t.Error("the groups in PrometheusRule.yaml are not those of rules.yaml, each line two spaces further in")
	}
	var ruled, plain map[string]any
	readYAML(t, &ruled, folder, "PrometheusRule.yaml")
	readYAML(t, &plain, folder, "rules.yaml")
	one, err := json.Marshal(ruled["spec"])
	check(t, err)
	other, err := json.Marshal(plain)
	check(t, err)
	if string(one) != string(other) {
		t.Error("they do not mean the same")
	}
}

// queries are those of the dashboard, by panel, without Grafana's variables.
func queries(t *testing.T) map[string]string {
	t.Helper()
	var dashboard struct {
		UID, Title string
		Panels     []struct {
			ID      int
			Type    string
			Title   string
			Targets []struct{ RefID, Expr string }
		}
	}
	text := read(t, folder, "dashboard.json")
	check(t, json.Unmarshal([]byte(text), &dashboard))
	all, ids := map[string]string{}, map[int]bool{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d, %q, is there twice, or shows nothing", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			all[fmt.Sprintf("%d %s %s", p.ID, p.Title, target.RefID)] = strings.NewReplacer("$__rate_interval", "5m", "$namespace", ".*").Replace(target.Expr)
		}
	}
	if len(all) < 30 || dashboard.UID == "" {
		t.Errorf("the dashboard has %d queries, and uid %q", len(all), dashboard.UID)
	}
	return all
}

func TestTheDashboardsQueriesAreQueries(t *testing.T) {
	type recording struct {
		Record string            `json:"record"`
		Expr   string            `json:"expr"`
		Labels map[string]string `json:"labels"`
	}
	var records []recording
	all := queries(t)
	for i, panel := range slices.Sorted(maps.Keys(all)) {
		if strings.Contains(all[panel], "$") {
			t.Errorf("%s: %s", panel, all[panel])
		}
		records = append(records, recording{fmt.Sprintf("panel%d", i), all[panel], map[string]string{"panel": panel}})
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": records}}})
	check(t, err)
	path := filepath.Join(t.TempDir(), "dashboard.yaml")
	check(t, os.WriteFile(path, text, 0o600))
	promtool(t, "", "check", "rules", path)
}

func TestEverythingAsksForMetricsThatSafeExports(t *testing.T) {
	names, _ := exported(t)
	api := read(t, "../../docs/api.md")
	asking := map[string]string{
		"docs/monitoring.md": read(t, "../../docs/monitoring.md"), "docs/api.md": api, "alerts.yaml": read(t, "testdata/alerts.yaml"),
		"docs/operations.md": read(t, "../../docs/operations.md"),
	}
	for _, r := range rules(t) {
		asking[r.Alert] = r.Expr
		if len(used(r.Expr)) == 0 {
			t.Errorf("%s asks for nothing: %s", r.Alert, r.Expr)
		}
	}
	shown := map[string]bool{}
	for panel, query := range queries(t) {
		asking[panel] = query
		for _, name := range used(query) {
			shown[strings.TrimSuffix(name, "_bucket")] = true
		}
	}
	for where, text := range asking {
		for _, name := range used(text) {
			if !isExported(name, names) {
				t.Errorf("%s has %s, which Safe does not export", where, name)
			}
		}
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "vsecm_") {
			continue
		}
		if !strings.Contains(api, "| `"+name+"` |") {
			t.Errorf("docs/api.md does not list %s", name)
		}
		if !shown[name] && name != "vsecm_sync_skips" { // that is no fault, and in the status
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}

func TestSafesPodsAreScraped(t *testing.T) {
	var monitor struct {
		Metadata struct{ Namespace string }
		Spec     struct {
			Selector            struct{ MatchLabels map[string]string }
			PodMetricsEndpoints []struct{ Port, Path string }
		}
	}
	readYAML(t, &monitor, folder, "PodMonitor.yaml")
	var deployment struct {
		Metadata struct{ Namespace string }
		Spec     struct {
			Template struct {
				Metadata struct{ Labels map[string]string }
				Spec     struct {
					Containers []struct {
						Ports []struct {
							Name          string
							ContainerPort int
						}
					}
				}
			}
		}
	}
	readYAML(t, &deployment, "../../safe/base/Deployment.yaml")
	pod := deployment.Spec.Template
	if monitor.Metadata.Namespace != deployment.Metadata.Namespace || !maps.Equal(monitor.Spec.Selector.MatchLabels, pod.Metadata.Labels) {
		t.Errorf("it scrapes pods %v, and Safe's are %v", monitor.Spec.Selector.MatchLabels, pod.Metadata.Labels)
	}
	port := 0
	for _, p := range pod.Spec.Containers[0].Ports {
		if p.Name == monitor.Spec.PodMetricsEndpoints[0].Port {
			port = p.ContainerPort
		}
	}
	if port != 9090 || monitor.Spec.PodMetricsEndpoints[0].Path != "/metrics" {
		t.Errorf("it scrapes %+v, which is port %d", monitor.Spec.PodMetricsEndpoints[0], port)
	}
	var kustomization struct{ Resources []string }
	readYAML(t, &kustomization, folder, "kustomization.yaml")
	if want := []string{"PodMonitor.yaml", "PrometheusRule.yaml"}; !slices.Equal(kustomization.Resources, want) {
		t.Errorf("kustomize applies %q", kustomization.Resources)
	}
}
