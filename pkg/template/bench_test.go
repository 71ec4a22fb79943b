package template_test

import (
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// BenchmarkHash is what a binding costs with a template of the usual size, and with the largest.
func BenchmarkHash(b *testing.B) {
	for name, size := range map[string]int{"500 bytes": 500, "64 KiB": 60 << 10} {
		t := one(asJSON(`{"a":"` + strings.Repeat("{{ .a }}\\n", size/10) + `"}`))
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				template.Hash(t)
			}
		})
	}
}

// BenchmarkExecute is what one version of an object costs once.
func BenchmarkExecute(b *testing.B) {
	made := &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{
		"url":  text("postgres://{{ urlquery .user }}:{{ urlquery .password }}@db"),
		"json": asJSON(`{"user":"{{ .user }}","password":"{{ .password }}"}`),
	}}
	values := map[string][]byte{"user": []byte("ann"), "password": []byte("hunter2")}
	for b.Loop() {
		p, err := template.Parse(made)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Execute(values, p.MaxSize(10)); err != nil {
			b.Fatal(err)
		}
	}
}
