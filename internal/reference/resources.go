package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// A resource is what is read of a CustomResourceDefinition.
type resource struct {
	Kind string
	Spec struct {
		Group, Scope string
		Names        struct{ Kind string }
		Versions     []struct {
			Name                     string
			AdditionalPrinterColumns []struct {
				Name, Description string
				Priority          int
			}
			Schema struct{ OpenAPIV3Schema *field }
		}
	}
}

// A field is a schema.
type field struct {
	Type, Format, Description string
	Required                  []string
	Properties                map[string]field
	Items                     *field
	AdditionalProperties      *field
	Enum                      []any
	Default                   any
	IntOrString               bool        `json:"x-kubernetes-int-or-string"`
	Rules                     []fieldRule `json:"x-kubernetes-validations"`
}

type fieldRule struct{ Message string }

// resourcesPage is the page of the custom resources.
func resourcesPage(folder string) (string, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("# Custom resources\n\n<!-- Written by hack/reference; change safe/crds, and run it again. -->\n\n" +
		"The fields that the API server checks. [Formats](../formats.md) says what they mean together.\n")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		var crd resource
		if err := yaml.Unmarshal(text, &crd); err != nil {
			return "", fmt.Errorf("%s: %w", file, err)
		}
		if crd.Kind != "CustomResourceDefinition" {
			continue
		}
		for _, version := range crd.Spec.Versions {
			if version.Schema.OpenAPIV3Schema == nil {
				continue
			}
			schema := version.Schema.OpenAPIV3Schema
			fmt.Fprintf(&b, "\n## %s\n\n`%s/%s`, %s. %s\n", crd.Spec.Names.Kind, crd.Spec.Group, version.Name, lowerFirst(crd.Spec.Scope), escape(schema.Description))
			writeRules(&b, schema)
			b.WriteString("\n| field | type | |\n| --- | --- | --- |\n")
			for _, name := range []string{"spec", "status"} {
				if part, ok := schema.Properties[name]; ok {
					writeField(&b, name, part, slices.Contains(schema.Required, name))
				}
			}
			if len(version.AdditionalPrinterColumns) > 0 {
				b.WriteString("\n| column of `kubectl get` | |\n| --- | --- |\n")
				for _, column := range version.AdditionalPrinterColumns {
					wide := ""
					if column.Priority > 0 {
						wide = " (with `-o wide`)"
					}
					fmt.Fprintf(&b, "| %s | %s%s |\n", column.Name, cell(column.Description), wide)
				}
			}
		}
	}
	return b.String(), nil
}

// writeRules writes what a schema's rules say where they are broken.
func writeRules(b *strings.Builder, schema *field) {
	for i, rule := range schema.Rules {
		if i == 0 {
			b.WriteString("\nRefused, with these words:\n\n")
		}
		fmt.Fprintf(b, "- %s\n", escape(rule.Message))
	}
}

// writeField writes a field as a row of a table, and those below it as the next ones.
func writeField(b *strings.Builder, path string, schema field, required bool) {
	about := []string{}
	if schema.Description != "" {
		about = append(about, cell(schema.Description))
	}
	if required {
		about = append(about, "Required.")
	}
	if schema.Default != nil && schema.Type != "object" {
		about = append(about, fmt.Sprintf("Default: `%v`.", schema.Default))
	}
	if len(schema.Enum) > 0 {
		var values []string
		for _, value := range schema.Enum {
			values = append(values, fmt.Sprintf("`%q`", value))
		}
		about = append(about, "One of "+strings.Join(values, ", ")+".")
	}
	for _, rule := range schema.Rules {
		if rule.Message != "" {
			about = append(about, "Refused: "+cell(rule.Message)+".")
		}
	}
	fmt.Fprintf(b, "| `%s` | %s | %s |\n", path, typeOf(schema), strings.Join(about, " "))
	below, suffix := schema.Properties, ""
	if schema.Items != nil {
		below, suffix = schema.Items.Properties, "[]"
		schema.Required = schema.Items.Required
	}
	if schema.AdditionalProperties != nil {
		below, suffix = schema.AdditionalProperties.Properties, ".KEY"
		schema.Required = schema.AdditionalProperties.Required
	}
	for _, name := range slices.Sorted(maps.Keys(below)) {
		writeField(b, path+suffix+"."+name, below[name], slices.Contains(schema.Required, name))
	}
}

// typeOf names the type of a field in a word or three.
func typeOf(schema field) string {
	name := schema.Type
	if schema.Format != "" {
		name = schema.Format
	}
	switch {
	case schema.Items != nil:
		return "list of " + typeOf(*schema.Items)
	case schema.AdditionalProperties != nil:
		return "map to " + typeOf(*schema.AdditionalProperties)
	case schema.IntOrString:
		return "integer or string"
	}
	return name
}
