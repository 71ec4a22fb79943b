package shellenv

// An Environ collects variables as a process is given them. The zero value is
// ready to use.
type Environ struct {
	list  []string
	names names
}

// Add adds the value of one key of an object ([ErrNoVariable]), and returns the
// variable's name.
func (e *Environ) Add(object, key string, value []byte) (name string, err error) {
	if name, err = e.names.take(object, key, value); err != nil {
		return "", err
	}
	e.list = append(e.list, name+"="+string(value))
	return name, nil
}

// List returns NAME=VALUE, in the order of the calls of Add.
func (e *Environ) List() []string { return e.list }
