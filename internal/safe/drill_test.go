package safe_test

import (
	"flag"
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
	"github.com/vsecm/kubectl-vsecm/internal/testenv/docpage"
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
	page, err := docpage.Read(drillPage)
	if err != nil {
		t.Fatal(err)
	}
	d := newDrill(t)
	played := make(map[string]int)
	if *writeDrill {
		// As far as it went.
		defer func() {
			if err := page.Write(); err != nil {
				t.Error(err)
			}
		}()
	}
	for _, b := range page.Blocks {
		if b.Kind != docpage.Commands || b.Skipped != "" {
			continue
		}
		section := b.Chapter
		if played[section] == 0 {
			d.enter(section)
		}
		played[section]++
		d.step(page.At(b), b)
	}
	for _, section := range drillSections {
		if played[section] == 0 {
			t.Errorf("nothing of section %q was played", section)
		}
	}
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
	sh     *docpage.Shell
	server *gitserver.Server
	names  map[string]string // of the addresses of replicas

	comparison docpage.Comparison
}

// newDrill has what the page begins with: an unsealed Safe of two replicas, a repository that it follows, an object
// that was applied by hand, and the keys of those who take part.
func newDrill(t *testing.T) *drill {
	d := &drill{t: t, names: make(map[string]string)}
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
	d.sh = docpage.OpenShell(t, dir, append(env, "TMPDIR="+dir, "GIT_CA="+ca, "REPOSITORY="+d.server.URL+"/secrets.git",
		"GIT_SSL_CAINFO="+ca, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Olga", "GIT_AUTHOR_EMAIL=olga@example.com", "GIT_COMMITTER_NAME=Olga", "GIT_COMMITTER_EMAIL=olga@example.com"))
	d.replicas("vsecm-safe-6c9d7f5b8-4kx2p", "vsecm-safe-6c9d7f5b8-zt7qm")
	d.sh.Play("before", drillInstalled)
	d.sh.Play("before", drillBegins)
	d.old(filepath.Join(dir, "secrets"))
	d.sh.Play("before", drillFollows)
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
	d.sh.Play("", "export KUBECONFIG="+d.c.cp.Kubeconfig()+" VSECM_SAFE="+strings.Join(urls, ","))
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
		d.sh.Play(section, drillInstalled)
	case "Safe is gone for good":
		for _, r := range slices.Clone(d.c.replicas) {
			r.process.kill()
			d.c.gone(r)
		}
		d.sh.Play("", "export KUBECONFIG=/dev/null; unset VSECM_SAFE")
	}
}

// step plays a block of commands.
func (d *drill) step(what string, b *docpage.Block) {
	d.t.Helper()
	if strings.Contains(b.Text, "kubectl rollout restart") {
		d.restart()
		return
	}
	deadline := time.Now().Add(patience)
	if *writeDrill {
		deadline = time.Now().Add(5 * time.Second)
	}
	for {
		printed := d.readable(d.sh.Play(what, b.Text))
		err := d.comparison.Compare(b.Output, printed)
		switch {
		case err == nil:
			return
		case b.Until && time.Now().Before(deadline):
			time.Sleep(100 * time.Millisecond)
		case *writeDrill:
			b.Show(printed)
			return
		default:
			d.t.Errorf("%s: %v\n%s\nthe page shows:\n%s\nprinted is:\n%s", what, err, b.Text, b.Output, printed)
			return
		}
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

// drillServer is the API server.
var drillServer = regexp.MustCompile(`https://127\.0\.0\.1:\d+`)

// readable writes what was printed as the page has it: what nobody can read, and where the replicas of a test
// listen, is left out.
func (d *drill) readable(printed string) string {
	for url, name := range d.names {
		printed = strings.ReplaceAll(printed, url, name)
		printed = strings.ReplaceAll(printed, strings.TrimPrefix(url, "https://"), name)
	}
	printed = strings.ReplaceAll(printed, d.server.URL, "https://git.example.com/team")
	return docpage.Readable(drillServer.ReplaceAllString(printed, "https://cluster.example.com:6443"))
}
