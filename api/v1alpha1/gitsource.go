package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// KindGitSource is the kind of [GitSource].
	KindGitSource = "GitSource"

	// LabelGitCredentials is what a Secret has to bear, with any value, for a [GitSource] to use
	// it. Without it, whoever may write sources could have any Secret of their
	// namespace sent to a server of theirs.
	LabelGitCredentials = Group + "/git-credentials"

	// AnnotationSyncRequested on a [GitSource] asks for a round at once, whenever its value
	// changes. The value is the asker's; a time, most often.
	AnnotationSyncRequested = Group + "/sync-requested"
)

// The ways to verify the commits of a [GitSource].
const (
	VerifyNone   = "none"
	VerifyHead   = "head"
	VerifyStrict = "strict"
)

// The kinds of webhooks.
const (
	WebhookGitHub    = "github"
	WebhookGitLab    = "gitlab"
	WebhookGitea     = "gitea" // Forgejo, too
	WebhookBitbucket = "bitbucket"
	WebhookGeneric   = "generic"
)

// A GitSource is a branch of a git repository whose EncryptedSecrets Safe applies.
type GitSource struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   GitSourceSpec   `json:"spec"`
	Status GitSourceStatus `json:"status,omitzero"`
}

// GitSourceSpec says what to follow, and what it may do.
type GitSourceSpec struct {
	// URL is https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH.
	URL string `json:"url"`
	// Ref is what of the repository is followed. Default: branch main.
	Ref GitRef `json:"ref,omitzero"`
	// Path is the directory below the root that is read; empty for all of it.
	Path string `json:"path,omitempty"`
	// Interval between two looks. Default 1m; 10s at least.
	Interval *metav1.Duration `json:"interval,omitempty"`
	// SecretRef names the Secret with the credentials, in the source's namespace, labelled
	// [LabelGitCredentials]. Its keys: username and password; bearerToken; identity (and
	// password, if that is encrypted) and known_hosts; ca.crt.
	SecretRef *SecretReference `json:"secretRef,omitempty"`
	// Verify says which commits have to be signed, and by whom.
	Verify *GitVerification `json:"verify,omitempty"`
	// Prune deletes objects whose manifests are gone. Default true.
	Prune *bool `json:"prune,omitempty"`
	// Suspend stops everything that Safe does for the source.
	Suspend bool `json:"suspend,omitempty"`
	// Namespaces that a source in Safe's own namespace delivers into. Any other source
	// delivers into its own namespace only.
	Namespaces []string `json:"namespaces,omitempty"`
	// Webhook lets a forge tell of pushes.
	Webhook *GitWebhook `json:"webhook,omitempty"`
}

// GitRef names a commit. A tag excludes the others; a commit has to be reachable from the branch.
type GitRef struct {
	Branch string `json:"branch,omitempty"`
	Tag    string `json:"tag,omitempty"`
	Commit string `json:"commit,omitempty"`
}

// SecretReference names a Secret in the namespace of the object that refers to it.
type SecretReference struct {
	Name string `json:"name"`
}

// GitVerification says which commits have to be signed, and by whom.
type GitVerification struct {
	// Mode is none (also when empty); head: the commit that is applied; or strict: every
	// commit that is new since the one applied before.
	Mode string `json:"mode,omitempty"`
	// SecretRef names the Secret, labelled [LabelGitCredentials], whose every value is a file of keys that
	// are trusted: allowed_signers of ssh-keygen, or armored PGP public keys.
	SecretRef *SecretReference `json:"secretRef,omitempty"`
	// Since is a commit that is trusted as it is, in hex: what comes after it is verified, and a branch that
	// does not contain it is refused. Without one, a first sync verifies the tip alone.
	Since string `json:"since,omitempty"`
}

// GitWebhook lets a forge tell of pushes, at /v1/hooks/NAMESPACE/NAME of Safe's webhook listener.
type GitWebhook struct {
	// Type: github, gitlab, gitea, bitbucket or generic.
	Type string `json:"type"`
	// SecretRef names the Secret, labelled [LabelGitCredentials], whose key token is what the forge
	// was given to sign with.
	SecretRef SecretReference `json:"secretRef"`
}

// GitSourceStatus says how a [GitSource] fares.
type GitSourceStatus struct {
	// ObservedGeneration is the generation of the object that this is about.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Conditions: Ready; Reconciling and Stalled, while they are true; at most one of each.
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Revision was applied, whole, at AppliedAt. While AppliedAt is not set, applying the first one has
	// only begun.
	Revision  string       `json:"revision,omitempty"`
	AppliedAt *metav1.Time `json:"appliedAt,omitempty"`
	// BegunRevision is a later one that could not be applied as a whole yet. The ref must not go back
	// behind it either.
	BegunRevision string `json:"begunRevision,omitempty"`
	// SeenRevision is where the ref is.
	SeenRevision string `json:"seenRevision,omitempty"`
	// Deletions is what the brake on mass deletion has to remember.
	Deletions *GitDeletions `json:"deletions,omitempty"`
	// Verification says what was verified.
	Verification *GitVerified `json:"verification,omitempty"`

	// Objects is how many objects the source owns, SkippedDocuments how many documents are none of ours.
	Objects          int64 `json:"objects,omitempty"`
	SkippedDocuments int64 `json:"skippedDocuments,omitempty"`
	// FaultCount is how many faults keep objects from being delivered; Faults are the first of
	// them. Warnings are about objects that were delivered.
	FaultCount   int64      `json:"faultCount,omitempty"`
	Faults       []GitFault `json:"faults,omitempty"`
	WarningCount int64      `json:"warningCount,omitempty"`
	Warnings     []GitFault `json:"warnings,omitempty"`
	// PendingDeletionCount is how many objects git no longer declares that still stand; PendingDeletions
	// are the first of them, NAMESPACE/NAME, and DeletionsWait says what for.
	PendingDeletionCount int64    `json:"pendingDeletionCount,omitempty"`
	PendingDeletions     []string `json:"pendingDeletions,omitempty"`
	DeletionsWait        string   `json:"deletionsWait,omitempty"`

	// LastHandledSyncRequest is the value of [AnnotationSyncRequested] that a round followed.
	LastHandledSyncRequest string `json:"lastHandledSyncRequest,omitempty"`
}

// GitDeletions are what a source has deleted within a window of time.
type GitDeletions struct {
	Since   metav1.Time `json:"since"`
	Owned   int64       `json:"owned,omitempty"`
	Deleted int64       `json:"deleted,omitempty"`
	Waiting bool        `json:"waiting,omitempty"`
}

// GitVerified says what was verified of a source's commits.
type GitVerified struct {
	Mode string `json:"mode"`
	// Revision is the newest commit that was verified, and Signer whose signature it bears.
	Revision string `json:"revision,omitempty"`
	Signer   string `json:"signer,omitempty"`
	// Since is the commit after which all were verified, in mode strict; Pinned says that it was
	// configured: otherwise it was the tip at the first sync.
	Since  string `json:"since,omitempty"`
	Pinned bool   `json:"pinned,omitempty"`
}

// A GitFault is what is wrong with a manifest.
type GitFault struct {
	File      string `json:"file,omitempty"`
	Line      int64  `json:"line,omitempty"`
	Field     string `json:"field,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Message   string `json:"message"`
}

// A GitSourceList is how the Kubernetes API lists them.
type GitSourceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []GitSource `json:"items"`
}
