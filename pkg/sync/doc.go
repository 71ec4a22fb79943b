// Package sync turns the history of one git branch or tag into changes of
// EncryptedSecret manifests. It knows git and manifests, and nothing of
// Kubernetes.
//
// A [Mirror] keeps a bare copy of it on disk. One round is
//
//	seen, err := mirror.Fetch(ctx)                          // bring what is new
//	_, _, err = mirror.VerifyNew(ctx, trust, applied, seen) // refuse what is not signed
//	err = mirror.FastForward(ctx, applied, seen)            // refuse a rewritten history
//	plan, err := index.Plan(ctx, mirror, seen)              // what to apply and delete
//	for manifest, err := range plan.Upserts(ctx, mirror)    // the caller does it
//	index.Commit(plan)                                      // and says that it was done
//
// after which the caller remembers seen as the revision applied. A round that
// fails anywhere is simply done again: nothing before Commit changes what the
// next round computes.
//
// # What the repository is trusted with
//
// Nothing. No program is run, no hook, filter or submodule is looked at, and
// no file is checked out: objects are read by hash, each is verified against
// it, and every size is bounded by [Limits]. An object that is missing is an
// error and never looks like a deletion. What cannot be read for reasons of
// its own (a symbolic link, a file too large) is reported as a [Skip] and the
// rest goes on. A file that makes its reader panic is a fault of its own.
//
// The way to it is trusted no more. What a server may send is bounded in bytes
// and in time, over http and ssh alike; an ssh host is known by the key that
// [Remote.KnownHosts] has for it, and by nothing else; [Remote.Refuse] is asked
// about every address. Who may push is not trusted either, where the caller
// gives a [Trust]: then [Mirror.VerifyCommit] demands a trusted key's signature
// on the tip, and [Mirror.VerifyNew] on every commit that is new. What is
// checked is the commit object's own bytes.
//
// # What counts as gone
//
// An object is to be deleted when its document or its file was removed. A file
// that is still there and holds no manifest any more has a fault, and what it
// declared stays; so does what lay below a directory in whose place there is
// now a link or a submodule. Whether something that seems to be gone may be in
// a file that is at fault is the caller's to weigh: [Index.Unclear].
//
// # What is kept
//
// The mirror is a cache: it may be deleted at any time, and one that a crash
// or a full disk has damaged is recognised and built again from the remote.
// The revision that was applied is therefore the caller's to keep.
package sync
