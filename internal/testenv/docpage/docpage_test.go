package docpage

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const page = "# A page\n\n<!-- world: local -->\n## First\n\n```sh\necho one\n```\n\n```text\none\n```\n\n" +
	"- in a list:\n\n  ```sh until\n  echo two\n  ```\n\n  ```text\n  two\n  ```\n\n" +
	"<!-- before:\nx=3\n-->\n\n```sh fails\nexit $x\n```\n\nWords.\n\n```text\nfor reading\n```\n\n" +
	"<!-- not played: it costs money -->\n\n```sh\nbuy\n```\n\n```yaml\n# a/kustomization.yaml\nkind: K\n```\n\n```yaml\n# just words.\n```\n" +
	"\n<!-- played by: TestOther -->\n\n```sh\necho other\n```\n"

func TestAPageIsRead(t *testing.T) {
	p, err := Parse("page.md", page)
	if err != nil {
		t.Fatal(err)
	}
	want := []Block{
		{Kind: Commands, Language: "sh", Section: "First", Chapter: "First", World: "local", Act: 1, Line: 6, Text: "echo one\n", Shows: true, Output: "one\n"},
		{Kind: Commands, Language: "sh", Section: "First", Chapter: "First", World: "local", Act: 1, Line: 16, Text: "echo two\n", Until: true, Shows: true, Output: "two\n"},
		{Kind: Commands, Language: "sh", Section: "First", Chapter: "First", World: "local", Act: 1, Line: 24, Text: "x=3\n"},
		{Kind: Commands, Language: "sh", Section: "First", Chapter: "First", World: "local", Act: 1, Line: 28, Text: "exit $x\n", Fails: true},
		{Kind: Reading, Language: "text", Section: "First", Chapter: "First", World: "local", Act: 1, Line: 34, Text: "for reading\n"},
		{Kind: Commands, Language: "sh", Section: "First", Chapter: "First", World: "local", Act: 1, Line: 40, Text: "buy\n", Skipped: "it costs money"},
		{Kind: File, Language: "yaml", Section: "First", Chapter: "First", World: "local", Act: 1, Line: 44, Text: "# a/kustomization.yaml\nkind: K\n", Path: "a/kustomization.yaml"},
		{Kind: Reading, Language: "yaml", Section: "First", Chapter: "First", World: "local", Act: 1, Line: 49, Text: "# just words.\n"},
		{Kind: Commands, Language: "sh", Section: "First", Chapter: "First", Act: 1, PlayedBy: "TestOther", Line: 55, Text: "echo other\n"},
	}
	if len(p.Blocks) != len(want) {
		t.Fatalf("%d blocks", len(p.Blocks))
	}
	for i, b := range p.Blocks {
		got := *b
		got.start, got.end = 0, 0
		if !reflect.DeepEqual(got, want[i]) {
			t.Errorf("block %d is\n%+v, not\n%+v", i, got, want[i])
		}
	}
}

