package safe_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// drillPage is what an operator plays.
const drillPage = "../../docs/drill.md"

// writeDrill puts what the commands print into the page, in place of comparing it.
var writeDrill = flag.Bool("write-drill", false, "write what the commands of docs/drill.md print into it")

// What docs/drill.md has an operator type prints what the page shows, at real clusters, with the real Safe, age, tar
// and git: key ids, times and ages apart.
func TestTheDrillDoesWhatItsPageSays(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(drillPage)
	if err != nil {
		t.Fatal(err)
	}
	d := newDrill(t)
	steps := stepsOf(t, string(page))
	played := make(map[string]int)
	if *writeDrill {
		// As far as it went.
		defer func() {
			if err := os.WriteFile(drillPage, []byte(d.rewritten(string(page), steps)), 0o644); err != nil {
				t.Error(err)
			}
		}()
	}
	for _, s := range steps {
		if played[s.section] == 0 {
			d.enter(s.section)
		}
		played[s.section]++
		d.step(s)
		s.played = true
	}
	for _, section := range drillSections {
		if played[section] == 0 {
			t.Errorf("nothing of section %q was played", section)
		}
	}
}

// A step is a block of commands of the page, and the block that shows what they print, if they print anything.
type step struct {
	section  string
	commands string
	until    bool // it is played again until it prints what is shown: somebody else has to notice something first
	output   string
	start    int // of the block of commands, in the page
	end      int // of both blocks
	printed  string
	played   bool
}

var (
	drillHeading = regexp.MustCompile(`(?m)^## (.+)$`)
	drillStep    = regexp.MustCompile("(?ms)^```sh( until)?\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?")
)

func stepsOf(t *testing.T, page string) (steps []*step) {
	t.Helper()
	part := func(from, to int) string {
		if from < 0 {
			return ""
		}
		return page[from:to]
	}
	for _, at := range drillStep.FindAllStringSubmatchIndex(page, -1) {
		headings := drillHeading.FindAllStringSubmatch(page[:at[0]], -1)
		if len(headings) == 0 {
			t.Fatal("commands before the first heading")
		}
		steps = append(steps, &step{
			section: headings[len(headings)-1][1], until: at[2] >= 0,
			commands: part(at[4], at[5]), output: part(at[6], at[7]), start: at[0], end: at[1],
		})
	}
	return steps
}

// drillSections are those of the page with commands.
var drillSections = []string{
	"Back up", "The key's Secret is gone", "Replace the root key", "Replace what is inside",
	"The cluster is gone", "A person left", "Safe is gone for good",
}

// A drill is a person at a terminal, a git server, and the cluster that they work with.
type drill struct {
	t      *testing.T
	c      *cluster
	sh     *shell
	server *gitserver.Server
	names  map[string]string // of the addresses of replicas
	same   map[string]string // of a key id of the page, what it is here, and the other way round
}

