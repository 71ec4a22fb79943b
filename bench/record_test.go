package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var someRows = []row{
	{"`encrypt` one manifest, whole process, hybrid", "kubeseal (RSA)", duration(8 * time.Millisecond), duration(20 * time.Millisecond), 0.6},
	{"`encrypt` one manifest, whole process, hybrid", "sops (classic)", duration(8 * time.Millisecond), duration(33 * time.Millisecond), 0},
	{"memory, idle <of a replica>", "the aim", size(26 << 20), size(20 << 20), 1},
	{"start to ready", "the aim", duration(time.Minute), duration(2 * time.Second), 1},
}

func TestRecordReplacesWhatTheLastRunMeasured(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "README.md")
	page := "# Bench\n\nHow.\n\n" + measuredBegin + "\n| of the last run |\n\n" + measuredEnd + "\nWhat falls short.\n"
	if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second run finds the place as well
		if err := record(folder, table(someRows, time.Unix(1e9, 0)), someRows); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"How.\n\n" + measuredBegin, measuredEnd + "\nWhat falls short.\n", "](aims.svg)", "2001-09-09",
		"| `encrypt` one manifest, whole process, hybrid | kubeseal (RSA) | 8ms | 20ms | 0.40 | ≤ 0.6 | met |\n",
		"| memory, idle <of a replica> | the aim | 26.0 MiB | 20.0 MiB | 1.30 | ≤ 1 | missed |\n",
	} {
		if strings.Count(string(got), want) != 1 {
			t.Errorf("want %q once in:\n%s", want, got)
		}
	}
	if strings.Contains(string(got), "of the last run") {
		t.Error("the last run's table is still there")
	}
}

func TestRecordLeavesAPageThatHasNoPlaceForIt(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "README.md"), []byte("# Another\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := record(folder, nil, nil); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(filepath.Join(folder, chartFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the chart was written all the same: %v", err)
	}
}

func TestChartShowsEachAimAndNothingElse(t *testing.T) {
	svg := string(chart(someRows))
	for dec := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in:\n%s", err, svg)
		}
	}
	if got := strings.Count(svg, "<rect "); got != 3 {
		t.Errorf("%d bars, want one for each of the 3 rows that have an aim", got)
	}
	for _, want := range []string{">encrypt one manifest, hybrid / kubeseal (RSA)<", "idle &lt;of a replica&gt;", ">met, ×0.67<", ">missed, ×1.30<", ">missed, ×30.00<"} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q in:\n%s", want, svg)
		}
	}
	if end := chartX(30); end != chartText+chartBars {
		t.Errorf("a bar beyond the axis ends at %v", end)
	}
}
