package deliver_test

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/deliver"
)

// templated gives an object a template of these texts.
func templated(texts map[string]string) option {
	return func(o *v1alpha1.EncryptedSecret) {
		o.Spec.Template = &v1alpha1.Template{Data: make(map[string]v1alpha1.TemplateValue)}
		for key, text := range texts {
			o.Spec.Template.Data[key] = v1alpha1.TemplateValue{Text: &text}
		}
	}
}

func TestSecretHoldsWhatTheTemplateMakes(t *testing.T) {
	w := newWorld(t, "made")
	s := w.safe(t).lead(t)
	hard := "a,b\"c\\d: {}\n"
	structure := json.RawMessage(`{"hosts":["{{ .host }}"],"password":"{{ .password }}","port":5432}`)
	o := w.object(t, "db", map[string]string{"host": "db.shop", "password": hard, "tls.key": "bin\x00\xff"}, delivered,
		templated(map[string]string{"url": "db://{{ .host }}", "tls.key": `{{ index . "tls.key" }}`}),
		func(o *v1alpha1.EncryptedSecret) {
			o.Spec.Template.Data["config.json"] = v1alpha1.TemplateValue{JSON: structure}
		})
	w.put(t, o)
	w.settled(t, "db", deliver.ReasonDelivered)
	got := w.dataOf(t, "db")
	var config struct {
		Hosts    []string
		Password string
		Port     int
	}
	if err := json.Unmarshal([]byte(got["config.json"]), &config); err != nil || config.Password != hard || len(config.Hosts) != 1 || config.Hosts[0] != "db.shop" || config.Port != 5432 {
		t.Errorf("config.json is %q, %v", got["config.json"], err)
	}
	delete(got, "config.json")
	same(t, "data", got, map[string]string{"url": "db://db.shop", "tls.key": "bin\x00\xff"})

	// Who takes over knows that it is right, and executes nothing.
	s.stop()
	next := w.safe(t).lead(t)
	w.idle(t)
	if n := next.opened(t); n != 1 {
		t.Errorf("%v values were opened, want that of the last object only", n)
	}
	// An object that asks for no Secret is judged as well.
	w.put(t, w.object(t, "served", map[string]string{"a": "1"}, templated(map[string]string{"b": "{{ .a }}"})))
	w.settled(t, "served", deliver.ReasonServed)
	w.put(t, w.object(t, "unserved", map[string]string{"a": "1"}, templated(map[string]string{"b": "{{ .c }}"})))
	w.settled(t, "unserved", deliver.ReasonTemplateFailed)
}

func TestPromise06_AFailingTemplateLeavesTheLastGoodSecret(t *testing.T) {
	const planted = "planted-9d41c7aa-value"
	w := newWorld(t, "failing")
	s := w.safe(t).lead(t)
	values := map[string]string{"password": planted, "list": `["` + planted + `"]`}
	good := templated(map[string]string{"url": "db://{{ .password }}"})
	w.put(t, w.object(t, "other", map[string]string{"a": "1"}, delivered))
	w.settled(t, "other", deliver.ReasonDelivered)
	other := w.secret(t, "other").ResourceVersion

	for name, bad := range map[string]struct{ text, says string }{
		"missing":  {"\n  {{ .user }}", "line 2, column 6"},
		"parse":    {"{{ .password }", "line 1"},
		"function": {`{{ call .password }}`, "line 1, column"},
		"json":     {"\n\n{{ fromJson .password }}", "line 3, column"},
		"index":    {`{{ index (fromJson .list) 9 }}`, "line 1, column"},
		"compare":  {`{{ if lt .password 1 }}{{ end }}`, "line 1, column"},
		"loop":     {`{{ range 1000000000 }}{{ $.password }}{{ end }}`, "line 1, column"},
		"large":    {`{{ range 9000 }}{{ $.password }}{{ $.password }}{{ $.password }}{{ end }}`, ""},
		"nested":   {`{{ define "a" }}{{ template "a" . }}{{ end }}{{ template "a" . }}`, "line 1, column"},
	} {
		t.Run(name, func(t *testing.T) {
			w.put(t, w.object(t, name, values, delivered, good))
			w.settled(t, name, deliver.ReasonDelivered)
			before := w.secret(t, name).ResourceVersion
			w.put(t, w.object(t, name, values, delivered, templated(map[string]string{"url": bad.text})))
			o := w.settled(t, name, deliver.ReasonTemplateFailed)
			if message := messageOf(o); !strings.Contains(message, "url: ") || !strings.Contains(message, bad.says) {
				t.Errorf("it says %q", message)
			}
			if !meta.IsStatusConditionTrue(o.Status.Conditions, condition.Stalled) || o.Status.Secret == nil {
				t.Errorf("status %+v", o.Status)
			}
			s.events.saying(t, name, deliver.ReasonTemplateFailed)
			s.Retry()
			w.idle(t)
			if now := w.secret(t, name); now == nil || now.ResourceVersion != before || string(now.Data["url"]) != "db://"+planted {
				t.Errorf("the Secret is %v", now)
			}
			w.put(t, w.object(t, name, values, delivered, good))
			w.settled(t, name, deliver.ReasonDelivered)
			s.events.saying(t, name, deliver.ReasonTemplateFailed, deliver.ReasonDelivered)
		})
	}
	w.settled(t, "other", deliver.ReasonDelivered)
	if now := w.secret(t, "other").ResourceVersion; now != other {
		t.Error("the Secret of another object was written")
	}
	status := w.kubectl(t, "", "get", "encryptedsecrets", "-n", "failing", "-o", "yaml")
	for where, text := range map[string]string{"log": s.log.String(), "events": s.events.String(), "metrics": s.metrics(t), "status": status} {
		if len(text) < 100 || strings.Contains(text, planted) || strings.Contains(text, planted[:12]) {
			t.Errorf("the %s holds a value, or nothing", where)
		}
	}
}
