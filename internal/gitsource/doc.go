// Package gitsource runs what the GitSources of a cluster say.
//
// Every replica of Safe knows all GitSources ([Controller.Run]); the one that leads follows their
// repositories ([Controller.Lead]), with one [reconcile.Source] for each. What that finds out is
// the GitSource's status, and there alone: the status is the journal, so the next leader goes on where the last
// one was.
//
// A GitSource that is at fault harms nobody but itself, and its status says what to do. It is
// looked at again whenever it, or a Secret that it names, changes; and now and then.
//
// # Secrets
//
// A source uses only Secrets of its own namespace, and only those that bear
// [v1alpha1.LabelGitCredentials]. Of these the metadata is watched, so that a new password, key or
// trust counts at once; what they hold is read when a source is started, and kept nowhere else.
package gitsource
