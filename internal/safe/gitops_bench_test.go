package safe_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// BenchmarkGitSource follows a repository of so many manifests, one hybrid value each, that ask for a
// Kubernetes Secret too. It tells how long the first sync takes; then, for b.N commits of one file, how long each
// takes from a webhook to the workload that waits and to the Secret, beside a git fetch of
// the same commit; then how long a replica that starts again takes until it is ready and
// until it has looked at everything, for which it has to write nothing; and the memory.
func BenchmarkGitSource(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			g := newGitops(b, gitserver.Options{})
			g.lease = 15 * time.Second // as in a cluster: who is busy must not lose it
			g.start("safe-0")
			f := &followed{gitops: g, b: b, n: n, to: g.recipient(), results: make(map[string]float64)}
			f.is(f.replicas[0], "unsealed")
			f.fill()
			time.Sleep(settled)
			f.report("idle", "VmRSS", "RssAnon")

			f.firstSync()
			time.Sleep(settled)
			f.report("synced", "VmRSS", "RssAnon", "VmHWM")

			mirror := filepath.Join(f.dir, "mirror.git")
			f.repo.Git("", "clone", "-q", "--mirror", f.url, mirror)
			var git, workload, secret []time.Duration
			for i := 0; b.Loop(); i++ {
				p := f.push(i, mirror)
				git, workload, secret = append(git, p.git), append(workload, p.workload), append(secret, p.secret)
			}
			f.results["git-ms"] = middle(git)
			f.results["workload-ms"] = middle(workload)
			f.results["secret-ms"] = middle(secret)

			var ready, looked []time.Duration
			for range 3 {
				r, l := f.restart()
				ready, looked = append(ready, r), append(looked, l)
			}
			f.results["ready-ms"] = middle(ready)
			f.results["looked-ms"] = middle(looked)
			time.Sleep(settled)
			f.report("restarted", "VmRSS", "RssAnon", "VmHWM")
			f.results["aim-MiB"] = 64 + 1.5*float64(f.ciphertext)/(1<<20)
			for unit, value := range f.results {
				b.ReportMetric(value, unit)
			}
		})
	}
}

const (
	// settled is how long Safe is given to give back the memory that work has taken.
	settled = 3 * time.Second
	// atATime is how many manifests Safe writes at a time.
	atATime = 16
	// hookToken is the secret of the webhook.
	hookToken = "a-token-of-a-webhook"
)

// followed is a repository of n manifests and the replica that follows it.
type followed struct {
	*gitops
	b  *testing.B
	n  int
	to encrypt.Recipient

	ciphertext int   // bytes
	audited    int64 // bytes of the API server's audit log that were read

	hinted  time.Time          // the last push that Safe was told of
	results map[string]float64 // by unit: b.Loop forgets what was reported before it
}

func nameOf(i int) string { return fmt.Sprintf("s%d", i) }
func pathOf(i int) string { return fmt.Sprintf("%d/s%d.json", i/100, i) }

// sealed returns EncryptedSecret shop/NAME of one value, which asks for a Kubernetes Secret too.
func (g *gitops) sealed(to encrypt.Recipient, name, value string) (*v1alpha1.EncryptedSecret, error) {
	o := &v1alpha1.EncryptedSecret{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       v1alpha1.EncryptedSecretSpec{Secret: &v1alpha1.SecretDelivery{Type: "Opaque"}},
	}
	text, err := encrypt.Seal([]byte(value), encrypt.BindingOf(o, "password"), []encrypt.Recipient{to}, time.Now())
	o.Spec.EncryptedData = map[string]string{"password": text}
	return o, err
}

