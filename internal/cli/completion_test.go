package cli

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// What a shell does beside offering what it was told.
const (
	thenFiles   = ":0"
	thenNothing = ":4"
	thenNoSpace = ":6"
	thenFilesOf = ":8" // whose names end in what is offered
	thenFolders = ":16"
)

// completed returns what is offered for the last of args, without descriptions, and what the
// shell is told to do then.
func completed(t *testing.T, args ...string) (offered []string, directive string) {
	t.Helper()
	code, stdout, stderr := run(t, "", append([]string{"__complete"}, args...)...)
	if code != exitOK {
		t.Fatalf("%v: exit code %d: %s", args, code, stderr)
	}
	for line := range strings.Lines(stdout) {
		word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if strings.HasPrefix(word, ":") {
			return offered, word
		}
		offered = append(offered, word)
	}
	t.Fatalf("%v: the shell is not told what to do: %s", args, stdout)
	return nil, ""
}

// eachVerb calls see with every verb that does something.
func eachVerb(see func(*cobra.Command)) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Runnable() {
			see(cmd)
		}
		for _, verb := range cmd.Commands() {
			walk(verb)
		}
	}
	walk(New(genericiooptions.NewTestIOStreamsDiscard()))
}

// The flags that take files, whichever verb has them: of these alone the shell may offer files.
var fileFlags = []string{
	"archive", "backup", "file", "filename", "from-env-file", "from-file", "identity", "kubeconfig", "out", "private-key", "recipients-file",
	"retired-key", "root-key", "share", "shares", "template", "to-file", "token-file", "write",
	"certificate-authority", "client-certificate", "client-key",
	"from-literal", // KEY=VALUE: there is nothing to offer, and a flag of its own may not be registered for
}

func TestEveryFlagOffersWhatItTakes(t *testing.T) {
	eachVerb(func(verb *cobra.Command) {
		verb.LocalFlags().VisitAll(func(f *pflag.Flag) {
			_, decided := verb.GetFlagCompletionFunc(f.Name)
			if _, folders := f.Annotations[cobra.BashCompSubdirsInDir]; folders || decided || f.Value.Type() == "bool" || f.NoOptDefVal != "" {
				return
			}
			if _, patterns := f.Annotations[cobra.BashCompFilenameExt]; patterns {
				return
			}
			file := slices.Contains(fileFlags, f.Name) || f.Name == "output" && strings.Contains(f.Usage, "FILE")
			if !file {
				t.Errorf("%s --%s offers files, and takes none", verb.CommandPath(), f.Name)
			}
		})
	})
}

func TestEveryArgumentOffersWhatItTakes(t *testing.T) {
	takesFiles := regexp.MustCompile(`\b(FILE|PATH|DIR|EXPORT)\b`)
	eachVerb(func(verb *cobra.Command) {
		if verb.ValidArgsFunction != nil || len(verb.ValidArgs) > 0 || verb.HasSubCommands() {
			return
		}
		if arguments, _, _ := strings.Cut(verb.Use, " -"); !takesFiles.MatchString(arguments) {
			t.Errorf("%s offers files, and takes none: %s", verb.CommandPath(), verb.Use)
		}
	})
}

func TestEveryVerbIsOffered(t *testing.T) {
	eachVerb(func(verb *cobra.Command) {
		words := strings.Fields(verb.CommandPath())[2:] // without kubectl vsecm
		if len(words) == 0 || verb.Hidden || strings.HasPrefix(words[0], "__") {
			return
		}
		offered, _ := completed(t, words...)
		if !slices.Contains(offered, words[len(words)-1]) {
			t.Errorf("%s is not among %q", verb.CommandPath(), offered)
		}
		flags, _ := completed(t, append(slices.Clone(words), "--h")...)
		if !slices.Contains(flags, "--help") {
			t.Errorf("%s offers no flags: %q", verb.CommandPath(), flags)
		}
	})
}

