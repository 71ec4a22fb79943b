package template

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	texttemplate "text/template"
	"text/template/parse"
	"unicode/utf8"
)

// The functions that a compiler puts into every program. No template can name them: it is parsed without.
const (
	printFunction = "_print" // prints the value of an action
	stepsFunction = "_steps" // at the start of the body of each range: pays for one time through it
	rangeFunction = "_range" // pays for what a range goes through
)

// A program is one text or string that was compiled.
type program struct {
	number    string // its name in the set
	key, path string
	text      string
}

// A compiler compiles the programs of one template.
type compiler struct {
	set   *texttemplate.Template
	name  string // of the key that is being compiled
	count int

	references []reference
}

// known are the names of the functions that a template may call. The parser looks at the names only.
var known = func() map[string]any {
	names := map[string]any{"and": true, "or": true, "not": true}
	for name := range (&run{}).functions() {
		if !strings.HasPrefix(name, "_") {
			names[name] = true
		}
	}
	return names
}()

// program compiles a text, which stands at path of a structure.
func (c *compiler) program(path, text string) (program, error) {
	p := program{number: "p" + strconv.Itoa(c.count), key: c.name, path: path, text: text}
	c.count++
	if !utf8.ValidString(text) {
		return program{}, &Error{Key: c.name, Path: path, Reason: "not UTF-8"}
	}
	trees := make(map[string]*parse.Tree)
	tree, err := parse.New(p.number).Parse(text, "", "", trees, known)
	if err != nil {
		return program{}, p.parseError(err)
	}
	if at := defines().FindStringIndex(text); len(trees) > 1 && at != nil {
		return program{}, p.errorAt(at[0], "templates within templates are not supported: there is no define, block and template")
	}
	c.refer(p, tree.Root)
	if err := p.instrument(tree.Root, 0); err != nil {
		return program{}, err
	}
	if _, err := c.set.AddParseTree(p.number, tree); err != nil {
		return program{}, &Error{Key: c.name, Path: path, Reason: "cannot be compiled"}
	}
	return p, nil
}

var defines = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\{\{-?\s*(define|block)\b`) })

// instrument puts the hidden functions into a list, around which are so many ranges. It refuses what is not supported.
func (p program) instrument(list *parse.ListNode, ranges int) error {
	if list == nil {
		return nil
	}
	for _, n := range list.Nodes {
		var err error
		switch n := n.(type) {
		case *parse.ActionNode:
			if len(n.Pipe.Decl) == 0 {
				n.Pipe.Cmds = append(n.Pipe.Cmds, call(printFunction, n.Pipe.Pos))
			}
		case *parse.IfNode:
			err = p.both(n.List, n.ElseList, ranges)
		case *parse.WithNode:
			err = p.both(n.List, n.ElseList, ranges)
		case *parse.RangeNode:
			// Each passes an error on by a panic of its own: so many would take a second.
			if ranges == maxRanges {
				return p.errorAt(int(n.Position()), fmt.Sprintf("more than %d ranges stand in each other", maxRanges))
			}
			err = p.both(n.List, n.ElseList, ranges+1)
			n.Pipe.Cmds = append(n.Pipe.Cmds, call(rangeFunction, n.Pipe.Pos))
			cost := int64(1 + weight(n.List))
			pay := call(stepsFunction, n.Pipe.Pos)
			pay.Args = append(pay.Args, &parse.NumberNode{NodeType: parse.NodeNumber, Pos: n.Pipe.Pos, IsInt: true, Int64: cost, Text: strconv.FormatInt(cost, 10)})
			pipe := &parse.PipeNode{NodeType: parse.NodePipe, Pos: n.Pipe.Pos, Line: n.Line, Cmds: []*parse.CommandNode{pay}}
			n.List.Nodes = append([]parse.Node{&parse.ActionNode{NodeType: parse.NodeAction, Pos: n.Pipe.Pos, Line: n.Line, Pipe: pipe}}, n.List.Nodes...)
		case *parse.TemplateNode:
			err = p.errorAt(int(n.Position()), "templates within templates are not supported: there is no define, block and template")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p program) both(list, otherwise *parse.ListNode, ranges int) error {
	if err := p.instrument(list, ranges); err != nil {
		return err
	}
	return p.instrument(otherwise, ranges)
}

// call returns the call of a hidden function, whose errors are told to be at pos.
func call(name string, pos parse.Pos) *parse.CommandNode {
	return &parse.CommandNode{NodeType: parse.NodeCommand, Pos: pos, Args: []parse.Node{parse.NewIdentifier(name).SetPos(pos)}}
}

// weight returns how many nodes are gone through when n is. The body of a range pays for itself.
func weight(n parse.Node) int {
	sum := 1
	switch n := n.(type) {
	case *parse.ListNode:
		if n == nil {
			return 0
		}
		for _, child := range n.Nodes {
			sum += weight(child)
		}
	case *parse.ActionNode:
		sum += weight(n.Pipe)
	case *parse.IfNode:
		sum += weight(n.Pipe) + weight(n.List) + weight(n.ElseList)
	case *parse.WithNode:
		sum += weight(n.Pipe) + weight(n.List) + weight(n.ElseList)
	case *parse.RangeNode:
		sum += weight(n.Pipe) + weight(n.ElseList)
	case *parse.PipeNode:
		sum += len(n.Decl)
		for _, child := range n.Cmds {
			sum += weight(child)
		}
	case *parse.CommandNode:
		for _, child := range n.Args {
			sum += weight(child)
		}
	case *parse.ChainNode:
		sum += weight(n.Node) + len(n.Field)
	case *parse.FieldNode:
		sum += len(n.Ident)
	case *parse.VariableNode:
		sum += len(n.Ident)
	}
	return sum
}
