package template

import (
	"slices"
	"text/template/parse"
)

// A reference is a sealed key that a program asks for whatever the values are.
type reference struct {
	program program
	name    string
	at      int // offset in the program's text
}

// Check tells whether the template can be carried out with these sealed keys, as far as can be told without the
// values: what it asks for only on a condition is not looked at. Its errors are of type [*Error].
func (t *Template) Check(has func(key string) bool) error {
	for _, r := range t.references {
		if !has(r.name) {
			e := r.program.errorAt(r.at, "there is no such key")
			if action := r.program.action(r.at); action != "" {
				e.Reason = action + ": " + e.Reason
			}
			return e
		}
	}
	return nil
}

// refer notes the references of a program's outermost nodes, where dot is all values, up to one that gives $ another
// meaning.
func (c *compiler) refer(p program, list *parse.ListNode) {
	for _, n := range list.Nodes {
		switch n := n.(type) {
		case *parse.ActionNode:
			c.referPipe(p, n.Pipe)
			if slices.ContainsFunc(n.Pipe.Decl, func(v *parse.VariableNode) bool { return v.Ident[0] == "$" }) {
				return
			}
		case *parse.IfNode:
			c.referPipe(p, n.Pipe)
		case *parse.WithNode:
			c.referPipe(p, n.Pipe)
		case *parse.RangeNode:
			c.referPipe(p, n.Pipe)
		}
	}
}

func (c *compiler) referPipe(p program, pipe *parse.PipeNode) {
	for _, command := range pipe.Cmds {
		if function, ok := command.Args[0].(*parse.IdentifierNode); ok {
			switch function.Ident {
			case "and", "or": // may stop before an argument
				continue
			case "index":
				if name, ok := indexed(command.Args[1:]); ok {
					c.references = append(c.references, reference{p, name, int(command.Pos)})
				}
			}
		}
		for _, arg := range command.Args {
			c.referNode(p, arg)
		}
	}
}

func (c *compiler) referNode(p program, n parse.Node) {
	switch n := n.(type) {
	case *parse.FieldNode:
		c.references = append(c.references, reference{p, n.Ident[0], int(n.Pos)})
	case *parse.VariableNode:
		if n.Ident[0] == "$" && len(n.Ident) > 1 {
			c.references = append(c.references, reference{p, n.Ident[1], int(n.Pos)})
		}
	case *parse.ChainNode:
		c.referNode(p, n.Node)
	case *parse.PipeNode:
		c.referPipe(p, n)
	}
}

// indexed returns the name in index . "name".
func indexed(args []parse.Node) (name string, ok bool) {
	if len(args) < 2 {
		return "", false
	}
	all := false
	switch n := args[0].(type) {
	case *parse.DotNode:
		all = true
	case *parse.VariableNode:
		all = len(n.Ident) == 1 && n.Ident[0] == "$"
	}
	s, ok := args[1].(*parse.StringNode)
	if !all || !ok {
		return "", false
	}
	return s.Text, true
}