// newDrill has what the page begins with: an unsealed Safe of two replicas, a repository that it follows, an object
// that was applied by hand, and the keys of those who take part.
func newDrill(t *testing.T) *drill {
	d := &drill{t: t, names: make(map[string]string), same: make(map[string]string)}
	d.c = newCluster(t, "manual")
	d.server = gitserver.New(t, gitserver.Options{TLS: true})
	repository := d.server.Repo("secrets.git")
	repository.Git("", "config", "http.receivepack", "true")

	dir := t.TempDir()
	ca := filepath.Join(dir, ".git-ca.crt")
	if err := os.WriteFile(ca, d.server.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	env := d.c.cp.KubectlEnv(d.c.cp.Kubeconfig())
	for i, variable := range env {
		if path, is := strings.CutPrefix(variable, "PATH="); is {
			env[i] = "PATH=" + agePrograms(t) + string(os.PathListSeparator) + path
		}
	}
	d.sh = openShell(t, dir, append(env, "TMPDIR="+dir, "GIT_CA="+ca, "REPOSITORY="+d.server.URL+"/secrets.git",
		"GIT_SSL_CAINFO="+ca, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Olga", "GIT_AUTHOR_EMAIL=olga@example.com", "GIT_COMMITTER_NAME=Olga", "GIT_COMMITTER_EMAIL=olga@example.com"))
	d.replicas("vsecm-safe-6c9d7f5b8-4kx2p", "vsecm-safe-6c9d7f5b8-zt7qm")
	d.sh.play("before", drillInstalled)
	d.sh.play("before", drillBegins)
	d.old(filepath.Join(dir, "secrets"))
	d.sh.play("before", drillFollows)
	return d
}

// drillBegins makes keys, and a repository for secrets.
const drillBegins = `
kubectl vsecm keygen -o root-key.txt
kubectl vsecm unseal --file root-key.txt
for who in break-glass alice bob carol dave; do
  age-keygen -pq -o $who.txt
  age-keygen -y $who.txt > $who.pub
done
git init -q -b main secrets
cd secrets
mkdir -p keys secrets/shop
kubectl vsecm recipient > keys/cluster.txt
cat > .vsecm.yaml <<END
rules:
  - path: secrets/shop/**
    recipients:
      - $(cat ../break-glass.pub)
    recipientsFile: keys/cluster.txt
    namespace: shop
END
kubectl vsecm encrypt mail --from-literal token=smtp-token -w secrets/shop/mail.yaml
cd ..
`

// drillInstalled is what both clusters have, beside Safe.
const drillInstalled = `
kubectl create namespace billing
kubectl create secret generic git -n shop --from-file=ca.crt="$GIT_CA"
kubectl label secret git -n shop vsecm.com/git-credentials=
kubectl create rolebinding vsecm-deliver -n shop --clusterrole=vsecm-deliver --serviceaccount=vsecm-system:vsecm-safe
`

// drillFollows has Safe follow the repository, and one more object applied by hand.
const drillFollows = `
cd secrets
git add .
git commit -q -m "Encrypt the secrets of shop"
git remote add origin "$REPOSITORY"
git push -q -u origin main
cd ..
cat > gitsource.yaml <<END
apiVersion: vsecm.com/v1alpha1
kind: GitSource
metadata: {name: secrets, namespace: shop}
spec:
  url: $REPOSITORY
  ref: {branch: main}
  interval: 10m
  secretRef: {name: git}
END
kubectl apply -f gitsource.yaml
kubectl wait gitsource/secrets -n shop --for=condition=Ready --timeout=2m
kubectl vsecm encrypt payments -n billing --from-literal api-key=pay-me --recipient "$(kubectl vsecm recipient)" | kubectl apply -f -
`

// old writes a secret that was sealed 120 days ago.
func (d *drill) old(repository string) {
	d.t.Helper()
	var to []encrypt.Recipient
	for _, file := range []string{filepath.Join(repository, "keys/cluster.txt"), filepath.Join(repository, "../break-glass.pub")} {
		text, err := os.ReadFile(file)
		if err != nil {
			d.t.Fatal(err)
		}
		r, err := encrypt.ParseRecipient(strings.TrimSpace(string(text)))
		if err != nil {
			d.t.Fatal(err)
		}
		to = append(to, r)
	}
	o := &v1alpha1.EncryptedSecret{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"},
		Spec:       v1alpha1.EncryptedSecretSpec{EncryptedData: map[string]string{}},
	}
	sealed, err := encrypt.Seal([]byte("old password"), encrypt.BindingOf(o, "password"), to, time.Now().Add(-120*24*time.Hour-time.Hour))
	if err != nil {
		d.t.Fatal(err)
	}
	o.Spec.EncryptedData["password"] = sealed
	text, err := yaml.Marshal(map[string]any{
		"apiVersion": o.APIVersion, "kind": o.Kind, "metadata": map[string]string{"name": "db", "namespace": "shop"},
		"spec": map[string]any{"encryptedData": o.Spec.EncryptedData},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(repository, "secrets/shop/db.yaml"), text, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// agePrograms returns a folder with age and age-keygen.
func agePrograms(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir+"/", "filippo.io/age/cmd/age", "filippo.io/age/cmd/age-keygen")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build.Args, err, out)
	}
	return dir
}

// replicas starts replicas, and has the shell reach them.
func (d *drill) replicas(names ...string) {
	d.t.Helper()
	for _, name := range names {
		// Pods have an SVID each; by theirs the plugin tells replicas from one another.
		svid, err := d.c.ca.Listen(filepath.Join(d.c.dir, name), spiffeid.RequireFromString(safeID), time.Hour)
		if err != nil {
			d.t.Fatal(err)
		}
		d.t.Cleanup(svid.Close)
		d.c.svid = svid
		d.c.start(name)
	}
	var urls []string
	for _, r := range d.c.replicas {
		url := "https://" + r.at.API
		urls, d.names[url] = append(urls, url), r.name
	}
	d.sh.play("", "export KUBECONFIG="+d.c.cp.Kubeconfig()+" VSECM_SAFE="+strings.Join(urls, ","))
}

// enter does what the page says has happened before a section's first command.
func (d *drill) enter(section string) {
	d.t.Helper()
	switch section {
	case "The cluster is gone":
		for _, r := range slices.Clone(d.c.replicas) {
			r.process.kill()
			d.c.gone(r)
		}
		d.c = newCluster(d.t, "memory")
		d.replicas("vsecm-safe-7d4b9c6f4-q8w5d", "vsecm-safe-7d4b9c6f4-x2n6j")
		d.sh.play(section, drillInstalled)
	case "Safe is gone for good":
		for _, r := range slices.Clone(d.c.replicas) {
			r.process.kill()
			d.c.gone(r)
		}
		d.sh.play("", "export KUBECONFIG=/dev/null; unset VSECM_SAFE")
	}
}

// step plays a step.
func (d *drill) step(s *step) {
	d.t.Helper()
	if strings.Contains(s.commands, "kubectl rollout restart") {
		d.restart()
		return
	}
	deadline := time.Now().Add(patience)
	if *writeDrill {
		deadline = time.Now().Add(5 * time.Second)
	}
	for {
		s.printed = d.readable(d.sh.play(s.section, s.commands))
		if *writeDrill && !s.until {
			return
		}
		err := d.agree(s.output, s.printed)
		if err == nil {
			return
		}
		if !s.until || time.Now().After(deadline) {
			if *writeDrill {
				return
			}
			d.t.Errorf("%s: %v\n%s\nthe page shows:\n%s\nprinted is:\n%s", s.section, err, s.commands, s.output, s.printed)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// restart replaces one replica, as Kubernetes would.
func (d *drill) restart() {
	d.t.Helper()
	r := d.c.replicas[0]
	r.process.stop(d.t)
	d.c.gone(r)
	d.replicas("vsecm-safe-7d4b9c6f4-m7c4t")
}

var (
	drillServer   = regexp.MustCompile(`https://127\.0\.0\.1:\d+`) // the API server
	longRecipient = regexp.MustCompile(`\bage1pq1[a-z0-9]{20,}`)
	drillKeyID    = regexp.MustCompile(`\b[0-9a-f]{32}\b|\b[0-9a-f]{12}\b`)
	// What differs each time: digests, commits, times, ages.
	drillDigest = regexp.MustCompile(`\b[0-9a-f]{64}\b|\b[0-9a-f]{40}\b`)
	drillTime   = regexp.MustCompile(`\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|[+-]\d\d:?\d\d)?`)
	drillAge    = regexp.MustCompile(`\b\d+(ms|s|m|m\d+s)\b`)
	drillSize   = regexp.MustCompile(`\b\d+ bytes|\b\d+(\.\d+)? [KM]iB\b`)
	drillLeads  = regexp.MustCompile(`(sealed  +)(True|False)( +(manual|base)/)`) // either replica may
	drillBlanks = regexp.MustCompile(`  +`)
)

// readable writes what was printed as the page has it: what nobody can read, and where the replicas of a test
// listen, is left out.
func (d *drill) readable(printed string) string {
	for url, name := range d.names {
		printed = strings.ReplaceAll(printed, url, name)
		printed = strings.ReplaceAll(printed, strings.TrimPrefix(url, "https://"), name)
	}
	printed = strings.ReplaceAll(printed, d.server.URL, "https://git.example.com/team")
	printed = drillServer.ReplaceAllString(printed, "https://cluster.example.com:6443")
	return longRecipient.ReplaceAllString(printed, "age1pq1…")
}

// agree compares what the page shows with what was printed.
func (d *drill) agree(shown, printed string) error {
	same := maps.Clone(d.same)
	a, b := strings.Split(drillNormal(shown), "\n"), strings.Split(drillNormal(printed), "\n")
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			return fmt.Errorf("line %d is printed, and not shown: %q", i+1, b[i])
		case i >= len(b):
			return fmt.Errorf("line %d is shown, and not printed: %q", i+1, a[i])
		case drillKeyID.ReplaceAllString(a[i], "KEY") != drillKeyID.ReplaceAllString(b[i], "KEY"):
			return fmt.Errorf("line %d is shown as %q, and printed is %q", i+1, a[i], b[i])
		}
		if err := sameKeys(same, drillKeyID.FindAllString(a[i], -1), drillKeyID.FindAllString(b[i], -1)); err != nil {
			return fmt.Errorf("line %d, %q: %w", i+1, b[i], err)
		}
	}
	d.same = same
	return nil
}

// sameKeys tells whether key ids differ from those of the page, but stand for the same keys as on the rest of it.
func sameKeys(same map[string]string, shown, printed []string) error {
	for i, id := range shown {
		id, is := "page "+id[:12], "here "+printed[i][:12]
		if same[id] == "" && same[is] == "" {
			same[id], same[is] = is, id
		}
		if same[id] != is {
			return fmt.Errorf("%s was %s, and now is %s", id, same[id], is)
		}
	}
	return nil
}

func drillNormal(text string) string {
	text = drillDigest.ReplaceAllString(text, "DIGEST")
	text = drillTime.ReplaceAllString(text, "TIME")
	text = drillSize.ReplaceAllString(text, "SIZE")
	text = drillLeads.ReplaceAllString(text, "${1}LEADS${3}")
	text = drillAge.ReplaceAllString(text, "AGE")
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(drillBlanks.ReplaceAllString(line, "  "), " ")
	}
	return strings.Join(lines, "\n")
}

// rewritten is the page with what was printed.
func (d *drill) rewritten(page string, steps []*step) string {
	var b strings.Builder
	at := 0
	for _, s := range steps {
		b.WriteString(page[at:s.start])
		until := ""
		if s.until {
			until = " until"
		}
		fmt.Fprintf(&b, "```sh%s\n%s```\n", until, s.commands)
		printed := s.printed
		if printed == "" && !s.played {
			printed = s.output
		}
		if printed != "" {
			fmt.Fprintf(&b, "\n```text\n%s```\n", printed)
		}
		at = s.end
	}
	b.WriteString(page[at:])
	return b.String()
}
