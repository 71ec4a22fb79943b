package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// A command whose help has all that is hard to write.
func command() *cobra.Command {
	root := &cobra.Command{Use: "safe", Short: "Deliver"}
	cmd := &cobra.Command{
		Use: "serve FILE", Short: "Serve what <is> there", Run: func(*cobra.Command, []string) {}, DisableFlagsInUseLine: true,
		Long:    "It serves *.yaml\nand `more`.\n\n.dots begin this, 'quotes' too\n\n  a list:\n    --flag\n\nExit codes: 0 done,\n1 error.",
		Example: "  # Serve\n  safe serve a\\b.yaml",
	}
	cmd.Flags().StringP("out", "o", "here", "Write to this `FILE` | not that")
	cmd.Flags().String("secret", "", "never shown")
	_ = cmd.Flags().MarkHidden("secret")
	root.AddCommand(cmd)
	return cmd
}

func TestACommandBecomesAPartOfItsPage(t *testing.T) {
	page := programPage(command().Root())
	for _, want := range []string{
		"| [`safe serve`](#safe-serve) | Serve what \\<is\\> there |\n",
		"\n## safe serve\n\nIt serves \\*.yaml\nand \\`more\\`.\n\n",
		"```text\n  a list:\n    --flag\n```\n",
		"```text\nsafe serve FILE\n```\n",
		"For example:\n\n```text\n# Serve\nsafe serve a\\b.yaml\n```\n",
		"| `-o`, `--out FILE` | Write to this FILE \\| not that (default here) |\n",
		"\nExit codes: 0 done, 1 error.\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	if strings.Contains(page, "never shown") {
		t.Error("it shows a hidden flag")
	}
}

func TestAManualPageIsWhatManTakes(t *testing.T) {
	page := manualPage(command())
	for _, want := range []string{
		".TH SAFE\\-SERVE 1 \"\" vsecm", ".SH SYNOPSIS\n.B safe serve FILE\n", "\n\\&.dots begin this", ".nf\n  a list:\n    \\-\\-flag\n.fi\n",
		".TP\n.B \\-o, \\-\\-out FILE\n", ".SH EXIT STATUS\n0 done, 1 error.\n", "safe serve a\\eb.yaml", ".BR safe (1)\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
}

func TestTheResourcesAreDescribed(t *testing.T) {
	page, err := resourcesPage("../../safe/crds")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"## EncryptedSecret\n", "## GitSource\n", "| `spec.encryptedData` | map to string |", "| Ready |"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in it", want)
		}
	}
}
