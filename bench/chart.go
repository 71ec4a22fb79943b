package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// The chart's measures, in the SVG's own units.
const (
	chartText   = 480 // width of the names, right-aligned before the bars
	chartBars   = 420
	chartSide   = 130 // the verdict behind the bars
	chartRow    = 22
	chartTop    = 54
	chartBottom = 14
)

// chartFrom and chartTo are the ratios to the aim that the bars' axis shows, each decade as wide
// as the others: half of the aim is as far to the left of it as the double is to the right.
const (
	chartFrom = 1.0 / 64
	chartTo   = 4
)

// chart returns an SVG that shows how each row that has an aim stands to it: a bar that ends left of the
// line has met it. Nothing is told by colour alone. Whoever looks at it in the dark has light text.
func chart(rows []row) []byte {
	rows = slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return r.aim == 0 })
	width, height := chartText+chartBars+chartSide, chartTop+chartRow*len(rows)+chartBottom
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" font-family="system-ui, sans-serif" font-size="12">
<title>What was measured, as a part of its aim</title>
<style>text{fill:#24292f}.axis{stroke:#8c959f;stroke-dasharray:2 3}.aim{stroke:#24292f;stroke-width:1.5}.met{fill:#2da44e}.missed{fill:#bf8700}@media(prefers-color-scheme:dark){text{fill:#d0d7de}.aim{stroke:#d0d7de}}</style>
`, width, height, width, height)
	bottom := height - chartBottom
	for ratio := chartFrom; ratio <= chartTo; ratio *= 2 {
		x, class, label := chartX(ratio), "axis", fmt.Sprintf("×%.0f", ratio)
		switch {
		case ratio == 1:
			class, label = "aim", "the aim"
		case ratio < 1:
			label = fmt.Sprintf("1/%.0f", 1/ratio)
		}
		fmt.Fprintf(&b, `<line class="%s" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`, class, x, chartTop-8, x, bottom)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x, chartTop-14, label)
	}
	fmt.Fprintf(&b, `<text x="%d" y="16" font-weight="bold">What was measured, as a part of its aim: shorter is better</text>`+"\n", chartText)
	for i, r := range rows {
		y := chartTop + chartRow*i
		part := r.ratio() / r.aim
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, chartText-8, y+14, html.EscapeString(r.short()))
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`, r.verdict(), chartText, y+3, max(1, chartX(part)-chartText), chartRow-8)
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s, ×%.2f</text>`+"\n", chartText+chartBars+8, y+14, r.verdict(), part)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// chartX is where a ratio to the aim stands; what is beyond the axis, at its end.
func chartX(ratio float64) float64 {
	ratio = min(max(ratio, chartFrom), chartTo)
	return chartText + chartBars*math.Log(ratio/chartFrom)/math.Log(chartTo/chartFrom)
}

// short names a row in the chart, where there is room for some seventy letters.
func (r row) short() string {
	name := strings.NewReplacer("`", "", ", whole process", "").Replace(r.work)
	if r.beside != "the aim" && !strings.HasPrefix(r.beside, "the aim:") {
		name += " / " + strings.NewReplacer("`", "", " of the same commit", "", " over the same mTLS", "",
			"1,000 values through the ", "").Replace(r.beside)
	}
	if letters := []rune(name); len(letters) > 72 {
		name = string(letters[:71]) + "…"
	}
	return name
}
