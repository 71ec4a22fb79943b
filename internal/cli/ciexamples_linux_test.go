package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const ciVersion = "v1.2.3"

// A ciJob plays what a configuration for CI does, in a repository that is checked out.
type ciJob struct {
	play   func(t *testing.T, ci ciPlace) error
	report string // the file in which the faults are for others to show
}

// A ciPlace is where a job runs.
type ciPlace struct {
	dir, temporary string
	url, sum       string // of the archive
}

// What the examples for CI do is done, with a release from a real server, and with programs of the machine alone.
func TestTheExamplesForCICheckARepositoryWithARelease(t *testing.T) {
	schema := schemaOfSARIF(t)
	archive := pluginArchive(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// What is in it runs on each.
		name, _ := strings.CutPrefix(r.URL.Path, "/"+ciVersion+"/kubectl-vsecm_"+ciVersion+"_linux_")
		if name != "amd64.tar.gz" && name != "arm64.tar.gz" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(archive)
	}))
	t.Cleanup(server.Close)
	sum := fmt.Sprintf("%x", sha256.Sum256(archive))

	for name, job := range map[string]ciJob{
		"GitHub": {readAction(t), "vsecm.sarif"},
		"GitLab": {readGitLab(t), "vsecm.xml"},
	} {
		t.Run(name, func(t *testing.T) {
			inFolder(t, nil)
			place := func(sum string) ciPlace {
				return ciPlace{dir: ".", temporary: t.TempDir(), url: server.URL, sum: sum}
			}
			if code, _, stderr := run(t, "", "encrypt", "db", "-n", "shop", "--from-literal", "a="+marker, "-w", "db.yaml"); code != exitOK {
				t.Fatal(stderr)
			}
			// Whoever opens a pull request may have it hold a link.
			if err := os.Symlink("db.yaml", job.report); err != nil {
				t.Fatal(err)
			}
			if err := job.play(t, place(sum)); err != nil {
				t.Fatalf("what is right is refused: %v", err)
			}
			report, err := os.ReadFile(job.report)
			if err != nil {
				t.Fatal(err)
			}
			if name == "GitHub" {
				if results := readSARIF(t, schema, string(report)).Runs[0].Results; len(results) != 0 {
					t.Errorf("results without a fault: %s", report)
				}
			}

			wrong := place(strings.Repeat("0", 64))
			if err := job.play(t, wrong); err == nil {
				t.Error("an archive with another sum was used")
			}
			if left, _ := filepath.Glob(filepath.Join(wrong.temporary, "*", "kubectl-vsecm")); left != nil {
				t.Errorf("an archive with another sum was unpacked: %s", left)
			}

			text, err := os.ReadFile("db.yaml")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile("copied.yaml", bytes.Replace(text, []byte("name: db"), []byte("name: copied"), 1), 0o644); err != nil {
				t.Fatal(err)
			}
			err = job.play(t, place(sum))
			if err == nil || !strings.Contains(err.Error(), "copied.yaml:9: spec.encryptedData.a: not bound to this place") {
				t.Errorf("the log does not tell of a fault: %v", err)
			}
			if name == "GitHub" && err != nil {
				log := err.Error()
				stop := regexp.MustCompile(`(?m)^::stop-commands::([0-9a-f]{32})$`).FindStringSubmatchIndex(log)
				if stop == nil || strings.Index(log, "copied.yaml") < stop[1] || !strings.HasSuffix(log, "\n::"+log[stop[2]:stop[3]]+"::\n") {
					t.Errorf("the name of a file can command the runner: %s", log)
				}
			}
			report, err = os.ReadFile(job.report)
			if err != nil || !bytes.Contains(report, []byte("wrong-place")) || !bytes.Contains(report, []byte("copied.yaml")) {
				t.Errorf("the report does not tell of a fault: %v\n%s", err, report)
			}

			// What cannot be looked for is no report of none.
			if err := os.WriteFile(".vsecm.yaml", []byte("rules: {"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := job.play(t, place(sum)); err == nil {
				t.Error("a project file that cannot be read passes")
			}
			if report, err = os.ReadFile(job.report); len(report) > 0 {
				t.Errorf("there is a report of what was not looked for: %v\n%s", err, report)
			}
		})
	}
}

// The pre-commit framework hands over names of files as they are.
func TestTheHookForPreCommitTakesNoFileForAFlag(t *testing.T) {
	var hooks []struct{ Entry string }
	readYAML(t, "../../.pre-commit-hooks.yaml", &hooks)
	const name = "--kubeconfig=db.yaml"
	inFolder(t, map[string]string{name: "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\n"})
	for _, hook := range hooks {
		words := append(strings.Fields(hook.Entry), name)
		if code, stdout, stderr := run(t, "", words[1:]...); code == exitOK || !strings.Contains(stdout+stderr, name+":1: ") {
			t.Errorf("%s: exit code %d, %s%s", hook.Entry, code, stdout, stderr)
		}
	}
}

// pluginArchive is like a release's, with this binary.
func pluginArchive(t *testing.T) []byte {
	t.Helper()
	plugin, err := exec.LookPath("kubectl-vsecm")
	if err != nil {
		t.Fatal(err)
	}
	script := []byte("#!/bin/sh\nexec '" + plugin + "' \"$@\"\n")
	var out bytes.Buffer
	gz := gzip.NewWriter(&out)
	tw := tar.NewWriter(gz)
	for _, f := range []struct {
		name string
		mode int64
		body []byte
	}{{"LICENSE", 0o644, []byte("license\n")}, {"kubectl-vsecm", 0o755, script}} {
		if err := tw.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// bash runs a script, on a PATH that holds no plugin but in the folders given.
func (p ciPlace) bash(script string, path []string, env ...string) error {
	cmd := exec.Command("bash", "-eo", "pipefail", "-c", script)
	cmd.Dir = p.dir
	cmd.Env = append(env, "PATH="+strings.Join(append(path, "/usr/bin", "/bin"), ":"), "HOME="+p.temporary)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

var actionInput = regexp.MustCompile(`^\$\{\{ inputs\.([a-z0-9]+) \}\}$`)

// readAction reads the composite action for GitHub, and the workflows that use it.
func readAction(t *testing.T) func(t *testing.T, p ciPlace) error {
	var action struct {
		Inputs map[string]struct{ Default string }
		Runs   struct {
			Using string
			Steps []struct {
				Name, Shell, Run string
				Env              map[string]string
			}
		}
	}
	readYAML(t, "../../examples/github-action/action.yml", &action)
	if action.Runs.Using != "composite" || len(action.Runs.Steps) == 0 {
		t.Fatalf("no steps: %+v", action)
	}
	for _, step := range action.Runs.Steps {
		if strings.Contains(step.Run, "${{") {
			t.Errorf("step %q: an input becomes part of the script", step.Name)
		}
	}
	for _, workflow := range []string{"../../examples/github-action/workflow.yaml", "../../examples/gitops/.github/workflows/secrets.yaml"} {
		var used struct {
			Jobs map[string]struct {
				Steps []struct {
					Uses string
					With map[string]string
				}
			}
		}
		readYAML(t, workflow, &used)
		found := false
		for _, step := range used.Jobs["validate"].Steps {
			if !strings.HasPrefix(step.Uses, "vsecm/kubectl-vsecm/examples/github-action@") {
				continue
			}
			found = true
			for input := range step.With {
				if _, there := action.Inputs[input]; !there {
					t.Errorf("%s: the action has no input %q", workflow, input)
				}
			}
			if step.With["version"] == "" || step.With["sha256"] == "" {
				t.Errorf("%s: an input that the action requires is missing", workflow)
			}
		}
		if !found {
			t.Errorf("%s does not use the action", workflow)
		}
	}

	return func(t *testing.T, p ciPlace) error {
		given := map[string]string{"version": ciVersion, "url": p.url, "sha256": p.sum}
		arch := map[string]string{"amd64": "X64", "arm64": "ARM64"}[runtime.GOARCH]
		pathFile := filepath.Join(p.temporary, "path")
		for _, step := range action.Runs.Steps {
			env := []string{"RUNNER_OS=Linux", "RUNNER_ARCH=" + arch, "RUNNER_TEMP=" + p.temporary, "GITHUB_PATH=" + pathFile}
			for name, value := range step.Env {
				input := actionInput.FindStringSubmatch(value)
				if input == nil {
					t.Fatalf("step %q: %s is %s", step.Name, name, value)
				}
				of, there := action.Inputs[input[1]]
				if !there {
					t.Fatalf("step %q: there is no input %s", step.Name, input[1])
				}
				if given, there := given[input[1]]; there {
					of.Default = given
				}
				env = append(env, name+"="+of.Default)
			}
			var path []string
			if text, err := os.ReadFile(pathFile); err == nil {
				path = strings.Fields(string(text))
			}
			if err := p.bash(step.Run, path, env...); err != nil {
				return err
			}
		}
		return nil
	}
}

// readGitLab reads the job for GitLab, and what includes it.
func readGitLab(t *testing.T) func(t *testing.T, p ciPlace) error {
	const file = "validate.gitlab-ci.yml"
	var ci struct {
		Validate struct {
			Variables    map[string]string
			BeforeScript []string `yaml:"before_script"`
			Script       []string
			Artifacts    struct {
				When    string
				Reports struct{ JUnit string }
			}
		}
	}
	readYAML(t, "../../examples/gitlab/"+file, &ci)
	if job := ci.Validate; len(job.Script) == 0 || job.Artifacts.When != "always" || job.Artifacts.Reports.JUnit != "vsecm.xml" {
		t.Fatalf("%+v", job)
	}
	var including struct {
		Include   []struct{ Remote string }
		Variables map[string]string
	}
	readYAML(t, "../../examples/gitops/.gitlab-ci.yml", &including)
	version := including.Variables["VSECM_VERSION"]
	if want := "https://raw.githubusercontent.com/vsecm/kubectl-vsecm/" + version + "/examples/gitlab/" + file; version == "" || len(including.Include) != 1 || including.Include[0].Remote != want {
		t.Errorf("the example for GitOps includes %v, not %s", including.Include, want)
	}

	return func(t *testing.T, p ciPlace) error {
		bin := filepath.Join(p.temporary, "bin")
		if err := os.MkdirAll(bin, 0o755); err != nil {
			t.Fatal(err)
		}
		// The image's packages are on this machine.
		if err := os.WriteFile(filepath.Join(bin, "apt-get"), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		env := []string{"VSECM_VERSION=" + ciVersion, "VSECM_SHA256=" + p.sum}
		for name, value := range ci.Validate.Variables {
			if name == "VSECM_URL" {
				value = p.url
			}
			env = append(env, name+"="+value)
		}
		script := strings.Join(append(ci.Validate.BeforeScript, ci.Validate.Script...), "\n")
		script = strings.NewReplacer("/usr/local/bin", bin, "/tmp/", p.temporary+"/").Replace(script)
		return p.bash(script, []string{bin}, env...)
	}
}
