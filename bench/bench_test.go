package main

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

func TestInTurnsGivesEachTheSameNumberOfRounds(t *testing.T) {
	var order []string
	take := func(name string) contestant {
		return contestant{name, func(context.Context) error { order = append(order, name); return nil }}
	}
	medians, err := inTurns(t.Context(), 2, take("a"), take("b"))
	if err != nil {
		t.Fatal(err)
	}
	if len(medians) != 2 {
		t.Errorf("%d medians, want 2", len(medians))
	}
	if want := []string{"a", "b", "b", "a", "a", "b"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
}

func TestInTurnsStopsWhereWorkWasNotDone(t *testing.T) {
	failure := errors.New("no")
	_, err := inTurns(t.Context(), 1, contestant{"a", func(context.Context) error { return failure }})
	if !errors.Is(err, failure) {
		t.Errorf("got %v, want %v", err, failure)
	}
}

func TestMedian(t *testing.T) {
	for _, tc := range []struct {
		times []duration
		want  duration
	}{
		{[]duration{7}, 7},
		{[]duration{9, 1, 2}, 2},
		{[]duration{4, 100, 2, 1}, 3},
	} {
		if got := median(tc.times); got != tc.want {
			t.Errorf("median of %v is %v, want %v", tc.times, got, tc.want)
		}
	}
}

func TestRowSaysWhetherItsAimIsMet(t *testing.T) {
	for _, tc := range []struct {
		row  row
		want string
	}{
		{row{"w", "b", duration(30 * time.Millisecond), duration(60 * time.Millisecond), 0.6}, "| w | b | 30ms | 60ms | 0.50 | ≤ 0.6 | met |"},
		{row{"w", "b", duration(90 * time.Millisecond), duration(60 * time.Millisecond), 0.6}, "| w | b | 90ms | 60ms | 1.50 | ≤ 0.6 | missed |"},
		{row{"w", "b", duration(90 * time.Millisecond), duration(60 * time.Millisecond), 0}, "| w | b | 90ms | 60ms | 1.50 | — |  |"},
		{row{"w", "b", size(10 << 20), size(20 << 20), 1}, "| w | b | 10.0 MiB | 20.0 MiB | 0.50 | ≤ 1 | met |"},
	} {
		if got := tc.row.String(); got != tc.want {
			t.Errorf("got  %s\nwant %s", got, tc.want)
		}
	}
}

func TestParseBenchmarksTakesTheMedianOfEach(t *testing.T) {
	results, err := parseBenchmarks([]byte(`goos: linux
BenchmarkSync/100-2         	     100	  3000000 ns/op	  2.5 git-ms/op	  1024 B/op
BenchmarkSync/100-2         	     100	  1000000 ns/op	  7.5 git-ms/op	  1024 B/op
BenchmarkSync/100-2         	     100	  2000000 ns/op	  3.5 git-ms/op	  1024 B/op
BenchmarkSync/1000-2        	     100	  2500000 ns/op
PASS
ok  	pkg	1.0s
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, unit string
		want       float64
	}{
		{"Sync/100", "ns/op", 2e6},
		{"Sync/100", "git-ms/op", 3.5},
		{"Sync/1000", "ns/op", 2.5e6},
	} {
		if got, err := results.measure(tc.name, tc.unit); err != nil || got != tc.want {
			t.Errorf("%s in %s is %v, %v; want %v", tc.name, tc.unit, got, err, tc.want)
		}
	}
	for _, missing := range [][2]string{{"Sync/1000", "git-ms/op"}, {"Sync/10", "ns/op"}} {
		if got, err := results.measure(missing[0], missing[1]); err == nil {
			t.Errorf("%v that was not measured is %v", missing, got)
		}
	}
}
