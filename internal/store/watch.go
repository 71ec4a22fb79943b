package store

import "container/list"

// A watcher holds what one call of Watch has yet to tell. It remembers keys,
// each once, and not states: however slow its reader is, it never holds more
// than there are objects. It is guarded by the mutex of its [Memory].
type watcher struct {
	wake    chan struct{} // holds one token while there may be something to tell
	queue   *list.List    // of *untold, in the order of their first change
	pending map[Key]*list.Element
}

// untold is a key whose state is to be told, or the mark that ends the objects
// which existed at first.
type untold struct {
	key    Key
	known  bool // the reader was told of an object with this key
	synced bool
}

func newWatcher() *watcher {
	return &watcher{
		wake:    make(chan struct{}, 1),
		queue:   list.New(),
		pending: make(map[Key]*list.Element),
	}
}

// changed notes that the object of key is another than before. existed and
// exists tell whether there was one and is one.
func (w *watcher) changed(key Key, existed, exists bool) {
	e, waiting := w.pending[key]
	switch {
	case !waiting:
		w.pending[key] = w.queue.PushBack(&untold{key: key, known: existed})
	case !exists && !e.Value.(*untold).known:
		// It came and went unseen.
		w.queue.Remove(e)
		delete(w.pending, key)
	}
	w.notify()
}

// synced ends the objects that existed at first.
func (w *watcher) synced() {
	w.queue.PushBack(&untold{synced: true})
	w.notify()
}

func (w *watcher) notify() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// next takes the first thing to tell, and reports whether there is one.
func (w *watcher) next() (*untold, bool) {
	e := w.queue.Front()
	if e == nil {
		return nil, false
	}
	w.queue.Remove(e)
	u := e.Value.(*untold)
	if !u.synced {
		delete(w.pending, u.key)
	}
	return u, true
}
