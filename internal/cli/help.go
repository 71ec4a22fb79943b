package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const moreHelp = `Use "%s --help" for more about a verb, and
"%s options" for the flags that say how to reach the cluster.`

// helpColumns is how wide help is, where the screen is not narrower.
const helpColumns = 80

// A verbGroup is a part of the list of verbs, in the order in which they are needed.
type verbGroup struct {
	title string
	verbs []*cobra.Command
}

// verbsIn returns the verbs of all groups.
func verbsIn(groups []verbGroup) (all []*cobra.Command) {
	for _, g := range groups {
		all = append(all, g.verbs...)
	}
	return all
}

// setHelp has cmd, and the verbs below it, print their help in the width of the screen. groups are the verbs of cmd.
func setHelp(cmd *cobra.Command, groups []verbGroup) {
	groupsOf := func(c *cobra.Command) []verbGroup {
		if c == cmd {
			return groups
		}
		var verbs []*cobra.Command
		for _, verb := range c.Commands() {
			if verb.IsAvailableCommand() {
				verbs = append(verbs, verb)
			}
		}
		if len(verbs) == 0 {
			return nil
		}
		return []verbGroup{{"Verbs:", verbs}}
	}
	cmd.SetHelpFunc(func(c *cobra.Command, _ []string) {
		columns := helpColumnsOf(c.OutOrStdout())
		fmt.Fprintf(c.OutOrStdout(), "%s\n\n%s", reflowed(c.Long, columns), usage(c, groupsOf(c), columns))
	})
	cmd.SetUsageFunc(func(c *cobra.Command) error {
		_, err := io.WriteString(c.OutOrStderr(), usage(c, groupsOf(c), helpColumnsOf(c.OutOrStderr())))
		return err
	})
}

// helpColumnsOf returns how wide help is that goes to w.
func helpColumnsOf(w io.Writer) int {
	if columns := screenOf(w).columns; columns > 0 {
		return min(columns, helpColumns)
	}
	return helpColumns
}

// usage is what follows the description of a verb. The connection's flags are not in it: 'options' lists them, as
// kubectl has it.
func usage(c *cobra.Command, groups []verbGroup, columns int) string {
	var b strings.Builder
	b.WriteString("Usage:\n")
	verb := c.CommandPath() + " VERB"
	if len(groups) == 0 || c.HasParent() && c.UseLine() != verb {
		b.WriteString(hanging("  ", "    ", c.UseLine(), columns))
	}
	if len(groups) > 0 {
		b.WriteString(hanging("  ", "    ", verb, columns))
	}
	if c.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", reflowed(c.Example, columns))
	}
	widest := 0
	for _, verb := range verbsIn(groups) {
		widest = max(widest, len(verb.Name()))
	}
	for _, g := range groups {
		fmt.Fprintf(&b, "\n%s\n", g.title)
		for _, verb := range g.verbs {
			b.WriteString(hanging(fmt.Sprintf("  %-*s  ", widest, verb.Name()), strings.Repeat(" ", widest+4), verb.Short, columns))
		}
	}
	if c.HasParent() && c.HasAvailableLocalFlags() {
		fmt.Fprintf(&b, "\nFlags:\n%s\n", flagUsages(c.LocalFlags(), columns))
	}
	if len(groups) > 0 {
		fmt.Fprintf(&b, "\n%s\n", reflowed(fmt.Sprintf(moreHelp, verb, c.Root().CommandPath()), columns))
	}
	return b.String()
}

// flagUsages describes flags. On a narrow screen, what a flag does stands below it.
func flagUsages(flags *pflag.FlagSet, columns int) string {
	if columns >= helpColumns {
		return strings.TrimRight(flags.FlagUsagesWrapped(columns), "\n")
	}
	var b strings.Builder
	for line := range strings.Lines(flags.FlagUsages()) {
		flag, does, _ := strings.Cut(strings.TrimSpace(line), "   ")
		b.WriteString(hanging("  ", "      ", flag, columns))
		b.WriteString(hanging("      ", "      ", strings.TrimSpace(does), columns))
	}
	return strings.TrimRight(b.String(), "\n")
}

// hanging returns lines of a text that begins behind first, and goes on behind rest.
func hanging(first, rest, text string, columns int) string {
	lines := strings.ReplaceAll(wrapped(text, max(columns-utf8.RuneCountInString(rest), 1)), "\n", "\n"+rest)
	return first + lines + "\n"
}

// reflowed breaks a text that is written for [helpColumns] anew, for a narrower screen: paragraphs flow, and so do
// comments. Commands stay whole, as they are there to be copied.
func reflowed(text string, columns int) string {
	if columns >= helpColumns {
		return strings.TrimRight(text, "\n")
	}
	var out, paragraph []string
	prefix := ""
	flow := func() {
		if len(paragraph) > 0 {
			all := strings.Join(paragraph, " ")
			out = append(out, strings.TrimSuffix(hanging(prefix, prefix, all, columns), "\n"))
			paragraph = nil
		}
	}
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		is := ""
		flows := line != "" && line[0] != ' '
		if comment, ok := strings.CutPrefix(line, "  # "); ok && !strings.HasPrefix(comment, " ") {
			is, flows, line = "  # ", true, comment
		}
		if !flows || is != prefix {
			flow()
		}
		prefix = is
		if flows {
			paragraph = append(paragraph, line)
		} else {
			out = append(out, line)
		}
	}
	flow()
	return strings.Join(out, "\n")
}
