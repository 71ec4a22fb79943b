package cache

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/answer"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// templated returns an object with a template of these texts.
func (r *room) templated(namespace, name string, texts, values map[string]string, workloads ...string) *v1alpha1.EncryptedSecret {
	r.t.Helper()
	o := &v1alpha1.EncryptedSecret{}
	o.Namespace, o.Name = namespace, name
	o.Spec.Workloads = workloads
	o.Spec.Template = &v1alpha1.Template{Data: make(map[string]v1alpha1.TemplateValue)}
	for key, text := range texts {
		o.Spec.Template.Data[key] = v1alpha1.TemplateValue{Text: &text}
	}
	return sealInto(r.t, r.key, time.Now(), o, values)
}

func (r *room) rendered() int { return int(testutil.ToFloat64(r.cache.metrics.rendered)) }

func TestWorkloadGetsWhatTheTemplateMakes(t *testing.T) {
	r := newRoom(t)
	o := r.templated("shop", "db", map[string]string{
		"url": "db://{{ .user }}:{{ .password | urlquery }}@host", "bytes": `{{ index . "tls.key" }}`, "empty": "{{ .nothing }}", "plain": "as it is",
	}, map[string]string{"user": "joe", "password": "p/w", "tls.key": "bin\x00\xff\n", "nothing": ""})
	r.apply(o)
	r.run()
	want := map[string]string{"db/url": "db://joe:p%2Fw@host", "db/bytes": "bin\x00\xff\n", "db/empty": "", "db/plain": "as it is"}
	for range 2 {
		r.expect(db, want)
	}
	secrets, _, err := r.cache.Secrets(t.Context(), db)
	if err != nil || len(secrets) != 1 || secrets[0].Updated.IsZero() || secrets[0].Version != newVersion(o).id() {
		t.Errorf("it is %v, %v", secrets, err)
	}
	// Values are parts of one piece: one that is appended to must not run into the next.
	for _, s := range secrets {
		for key, value := range s.Data {
			if cap(value) != len(value) {
				t.Errorf("%s has room for more", key)
			}
		}
	}
	Wipe(secrets)
	r.expect(db, want)
}

func TestTemplateIsExecutedOnceAVersion(t *testing.T) {
	r := newRoom(t)
	text := map[string]string{"url": "db://{{ .password }}"}
	o := r.templated("shop", "db", text, map[string]string{"password": "x"})
	r.apply(o)
	r.run()
	r.cache.ETag(db)
	if r.opened() != 0 || r.rendered() != 0 {
		t.Error("it was executed before anybody asked")
	}
	start := make(chan struct{})
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			<-start
			secrets, _, err := r.cache.Secrets(t.Context(), db)
			if err != nil || len(secrets) != 1 || string(secrets[0].Data["url"]) != "db://x" {
				t.Errorf("a reader got %v, %v", secrets, err)
			}
			Wipe(secrets)
		})
	}
	close(start)
	all.Wait()
	labelled := o.DeepCopy()
	labelled.Labels = map[string]string{"a": "b"}
	r.applyAndSee(labelled)
	wait.Until(t, "the labels arrive", func() bool {
		now, err := r.store.Get(t.Context(), store.Key{Namespace: "shop", Name: "db"})
		return err == nil && now.Labels["a"] == "b"
	})
	r.expect(db, map[string]string{"db/url": "db://x"})
	if r.rendered() != 1 || r.opened() != 1 {
		t.Errorf("it was executed %d times, of %d values opened", r.rendered(), r.opened())
	}
	// What it made goes with the seal, and when the version goes.
	r.cache.Seal()
	for _, h := range r.cache.vault.held {
		if h.box != nil {
			t.Error("a value is kept")
		}
	}
	r.cache.Unseal()
	r.expect(db, map[string]string{"db/url": "db://x"})
	if r.rendered() != 2 {
		t.Errorf("it was executed %d times", r.rendered())
	}
	r.cache.gone(store.Key{Namespace: "shop", Name: "db"})
	if n := len(r.cache.vault.held); n != 0 {
		t.Errorf("%d values are known of no object", n)
	}
}

func TestAnotherTemplateIsAnotherVersion(t *testing.T) {
	r := newRoom(t)
	r.run()
	values := map[string]string{"password": "x"}
	r.applyAndSee(r.templated("shop", "db", map[string]string{"a": "1{{ .password }}"}, values))
	r.expect(db, map[string]string{"db/a": "1x"})
	etag := r.cache.ETag(db)
	r.applyAndSee(r.templated("shop", "db", map[string]string{"b": "2{{ .password }}"}, values))
	r.expect(db, map[string]string{"db/b": "2x"})
	if r.cache.ETag(db) == etag {
		t.Error("the tag is the same")
	}
	r.applyAndSee(r.one("shop", "db", "x"))
	r.expect(db, map[string]string{"db/password": "x"})
}

// TestNoAnswerIsLargerThanWasSaid compares what the template made with the size that was computed without opening
// anything.
func TestNoAnswerIsLargerThanWasSaid(t *testing.T) {
	r := newRoom(t)
	texts := make(map[string]string)
	for i := range 96 {
		texts[fmt.Sprintf("k%d", i)] = "x"
	}
	for i := range 4 {
		texts[fmt.Sprintf("whole%d", i)] = "{{ .password }}"
	}
	r.apply(r.templated("shop", "db", texts, map[string]string{"password": strings.Repeat("x", 50000)}))
	r.run()
	size := r.cache.Size(db)
	secrets, _, err := r.cache.Secrets(t.Context(), db)
	if err != nil || len(secrets) != 1 {
		t.Fatal(secrets, err)
	}
	least := answer.Frame() + answer.SecretSize("db")
	for key, value := range secrets[0].Data {
		least += answer.ValueSize(key, len(value))
	}
	if size < least || size > 4*least {
		t.Errorf("the answer has %d bytes, and %d were said", least, size)
	}
}