// Offline, from files alone: there is no kubeconfig, and none is looked for.
func TestCompletionFromFiles(t *testing.T) {
	inFolder(t, nil)
	for _, args := range [][]string{
		{"encrypt", "db", "-n", "shop", "--key", "password", "-w", "all.yaml"},
		{"encrypt", "db", "-n", "shop", "--key", "user", "-w", "all.yaml"},
		{"encrypt", "cache", "-n", "other", "--key", "token", "-w", "all.yaml"},
	} {
		if code, _, stderr := run(t, "value", args...); code != exitOK {
			t.Fatalf("%v: %s", args, stderr)
		}
	}
	for _, tc := range []struct {
		args    string // what was typed before the Tab, a ? where it comes
		offered string
		then    string
	}{
		{"encrypt -w all.yaml ?", "db cache", thenNothing},
		{"encrypt -w all.yaml db --key ?", "password user token", thenNothing},
		{"encrypt ?", "", thenNothing},
		{"encrypt --scope ?", "strict namespace cluster", thenNothing},
		{"encrypt --expires-at ?", "30d 90d 365d", thenNothing},
		{"encrypt -o ?", "json yaml", thenNothing},
		{"encrypt -f ?", "", thenFiles},
		{"encrypt --recipient ?", "", thenNothing},
		{"encrypt --workload ?", "", thenNothing},
		{"reveal -f all.yaml ?", "db cache", thenNothing},
		{"reveal -f all.yaml db ?", "cache", thenNothing},
		{"reveal -f all.yaml db --key ?", "password user", thenNothing},
		{"reveal --backup b.age ?", "", thenNothing},
		{"reveal -f ?", "", thenFiles},
		{"set ?", "json yaml yml", thenFilesOf},
		{"set all.yaml ?", "password token user", thenNothing},
		{"set all.yaml password ?", "", thenNothing},
		{"set all.yaml --name ?", "cache db", thenNothing},
		{"set all.yaml -n ?", "other shop", thenNothing},
		{"unset ?", "json yaml yml", thenFilesOf},
		{"unset all.yaml ?", "password token user", thenNothing},
		{"unset all.yaml user ?", "password token", thenNothing},
		{"unset all.yaml --name ?", "cache db", thenNothing},
		{"unset all.yaml -n ?", "other shop", thenNothing},
		{"edit ?", "", thenFiles},
		{"edit all.yaml -n ?", "other shop", thenNothing},
		{"edit all.yaml --name ?", "cache db", thenNothing},
		{"edit --root-key ?", "", thenFiles},
		{"git ?", "diff setup textconv", thenNothing},
		{"git setup ?", "", thenNothing},
		{"git diff ?", "", thenFiles},
		{"git textconv ?", "", thenFiles},
		{"inspect ?", "", thenFiles},
		{"inspect -o ?", "json yaml jsonpath=", thenNothing},
		{"validate ?", "", thenFiles},
		{"validate -o ?", "json yaml sarif junit", thenNothing},
		{"restore ?", "", thenFiles},
		{"restore --to-dir ?", "", thenFolders},
		{"backup list ?", "", thenFiles},
		{"backup verify ?", "", thenFiles},
		{"backup -o ?", "", thenFiles},
		{"import ?", "sealed-secrets secret sops vault vsecm", thenNothing},
		{"import secret ?", "", thenFiles},
		{"import secret --to-dir ?", "", thenFolders},
		{"import sops ?", "", thenFiles},
		{"import sops -i ?", "", thenFiles},
		{"import sealed-secrets ?", "", thenFiles},
		{"import sealed-secrets --private-key ?", "", thenFiles},
		{"import vault ?", "", thenNothing},
		{"import vault --map ?", "{namespace}/{name} {name}", thenNothing},
		{"import vsecm ?", "", thenFiles},
		{"import vsecm --to-dir ?", "", thenFolders},
		{"reencrypt ?", "", thenFiles},
		{"reencrypt --root-key ?", "", thenFiles},
		{"keygen ?", "", thenNothing},
		{"keygen -o ?", "", thenFiles},
		{"keygen --out-dir ?", "", thenFolders},
		{"keygen --shares ?", "", thenNothing},
		{"unseal ?", "", thenNothing},
		{"unseal -f ?", "", thenFiles},
		{"unseal --safe ?", "https:// unix://", thenNoSpace},
		{"seal ?", "", thenNothing},
		{"status ?", "", thenNothing},
		{"status --token-file ?", "", thenFiles},
		{"rekey ?", "abort finish start status", thenNothing},
		{"rekey start --backup ?", "", thenFiles},
		{"rekey finish ?", "", thenNothing},
		{"completion ?", "install bash zsh fish powershell", thenNothing},
		{"completion install --dir ?", "", thenFolders},
		{"version ?", "", thenNothing},
		{"options ?", "", thenNothing},
		{"recipient --root-key ?", "", thenFiles},
		{"recipient ?", "", thenNothing},

		// Without a cluster there is nothing, and no error.
		{"list ?", "", thenNothing},
		{"list -n ?", "", thenNothing},
		{"delete ?", "", thenNothing},
		{"sync ?", "", thenNothing},
		{"register ?", "", thenNothing},
		{"register db --key ?", "", thenNothing},
		{"status --context ?", "", thenNothing},
		{"status --kubeconfig ?", "", thenFiles},
		{"status --server ?", "", thenNothing},
		{"status --token ?", "", thenNothing},
	} {
		offered, then := completed(t, append(strings.Fields(strings.TrimSuffix(tc.args, "?")), "")...)
		slices.Sort(offered)
		want := strings.Fields(tc.offered)
		slices.Sort(want)
		if !slices.Equal(offered, want) || then != tc.then {
			t.Errorf("%s: %q, then %s; want %q, then %s", tc.args, offered, then, want, tc.then)
		}
	}
}
