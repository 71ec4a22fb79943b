// Package reconcile makes the object store say what the git sources say.
//
// A [Source] goes round and round: fetch, verify signatures, check that the branch only grew,
// plan what changed, check every changed manifest by opening its values, write
// it to the store, delete what is gone, and remember the revision last. What
// fails concerns itself alone: a manifest with one bad value keeps its last
// good version whole and is reported with file, line and field.
//
// Killed between any two of these steps, a source loses nothing. The first
// round of a process compares everything with the store, which is cheap, for
// what is equal is neither opened nor written.
//
// # Deletions
//
// A secret is deleted when no file declares it any more: its document or its
// file was removed. A file that is still there and holds no manifest now is a
// fault and deletes nothing. Deletions are rarely urgent and hard to undo, so
// they wait, listed in the status with the reason, in three cases:
//
//   - Faults. As long as anything in the source is at fault, is refused, or
//     cannot be read though it may hold manifests, that may be what seems to be
//     gone: moved or renamed with a mistake in it. The rule asks neither how
//     old a fault is nor whether it has to do with the object, so that it needs
//     no memory and a restart changes nothing. Links and submodules do not
//     count, but keep what they replaced.
//   - The brake. More than ten deletions within 24 hours that would leave less
//     than half of what there was, or any that would leave nothing. Only what lies where the source may
//     deliver counts: elsewhere others may have given objects its label.
//   - The configuration. Objects that lie outside of the source's path or
//     namespaces since those were narrowed: git has not let go of them.
//
// [Override.AllowDeletions] lifts all three for one revision. The first ends by
// itself with the last fault, the others with the objects declared again and
// covered.
//
// # Signatures
//
// What has to be signed is verified before anything of a commit is looked at ([Verify]). A tip that is
// not verified changes nothing, and what was verified before is looked after as ever. Whom to trust does not
// change within a [Source]: it is made anew then, and knows of nothing that it may apply, put back or
// delete until it has verified the tip, though that be the one it applied.
//
// # Others
//
// What somebody else does to an object is told by [Source.Saw], and is undone: a digest of what was applied
// tells it from the source's own writes. That asks the mirror and not the remote. Who
// changes an object again and again is not fought: the object is contested, a fault says so, and it is put back
// after longer and longer pauses. Whose label an object bears, theirs it is: a source that declares it, too, has a
// fault, which is gone as soon as they let go of it.
//
// # What a source remembers
//
// The journal says which revision was applied, and a branch that does not
// descend from it is refused. The record is written before the first object
// is; so objects without a record mean that it was lost, and then too nothing
// is applied until [Override.AcceptRewrite] names the revision, or the branch is verified from a commit
// that is trusted as it is.
package reconcile
