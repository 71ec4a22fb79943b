package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const generated = "<!-- Written by hack/reference; change the help of the command, and run it again. -->\n"

// programPage is the page of a program: each of its commands with what its help says.
func programPage(root *cobra.Command) string {
	var b strings.Builder
	commands := commandsOf(root)
	fmt.Fprintf(&b, "# %s\n\n%s\n%s, %s. `--help` after any command says the same.\n\n", root.CommandPath(), generated, root.CommandPath(), lowerFirst(root.Short))
	b.WriteString("| command | what it does |\n| --- | --- |\n")
	for _, cmd := range commands[1:] {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", cmd.CommandPath(), anchor(cmd.CommandPath()), cell(cmd.Short))
	}
	if root.PersistentFlags().HasAvailableFlags() {
		fmt.Fprintf(&b, "\nEvery command that talks to a cluster also takes [these flags](#flags-of-every-command).\n")
	}
	for _, cmd := range commands {
		writeCommand(&b, cmd)
	}
	if root.PersistentFlags().HasAvailableFlags() {
		b.WriteString("\n## Flags of every command\n\n")
		writeFlags(&b, root.PersistentFlags())
	}
	return b.String()
}

func writeCommand(b *strings.Builder, cmd *cobra.Command) {
	fmt.Fprintf(b, "\n## %s\n\n", cmd.CommandPath())
	paragraphs, exitCodes := long(cmd)
	for _, paragraph := range paragraphs {
		if isProse(paragraph) {
			fmt.Fprintf(b, "%s\n\n", escape(paragraph))
		} else {
			fmt.Fprintf(b, "```text\n%s\n```\n\n", paragraph)
		}
	}
	if cmd.Runnable() && cmd.HasParent() {
		fmt.Fprintf(b, "```text\n%s\n```\n", cmd.UseLine())
	}
	if cmd.HasExample() {
		fmt.Fprintf(b, "\nFor example:\n\n```text\n%s\n```\n", unindent(cmd.Example))
	}
	if flags := cmd.NonInheritedFlags(); cmd.HasParent() && flags.HasAvailableFlags() {
		b.WriteString("\n")
		writeFlags(b, flags)
	}
	if exitCodes != "" {
		fmt.Fprintf(b, "\nExit codes: %s\n", escape(exitCodes))
	}
}

func writeFlags(b *strings.Builder, flags *pflag.FlagSet) {
	b.WriteString("| flag | |\n| --- | --- |\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name, usage := flagOf(f)
		fmt.Fprintf(b, "| %s | %s |\n", name, cell(usage))
	})
}

// flagOf returns how a flag is typed, and what it does.
func flagOf(f *pflag.Flag) (name, usage string) {
	argument, usage := pflag.UnquoteUsage(f)
	name = "--" + f.Name
	if argument != "" {
		name += " " + argument
	}
	name = "`" + name + "`"
	if f.Shorthand != "" {
		name = "`-" + f.Shorthand + "`, " + name
	}
	return name, usage + defaultOf(f)
}

// defaultOf says a flag's default, where the help does.
func defaultOf(f *pflag.Flag) string {
	switch f.DefValue {
	case "", "false", "0", "[]", "0s":
		return ""
	}
	if strings.Contains(f.Usage, "default") {
		return ""
	}
	return " (default " + f.DefValue + ")"
}

// escape keeps Markdown from reading a sentence of the help as anything else.
func escape(text string) string {
	for _, c := range []string{"\\", "*", "_", "<", ">", "[", "]", "`"} {
		text = strings.ReplaceAll(text, c, "\\"+c)
	}
	return text
}

// cell is a text as a cell of a table.
func cell(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(escape(text), "\n", " "), "|", "\\|")
}

// anchor is what a heading is linked by.
func anchor(heading string) string {
	return strings.ReplaceAll(strings.ToLower(heading), " ", "-")
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// unindent takes away the two blanks that the lines of examples begin with.
func unindent(text string) string {
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, "  ")
	}
	return strings.Join(lines, "\n")
}
