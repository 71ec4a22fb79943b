package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func tableOn(t *testing.T, s screen) string {
	t.Helper()
	var out bytes.Buffer
	tb := newTable(painted{&out, s})
	tb.header([]string{"NAME", "READY", "REASON", "SOURCE", "AGE"})
	tb.may("AGE", "SOURCE", "REASON")
	check(t, tb.row([]string{"db", "True", "Served", "shop/config", "3d"}))
	check(t, tb.row([]string{"älter", "False", "Unread\x1bable", "<none>", "12m"}))
	check(t, tb.flush())
	return out.String()
}

func TestATableLeavesOutWhatDoesNotFit(t *testing.T) {
	for _, tt := range []struct {
		name    string
		columns int
		want    string
	}{
		{"a pipe gets everything", 0,
			"NAME    READY   REASON             SOURCE        AGE\n" +
				"db      True    Served             shop/config   3d\n" +
				"älter   False   Unread\\u001bable   <none>        12m\n"},
		{"it fits just so", 52,
			"NAME    READY   REASON             SOURCE        AGE\n" +
				"db      True    Served             shop/config   3d\n" +
				"älter   False   Unread\\u001bable   <none>        12m\n"},
		{"the first to go", 51,
			"NAME    READY   REASON             SOURCE\n" +
				"db      True    Served             shop/config\n" +
				"älter   False   Unread\\u001bable   <none>\n" +
				"(too narrow for AGE)\n"},
		{"named in their order, in lines that fit", 20,
			"NAME    READY\n" +
				"db      True\n" +
				"älter   False\n" +
				"(too narrow for\nREASON, SOURCE, AGE)\n"},
		{"what is not optional stays", 5,
			"NAME    READY\n" +
				"db      True\n" +
				"älter   False\n" +
				"(too\nnarrow\nfor\nREASON,\nSOURCE,\nAGE)\n"},
	} {
		if got := tableOn(t, screen{columns: tt.columns}); got != tt.want {
			t.Errorf("%s: got\n%s", tt.name, got)
		}
	}
}

func TestColoursSayNothingThatWordsDoNot(t *testing.T) {
	coloured := tableOn(t, screen{columns: 80, colours: true})
	if !strings.Contains(coloured, "\x1b[32mTrue\x1b[0m    ") || !strings.Contains(coloured, "\x1b[31mFalse\x1b[0m   ") {
		t.Errorf("got %q", coloured)
	}
	for _, p := range []paint{faint, red, green} {
		coloured = strings.ReplaceAll(coloured, "\x1b["+string(p)+"m", "")
	}
	if coloured = strings.ReplaceAll(coloured, "\x1b[0m", ""); coloured != tableOn(t, screen{columns: 80}) {
		t.Errorf("without colours: %q", coloured)
	}
	for _, tt := range []struct {
		column, cell string
		want         paint
	}{
		{"READY", "Unknown", yellow}, {"STATE", "sealed", yellow}, {"STATE", "unsealed", green}, {"SYNCED", "False", yellow}, {"SYNCED", "True", plain},
		{"FAULTS", "0", plain}, {"FAULTS", "10", red}, {"FAILED", "0   (dry run)", plain}, {"FAILED", "", plain}, {"EXPIRES", "in 3d", plain}, {"EXPIRES", "3d ago", red},
		{"SVID-EXPIRES", "expired", red}, {"RESULT", "failed", red}, {"RESULT", "restored", green}, {"NAME", "True", plain},
	} {
		if got := paintOf(tt.column, tt.cell); got != tt.want {
			t.Errorf("%s %q: got %q", tt.column, tt.cell, got)
		}
	}
}

func TestWhatIsNoTerminalIsNoScreen(t *testing.T) {
	if got := screenOf(&bytes.Buffer{}); got != (screen{}) {
		t.Errorf("got %+v", got)
	}
}

func TestProseIsBrokenAtBlanks(t *testing.T) {
	for _, tt := range []struct {
		text    string
		columns int
		want    string
	}{
		{"a bc def", 0, "a bc def"},
		{"a bc def", 8, "a bc def"},
		{"a bc def", 7, "a bc\ndef"},
		{"a bc def", 1, "a\nbc\ndef"},
		{"  a bc def", 6, "  a bc\n  def"},
		{"ä öü", 4, "ä öü"},
		{"", 4, ""},
	} {
		if got := wrapped(tt.text, tt.columns); got != tt.want {
			t.Errorf("%q in %d: got %q", tt.text, tt.columns, got)
		}
	}
}

func TestAPageIsCutAtTheEndOfTheScreen(t *testing.T) {
	page := "one\n\x1b[31mtwo two\x1b[0m\nthree\nfour\n"
	for _, tt := range []struct {
		columns, rows int
		want          []string
	}{
		{80, 0, []string{"one", "\x1b[31mtwo two\x1b[0m", "three", "four"}},
		{80, 4, []string{"one", "\x1b[31mtwo two\x1b[0m", "three", "four"}},
		{80, 3, []string{"one", "\x1b[31mtwo two\x1b[0m", "… and 2 more lines"}},
		{6, 5, []string{"one", "\x1b[31mtwo two\x1b[0m", "three", "four"}},
		{6, 4, []string{"one", "\x1b[31mtwo two\x1b[0m", "… and 2 m…"}},
		{80, 1, []string{"… and 4 more lines"}},
	} {
		if got := strings.Split(fitted(page, screen{columns: tt.columns, rows: tt.rows}), "\r\n"); !slices.Equal(got, tt.want) {
			t.Errorf("%d by %d: got %q", tt.columns, tt.rows, got)
		}
	}
}

func TestSentencesAtTheEndOfARowStayInTheirPlace(t *testing.T) {
	for columns, want := range map[int]string{
		0:  "NAMESPACE   NAME   WHY\nshop        db     it stands there already, and is another one\n",
		44: "NAMESPACE   NAME   WHY\nshop        db     it stands there already,\n                   and is another one\n",
		40: "NAME   WHY\ndb     it stands there already, and is\n       another one\n(too narrow for NAMESPACE)\n",
		20: "NAME   WHY\ndb     it stands there already, and is another one\n(too narrow for\nNAMESPACE)\n",
	} {
		var out bytes.Buffer
		tb := newTable(painted{&out, screen{columns: columns}})
		tb.header([]string{"NAMESPACE", "NAME", "WHY"})
		tb.flows()
		tb.may("NAMESPACE")
		check(t, tb.row([]string{"shop", "db", "it stands there already, and is another one"}))
		check(t, tb.flush())
		if got := out.String(); got != want {
			t.Errorf("%d columns: got\n%s", columns, got)
		}
	}
}
