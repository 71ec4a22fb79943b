package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manualName is the name of a command's manual page, by which man finds it: man kubectl-vsecm-encrypt.
func manualName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manualPage is a command's page for man, in the macros of man(7). It bears no date: the same source gives the same page.
func manualPage(cmd *cobra.Command) string {
	var b strings.Builder
	name := manualName(cmd)
	fmt.Fprintf(&b, ".\\\" Written by hack/reference.\n.TH %s 1 \"\" vsecm \"vsecm manual\"\n", strings.ToUpper(roff(name)))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(name), roff(lowerFirst(cmd.Short)))
	b.WriteString(".SH SYNOPSIS\n")
	if cmd.Runnable() && cmd.HasParent() {
		fmt.Fprintf(&b, ".B %s\n", roff(cmd.UseLine()))
	} else {
		fmt.Fprintf(&b, ".B %s\n.I COMMAND\n", roff(cmd.CommandPath()))
	}
	b.WriteString(".SH DESCRIPTION\n")
	paragraphs, exitCodes := long(cmd)
	for _, paragraph := range paragraphs {
		if isProse(paragraph) {
			fmt.Fprintf(&b, ".PP\n%s\n", roff(paragraph))
		} else {
			writeVerbatim(&b, paragraph)
		}
	}
	if subs := commandsOf(cmd)[1:]; len(subs) > 0 {
		b.WriteString(".SH COMMANDS\n")
		for _, sub := range subs {
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(sub.CommandPath()), roff(sub.Short))
		}
	}
	flags := cmd.NonInheritedFlags()
	if flags.HasAvailableFlags() {
		b.WriteString(".SH OPTIONS\n")
		flags.VisitAll(func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			option, usage := flagOf(f)
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(strings.ReplaceAll(option, "`", "")), roff(usage))
		})
	}
	if cmd.HasExample() {
		b.WriteString(".SH EXAMPLES\n")
		writeVerbatim(&b, unindent(cmd.Example))
	}
	if exitCodes != "" {
		fmt.Fprintf(&b, ".SH EXIT STATUS\n%s\n", roff(exitCodes))
	}
	if cmd.HasParent() {
		fmt.Fprintf(&b, ".SH SEE ALSO\n.BR %s (1)\n", roff(manualName(cmd.Parent())))
	}
	return b.String()
}

func writeVerbatim(b *strings.Builder, text string) {
	fmt.Fprintf(b, ".PP\n.RS 4\n.nf\n%s\n.fi\n.RE\n", roff(text))
}

// roff keeps a text from being read as requests: backslashes, hyphens that are to be copied, and what a line may
// not begin with.
func roff(text string) string {
	text = strings.ReplaceAll(text, `\`, `\e`)
	text = strings.ReplaceAll(text, "-", `\-`)
	text = strings.ReplaceAll(text, "…", `...`)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
