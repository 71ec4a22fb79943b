package render

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

func object(texts map[string]string) *v1alpha1.EncryptedSecret {
	o := &v1alpha1.EncryptedSecret{}
	o.Spec.EncryptedData = map[string]string{"password": strings.Repeat("A", 1000)}
	o.Spec.Template = &v1alpha1.Template{Data: make(map[string]v1alpha1.TemplateValue)}
	for key, text := range texts {
		o.Spec.Template.Data[key] = v1alpha1.TemplateValue{Text: &text}
	}
	return o
}

func TestWhatIsMadeIsWhatWasAnnounced(t *testing.T) {
	o := object(map[string]string{"url": "db://{{ .password }}", "a": "b"})
	out, err := Of(o)
	if err != nil || strings.Join(out.Keys, " ") != "a url" || out.Limit < 1000 {
		t.Errorf("announced %+v, %v", out, err)
	}
	made, err := Values(o, map[string][]byte{"password": []byte("x")}, slog.New(slog.DiscardHandler))
	if err != nil || len(made) != 2 || string(made["url"]) != "db://x" || string(made["a"]) != "b" {
		t.Errorf("made %q, %v", made, err)
	}
	// As much as was announced is made, and no more.
	if _, err := Values(object(map[string]string{"a": "{{ .password }}"}), map[string][]byte{"password": make([]byte, out.Limit+1)}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("more was made than was announced")
	}
}

func TestFaultsSayWhereAndQuoteNothing(t *testing.T) {
	for name, texts := range map[string]map[string]string{
		"a path":        {"../a": "{{ .password }}"},
		"a hidden path": {"..": "{{ .password }}"},
		"no name":       {"": "{{ .password }}"},
		"a quote":       {`a"b`: "{{ .password }}"},
		"none":          nil,
		"unparsable":    {"a": "{{"},
		"missing key":   {"a": "{{ .user }}"},
		"no JSON":       {"a": "{{ fromJson .password }}"},
	} {
		t.Run(name, func(t *testing.T) {
			o := object(texts)
			made, err := Values(o, map[string][]byte{"password": []byte("hunter2")}, slog.New(slog.DiscardHandler))
			if made != nil || !errors.As(err, new(*template.Error)) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("made %q, %v", made, err)
			}
			if _, early := Of(o); early != nil && early.Error() != err.Error() {
				t.Errorf("first it says %v, and then %v", early, err)
			}
		})
	}
}