// inParallel does n things, [atATime] at a time.
func inParallel(b *testing.B, n int, do func(i int) error) {
	b.Helper()
	errs := make([]error, atATime)
	var wait sync.WaitGroup
	for k := range atATime {
		wait.Go(func() {
			for i := k; i < n && errs[k] == nil; i += atATime {
				errs[k] = do(i)
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		b.Fatal(err)
	}
}

// fill commits the manifests.
func (f *followed) fill() {
	f.b.Helper()
	texts := make([]string, f.n)
	sizes := make([]int, f.n)
	inParallel(f.b, f.n, func(i int) error {
		o, err := f.sealed(f.to, nameOf(i), "a value of thirty-two characters")
		if err != nil {
			return err
		}
		text, err := json.Marshal(o)
		texts[i], sizes[i] = string(text), len(o.Spec.EncryptedData["password"])
		return err
	})
	files := make(map[string]string, f.n)
	for i, text := range texts {
		files[pathOf(i)] = text
		f.ciphertext += sizes[i]
	}
	f.repo.Commit(files)
	f.repo.Git("", "repack", "-adq")
}

// firstSync has Safe follow the repository, and tells how long it took until all is delivered.
func (f *followed) firstSync() {
	f.b.Helper()
	f.kubectl("create", "secret", "generic", "hook", "-n", "shop", "--from-literal=token="+hookToken)
	f.kubectl("label", "secret", "hook", "-n", "shop", v1alpha1.LabelGitCredentials+"=true")
	source := fmt.Appendf(nil, `{"apiVersion":%q,"kind":"GitSource","metadata":{"namespace":"shop","name":"platform"},
		"spec":{"url":%q,"interval":"24h","webhook":{"type":"generic","secretRef":{"name":"hook"}}}}`, v1alpha1.APIVersion, f.url)
	client := clientOf(f.b, f.cp.Kubeconfig())
	f.requests() // those before are of no interest
	cpu := f.cpu()
	start := time.Now()
	if err := client.VSecM.Post().Namespace("shop").Resource(v1alpha1.ResourceGitSources).SetHeader("Content-Type", "application/json").
		Body(source).Do(f.b.Context()).Error(); err != nil {
		f.b.Fatal(err)
	}
	f.finished(10*time.Minute, func() error {
		if got := f.metrics()[`vsecm_object_conditions{condition="Ready",reason="Delivered"}`]; got != float64(f.n) {
			return fmt.Errorf("%v of %d are delivered", got, f.n)
		}
		return nil
	})
	f.results["first-ms"] = ms(time.Since(start))
	f.results["cpu-ms"] = f.cpu() - cpu
	requests := f.requests()
	total := 0
	for what, count := range requests {
		total += count
		f.b.Logf("first sync: %d × %s", count, what)
	}
	f.results["requests/object"] = float64(total) / float64(f.n)
	f.applied("platform")
	for kind, want := range map[string]int{"encryptedsecrets": f.n, "secrets": f.n + 1} {
		if got := strings.Count(f.kubectl("get", kind, "-n", "shop", "-o", "name"), "\n"); got != want {
			f.b.Fatalf("there are %d %s, not %d", got, kind, want)
		}
	}
}

// pushed is how long a commit of one file took to arrive.
type pushed struct{ git, workload, secret time.Duration }

// push commits another value to one manifest and tells Safe of it, as a forge does. git fetches it
// into mirror beforehand.
func (f *followed) push(i int, mirror string) pushed {
	f.b.Helper()
	k, value := (i*37+11)%f.n, fmt.Sprintf("another value, of commit %08d", i)
	c := f.workload(f.replicas[0], nameOf(k))
	defer c.http.CloseIdleConnections()
	before, err := c.get(f.b.Context(), "", "")
	if err != nil {
		f.b.Fatal(err)
	}
	o, err := f.sealed(f.to, nameOf(k), value)
	if err != nil {
		f.b.Fatal(err)
	}
	text, err := json.Marshal(o)
	if err != nil {
		f.b.Fatal(err)
	}
	f.repo.Commit(map[string]string{pathOf(k): string(text)})

	var p pushed
	start := time.Now()
	if out, err := exec.Command("git", "-C", mirror, "-c", "gc.auto=0", "fetch", "-q").CombinedOutput(); err != nil {
		f.b.Fatalf("%v\n%s", err, out)
	}
	p.git = time.Since(start)

	type arrival struct {
		at  time.Time
		err error
	}
	atWorkload, atSecret := make(chan arrival, 1), make(chan arrival, 1)
	go func() {
		a, err := c.get(context.Background(), "?watch=1", before.etag)
		if got := a.values[nameOf(k)+"/password"]; err == nil && got != value {
			err = fmt.Errorf("the workload got %q", got)
		}
		atWorkload <- arrival{time.Now(), err}
	}()
	secrets := f.watchSecret(nameOf(k))
	defer secrets.Close()
	go func() {
		atSecret <- arrival{err: secretHolds(secrets, value), at: time.Now()}
	}()
	wait.For(f.b, "the watch is held", func() error {
		if f.metrics()["vsecm_watches"] != 1 {
			return errRefused
		}
		return nil
	})
	// A source is told of pushes once a second at most.
	time.Sleep(time.Until(f.hinted.Add(1100 * time.Millisecond)))
	f.hinted = time.Now()
	start = f.hinted
	f.hint()
	for _, at := range []struct {
		what string
		from chan arrival
		took *time.Duration
	}{{"the workload", atWorkload, &p.workload}, {"the Secret", atSecret, &p.secret}} {
		select {
		case a := <-at.from:
			if a.err != nil {
				f.b.Fatalf("%s: %v", at.what, a.err)
			}
			*at.took = a.at.Sub(start)
		case <-time.After(patience):
			f.b.Fatalf("commit %d never reached %s", i, at.what)
		}
	}
	f.quiet()
	return p
}

// hint tells Safe of a push.
func (f *followed) hint() {
	f.b.Helper()
	const body = `{}`

	mac := hmac.New(sha256.New, []byte(hookToken))
	mac.Write([]byte(body))
	req, err := http.NewRequestWithContext(f.b.Context(), http.MethodPost, "http://"+f.replicas[0].at.Webhooks+"/v1/hooks/shop/platform", strings.NewReader(body))
	if err != nil {
		f.b.Fatal(err)
	}
	req.Header.Set("X-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		f.b.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		f.b.Fatalf("the webhook answers %s", resp.Status)
	}
}

// watchSecret follows Secret shop/NAME.
func (f *followed) watchSecret(name string) io.ReadCloser {
	f.b.Helper()
	stream, err := clientOf(f.b, f.cp.Kubeconfig()).Core.Get().Namespace("shop").Resource("secrets").
		VersionedParams(&metav1.ListOptions{Watch: true, FieldSelector: "metadata.name=" + name}, kube.ParameterCodec).Stream(f.b.Context())
	if err != nil {
		f.b.Fatal(err)
	}
	return stream
}

// secretHolds reads from a watch until the Secret holds value.
func secretHolds(watch io.Reader, value string) error {
	for events := json.NewDecoder(watch); ; {
		var event struct{ Object kube.Secret }
		if err := events.Decode(&event); err != nil {
			return err
		}
		if string(event.Object.Data["password"]) == value {
			return nil
		}
	}
}

// restart starts the replica again, and returns how long it takes until it is ready, and until it leads and
// has looked at everything. It may neither decrypt nor write anything for that.
func (f *followed) restart() (ready, looked time.Duration) {
	f.b.Helper()
	r := f.replicas[0]
	r.process.stop(f.b)
	f.gone(r)
	kubeconfig := f.cp.ServiceAccountKubeconfig(f.b, "vsecm-system", "vsecm-safe")
	f.requests()
	start := time.Now()
	r = f.launchAs(r.name, kubeconfig)
	f.ready(r, http.StatusOK)
	ready = time.Since(start)
	f.finished(patience, func() error { return f.looked() })
	looked = time.Since(start)
	f.quiet()
	if m := f.metrics(); m["vsecm_delivery_opened_total"] != 0 {
		f.b.Errorf("%v values were decrypted", m["vsecm_delivery_opened_total"])
	}
	for what, count := range f.requests() {
		if strings.HasPrefix(what, "patch encryptedsecrets") || strings.HasPrefix(what, "patch secrets") || strings.HasPrefix(what, "delete") {
			f.b.Errorf("a restart wrote: %d × %s", count, what)
		}
	}
	return ready, looked
}

// looked tells whether nothing is left to look at.
func (f *followed) looked() error {
	m := f.metrics()
	waiting, leads := m["vsecm_delivery_waiting"]
	if !leads || waiting > 0 || m[`vsecm_sync_last_success_timestamp_seconds{source="shop.platform"}`] == 0 {
		return fmt.Errorf("it leads: %v, and %v objects wait", leads, waiting)
	}
	return nil
}

// quiet waits until Safe has nothing to do, and has had nothing to do for a while.
func (f *followed) quiet() {
	f.b.Helper()
	f.finished(patience, f.looked)
	before := f.cpu()
	f.finished(patience, func() error {
		time.Sleep(100 * time.Millisecond)
		now := f.cpu()
		used := now - before
		before = now
		if used > 20 {
			return fmt.Errorf("Safe still works: it used %v ms of processors since the last look", used)
		}
		return nil
	})
}

// finished waits for a condition, without keeping Safe from its work.
func (f *followed) finished(patience time.Duration, ok func() error) {
	f.b.Helper()
	deadline := time.Now().Add(patience)
	for {
		start := time.Now()
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			f.b.Fatal(err)
		}
		time.Sleep(max(5*time.Millisecond, 20*time.Since(start)))
	}
}

// metrics returns those of the replica, by name with labels.
func (f *followed) metrics() map[string]float64 {
	f.b.Helper()
	_, body, err := plain(f.replicas[0].at.Metrics, "/metrics")
	if err != nil {
		f.b.Fatal(err)
	}
	m := make(map[string]float64)
	for line := range strings.Lines(body) {
		if at := strings.LastIndexByte(line, ' '); at > 0 && line[0] != '#' {
			if value, err := strconv.ParseFloat(strings.TrimSpace(line[at:]), 64); err == nil {
				m[line[:at]] = value
			}
		}
	}
	return m
}

// cpu returns how many milliseconds of processors the replica has used. The kernel is asked: to count the objects for
// its metrics is work, too.
func (f *followed) cpu() float64 {
	f.b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", f.replicas[0].process.cmd.Process.Pid))
	if err != nil {
		f.b.Fatal(err)
	}
	// What follows the name, in brackets, begins with field 3: those of user and system are 14 and 15, in
	// hundredths of a second (proc(5)).
	_, rest, _ := strings.Cut(string(text), ") ")
	var ticks float64
	for _, field := range strings.Fields(rest)[11:13] {
		n, err := strconv.ParseFloat(field, 64)
		if err != nil {
			f.b.Fatal(err)
		}
		ticks += n
	}
	return 10 * ticks
}

// report tells what memory the replica takes.
func (f *followed) report(when string, fields ...string) {
	f.b.Helper()
	for _, field := range fields {
		f.results[when+"-"+field+"-MiB"] = f.replicas[0].process.memory(f.b, field)
	}
}

// requests counts what Safe has asked of the API server since the last call: VERB RESOURCE[/SUBRESOURCE].
func (f *followed) requests() map[string]int {
	f.b.Helper()
	log, err := os.Open(f.cp.AuditLog())
	if err != nil {
		f.b.Fatal(err)
	}
	defer log.Close()
	if _, err := log.Seek(f.audited, io.SeekStart); err != nil {
		f.b.Fatal(err)
	}
	counts := make(map[string]int)
	for lines := bufio.NewReaderSize(log, 1<<20); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return counts // the last line may not be whole yet
		}
		f.audited += int64(len(line))
		// What was asked, and the answer, are large, and of no interest.
		if !bytes.Contains(line, []byte(`"stage":"ResponseComplete"`)) || !bytes.Contains(line, []byte(`:vsecm-system:vsecm-safe"`)) {
			continue
		}
		var event struct {
			Verb      string
			ObjectRef struct{ Resource, Subresource string }
		}
		if err := json.Unmarshal(line, &event); err != nil {
			f.b.Fatal(err)
		}
		what := event.Verb + " " + event.ObjectRef.Resource
		if event.ObjectRef.Subresource != "" {
			what += "/" + event.ObjectRef.Subresource
		}
		counts[what]++
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// middle returns the median in milliseconds.
func middle(ds []time.Duration) float64 {
	slices.Sort(ds)
	return ms(ds[len(ds)/2])
}