func TestTemplatesCountAgainstTheRoomOfAnAnswer(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "plain", "x", "db"))
	r.run()
	v := newVersion(r.templated("shop", "t", map[string]string{"a": "b"}, nil, "db"))
	fits := answer.MaxSize / v.size
	for i := range fits + 3 {
		r.cache.arrived(t.Context(), newVersion(r.templated("shop", fmt.Sprintf("t%d", i), map[string]string{"a": "b"}, nil, "db")))
	}
	if size := r.cache.Size(db); size > answer.MaxSize {
		t.Errorf("the answer may have %d bytes", size)
	}
	if got := read(t, r.cache, db); len(got) < fits-3 || got["plain/password"] != "x" {
		t.Errorf("%d objects are served, of %d that fit", len(got), fits)
	}
}

// TestOutputIsKeptWhole splits what was joined, and nothing else.
func TestOutputIsKeptWhole(t *testing.T) {
	o := &output{keys: []string{"a", "b", "c"}}
	values := map[string][]byte{"a": []byte("1"), "b": {}, "c": []byte("333")}
	joined := o.join(values)
	if string(values["c"]) != "\x00\x00\x00" {
		t.Error("what was joined is not wiped")
	}
	got, err := o.split(joined)
	if err != nil || string(got["a"]) != "1" || got["b"] == nil || len(got["b"]) != 0 || string(got["c"]) != "333" {
		t.Errorf("it is %q, %v", got, err)
	}
	for n := range joined {
		if got, err := o.split(joined[:n]); err == nil {
			t.Errorf("%d bytes of %d are %q", n, len(joined), got)
		}
	}
}

// TestPromise06_ASlowTemplateKeepsNobodyWaiting has what arrives after a template served before that is tried.
func TestPromise06_ASlowTemplateKeepsNobodyWaiting(t *testing.T) {
	r := newRoom(t)
	r.cache.arrived(t.Context(), newVersion(r.one("shop", "db", "old")))
	r.expect(db, map[string]string{"db/password": "old"})
	r.cache.arrived(t.Context(), newVersion(r.templated("shop", "db", map[string]string{"url": "db://{{ .password }}"}, map[string]string{"password": "new"})))
	r.cache.arrived(t.Context(), newVersion(r.one("shop", "api", "another")))
	if r.rendered() != 0 {
		t.Error("it was executed when it arrived")
	}
	r.expect(api, map[string]string{"api/password": "another"})
	r.expect(db, map[string]string{"db/password": "old"})
	changed, err := r.cache.subscribe(db, r.cache.ETag(db))
	if err != nil {
		t.Fatal(err)
	}
	defer r.cache.unsubscribe(db)
	r.cache.tryDue(t.Context())
	select {
	case <-changed:
	default:
		t.Error("who waits is not woken when its turn has come")
	}
	r.expect(db, map[string]string{"db/url": "db://new"})
	if r.rendered() != 1 || len(r.cache.pending) != 0 {
		t.Errorf("it was executed %d times, and %d objects wait", r.rendered(), len(r.cache.pending))
	}
}

// TestPromise06_SlowTemplatesKeepNothingFromExpiring has an object expire while the template of another is executed.
func TestPromise06_SlowTemplatesKeepNothingFromExpiring(t *testing.T) {
	r := newRoom(t)
	start := time.Now()
	end := start.Add(time.Hour)
	r.cache.now = func() time.Time {
		if r.rendered() > 0 {
			return end
		}
		return start
	}
	r.cache.arrived(t.Context(), newVersion(window{until: end}.set(r.one("shop", "api", "x"))))
	r.cache.arrived(t.Context(), newVersion(r.one("shop", "db", "old")))
	r.expect(db, map[string]string{"db/password": "old"})
	r.cache.arrived(t.Context(), newVersion(r.templated("shop", "db", map[string]string{"url": "db://{{ .password }}"}, map[string]string{"password": "new"})))
	changed, err := r.cache.subscribe(api, r.cache.ETag(api))
	if err != nil || changed == nil {
		t.Fatal(changed, err)
	}
	defer r.cache.unsubscribe(api)
	r.cache.tryDue(t.Context())
	select {
	case <-changed:
	default:
		t.Error("who reads what has expired is not woken")
	}
}

// A template takes time to be reckoned with, and there may be many keys.
func TestATemplateIsReckonedOnceForAllKeys(t *testing.T) {
	r := newRoom(t)
	o := &v1alpha1.EncryptedSecret{}
	o.Namespace, o.Name = "shop", "db"
	o.Spec.Template = &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{"a": {JSON: []byte("[" + strings.Repeat("1e-7,", 10_000) + "1]")}}}
	values := make(map[string]string)
	for i := range 20 {
		values[fmt.Sprintf("k%d", i)] = "hunter2"
	}
	v := newVersion(sealInto(t, r.key, time.Now(), o, values))
	once := testing.AllocsPerRun(1, func() { template.Hash(o.Spec.Template) })
	all := testing.AllocsPerRun(1, func() {
		for _, value := range v.sealed {
			if plaintext, err := r.cache.open(v, value.key); err != nil || string(plaintext) != "hunter2" {
				t.Fatalf("%s: %q, %v", value.key, plaintext, err)
			}
		}
	})
	if all > once {
		t.Errorf("%v allocations for %d values, %v to reckon with the template", all, len(values), once)
	}
}
