package docpage

import (
	"os"
	"strings"
)

// Show has the page show what a block prints, which is compared no more.
func (b *Block) Show(printed string) { b.Shows, b.Output = printed != "", printed }

// Write writes the page back, with what its blocks now show.
func (p *Page) Write() error {
	var text strings.Builder
	at := 0
	copyTo := func(line int) {
		for ; at < line; at++ {
			text.WriteString(p.lines[at])
		}
	}
	for _, b := range p.Blocks {
		if b.Kind != Commands || !b.Shows || b.start == 0 { // or hidden
			continue
		}
		opened := p.lines[b.start-1] // or closed, where nothing was shown
		indent := opened[:len(opened)-len(strings.TrimLeft(opened, " "))]
		shown := ""
		for line := range strings.Lines(b.Output) {
			shown += indent + line
		}
		copyTo(b.start)
		if strings.TrimSpace(opened) == "```" {
			text.WriteString("\n" + indent + "```text\n" + shown + indent + "```\n")
		} else {
			text.WriteString(shown)
		}
		at = b.end
	}
	copyTo(len(p.lines))
	return os.WriteFile(p.File, []byte(text.String()), 0o644)
}
