// Reference writes the reference out of what the programs themselves say: pages of
// Markdown for both programs and for the custom resources, and manual pages.
//
//	go run ./internal/reference CRDS PAGES MANUAL
//
// CRDS is the folder with the CRDs, PAGES and MANUAL those to write into. It is a
// program of its own so that neither product links it; hack/reference calls it.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/cli"
	"github.com/vsecm/kubectl-vsecm/internal/safecmd"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: reference CRDS PAGES MANUAL")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func write(crds, pages, manual string) error {
	files := make(map[string]string)
	for _, root := range []*cobra.Command{cli.New(genericiooptions.NewTestIOStreamsDiscard()), safecmd.New(genericiooptions.NewTestIOStreamsDiscard())} {
		root.InitDefaultHelpFlag()
		files[filepath.Join(pages, root.Name()+".md")] = programPage(root)
		for _, cmd := range commandsOf(root) {
			files[filepath.Join(manual, manualName(cmd)+".1")] = manualPage(cmd)
		}
	}
	page, err := resourcesPage(crds)
	if err != nil {
		return err
	}
	files[filepath.Join(pages, "resources.md")] = page
	for file, text := range files {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// commandsOf lists a command and all below it that a user sees.
func commandsOf(cmd *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{cmd}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" {
			list = append(list, commandsOf(sub)...)
		}
	}
	return list
}

// long is what a command's help says, without the exit codes, which are returned apart.
func long(cmd *cobra.Command) (paragraphs []string, exitCodes string) {
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if codes, is := strings.CutPrefix(paragraph, "Exit codes: "); is {
			exitCodes = strings.Join(strings.Fields(codes), " ")
			continue
		}
		paragraphs = append(paragraphs, strings.Trim(paragraph, "\n"))
	}
	return paragraphs, exitCodes
}

// isProse tells that a paragraph flows: no line of it is indented, as those of lists and files are.
func isProse(paragraph string) bool {
	return !slices.ContainsFunc(strings.Split(paragraph, "\n"), func(line string) bool {
		return strings.HasPrefix(line, " ") || strings.HasPrefix(line, "- ") || strings.HasPrefix(line, "* ")
	})
}
