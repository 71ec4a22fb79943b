package reconcile

// ObjectsRead returns how many git objects have been read.
func (s *Source) ObjectsRead() int { return s.mirror.ObjectsRead() }