func TestABadPageIsRefusedWithItsLine(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"a block that does not end":          {"words\n\n```sh\necho\n", "p.md:3: a block that does not end"},
		"no language":                        {"```\nx\n```\n", "p.md:1: a block without a language"},
		"another language for commands":      {"```bash\nx\n```\n", "not bash"},
		"an unknown word after the language": {"```sh twice\nx\n```\n", `that is "twice"`},
		"a reason for nothing":               {"<!-- not played: so -->\n\nwords\n", "followed by no block"},
		"a reason at the end":                {"<!-- not played: so -->\n", "followed by no block"},
		"a comment with a typing error":      {"<!-- notplayed: so -->\n\n```sh\nx\n```\n", "no comment that is known"},
		"a hidden block that does not end":   {"<!-- before:\nx\n", "does not end"},
	} {
		if _, err := Parse("p.md", tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatIsPrintedIsComparedWithWhatIsShown(t *testing.T) {
	const a, b, c = "0123456789ab", "ba9876543210", "00000000000c"
	for name, tt := range map[string]struct {
		shown, printed string
		differs        string
	}{
		"the same":                      {"one\ntwo\n", "one\ntwo\n", ""},
		"another word":                  {"one\ntwo\n", "one\ntow\n", "line 2"},
		"a line too many":               {"one\n", "one\ntwo\n", "line 2 is printed"},
		"a line too few":                {"one\ntwo\n", "one\n", "line 2 is shown"},
		"columns of other widths":       {"NAME  AGE\n", "NAME        AGE\n", ""},
		"another time, age and size":    {"2026-11-23T05:00:00Z 3m12s 12 bytes\n", "2027-01-02T15:04:05Z 4s 7 bytes\n", ""},
		"anything in a line":            {"key … is there\n", "key a b c is there\n", ""},
		"anything in a line, and more":  {"key … is there\n", "key a b c is gone\n", "line 1"},
		"any lines":                     {"one\n…\nfour\n", "one\ntwo\nthree\nfour\n", ""},
		"no line for any lines":         {"one\n…\n", "one\n", ""},
		"any lines, and then another":   {"one\n…\nfive\n", "one\ntwo\nfour\n", "line 3"},
		"keys of other names":           {a + " " + b + " " + a + "\n", b + " " + c + " " + b + "\n", ""},
		"two keys where one is shown":   {a + " " + a + "\n", b + " " + c + "\n", "was"},
		"one key where two are shown":   {a + " " + b + "\n", c + " " + c + "\n", "was"},
		"a recipient that is cut off":   {"age1pq1…\n", "age1pq1" + strings.Repeat("q", 40) + "\n", ""},
		"nothing shown, something said": {"", "one\n", "line 1"},
	} {
		var comparison Comparison
		err := comparison.Compare(tt.shown, tt.printed)
		if tt.differs == "" && err != nil || tt.differs != "" && (err == nil || !strings.Contains(err.Error(), tt.differs)) {
			t.Errorf("%s: %v", name, err)
		}
	}

	var comparison Comparison
	if err := comparison.Compare("key "+a+"\n", "key "+b+"\n"); err != nil {
		t.Error(err)
	}
	if err := comparison.Compare("key "+a+"\n", "key "+c+"\n"); err == nil {
		t.Error("a key becomes another one in the middle of a page")
	}
	const rest = "0123456789abcdef0123"
	if err := comparison.Compare("key "+a+rest+"\n", "key "+b+rest+"\n"); err != nil {
		t.Error(err)
	}
	if got, want := comparison.Here("unseal --accept-key-id "+a+rest+" "+c+rest), "unseal --accept-key-id "+b+rest+" "+c+rest; got != want {
		t.Errorf("typed is %q, not %q", got, want)
	}
}

func TestAShellKeepsWhatABlockSets(t *testing.T) {
	sh := OpenShell(t, t.TempDir(), []string{"PATH=" + os.Getenv("PATH")})
	sh.Play("one", "x=1\nmkdir a\ncd a\ncat >f <<'END'\nhere\nEND")
	if got := sh.Play("two", "echo $x; cat f; cat; printf end; echo err >&2"); got != "1\nhere\nenderr\n" {
		t.Errorf("it prints %q", got)
	}
	if got := sh.PlayFailing("three", "printf no; false; echo unreached"); got != "no\n" {
		t.Errorf("it prints %q", got)
	}
	if got := sh.Play("four", "sleep 1000 &\npwd -P | grep -o 'a$'"); got != "a\n" {
		t.Errorf("it prints %q", got)
	}
}

func TestWhatAsksIsAnsweredAtATerminal(t *testing.T) {
	sh := OpenShell(t, t.TempDir(), []string{"PATH=" + os.Getenv("PATH"), "TERM=dumb"})
	sh.Play("before", "export word=swordfish\nmkdir a\ncd a")
	meanwhile := 0
	sh.Meanwhile = func() { meanwhile++ }
	got := sh.PlayAsking("asks", `test -t 0 && test -t 1 && pwd -P | grep -o 'a$'
read -r -s -p 'The word: ' said
echo
read -r -s -p 'The word: ' again < /dev/tty
printf '\r\n\033[F\033[K%s %s\033[H\033[2J\033[1mdone\033[0m\n' $said $again
sleep 0.5`, []Answer{{"The word", "echo $word"}, {"word: ", "printf 'pike\n'"}})
	if want := "a\nThe word: \nswordfish pike\ndone\n"; got != want {
		t.Errorf("it shows %q, not %q", got, want)
	}
	if meanwhile == 0 {
		t.Error("nothing is done meanwhile")
	}
}

func TestAnswersBelongToABlockThatAsks(t *testing.T) {
	const answers = "<!-- answers:\nkey => cat a\nvalue => echo b => c\n-->\n\n"
	p, err := Parse("page.md", "<!-- world: local -->\n\n"+answers+"```sh asks\nunseal\n```\n")
	if err != nil {
		t.Fatal(err)
	}
	if b := p.Blocks[0]; len(p.Blocks) != 1 || !b.Asks || !slices.Equal(b.Answers, []Answer{{"key", "cat a"}, {"value", "echo b => c"}}) {
		t.Errorf("%d blocks, %+v", len(p.Blocks), b)
	}
	for name, text := range map[string]string{
		"of a block that does not ask": answers + "```sh\nunseal\n```\n",
		"that are not there":           "```sh asks\nunseal\n```\n",
		"of no block":                  answers,
		"of a block that fails":        answers + "```sh asks fails\nunseal\n```\n",
		"without a question":           "<!-- answers:\ncat a\n-->\n\n```sh asks\nunseal\n```\n",
	} {
		if _, err := Parse("page.md", text); err == nil {
			t.Errorf("answers %s are taken", name)
		}
	}
}

func TestAPageIsWrittenWithWhatIsPrinted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	p.Blocks[1].Show("zwei\ndrei\n")
	p.Blocks[2].Show("hidden\n")
	p.Blocks[3].Show("it failed\n")
	if err := p.Write(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(page, "  two\n  ```\n", "  zwei\n  drei\n  ```\n", 1)
	want = strings.Replace(want, "exit $x\n```\n", "exit $x\n```\n\n```text\nit failed\n```\n", 1)
	if string(got) != want {
		t.Errorf("it is\n%s\nnot\n%s", got, want)
	}
}
